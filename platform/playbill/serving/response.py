"""What came of a request: as an answer, and as rows of the log."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playbill.ranking.candidates import emptying_rule
from playbill.ranking.lists import RankedList
from playbill.ranking.pages import FilledRow
from playbill.serving.active_model import Served
from playbill.serving.member_state import MemberFacts
from playbill.serving.messages import RankedRow, RankedTitle, RecommendRequest, RecommendResponse
from playbill.serving.ranker import Answer, Asked
from playbill.serving.record import request_record, slate_records


@dataclass(frozen=True, slots=True)
class Made:
    """An answer, with everything its record needs."""

    served: Served
    asked: Asked
    facts: MemberFacts
    found: Answer
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer as it is given and as it is logged."""

    response: RecommendResponse
    row: Mapping[str, Any]
    slates: Sequence[Mapping[str, Any]]

    def again(self, age_s: float) -> Entry:
        """Return it as the answer to another request."""
        own = {"request_id": uuid.uuid4().hex}
        response = self.response.model_copy(update={**own, "age_s": age_s})
        return Entry(response, {**self.row, **own}, self.slates)


def finished(served: Served, asked: Asked, facts: MemberFacts, notes: list[str], found: Answer) -> Made:
    """Put an answer together with everything that was found out about the request."""
    notes += found.notes
    if found.reason:
        notes.append(f"answered by the fallback {found.policy}: {found.reason}")
    if asked.canvas.target == "title" and not len(found.items):
        rule = emptying_rule(served.shelf.catalogue, asked.canvas.candidates, asked.viewer)
        notes.append("no candidates after filtering" + (f" (rule `{rule}`)" if rule else ""))
    if asked.canvas.target == "row" and not found.rows:
        notes.append("no row has enough candidates after filtering")
    return Made(served, asked, facts, found, tuple(notes))


def entry_of(request: RecommendRequest, made: Made) -> Entry:
    """Return an answer under a new id, with its rows of the log."""
    response = _response(made)
    row = request_record(made.served, request, made.asked, made.facts, response)
    return Entry(response, row, slate_records(made.found, response))


def _response(made: Made) -> RecommendResponse:
    served, asked, found = made.served, made.asked, made.found
    language = asked.request.language
    rows = None
    if found.rows is not None:
        rows = tuple(_row(served, row, position, language) for position, row in enumerate(found.rows))
    return RecommendResponse(
        request_id=uuid.uuid4().hex,
        canvas=asked.canvas.name,
        at=asked.request.at,
        model=served.model,
        version=served.version,
        policy=found.policy,
        reason=found.reason,
        items=_titles(served, found.items, language),
        rows=rows,
        absent=found.absent,
        notes=made.notes,
    )


def _row(served: Served, row: FilledRow, position: int, language: str | None) -> RankedRow:
    items = _titles(served, row.titles, language)
    plan = row.plan
    return RankedRow(
        row_id=plan.row_id, title=plan.title, position=position, items=items, reason=row.reason, score=row.score
    )


def _titles(served: Served, ranked: RankedList, language: str | None) -> tuple[RankedTitle, ...]:
    catalogue = served.shelf.catalogue
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
