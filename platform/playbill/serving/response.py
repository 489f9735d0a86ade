"""What came of a request: as an answer, and as rows of the log.

Rows of `requests` and `slates`: what was asked, the facts that were used, and what was shown.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from playbill.ranking.blend import RankedList
from playbill.ranking.candidates import Mask, emptying_rule
from playbill.ranking.page_builder import FilledRow
from playbill.serving.active_model import ActiveModel
from playbill.serving.member_state import MemberState
from playbill.serving.messages import RankedRow, RankedTitle, RecommendRequest, RecommendResponse
from playbill.serving.ranker import RankingQuery, RankingResult


@dataclass(frozen=True, slots=True)
class RankingContext:
    """An answer, with everything its record needs."""

    served: ActiveModel
    query: RankingQuery
    facts: MemberState
    found: RankingResult
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoggedResponse:
    """An answer as it is given and as it is logged."""

    response: RecommendResponse
    row: Mapping[str, Any]
    slates: Sequence[Mapping[str, Any]]

    def again(self, age_s: float) -> LoggedResponse:
        """Return it as the answer to another request."""
        own = {"request_id": uuid.uuid4().hex}
        response = self.response.model_copy(update={**own, "age_s": age_s})
        return LoggedResponse(response, {**self.row, **own}, self.slates)


def finished(
    served: ActiveModel, query: RankingQuery, facts: MemberState, notes: list[str], found: RankingResult
) -> RankingContext:
    """Put an answer together with everything that was found out about the request."""
    notes += found.notes
    if found.reason:
        notes.append(f"answered by the fallback {found.policy}: {found.reason}")
    if query.canvas.target == "title" and not len(found.items):
        rule = emptying_rule(served.snapshot.catalogue, query.canvas.candidates, query.viewer)
        notes.append("no candidates after filtering" + (f" (rule `{rule}`)" if rule else ""))
    if query.canvas.target == "row" and not found.rows:
        notes.append("no row has enough candidates after filtering")
    return RankingContext(served, query, facts, found, tuple(notes))


def entry_of(request: RecommendRequest, made: RankingContext) -> LoggedResponse:
    """Return an answer under a new id, with its rows of the log."""
    response = _response(made)
    row = request_record(made.served, request, made.query, made.facts, response)
    return LoggedResponse(response, row, slate_records(made.found, response))


def _response(made: RankingContext) -> RecommendResponse:
    served, query, found = made.served, made.query, made.found
    language = query.request.language
    rows = None
    if found.rows is not None:
        rows = tuple(_row(served, row, position, language) for position, row in enumerate(found.rows))
    return RecommendResponse(
        request_id=uuid.uuid4().hex,
        canvas=query.canvas.name,
        at=query.request.at,
        model=served.model,
        version=served.version,
        policy=found.policy,
        reason=found.reason,
        items=_titles(served, found.items, language),
        rows=rows,
        absent=found.absent,
        notes=made.notes,
    )


def _row(served: ActiveModel, row: FilledRow, position: int, language: str | None) -> RankedRow:
    items = _titles(served, row.titles, language)
    plan = row.plan
    return RankedRow(
        row_id=plan.row_id, title=plan.title, position=position, items=items, reason=row.reason, score=row.score
    )


def _titles(served: ActiveModel, ranked: RankedList, language: str | None) -> tuple[RankedTitle, ...]:
    catalogue = served.snapshot.catalogue
    pairs = zip(ranked.columns.tolist(), ranked.scores.tolist(), strict=True)
    return tuple(
        RankedTitle(
            title_id=catalogue.title_ids[column],
            name=catalogue.name(column, language),
            score=score,
            position=position,
        )
        for position, (column, score) in enumerate(pairs)
    )


def request_record(
    served: ActiveModel, request: RecommendRequest, query: RankingQuery, facts: MemberState, response: RecommendResponse
) -> dict[str, Any]:
    """Return the row of `requests`: context and facts are JSON, with what was asked and what was made of it."""
    used = {
        "service": facts.features.service,
        "features": dict(facts.features.values),
        "values_at": _times(facts.features.values_at),
        "history_events": facts.history.height,
        "history_last_event_id": facts.history.item(-1, "event_id") if facts.history.height else None,
        "snapshot_id": served.snapshot.snapshot_id,
        "notes": list(response.notes),
    }
    context = {
        "asked": request.model_dump(mode="json", exclude_none=True),
        "country": query.request.country,
        "language": query.request.language,
        "device": query.request.device,
        "query": query.request.query,
        "source_title_id": query.request.source_title_id,
        "kids_profile": query.viewer.kids_profile,
    }
    return {
        "request_id": response.request_id,
        "at": query.request.at,
        "member_id": request.member_id,
        "canvas": response.canvas,
        "context": json.dumps(context, ensure_ascii=False),
        "model": response.model,
        "model_version": None if response.version is None else str(response.version),
        "policy": response.policy,
        "seed": None,
        "facts": json.dumps(used, ensure_ascii=False, default=str),
        "facts_version": served.facts_version,
    }


def _times(values_at: Mapping[str, datetime | None] | None) -> dict[str, str | None] | None:
    if values_at is None:
        return None
    return {view: None if at is None else at.isoformat() for view, at in values_at.items()}


def slate_records(found: RankingResult, response: RecommendResponse) -> list[dict[str, Any]]:
    """Return the rows of `slates`: the page where rows were filled, else the list.

    Ranking draws nothing at random, so every propensity is 1.
    """
    if found.rows is None or response.rows is None:
        return _slate(response.items, None, 0, candidate_set_id(found.candidates))
    return [
        record
        for filled, row in zip(found.rows, response.rows, strict=True)
        for record in _slate(row.items, row.row_id, row.position, candidate_set_id(filled.candidates))
    ]


def candidate_set_id(candidates: Mask) -> str:
    """Return a short hash of a candidate mask: the same set of columns has the same id."""
    return hashlib.blake2b(np.packbits(candidates).tobytes(), digest_size=8).hexdigest()


def _slate(
    items: tuple[RankedTitle, ...], row_id: str | None, row_position: int, candidates: str
) -> list[dict[str, Any]]:
    return [
        {
            "row_id": row_id,
            "row_position": row_position,
            "position": item.position,
            "title_id": item.title_id,
            "score": item.score,
            "propensity": 1.0,
            "candidate_set_id": candidates,
        }
        for item in items
    ]
