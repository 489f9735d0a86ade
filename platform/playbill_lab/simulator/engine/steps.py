"""One step of all visits: a question each, an answer, what members do with it, and where they go next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Floats64, Ints32
from playbill_lab.simulator.engine.choices import Response, respond
from playbill_lab.simulator.engine.playback import Playback, StartedPlays, find, push, sit
from playbill_lab.simulator.engine.visits import DONE, INTENT_SHIFT, RunContext, Visits, intents
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates, check_slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.effects import next_row_of

SECOND = 1_000_000
MOST_TURNS = 6  # Pages and plays of a visit, at most
_LISTING, _TRAILER, _REMINDING, _BESIDE = 0.2, 0.3, 0.5, 0.7
_HAS_MORE_LIKE_IT = (on.HOME, on.SEARCH, on.BILLBOARD, on.KIDS)
_AFTER_FINISH = ((on.POST_PLAY, 0.55), (on.BILLBOARD, 0.15))
_AFTER_LEAVING = ((on.BILLBOARD, 0.5),)
_AFTER_PAGE = {
    on.HOME: ((on.SEARCH, 0.12),),
    on.KIDS: ((on.KIDS, 0.45),),
    on.SEARCH: ((on.SEARCH, 0.6), (on.BILLBOARD, 0.15)),
    on.MORE_LIKE_THIS: ((on.BILLBOARD, 0.4),),
    on.POST_PLAY: ((on.BILLBOARD, 0.2),),
    on.SCREENSAVER: ((on.BILLBOARD, 0.3),),
    on.COMING_SOON: ((on.BILLBOARD, 0.5),),
    on.PRE_LAUNCH: ((on.BILLBOARD, 0.7),),
}
"""Where members go after a page without a play, and how often; the rest leaves."""

Watch = Callable[[PolicyRequest, Slates, Response], None]


def answers(request: PolicyRequest, policy: Policy, rng: np.random.Generator) -> Slates:
    """Fill every list: rows with an order of their own by it, all others by the policy, whose answers are checked."""
    own = np.isin(request.row, on.RULE_ROWS)
    ruled, free = np.flatnonzero(own), np.flatnonzero(~own)
    size = request.places
    titles = np.full((len(request), size), -1, np.int32)
    propensity = np.zeros((len(request), size), np.float32)
    if len(free):
        part = request.take(free)
        slates = policy.answer(part, rng)
        check_slates(part, slates, policy.name)
        titles[free, : slates.titles.shape[1]] = slates.titles
        propensity[free, : slates.titles.shape[1]] = slates.propensity
    if len(ruled):
        titles[ruled] = listed_by_rule(request.take(ruled), size)
        propensity[ruled] = titles[ruled] >= 0
    return Slates(titles, propensity)


def note_slates(
    request: PolicyRequest, slates: Slates, response: Response, visits: Visits, context: RunContext
) -> None:
    """Note an impression of every place that was looked at, with the policy's propensity."""
    _note_rows(request, response, visits, context)
    place = np.arange(slates.titles.shape[1])
    who, at = np.nonzero(place[None, :] < response.examined[:, None])
    context.log.note(
        "impression",
        request.member[who],
        request.at_us[who] + (1 + at) * SECOND,
        title=slates.titles[who, at],
        position=at,
        propensity=slates.propensity[who, at],
        **_columns(request, visits, who),
    )
    visits.now += (2 + response.examined) * SECOND
    shown = visits.shown.shape[1]
    width = min(slates.titles.shape[1], 8)
    start = np.minimum(visits.line * 8, shown - 8)
    rows = np.arange(len(visits))[:, None]
    visits.shown[rows, start[:, None] + np.arange(width)] = slates.titles[:, :width]


def _note_rows(request: PolicyRequest, response: Response, visits: Visits, context: RunContext) -> None:
    """Note an impression of every row that was looked at, with the probability of that row at its place."""
    who = np.flatnonzero((request.canvas == on.HOME) & (response.examined > 0))
    columns = _columns(request, visits, who) | {"canvas": on.ROW_RANKING}
    context.log.note(
        "impression",
        request.member[who],
        request.at_us[who],
        position=request.row_position[who],
        propensity=visits.row_propensity[who, request.row_position[who]],
        **columns,
    )


def note_clicks(
    request: PolicyRequest, slates: Slates, response: Response, visits: Visits, context: RunContext
) -> Ints32:
    """Note what members do with titles they opened and did not play; return [N] the last of them, -1 none."""
    opened = response.clicked.copy()
    rows = np.arange(len(request))
    played = response.played >= 0
    opened[rows[played], response.played[played]] = False
    any_opened = opened.any(axis=1)
    at = np.where(any_opened, opened.shape[1] - 1 - opened[:, ::-1].argmax(axis=1), -1)
    title = np.where(any_opened, slates.titles[rows, at], -1).astype(np.int32)
    luck = context.streams.uniform("opened", request.member, request.number, 2)
    soon = np.isin(request.canvas, on.PREVIEWS)
    done = {
        "details_view": any_opened & ~soon,
        "trailer_view": any_opened & (soon | (luck[:, 0] < _TRAILER)),
        "remind_me": any_opened & soon & (luck[:, 1] < _REMINDING),
        "my_list_add": any_opened
        & ~soon
        & (luck[:, 1] < _LISTING)
        & (find(context.state.my_list, request.member, title) < 0),
    }
    for action, does in done.items():
        who = np.flatnonzero(does)
        context.log.note(
            action,
            request.member[who],
            visits.now[who],
            title=title[who],
            position=at[who],
            **_columns(request, visits, who),
        )
        visits.now[who] += 8 * SECOND
        lists = {"remind_me": context.state.reminders, "my_list_add": context.state.my_list}.get(action)
        if lists is not None:
            push(lists, request.member[who], title[who])
    return title


def play(
    request: PolicyRequest, slates: Slates, response: Response, visits: Visits, context: RunContext
) -> tuple[AnyInts, Playback]:
    """Let members play what they chose; return their places among the visits, and how it went."""
    who = np.flatnonzero(response.played >= 0)
    at = response.played[who]
    columns = {
        **_columns(request, visits, who),
        "position": at.astype(np.int16),
        "propensity": slates.propensity[who, at],
    }
    plays = StartedPlays(
        request.member[who],
        slates.titles[who, at],
        visits.now[who],
        response.satisfaction_logit[who],
        request.number[who],
        columns,
    )
    playback = sit(plays, context)
    visits.now[who] = playback.until_us + 30 * SECOND
    visits.source[who] = plays.title
    return who, playback


def move_on(request: PolicyRequest, visits: Visits, opened: Ints32, context: RunContext) -> None:
    """Send visits without a play to their next row or page, or home."""
    luck = context.streams.uniform("move", request.member, request.number, 2)
    canvas = visits.canvas.copy()
    visits.canvas[:] = DONE
    scrolls = (
        (canvas == on.HOME)
        & (visits.line + 1 < visits.length)
        & (luck[:, 0] < next_row_of(context.state.world, visits.device))
    )
    beside = (opened >= 0) & (luck[:, 1] < _BESIDE) & np.isin(canvas, _HAS_MORE_LIKE_IT)
    goes = np.flatnonzero(beside & ~scrolls)
    visits.go(goes, on.MORE_LIKE_THIS)
    visits.source[goes] = opened[goes]
    left = ~beside & ~scrolls
    for code, ways in _AFTER_PAGE.items():
        _spread(visits, np.flatnonzero(left & (canvas == code)), ways, luck[:, 0])
    again = (canvas == on.SEARCH) & (visits.canvas == on.SEARCH) & (visits.tries >= 2)
    visits.canvas[again] = DONE
    visits.go(np.flatnonzero(left & (canvas == on.BILLBOARD)), on.HOME)
    down = np.flatnonzero(scrolls)
    visits.canvas[down] = on.HOME
    visits.line[down] += 1


def move_after_play(
    request: PolicyRequest, visits: Visits, who: AnyInts, playback: Playback, context: RunContext
) -> None:
    """Send members who played to what comes after it, maybe in another mood."""
    luck = context.streams.uniform("after", request.member, request.number, 2)
    kids = context.state.world.people.kids[request.member]
    visits.canvas[who] = DONE
    _spread(visits, who[playback.finished], _AFTER_FINISH, luck[:, 0])
    _spread(visits, who[playback.left], _AFTER_LEAVING, luck[:, 0])
    visits.canvas[np.flatnonzero(kids & (visits.canvas == on.BILLBOARD))] = on.KIDS
    shifted = who[luck[who, 1] < INTENT_SHIFT]
    visits.intent[shifted] = intents(request.member[shifted], request.number[shifted], context)


def step(
    visits: Visits, request: PolicyRequest, context: RunContext, rng: np.random.Generator, watch: Watch | None
) -> Visits:
    """Answer every visit's question and let it act; return the visits that go on."""
    slates = answers(request, context.policy, rng)
    response = respond(request, slates, context.streams)
    if watch is not None:
        watch(request, slates, response)
    note_slates(request, slates, response, visits, context)
    opened = note_clicks(request, slates, response, visits, context)
    who, playback = play(request, slates, response, visits, context)
    idle = response.played < 0
    resting = np.flatnonzero(idle)
    part = visits.take(resting)
    move_on(request.take(resting), part, opened[resting], context)
    for name in ("canvas", "line", "request", "turns", "source"):
        getattr(visits, name)[resting] = getattr(part, name)
    move_after_play(request, visits, who, playback, context)
    over = (visits.canvas == DONE) | (visits.turns > MOST_TURNS)
    context.state.busy_until[visits.member] = visits.now
    return visits.take(np.flatnonzero(~over))


def _spread(visits: Visits, places: AnyInts, ways: tuple[tuple[int, float], ...], luck: Floats64) -> None:
    low = 0.0
    for canvas, share in ways:
        chosen = places[(luck[places] >= low) & (luck[places] < low + share)]
        visits.go(chosen, canvas)
        low += share


def listed_by_rule(request: PolicyRequest, size: int) -> Ints32:
    """Return the titles of rows with an order of their own, what may not be shown left out."""
    state = request.state
    width = max(state.continuing.shape[1], state.my_list.shape[1], state.top_10.shape[1])
    listed = np.full((len(request), width), -1, np.int32)
    lists = {on.CONTINUE_WATCHING: state.continuing, on.MY_LIST: state.my_list}
    for row, own in lists.items():
        at = np.flatnonzero(request.row == row)
        listed[at, : own.shape[1]] = own[request.member[at]]
    at = np.flatnonzero(request.row == on.TOP_10)
    listed[at, : state.top_10.shape[1]] = state.top_10[request.country[at]]
    fits = (listed >= 0) & np.take_along_axis(request.candidates(), np.maximum(listed, 0), 1)
    order = np.argsort(~fits, axis=1, kind="stable")
    found = np.take_along_axis(np.where(fits, listed, -1), order, 1)[:, :size]
    return np.where(np.arange(found.shape[1]) < request.size[:, None], found, -1)


def _columns(request: PolicyRequest, visits: Visits, who: AnyInts) -> dict[str, NDArray[np.generic]]:
    return {
        "canvas": request.canvas[who],
        "row": request.row[who],
        "genre": request.genre[who],
        "request": request.request[who],
        "session": visits.session[who],
        "device": request.device[who],
        "source": request.source_title[who],
    }
