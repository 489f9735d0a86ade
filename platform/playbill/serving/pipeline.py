"""`Recommender`: one request to one answer, for the HTTP server and the shell alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from playbill.clock import Clock
from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec
from playbill.errors import RequestError
from playbill.ranking.candidates import ABSENT, Viewer, past_of
from playbill.ranking.row_plans import RowPlan, Setting, Taste, plan_rows, taste_of
from playbill.schema import text_problem
from playbill.serving.active_model import ActiveModel, ModelHandle
from playbill.serving.explain import Explanation, why
from playbill.serving.member_state import FactReader, MemberState
from playbill.serving.messages import NotFoundError, RecommendRequest, RecommendResponse, not_found
from playbill.serving.profile import AnswerCache, Deadline, OutOfTimeError, Profile
from playbill.serving.ranker import RankingQuery, answer, by_fallback
from playbill.serving.request_context import ParsedContext, availability_country, country_of, parse_context
from playbill.serving.response import LoggedResponse, RankingContext, entry_of, finished

INSTANT = timedelta(microseconds=1)
"""Facts are read strictly before a moment. A request without one comes after every acknowledged event, also
those at the very moment of a clock that stands still, so it is asked one resolution step after the clock."""

Log = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], None]
"""Keeps a row of `requests` with its rows of `slates`."""

FRESH = Profile()

Understood = tuple[ActiveModel, RankingQuery, MemberState, list[str]]
"""A request with everything looked up, and notes about it."""


class Recommender:
    """Answers requests with whatever model its slot holds. Safe to share between threads.

    Args:
        handle: What is served now.
        facts: Histories, features and profiles.
        clock: The workspace's; the moment of requests that name none.
        log: Where requests and slates go; None keeps nothing.
        gate: Entered around scoring, to bound how many requests are scored at once.
        profile: Whether answers are kept, and how long one may take.
    """

    def __init__(
        self,
        handle: ModelHandle,
        facts: FactReader,
        clock: Clock,
        log: Log | None = None,
        gate: AbstractContextManager[Any] | None = None,
        profile: Profile = FRESH,
    ) -> None:
        self.handle, self._facts, self._clock, self._log = handle, facts, clock, log
        self._gate: AbstractContextManager[Any] = gate or nullcontext()
        self._profile, self._deadline = profile, Deadline()
        seconds = profile.cache_seconds
        self._kept: AnswerCache[LoggedResponse] | None = None if seconds is None else AnswerCache(seconds)

    def recommend(self, request: RecommendRequest, waited_s: float = 0.0) -> RecommendResponse:
        """Answer one request.

        Args:
            request: What is asked.
            waited_s: How much of its time is over already.

        Raises:
            NotFoundError: The canvas or the source title does not exist.
            RequestError: The canvas needs a query or a source title and none was given, or a context field is
                unknown or of another type.
            StateError: Nothing has been ingested yet.
        """
        return self._logged(self._entry(request, waited_s))

    def fall_back(self, request: RecommendRequest, reason: str) -> RecommendResponse:
        """Answer by the canvas's fallback from what is in memory, in a few milliseconds.

        Raises:
            NotFoundError, RequestError: As `recommend`.
        """
        return self._logged(entry_of(request, self._by_fallback(self._understand(request, read=False), reason)))

    def timeout_ms(self, request: RecommendRequest) -> int | None:
        """Return the time of a request, its own or the server's; None = as long as it takes."""
        return request.timeout_ms or self._profile.timeout_ms

    def _logged(self, entry: LoggedResponse) -> RecommendResponse:
        if self._log is not None:
            self._log(entry.row, entry.slates)
        return entry.response

    def _entry(self, request: RecommendRequest, waited_s: float) -> LoggedResponse:
        """Return an answer, kept or made now. One that a fallback gave is not kept."""
        if self._kept is None:
            return entry_of(request, self._in_time(request, waited_s))
        key = self.handle.current.key, request.model_copy(update={"timeout_ms": None}).model_dump_json()
        if (found := self._kept.get(key)) is not None:
            return found[0].again(found[1])
        since = self._kept.now()
        entry = entry_of(request, self._in_time(request, waited_s))
        if entry.response.reason is None:
            self._kept.put(key, entry, since)
        return entry

    def _in_time(self, request: RecommendRequest, waited_s: float) -> RankingContext:
        timeout_ms = self.timeout_ms(request)
        if timeout_ms is None:
            return self._make(request, [])
        understood: list[Understood] = []
        try:
            seconds = max(timeout_ms / 1000 - waited_s, 0.0)
            return self._deadline.run(lambda: self._make(request, understood), seconds)
        except OutOfTimeError:
            partly = understood[0] if understood else self._understand(request, read=False)
            return self._by_fallback(partly, timed_out(timeout_ms))

    def _by_fallback(self, understood: Understood, reason: str) -> RankingContext:
        served, query, facts, notes = understood
        return finished(served, query, facts, list(notes), by_fallback(served, query, reason))

    def _make(self, request: RecommendRequest, understood: list[Understood]) -> RankingContext:
        served, query, facts, notes = self._understand(request)
        understood.append((served, query, facts, notes))
        with self._gate:
            found = answer(served, query)
        return finished(served, query, facts, list(notes), found)

    def why(self, request: RecommendRequest, title_id: str) -> Explanation:
        """Say what each rule of the canvas and of its rows says of one title in the answer to a request.

        Nothing is logged.

        Raises:
            NotFoundError: There is no such title; what `recommend` raises, for the request.
        """
        served, query, _, _ = self._understand(request)
        title = served.snapshot.catalogue.column(title_id)
        if title == ABSENT:
            raise not_found("title", title_id, served.snapshot.catalogue.title_ids)
        with self._gate:
            return why(served, query, answer(served, query), title)

    def _understand(self, request: RecommendRequest, *, read: bool = True) -> Understood:
        served = self.handle.current
        canvas = _canvas(served, request.canvas)
        notes = [f"title features are imputed as missing: {served.gap}"] if served.gap else []
        if lost := served.resolved.left_out.blends.get(canvas.name):
            notes.append(
                f"ranked without {', '.join(lost)}: the log had no examples for {'it' if len(lost) == 1 else 'them'}"
            )
        context = parse_context(served, canvas, request, notes)
        at = request.at or self._clock.now() + INSTANT
        member = request.member_id
        past = request.at is not None
        facts = self._facts.read(served, member, at, past=past) if read else self._facts.unread(served, member)
        notes += facts.notes
        return served, _ask(served, canvas, request, (at, context), facts, notes), facts, notes


def timed_out(timeout_ms: int) -> str:
    """Say why a fallback answered a request whose time was over."""
    return f"timed out after {timeout_ms} ms"


def require_rows(served: ActiveModel, request: RecommendRequest) -> RecommendRequest:
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


def find_title(served: ActiveModel, text: str) -> str:
    """Return the id of the title with this id or, case ignored, this name.

    Raises:
        NotFoundError: No title has it; the nearest name is suggested.
        RequestError: Several titles have the name, and their ids are listed; or this is no text.
    """
    if problem := text_problem(text):
        raise RequestError(f"title: {problem}")
    catalogue = served.snapshot.catalogue
    found = catalogue.find(text)
    if not found:
        raise not_found("title", text, catalogue.known_names())
    if len(found) > 1:
        raise RequestError(f"'{text}' is the name of several titles, use an id: {', '.join(found)}")
    return found[0]


def _canvas(served: ActiveModel, name: str) -> CanvasSpec:
    if name in served.resolved.left_out.canvases:
        why = served.resolved.left_out.canvases[name]
        raise NotFoundError(f"canvas '{name}' is not served by this version of '{served.model}': {why}")
    if name not in served.resolved.canvases:
        raise not_found("canvas", name, served.resolved.canvases)
    return served.resolved.canvases[name]


def _ask(
    served: ActiveModel,
    canvas: CanvasSpec,
    request: RecommendRequest,
    what: tuple[datetime, ParsedContext],
    facts: MemberState,
    notes: list[str],
) -> RankingQuery:
    at, context = what
    catalogue = served.snapshot.catalogue
    country = country_of(served, request.country, facts.country, notes)
    language = request.language or facts.language
    taste = taste_of(facts.history, catalogue)
    question = Request(
        canvas=canvas.requested_as,
        at=at,
        member_id=request.member_id,
        country=country,
        device=request.device,
        language=language,
        query=context.query,
        source_title_id=None if context.source == ABSENT else catalogue.title_ids[context.source],
        history=facts.history,
        features={**facts.features.values, **context.own},
    )
    shown_in = availability_country(served, country, at, notes)
    viewer = Viewer(
        at=at,
        country=shown_in,
        watched=taste.watched,
        source=context.source,
        kids_profile=facts.kids_profile or canvas.candidates.kids is True,
        plays=lambda: served.snapshot.plays.before(at),
        country_plays=lambda: served.snapshot.plays.of_week(at, shown_in),
        past=cache(lambda: past_of(facts.history, catalogue)),
    )
    plans = _plans(served, canvas, request, viewer, taste, language, notes)
    return RankingQuery(canvas, question, viewer, plans, request.k)


def _plans(
    served: ActiveModel,
    canvas: CanvasSpec,
    request: RecommendRequest,
    viewer: Viewer,
    taste: Taste,
    language: str | None,
    notes: list[str],
) -> tuple[RowPlan, ...] | None:
    specs = served.resolved.rows_of(canvas.requested_as)
    if request.rows and not specs:
        notes.append(f"canvas '{canvas.name}' has no rows")
    if canvas.target == "title" and (not specs or request.rows is False):
        return None
    setting = Setting.of(served.snapshot.catalogue, viewer, served.snapshot.plays)
    return tuple(plan_rows(specs, served.snapshot.catalogue, taste, language, setting))
