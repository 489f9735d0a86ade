"""`Recommender`: one request to one answer, for the HTTP server and the shell alike. Each stage runs once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from playbill.clock import Clock
from playbill.ranking.candidates import ABSENT
from playbill.serving.active_model import ModelHandle
from playbill.serving.explain import Explanation, explain_title
from playbill.serving.member_state import FactReader
from playbill.serving.messages import RecommendRequest, RecommendResponse, not_found
from playbill.serving.profile import AnswerCache, Deadline, OutOfTimeError, Profile
from playbill.serving.ranker import rank_by_fallback, rank_lists
from playbill.serving.ranking_context import MemberState, ParsedContext, RankingContext, RankingQuery, RankingResult
from playbill.serving.ranking_query import plan
from playbill.serving.request_context import parse
from playbill.serving.response import LoggedResponse, respond

Log = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], None]
"""Keeps a row of `requests` with its rows of `slates`."""

FRESH = Profile()


class Recommender:
    """Answers requests with whatever model its handle holds. Safe to share between threads.

    Args:
        handle: What is served now.
        facts: Reads histories, features and profiles.
        clock: The workspace's; the moment of requests that name none.
        log: Where requests and slates go; None keeps nothing.
        gate: Entered around ranking, to bound how many requests are ranked at once.
        profile: Whether answers are kept, and how long one may take.
        timer: Seconds that only go forward, for the age of kept answers.
    """

    def __init__(
        self,
        handle: ModelHandle,
        facts: FactReader,
        clock: Clock,
        log: Log | None = None,
        gate: AbstractContextManager[Any] | None = None,
        profile: Profile = FRESH,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.handle, self._facts, self._clock, self._log = handle, facts, clock, log
        self._gate: AbstractContextManager[Any] = gate or nullcontext()
        self._profile, self._deadline = profile, Deadline()
        seconds = profile.cache_seconds
        self._kept: AnswerCache[LoggedResponse] | None = None if seconds is None else AnswerCache(seconds, timer=timer)

    def recommend(self, request: RecommendRequest, waited_s: float = 0.0) -> RecommendResponse:
        """Answer one request.

        Args:
            request: What is wanted.
            waited_s: How much of its time is over already.

        Raises:
            NotFoundError: The canvas or the source title does not exist.
            RequestError: The canvas needs a query or a source title and none was given, or a context field is
                unknown or of another type.
            StateError: Nothing has been ingested yet.
        """
        return self._logged(self._answer(request, waited_s))

    def fall_back(self, request: RecommendRequest, reason: str) -> RecommendResponse:
        """Answer by the canvas's fallback from what is in memory, in a few milliseconds.

        Raises:
            NotFoundError, RequestError: As `recommend`.
        """
        parsed = parse(self.handle.current, request, self._clock)
        return self._logged(respond(self._from_memory(parsed, reason)))

    def explain(self, request: RecommendRequest, title_id: str) -> Explanation:
        """Say what each rule of the canvas and of its rows says of one title in the answer to a request.

        Nothing is logged.

        Raises:
            NotFoundError: There is no such title; what `recommend` raises, for the request.
        """
        parsed = parse(self.handle.current, request, self._clock)
        catalogue = parsed.active.snapshot.catalogue
        member, query = self._understand(parsed)
        title = catalogue.column(title_id)
        if title == ABSENT:
            raise not_found("title", title_id, catalogue.title_ids)
        with self._gate:
            return explain_title(RankingContext(parsed, member, query, rank_lists(parsed.active, query)), title)

    def timeout_ms(self, request: RecommendRequest) -> int | None:
        """Return the time of a request, its own or the server's; None = as long as it takes."""
        return request.timeout_ms or self._profile.timeout_ms

    def _logged(self, answer: LoggedResponse) -> RecommendResponse:
        if self._log is not None:
            self._log(answer.row, answer.slates)
        return answer.response

    def _answer(self, request: RecommendRequest, waited_s: float) -> LoggedResponse:
        """Return an answer, kept or made now. One that a fallback gave is not kept."""
        if self._kept is None:
            return respond(self._in_time(request, waited_s))
        key = self.handle.current.key, request.model_copy(update={"timeout_ms": None}).model_dump_json()
        if (kept := self._kept.get(key)) is not None:
            return kept[0].again(kept[1])
        since = self._kept.now()
        answer = respond(self._in_time(request, waited_s))
        if answer.response.reason is None:
            self._kept.put(key, answer, since)
        return answer

    def _in_time(self, request: RecommendRequest, waited_s: float) -> RankingContext:
        """Run the stages; when time is over, rank by the fallback from what is known so far."""
        timeout_ms = self.timeout_ms(request)
        parsed = parse(self.handle.current, request, self._clock)
        if timeout_ms is None:
            member, query = self._understand(parsed)
            return RankingContext(parsed, member, query, self._rank(parsed, query))
        until = time.perf_counter() + timeout_ms / 1000 - waited_s
        try:
            member, query = self._deadline.run(lambda: self._understand(parsed), until - time.perf_counter())
        except OutOfTimeError:
            return self._from_memory(parsed, timed_out(timeout_ms))
        try:
            result = self._deadline.run(lambda: self._rank(parsed, query), until - time.perf_counter())
        except OutOfTimeError:
            result = rank_by_fallback(parsed.active, query, timed_out(timeout_ms))
        return RankingContext(parsed, member, query, result)

    def _understand(self, parsed: ParsedContext) -> tuple[MemberState, RankingQuery]:
        request = parsed.request
        own = {name: getattr(request, name) for name in ("country", "device", "language", "source_title_id")}
        fields = {**own, "canvas": parsed.canvas.requested_as, "query": parsed.query}
        past = request.at is not None
        member = self._facts.read(parsed.active, request.member_id, parsed.at, past=past, request=fields)
        return member, plan(parsed, member)

    def _rank(self, parsed: ParsedContext, query: RankingQuery) -> RankingResult:
        with self._gate:
            return rank_lists(parsed.active, query)

    def _from_memory(self, parsed: ParsedContext, reason: str) -> RankingContext:
        member = self._facts.unread(parsed.active, parsed.request.member_id)
        query = plan(parsed, member)
        return RankingContext(parsed, member, query, rank_by_fallback(parsed.active, query, reason))


def timed_out(timeout_ms: int) -> str:
    """Say why a fallback answered a request whose time was over."""
    return f"timed out after {timeout_ms} ms"
