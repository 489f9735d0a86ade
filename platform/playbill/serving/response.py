"""Stage 6, respond: a ranked request as an answer, and as rows of the log.

Rows of `requests` and `slates`: what was requested, what was read of the member, and what was shown.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from playbill.ranking.blend import RankedList
from playbill.ranking.candidates import Mask, emptying_rule
from playbill.ranking.page_builder import PlacedRow
from playbill.serving.active_model import CatalogSnapshot
from playbill.serving.messages import RankedRow, RankedTitle, RecommendResponse
from playbill.serving.ranking_context import RankingContext


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


def respond(context: RankingContext) -> LoggedResponse:
    """Return the answer under a new id, with its rows of the log."""
    response = _response(context)
    return LoggedResponse(response, _request_row(context, response), _slate_rows(context, response))


def _response(context: RankingContext) -> RecommendResponse:
    active, query, result = context.parsed.active, context.query, context.result
    snapshot, language = active.snapshot, query.request.language
    rows = None
    if result.rows is not None:
        rows = tuple(_row(snapshot, row, position, language) for position, row in enumerate(result.rows))
    return RecommendResponse(
        request_id=uuid.uuid4().hex,
        canvas=query.spec.name,
        at=query.request.at,
        model=active.model,
        version=active.version,
        policy=result.scored.policy,
        reason=result.scored.reason,
        items=_titles(snapshot, result.items, language),
        rows=rows,
        absent=dict(result.absent),
        notes=(*context.notes, *_result_notes(context)),
    )


def _result_notes(context: RankingContext) -> Iterator[str]:
    query, result = context.query, context.result
    if result.scored.reason:
        yield f"answered by the fallback {result.scored.policy}: {result.scored.reason}"
    if query.spec.target == "title" and not len(result.items):
        rule = emptying_rule(context.parsed.active.snapshot.catalogue, query.spec.candidates, query.viewer)
        yield "no candidates after filtering" + (f" (rule `{rule}`)" if rule else "")
    if query.spec.target == "row" and not result.rows:
        yield "no row has enough candidates after filtering"


def _row(snapshot: CatalogSnapshot, row: PlacedRow, position: int, language: str | None) -> RankedRow:
    plan, items = row.candidate.plan, _titles(snapshot, row.titles, language)
    reason = "; ".join(part for part in (plan.because, row.reason) if part)
    return RankedRow(
        row_id=plan.row_id, title=plan.title, position=position, items=items, reason=reason, score=row.value
    )


def _titles(snapshot: CatalogSnapshot, ranked: RankedList, language: str | None) -> tuple[RankedTitle, ...]:
    catalogue = snapshot.catalogue
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


def _request_row(context: RankingContext, response: RecommendResponse) -> dict[str, Any]:
    """Return the row of `requests`: context and facts are JSON, with what was requested and what was made of it."""
    active, request, query, member = context.parsed.active, context.parsed.request, context.query, context.member
    features, history = member.features, member.history
    facts = {
        "service": features.service,
        "features": dict(features.values),
        "values_at": _times(features.values_at),
        **({"request": dict(features.request)} if features.request else {}),
        "history_events": history.height,
        "history_last_event_id": history.item(-1, "event_id") if history.height else None,
        "snapshot_id": active.snapshot.snapshot_id,
        "notes": list(response.notes),
    }
    used = {
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
        "context": json.dumps(used, ensure_ascii=False),
        "model": response.model,
        "model_version": None if response.version is None else str(response.version),
        "policy": response.policy,
        "seed": None,
        "facts": json.dumps(facts, ensure_ascii=False, default=str),
        "facts_version": active.facts_version,
    }


def _times(values_at: Mapping[str, datetime | None] | None) -> dict[str, str | None] | None:
    if values_at is None:
        return None
    return {view: None if at is None else at.isoformat() for view, at in values_at.items()}


def _slate_rows(context: RankingContext, response: RecommendResponse) -> list[dict[str, Any]]:
    """Return the rows of `slates`: the page where rows were filled, else the list.

    Ranking draws nothing at random, so every propensity is 1.
    """
    result = context.result
    if result.rows is None or response.rows is None:
        return _slate(response.items, None, 0, candidate_set_id(result.candidates))
    return [
        record
        for placed, row in zip(result.rows, response.rows, strict=True)
        for record in _slate(row.items, row.row_id, row.position, candidate_set_id(placed.candidate.wanted))
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
