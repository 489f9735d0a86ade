"""The visits that are going on: who is where on which page, what they ask next, and how home pages are laid out.

Axis letters: N visits or pages, R rows of a page, F factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Bools, Floats32, Ints32, Ints64
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders, checked, law_propensity, ordering
from playbill_lab.simulator.policies.policy_request import LatentIntent, PolicyRequest
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.effects import taste_of
from playbill_lab.simulator.world.event_log import QUESTIONS_EACH, EventRecorder
from playbill_lab.simulator.world.members import device_of
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.state import State

if TYPE_CHECKING:
    from playbill_lab.simulator.policies.policies import Policy
    from playbill_lab.simulator.world.event_log import EventRecorder


OPENING = ((on.SEARCH, 0.12), (on.COMING_SOON, 0.04), (on.SCREENSAVER, 0.04), (on.PRE_LAUNCH, 0.05))
"""Where a visit begins instead of home, and how often."""
INTENT_SHARE, INTENT_SIZE, INTENT_SHIFT = 0.6, 1.0, 0.15
"""Visits with an intent; its weight beside taste; chance that it changes after a play."""
MISSING_SHARE = 0.12  # Searches for a title that the catalogue does not have
DONE = np.int8(-1)
_SHOWN = on.MOST_ROWS * 8


@dataclass(frozen=True, eq=False)
class RunContext:
    """What the visits of a block share: who fills the pages, what has happened so far, all luck, and the events."""

    policy: Policy
    state: State
    streams: Streams
    log: EventRecorder


@dataclass(eq=False)
class Visits:
    """N visits of N different members; row n of each array is one."""

    member: Ints32  # [N]
    now: Ints64  # [N] microseconds since 1970
    session: Ints32  # [N] the member's own count
    device: NDArray[np.int8]  # [N]
    intent: Floats32  # [N, F]
    canvas: NDArray[np.int8]  # [N] of the next question; `DONE` = the visit is over
    rows: NDArray[np.int8]  # [N, R] rows of the page, in order
    genres: NDArray[np.int16]  # [N, R] genre of each row; -1 = no genre row
    length: NDArray[np.int16]  # [N] rows of the page
    row_propensity: Floats32  # [N, R] probability of each row at its place, given those above
    line: NDArray[np.int16]  # [N] the row that comes next
    request: Ints64  # [N] number of the page's first question; -1 = a page begins
    shown: Ints32  # [N, S] titles on the page so far
    source: Ints32  # [N] title the next list is about; -1 none
    wanted: Ints32  # [N] title searched for; -1 none
    text: Ints32  # [N] place of the whole query in `texts`; -1 none
    tries: NDArray[np.int16]  # [N] queries typed
    turns: NDArray[np.int16]  # [N] pages and plays so far
    texts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.member)

    def take(self, places: AnyInts) -> Visits:
        """Return some of the visits."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        texts = own.pop("texts")
        return Visits(**{name: values[places] for name, values in own.items()}, texts=texts)

    def joined(self, other: Visits) -> Visits:
        """Return these visits and others."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        texts = own.pop("texts")
        return Visits(**{name: np.concatenate([own[name], getattr(other, name)]) for name in own}, texts=texts)

    def go(self, places: AnyInts, canvas: int) -> None:
        """Send some visits to a new page of a canvas."""
        self.canvas[places], self.request[places], self.line[places] = canvas, -1, 0
        self.turns[places] += 1


def begin(member: Ints32, at_us: Ints64, context: RunContext, texts: list[str]) -> Visits:
    """Begin a visit of each member: the device, the intent, the first page."""
    count, state = len(member), context.state
    session = state.sessions[member]
    luck = context.streams.uniform("visit", member, session, 3)
    canvas = np.full(count, on.BILLBOARD, np.int8)
    low = 0.0
    for code, share in OPENING:
        canvas[(luck[:, 0] >= low) & (luck[:, 0] < low + share)] = code
        low += share
    canvas[state.world.people.kids[member]] = on.KIDS
    state.sessions[member] += 1
    titles = {name: np.full(count, -1, np.int32) for name in ("source", "wanted", "text")}
    visits = Visits(
        member=member,
        now=at_us.copy(),
        session=session.astype(np.int32),
        device=device_of(state.world.people, member, luck[:, 1]),
        intent=intents(member, session, context),
        canvas=canvas,
        rows=np.full((count, on.MOST_ROWS), on.NO_ROW, np.int8),
        genres=np.full((count, on.MOST_ROWS), -1, np.int16),
        length=np.zeros(count, np.int16),
        row_propensity=np.ones((count, on.MOST_ROWS), np.float32),
        line=np.zeros(count, np.int16),
        request=np.full(count, -1, np.int64),
        shown=np.full((count, _SHOWN), -1, np.int32),
        tries=np.zeros(count, np.int16),
        turns=np.zeros(count, np.int16),
        texts=texts,
        **titles,
    )
    return visits


def intents(member: AnyInts, occasion: AnyInts, context: RunContext) -> Floats32:
    """Return [N, F]: the genre each member is in the mood for, one of their own as often as not; zeros for none."""
    truth = context.state.world.truth
    luck = context.streams.uniform("intent", member, occasion, 3)
    edges = np.cumsum(truth.genre_weight[member], axis=1)
    own = np.minimum((luck[:, 1:2] >= edges).sum(axis=1), edges.shape[1] - 1)
    any_genre = np.minimum((luck[:, 1] * edges.shape[1]).astype(np.int64), edges.shape[1] - 1)
    genre = np.where(luck[:, 2] < 0.5, own, any_genre)
    there = (luck[:, 0] < INTENT_SHARE)[:, None]
    scale = INTENT_SIZE * np.sqrt(truth.vector.shape[1])
    return np.where(there, scale * truth.genre_vector[genre], 0.0).astype(np.float32)


def ask(visits: Visits, context: RunContext, typing: np.random.Generator, orders: np.random.Generator) -> PolicyRequest:
    """Put every visit's next question. Pages that begin are laid out, and searches are typed, first."""
    member, state = visits.member, context.state
    number = member.astype(np.int64) * QUESTIONS_EACH + state.questions[member]
    state.questions[member] += 1
    starts = np.flatnonzero(visits.request < 0)
    visits.request[starts], visits.shown[starts] = number[starts], -1
    lay_out(visits, starts[visits.canvas[starts] == on.HOME], context, orders)
    query = _type(visits, np.flatnonzero(visits.canvas == on.SEARCH), context, typing)
    places, line = np.arange(len(visits)), np.minimum(visits.line, on.MOST_ROWS - 1)
    home = visits.canvas == on.HOME
    row = np.where(home, visits.rows[places, line], on.NO_ROW).astype(np.int8)
    beside = (visits.canvas == on.MORE_LIKE_THIS) | (visits.canvas == on.POST_PLAY)
    liked = np.where(row == on.BECAUSE_YOU_WATCHED, state.recent[member, 0], -1)
    return PolicyRequest(
        world=state.world,
        state=state,
        number=number,
        request=visits.request.copy(),
        member=member,
        at_us=visits.now.copy(),
        canvas=visits.canvas.copy(),
        row=row,
        row_position=np.where(home, line, 0).astype(np.int16),
        genre=np.where(home, visits.genres[places, line], -1).astype(np.int16),
        source_title=np.where(beside, visits.source, liked).astype(np.int32),
        size=on.SIZE[visits.canvas],
        device=visits.device,
        shown=visits.shown,
        query=query,
        hidden=LatentIntent(visits.intent, np.where(visits.canvas == on.SEARCH, visits.wanted, -1).astype(np.int32)),
        log=context.log,
    )


def _type(visits: Visits, places: AnyInts, context: RunContext, generator: np.random.Generator) -> pl.Series:
    """Type the queries of visits on the search page: at first a few letters, then all of it."""
    found = pl.Series([None], dtype=pl.String).new_from_index(0, len(visits))
    if not len(places):
        return found
    first = places[visits.tries[places] == 0]
    if len(first):
        _want(visits, first, context, generator)
    texts = pl.Series(visits.texts, dtype=pl.String).gather(visits.text[places].astype(np.int64))
    letters = texts.str.len_chars().to_numpy()
    log, luck = context.log, context.streams.uniform("letters", visits.member[places], visits.request[places])
    length = np.where(visits.tries[places] == 0, np.minimum(2 + (6 * luck).astype(np.int64), letters), letters)
    typed = texts.to_frame("text").select(pl.col("text").str.slice(0, pl.Series(length))).to_series()
    log.note(
        "search",
        visits.member[places],
        visits.now[places],
        canvas=on.SEARCH,
        request=visits.request[places],
        session=visits.session[places],
        device=visits.device[places],
        query=len(log.queries) + np.arange(len(places)),
    )
    log.queries.extend(typed.to_list())
    visits.tries[places] += 1
    return found.scatter(places, typed)


def _want(visits: Visits, places: AnyInts, context: RunContext, generator: np.random.Generator) -> None:
    """Choose what members search for, by taste, appeal and pull; some of it is not in the catalogue."""
    world, member = context.state.world, visits.member[places]
    truth = world.truth
    luck = context.streams.uniform("wanted", member, visits.session[places], len(world.catalogue) + 1)
    liking = taste_of(truth, member, visits.device[places]) @ truth.vector.T + truth.appeal + truth.pull
    if world.effects is not None:
        every = np.broadcast_to(np.arange(len(world.catalogue), dtype=np.int32), liking.shape)
        liking = liking + world.effects.carried_on(context.state, member, every)
    liking = np.where(world.people.kids[member][:, None] & ~world.catalogue.kids, -np.inf, liking)
    wanted = (liking - np.log(-np.log(np.maximum(luck[:, 1:], 1e-12)))).argmax(axis=1)
    visits.wanted[places] = np.where(luck[:, 0] < MISSING_SHARE, -1, wanted)
    spoken = world.people.language[member].astype(np.int64)
    language = np.where(spoken < len(world.catalogue.languages), spoken, 0)
    texts = world.queries.intended(visits.wanted[places], language, generator)
    visits.text[places] = len(visits.texts) + np.arange(len(places))
    visits.texts.extend(texts.to_list())


def lay_out(visits: Visits, places: AnyInts, context: RunContext, rng: np.random.Generator) -> None:
    """Choose the rows of pages: what is to be continued, the top picks, then the others in the page's own order."""
    member, state = visits.member[places], context.state
    keys = context.streams.uniform("page", member, visits.request[places], len(on.ROWS) + 1)
    own, chosen = keys[:, :-1], keys[:, -1]
    own[:, on.PINNED_ROWS] = -2.0, -1.0
    for row, lacks in lacking(member, state).items():
        own[lacks, row] = 9.0
    order = np.argsort(own, axis=1, kind="stable").astype(np.int8)
    fitting = (own < 9.0).sum(axis=1).astype(np.int16)
    # One of the member's genres, as often as it was played.
    edges = np.cumsum(state.genre_plays[member], axis=1)
    genre = np.minimum((chosen[:, None] * edges[:, -1:] >= edges).sum(axis=1), edges.shape[1] - 1).astype(np.int16)
    ordered = _ordered(visits, places, (order, fitting, genre), context, rng)
    if ordered is None:
        rows = order[:, : on.MOST_ROWS]
        ordered = RowOrders(rows, law_propensity(rows, fitting))
        visits.length[places] = np.minimum(fitting, on.MOST_ROWS)
    else:
        visits.length[places] = (ordered.rows >= 0).sum(axis=1)
    visits.rows[places], visits.row_propensity[places] = ordered.rows, ordered.propensity
    visits.genres[places] = np.where(ordered.rows == on.GENRE_ROWS, genre[:, None], -1)


def lacking(member: AnyInts, state: State) -> dict[int, Bools]:
    """Return row -> [N] whether the member lacks what it is made of."""
    return {
        on.CONTINUE_WATCHING: state.continuing[member, 0] < 0,
        on.BECAUSE_YOU_WATCHED: state.recent[member, 0] < 0,
        on.MY_LIST: state.my_list[member, 0] < 0,
        on.GENRE_ROWS: state.genre_plays[member].sum(axis=1) == 0,
        on.WATCH_IT_AGAIN: state.plays[member] < 5,
    }


def _ordered(
    visits: Visits,
    places: AnyInts,
    law: tuple[NDArray[np.int8], NDArray[np.int16], NDArray[np.int16]],
    context: RunContext,
    rng: np.random.Generator,
) -> RowOrders | None:
    """Ask the policy for its own order; None where it has none."""
    order = ordering(context.policy)
    if order is None or not len(places):
        return None
    rows, fitting, genre = law
    pages = Pages(
        state=context.state,
        number=visits.request[places],
        member=visits.member[places],
        at_us=visits.now[places],
        device=visits.device[places],
        rows=np.where(np.arange(rows.shape[1]) < fitting[:, None], rows, on.NO_ROW).astype(np.int8),
        genre=genre,
        log=context.log,
    )
    found = order(pages, rng)
    return None if found is None else checked(pages, found, context.policy.name)
