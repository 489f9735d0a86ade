"""`Recommender`: one request to one answer, for the HTTP server and the shell alike."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from playbill.clock import Clock
from playbill.datasets import Request
from playbill.errors import RequestError
from playbill.ranking.candidates import ABSENT, Viewer
from playbill.ranking.lists import RankedList
from playbill.ranking.pages import FilledRow
from playbill.ranking.past import past_of
from playbill.ranking.rows import RowPlan, Setting, Taste, plan_rows, taste_of
from playbill.serving.answering import Answer, Asked, answer
from playbill.serving.facts import FactReader, MemberFacts
from playbill.serving.messages import RankedRow, RankedTitle, RecommendRequest, RecommendResponse, not_found
from playbill.serving.record import request_record, slate_records
from playbill.serving.said import Said, country_of, said_by
from playbill.serving.served import Served, Slot
from playbill.serving.why import Why, why
from playbill.specs import CanvasSpec

INSTANT = timedelta(microseconds=1)
"""Facts are read strictly before a moment. A request without one comes after every acknowledged event, also
those at the very moment of a clock that stands still, so it is asked one resolution step after the clock."""

Log = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], None]
"""Keeps a row of `requests` with its rows of `slates`."""


class Recommender:
    """Answers requests with whatever model its slot holds. Safe to share between threads.

    Args:
        slot: What is served now.
        facts: Histories, features and profiles.
        clock: The workspace's; the moment of requests that name none.
        log: Where requests and slates go; None keeps nothing.
        gate: Entered around scoring, to bound how many requests are scored at once.
    """

    def __init__(
        self,
        slot: Slot,
        facts: FactReader,
        clock: Clock,
        log: Log | None = None,
        gate: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.slot, self._facts, self._clock, self._log = slot, facts, clock, log
        self._gate: AbstractContextManager[Any] = gate or nullcontext()

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Answer one request.

        Raises:
            NotFoundError: The canvas or the source title does not exist.
            RequestError: The canvas needs a query or a source title and none was given, or a context field is
                unknown or of another type.
            StateError: Nothing has been ingested yet.
        """
        served, asked, facts, notes = self._understand(request)
        with self._gate:
            found = answer(served, asked)
        notes += found.notes
        if found.reason:
            notes.append(f"answered by the fallback {found.policy}: {found.reason}")
        if not len(found.items):
            notes.append("no title may be shown here")
        response = _response(served, asked, found, notes)
        if self._log is not None:
            self._log(request_record(served, request, asked, facts, response), slate_records(found, response))
        return response

    def why(self, request: RecommendRequest, title_id: str) -> Why:
        """Say what each rule of the canvas and of its rows says of one title in the answer to a request.

        Nothing is logged.

        Raises:
            NotFoundError: There is no such title; what `recommend` raises, for the request.
        """
        served, asked, _, _ = self._understand(request)
        title = served.shelf.catalogue.column(title_id)
        if title == ABSENT:
            raise not_found("title", title_id, served.shelf.catalogue.title_ids)
        with self._gate:
            return why(served, asked, answer(served, asked), title)

    def _understand(self, request: RecommendRequest) -> tuple[Served, Asked, MemberFacts, list[str]]:
        served = self.slot.current
        canvas = _canvas(served, request.canvas)
        notes = [f"title features are imputed as missing: {served.gap}"] if served.gap else []
        said = said_by(served, canvas, request, notes)
        at = request.at or self._clock.now() + INSTANT
        facts = self._facts.read(served, request.member_id, at, past=request.at is not None)
        notes += facts.notes
        return served, _ask(served, canvas, request, (at, said), facts, notes), facts, notes


def require_rows(served: Served, request: RecommendRequest) -> RecommendRequest:
    """Return a request for the rows of a canvas.

    Raises:
        NotFoundError: The canvas does not exist.
        RequestError: It has no rows.
    """
    if not served.resolved.rows_of(_canvas(served, request.canvas).name):
        with_rows = [name for name in served.resolved.canvases if served.resolved.rows_of(name)]
        has = f"These have: {', '.join(with_rows)}." if with_rows else "No canvas of this model has any."
        raise RequestError(f"canvas '{request.canvas}' has no rows, so it has no page. {has}")
    return request.model_copy(update={"rows": True})


def find_title(served: Served, text: str) -> str:
    """Return the id of the title with this id or, case ignored, this name.

    Raises:
        NotFoundError: No title has it; the nearest name is suggested.
        RequestError: Several titles have the name; their ids are listed.
    """
    catalogue = served.shelf.catalogue
    found = catalogue.find(text)
    if not found:
        raise not_found("title", text, catalogue.known_names())
    if len(found) > 1:
        raise RequestError(f"'{text}' is the name of several titles, use an id: {', '.join(found)}")
    return found[0]


def _canvas(served: Served, name: str) -> CanvasSpec:
    if name not in served.resolved.canvases:
        raise not_found("canvas", name, served.resolved.canvases)
    return served.resolved.canvases[name]


def _ask(
    served: Served,
    canvas: CanvasSpec,
    request: RecommendRequest,
    what: tuple[datetime, Said],
    facts: MemberFacts,
    notes: list[str],
) -> Asked:
    at, said = what
    catalogue = served.shelf.catalogue
    country = country_of(served, request.country, facts.country, notes)
    language = request.language or facts.language
    taste = taste_of(facts.history, catalogue)
    question = Request(
        canvas=canvas.name,
        at=at,
        member_id=request.member_id,
        country=country,
        device=request.device,
        language=language,
        query=said.query,
        source_title_id=None if said.source == ABSENT else catalogue.title_ids[said.source],
        history=facts.history,
        features={**facts.features.values, **said.own},
    )
    viewer = Viewer(
        at=at,
        country=country,
        watched=taste.watched,
        source=said.source,
        kids_profile=facts.kids_profile or canvas.candidates.kids is True,
        plays=lambda: served.shelf.plays.before(at),
        country_plays=lambda: served.shelf.plays.of_week(at, country),
        past=cache(lambda: past_of(facts.history, catalogue)),
    )
    plans = _plans(served, canvas, request, viewer, taste, language, notes)
    return Asked(canvas, question, viewer, plans, request.k)


def _plans(
    served: Served,
    canvas: CanvasSpec,
    request: RecommendRequest,
    viewer: Viewer,
    taste: Taste,
    language: str | None,
    notes: list[str],
) -> tuple[RowPlan, ...] | None:
    specs = served.resolved.rows_of(canvas.name)
    if request.rows and not specs:
        notes.append(f"canvas '{canvas.name}' has no rows")
    if not specs or request.rows is False:
        return None
    setting = Setting.of(served.shelf.catalogue, viewer, served.shelf.plays)
    return tuple(plan_rows(specs, served.shelf.catalogue, taste, language, setting))


def _response(served: Served, asked: Asked, found: Answer, notes: Sequence[str]) -> RecommendResponse:
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
        notes=tuple(notes),
    )


def _row(served: Served, row: FilledRow, position: int, language: str | None) -> RankedRow:
    items = _titles(served, row.titles, language)
    return RankedRow(
        row_id=row.plan.row_id, title=row.plan.title, position=position, items=items, reason=row.reason
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
