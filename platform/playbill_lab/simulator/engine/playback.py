"""What happens once something is played: how far it goes, thumbs, satisfaction, and the short lists members carry.

Those are titles to be continued, my list and reminders, newest first. Axis letters: M members, W places of a list, N
plays, or members at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Bools, Floats64, Ints32, Ints64
from playbill.schema import KINDS
from playbill_lab.simulator.world.behaviour_model import LAW, logistic
from playbill_lab.simulator.world.event_log import EventRecorder
from playbill_lab.simulator.world.state import State

if TYPE_CHECKING:
    from playbill_lab.simulator.engine.visits import RunContext


def drop(lists: Ints32, member: AnyInts, title: Ints32, beside: NDArray[np.int16] | None = None) -> None:
    """Take one title [N] from the list of each member [N, each once]; the ones behind it move up.

    `lists` [M, W] change in place, -1 fills; `beside` [M, W] are values that move with the titles.
    """
    rows = lists[member]
    kept = np.where(rows == title[:, None], -1, rows)
    order = np.argsort(kept < 0, axis=1, kind="stable")
    lists[member] = np.take_along_axis(kept, order, 1)
    if beside is not None:
        beside[member] = np.take_along_axis(beside[member], order, 1)


def push(
    lists: Ints32, member: AnyInts, title: Ints32, beside: NDArray[np.int16] | None = None, value: AnyInts | None = None
) -> None:
    """Put one title [N] first on the list of each member [N, each once]; the oldest falls off, and none is on it twice.

    `lists` [M, W] change in place, -1 fills; `beside` [M, W] are values that move with the titles, `value` [N] the new
    ones.
    """
    drop(lists, member, title, beside)
    lists[member] = np.concatenate([title[:, None], lists[member][:, :-1]], axis=1)
    if beside is not None and value is not None:
        beside[member] = np.concatenate([value[:, None], beside[member][:, :-1]], axis=1)


def find(lists: Ints32, member: AnyInts, title: Ints32) -> Ints64:
    """Return [N] the place of a title on each member's list; -1 where it is not."""
    same = lists[member] == title[:, None]
    return np.where(same.any(axis=1), same.argmax(axis=1), -1)


_SERIES = KINDS.index("series")
_AGAIN = (0.65, 0.4, 0.22)  # Chance that a finished episode is followed by a second, third and fourth one at once
_FINISHED, _LEFT, _PARTLY = (0.93, 1.0), (0.005, 0.08), (0.12, 0.8)
"""Share of a film or episode that is played, by how it ends."""
_SECOND = 1_000_000


@dataclass(frozen=True, eq=False)
class StartedPlays:
    """N plays that begin; row n of each array is one."""

    member: Ints32  # [N], each once
    title: Ints32  # [N]
    at_us: Ints64  # [N] beginning
    satisfaction_logit: Floats64  # [N] of the law
    number: Ints64  # [N] question that led to it
    columns: dict[str, NDArray[np.generic]]  # Canvas, row, position and what else the events carry


@dataclass(frozen=True, eq=False)
class Playback:
    """How N plays went."""

    until_us: Ints64  # [N] end
    finished: Bools  # [N] the film, or every episode begun, was played to the end
    left: Bools  # [N] left in the first minutes


def sit(plays: StartedPlays, context: RunContext) -> Playback:
    """Play titles, note the events, and change what members feel and carry with them."""
    state, log = context.state, context.log
    luck = context.streams.uniform("sitting", plays.member, plays.number, 6)
    finished = luck[:, 0] < logistic(plays.satisfaction_logit)
    left = ~finished & (luck[:, 1] < logistic(LAW.leave_base + LAW.leave_glad * plays.satisfaction_logit))
    low, high = (np.select([finished, left], [_FINISHED[at], _LEFT[at]], _PARTLY[at]) for at in (0, 1))
    share = low + (high - low) * luck[:, 2]
    begun = _begun(plays, state)
    until, done = _episodes(plays, state, log, finished, share, begun, luck[:, 3])
    _note_ends(plays, log, until, np.flatnonzero(left), _share_of_title(plays, state, begun, share))
    _thumbs(plays, log, until, luck[:, 4:])
    _remember(plays, state, log, Playback(until, finished, left), done)
    state.count_play(plays.member, plays.title)
    state.hours[plays.member] += (until - plays.at_us) / (3600 * _SECOND)
    realised = LAW.finished * finished + LAW.left * left + LAW.deep * np.tanh(plays.satisfaction_logit / 2.0)
    state.feel(plays.member, realised)
    return Playback(until, finished, left)


def _begun(plays: StartedPlays, state: State) -> Ints64:
    """Return [N] the episodes that are behind each member."""
    place = find(state.continuing, plays.member, plays.title)
    done = state.episodes_done[plays.member, np.maximum(place, 0)].astype(np.int64)
    return np.where(place >= 0, done, 0)


def _episodes(
    plays: StartedPlays,
    state: State,
    log: EventRecorder,
    finished: Bools,
    share: Floats64,
    begun: Ints64,
    luck: Floats64,
) -> tuple[Ints64, Ints64]:
    """Note a play event for the film or each episode; return the end [N] and the episodes behind the member [N].

    A sitting stays inside one season. `progress` is the share of the film, or of the season, that has been played.
    """
    catalogue = state.world.catalogue
    series = catalogue.kind[plays.title] == _SERIES
    length = catalogue.episodes[plays.title].astype(np.int64)
    seconds = catalogue.runtime_min[plays.title].astype(np.float64) * 60
    goes_on, at, episode = np.ones(len(series), np.bool_), plays.at_us.copy(), begun.copy()
    for number in range(len(_AGAIN) + 1):
        if number:
            goes_on = goes_on & finished & series & (luck < _AGAIN[number - 1]) & (episode % length > 0)
        rows = np.flatnonzero(goes_on)
        if not len(rows):
            break
        in_season = episode[rows] % length[rows]
        played = (seconds * share)[rows]
        end = at[rows] + (played * _SECOND).astype(np.int64)
        log.note(
            "play",
            plays.member[rows],
            at[rows],
            recorded=end,
            title=plays.title[rows],
            season=np.where(series[rows], episode[rows] // length[rows] + 1, -1),
            episode=np.where(series[rows], in_season + 1, -1),
            duration=played,
            progress=np.minimum((in_season + share[rows]) / length[rows], 1.0),
            **{name: values[rows] for name, values in plays.columns.items()},
        )
        at[rows] = end
        episode[rows] += finished[rows]
    return at, episode


def _share_of_title(plays: StartedPlays, state: State, begun: Ints64, share: Floats64) -> Floats64:
    length = state.world.catalogue.episodes[plays.title].astype(np.int64)
    return (begun % length + share) / length


def _note_ends(plays: StartedPlays, log: EventRecorder, until: Ints64, rows: Ints64, progress: Floats64) -> None:
    log.note(
        "abandon",
        plays.member[rows],
        until[rows],
        title=plays.title[rows],
        duration=(until[rows] - plays.at_us[rows]) / _SECOND,
        progress=progress[rows],
        **_columns(plays, rows),
    )


def _columns(plays: StartedPlays, rows: Ints64) -> dict[str, NDArray[np.generic]]:
    """Return where some plays came from, for events after them; the chance of a slate is the slate's alone."""
    return {name: values[rows] for name, values in plays.columns.items() if name != "propensity"}


def _thumbs(plays: StartedPlays, log: EventRecorder, until: Ints64, luck: Floats64) -> None:
    up = luck[:, 0] < logistic(LAW.up_base + LAW.up_glad * plays.satisfaction_logit)
    down = ~up & (luck[:, 1] < logistic(LAW.down_base + LAW.down_glad * plays.satisfaction_logit))
    for action, chosen in (("thumbs_up", up), ("thumbs_down", down)):
        rows = np.flatnonzero(chosen)
        when = until[rows] + 10 * _SECOND
        log.note(action, plays.member[rows], when, title=plays.title[rows], **_columns(plays, rows))


def _remember(plays: StartedPlays, state: State, log: EventRecorder, playback: Playback, done: Ints64) -> None:
    """Move titles between the member's lists: what is over leaves, what goes on comes first."""
    catalogue = state.world.catalogue
    total = catalogue.episodes[plays.title].astype(np.int64) * catalogue.seasons[plays.title]
    over = (playback.finished & (done >= total)) | playback.left
    ends, stays = np.flatnonzero(over), np.flatnonzero(~over)
    drop(state.continuing, plays.member[ends], plays.title[ends], state.episodes_done)
    at = plays.member[stays], plays.title[stays]
    push(state.continuing, *at, state.episodes_done, done[stays].astype(np.int16))
    good = np.flatnonzero(playback.finished)
    push(state.recent, plays.member[good], plays.title[good])
    reminded = np.flatnonzero(find(state.reminders, plays.member, plays.title) >= 0)
    drop(state.reminders, plays.member[reminded], plays.title[reminded])
    listed = np.flatnonzero(over & (find(state.my_list, plays.member, plays.title) >= 0))
    drop(state.my_list, plays.member[listed], plays.title[listed])
    columns = {name: plays.columns[name][listed] for name in ("session", "device", "canvas")}
    when = playback.until_us[listed] + 20 * _SECOND
    log.note("my_list_remove", plays.member[listed], when, title=plays.title[listed], **columns)
