"""Questions to a policy, many at once, and its answers, which are checked before anybody sees them.

Axis letters: N questions, T titles, K places, F factors, G genres.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Bools, Floats32, Ints32, Ints64
from playbill.errors import IntegrityError, StateError
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.state import State

if TYPE_CHECKING:
    from playbill_lab.simulator.world.event_log import EventRecorder
    from playbill_lab.simulator.world.world import World


UPCOMING_DAYS = {on.COMING_SOON: 28, on.PRE_LAUNCH: 7}  # Canvas of previews -> how far ahead it looks
_UNWATCHED = (on.HOME, on.KIDS, on.BILLBOARD, on.POST_PLAY, on.SCREENSAVER)
_WATCHED_TOO = (on.CONTINUE_WATCHING, on.TOP_10, on.MY_LIST, on.WATCH_IT_AGAIN)


@dataclass(frozen=True, eq=False)
class LatentIntent:
    """What members want at the moment of a question. The truth may read it, a policy must not."""

    intent: Floats32  # [N, F] vector of the session's intent; zeros where there is none
    wanted: Ints32  # [N] title searched for; -1 = none, or one that is not in the catalogue

    def take(self, places: AnyInts) -> LatentIntent:
        """Return some of the rows."""
        return LatentIntent(self.intent[places], self.wanted[places])


@dataclass(frozen=True, eq=False)
class PolicyRequest:
    """N questions of N different members. Row n of every array is one question."""

    world: World
    state: State  # What has happened so far. Its counters move on: read them before the next question
    number: Ints64  # [N] unique over a run; the same under other policies where the member came as far
    request: Ints64  # [N] int64, number of the request; the rows of one page share it
    member: Ints32  # [N] number of the member
    at_us: Ints64  # [N] moment, microseconds since 1970
    canvas: NDArray[np.int8]  # [N] place in `canvases.CANVASES`
    row: NDArray[np.int8]  # [N] place in `canvases.ROWS`; -1 = a canvas without rows
    row_position: NDArray[np.int16]  # [N] place of the row on its page
    genre: NDArray[np.int16]  # [N] genre of a genre row; -1 = another row
    source_title: Ints32  # [N] title the list is about; -1 = none
    size: NDArray[np.int16]  # [N] places wanted
    device: NDArray[np.int8]  # [N] place in `canvases.DEVICES`
    shown: Ints32  # [N, S] titles that are on the page already and may not come again; -1 fills
    query: pl.Series  # What was typed, None where nothing was
    hidden: LatentIntent
    log: EventRecorder | None = None  # The events so far, where the run keeps them

    def __len__(self) -> int:
        return len(self.member)

    @property
    def country(self) -> NDArray[np.int16]:
        """[N] place in `world.countries`."""
        return self.world.people.country[self.member]

    @property
    def language(self) -> NDArray[np.int16]:
        """[N] place in `world.languages`."""
        return self.world.people.language[self.member]

    @property
    def places(self) -> int:
        """K: the most places any of them wants."""
        return int(self.size.max(initial=1))

    def take(self, places: AnyInts) -> Self:
        """Return some of the questions, in the order of `places`."""
        own = {
            item.name: getattr(self, item.name)[places]
            for item in fields(self)
            if item.name not in ("world", "state", "hidden", "log", "query")
        }
        query = self.query.gather(np.asarray(places, np.int64)) if self.any_typed else self.query.head(len(places))
        part = replace(self, **own, query=query, hidden=self.hidden.take(places))
        for worked_out in ("_candidates", "_matches"):
            if worked_out in self.__dict__:
                part.__dict__[worked_out] = self.__dict__[worked_out][places]
        return part

    def candidates(self) -> Bools:
        """Return [N, T]: what may be shown. Available there and then, the canvas's and the row's own rule."""
        return self._candidates

    def matches(self) -> Floats32:
        """Return [N, T]: how well each title's names match what was typed, 0 to 1; zeros where nothing was."""
        return self._matches

    def history(self, places: AnyInts | None = None) -> pl.DataFrame:
        """Return canonical interactions of the members of questions (None = all), strictly before each one's moment.

        Raises:
            StateError: The run does not keep its log.
        """
        if self.log is None:
            raise StateError("the simulation keeps no log. Run `simulate(..., keep_log=True)` to read histories.")
        chosen = slice(None) if places is None else places
        return self.log.before(self.member[chosen], self.at_us[chosen])

    @cached_property
    def any_typed(self) -> bool:
        """Say whether anything was typed in any question."""
        return self.query.null_count() < len(self.query)

    @cached_property
    def _matches(self) -> Floats32:
        found = np.zeros((len(self), len(self.world.catalogue)), np.float32)
        if self.any_typed:
            typed = np.flatnonzero(self.query.is_not_null().to_numpy())
            found[typed] = self.world.queries.matches(self.query.gather(typed))
        return found

    @cached_property
    def _candidates(self) -> Bools:
        kids = self.world.people.kids[self.member]
        found = self.state.available(self.country, self.at_us)
        self._on_canvas(found)
        self._in_row(found)
        only_kids = np.flatnonzero(kids | (self.canvas == on.KIDS))
        found[only_kids] &= self.world.catalogue.kids
        rows, places = np.nonzero(self.shown >= 0)
        found[rows, self.shown[rows, places]] = False
        return found

    def _on_canvas(self, found: Bools) -> None:
        fresh = np.isin(self.canvas, _UNWATCHED) & ~np.isin(self.row, _WATCHED_TOO)
        at = np.flatnonzero(fresh)
        found[at] &= self.state.played[self.member[at]] == 0
        for canvas, days in UPCOMING_DAYS.items():
            soon = np.flatnonzero(self.canvas == canvas)
            if len(soon):
                found[soon] = self.state.upcoming(self.country[soon], self.at_us[soon], days)
        beside = np.flatnonzero(self.source_title >= 0)
        found[beside, self.source_title[beside]] = False

    def _in_row(self, found: Bools) -> None:
        state, catalogue = self.state, self.world.catalogue
        by_country = {on.NEW_RELEASES: state.new, on.TRENDING: state.trending, on.GEMS_FOR_YOU: state.gems}
        for row, allowed in by_country.items():
            at = np.flatnonzero(self.row == row)
            found[at] &= allowed[self.country[at]]
        for row, listed in ((on.CONTINUE_WATCHING, state.continuing), (on.MY_LIST, state.my_list)):
            at = np.flatnonzero(self.row == row)
            found[at] &= _only(listed[self.member[at]], found.shape[1])
        top = np.flatnonzero(self.row == on.TOP_10)
        found[top] &= _only(state.top_10[self.country[top]], found.shape[1])
        again = np.flatnonzero(self.row == on.WATCH_IT_AGAIN)
        found[again] &= state.played[self.member[again]] > 0
        like = np.flatnonzero(self.row == on.BECAUSE_YOU_WATCHED)
        found[like] &= (catalogue.genre[self.source_title[like]] @ catalogue.genre.T) > 0
        genre = np.flatnonzero(self.row == on.GENRE_ROWS)
        found[genre] &= catalogue.genre.T[self.genre[genre]] > 0


def _only(listed: Ints32, titles: int) -> Bools:
    """Return [N, T]: the titles that are listed."""
    found = np.zeros((len(listed), titles + 1), np.bool_)
    np.put_along_axis(found, np.where(listed >= 0, listed, titles), True, 1)
    return found[:, :titles]


@dataclass(frozen=True, eq=False)
class Slates:
    """Answers to N questions.

    `propensity` [N, K] float32 is the probability of a title at its place, given the places before; 0 where there is
    none.
    """

    titles: Ints32  # [N, K] int32; -1 fills lists that are shorter
    propensity: Floats32
    scores: Floats32 | None = None  # [N, K] what the titles were ranked by, if anything

    def __len__(self) -> int:
        return len(self.titles)


def check_slates(request: PolicyRequest, slates: Slates, name: str) -> None:
    """Check a policy's answers.

    Raises:
        IntegrityError: Wrong types or shapes, titles that are no candidates or come twice, holes, a propensity that is
            missing or outside (0, 1]; everything that is wrong with these answers is named.
    """
    faults = _shape_faults(request, slates) or _content_faults(request, slates.titles, slates.propensity)
    if faults:
        raise IntegrityError(f"policy '{name}' answered what cannot be shown: {'; '.join(faults)}.")


def _shape_faults(request: PolicyRequest, slates: Any) -> list[str]:
    if not isinstance(slates, Slates):
        return [f"a {type(slates).__name__} instead of Slates"]
    faults, size = [], (len(request), request.places)
    given: tuple[tuple[str, Any, str], ...] = (("titles", slates.titles, "i"), ("propensities", slates.propensity, "f"))
    for what, values, kind in given:
        if not isinstance(values, np.ndarray):
            faults.append(f"no array of {what}: {values!r}"[:80])
        elif values.dtype.kind != kind:
            faults.append(f"{what} of type {values.dtype}, expected {'whole' if kind == 'i' else 'floating'} numbers")
        elif values.ndim != 2 or len(values) != size[0] or values.shape[1] < size[1]:
            faults.append(f"{what} of shape {values.shape}, expected {size}")
    if not faults and slates.titles.shape != slates.propensity.shape:
        faults.append(f"propensities of shape {slates.propensity.shape}, titles of shape {slates.titles.shape}")
    return faults


def _content_faults(request: PolicyRequest, titles: Ints32, propensity: Floats32) -> list[str]:
    filled, size = titles >= 0, len(request.world.catalogue)
    if (titles >= size).any():
        return [f"title number {titles.max()} of {size} titles"]
    strangers = filled & ~np.take_along_axis(request.candidates(), np.maximum(titles, 0), axis=1)
    ordered = np.sort(titles, axis=1)
    faults_found = {
        "titles that are no candidates": strangers,
        "a title twice in one list": (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0),
        "a missing propensity": filled & np.isnan(propensity),
        "a propensity outside (0, 1]": filled & ((propensity <= 0) | (propensity > 1)),
        "an empty place before a filled one": ~filled[:, :-1] & filled[:, 1:],
        "more titles than places asked for": filled & (np.arange(titles.shape[1]) >= request.size[:, None]),
    }
    return [
        f"{what} in {int(wrong.any(axis=1).sum())} of {len(request)} lists"
        f" (question {int(request.number[wrong.any(axis=1)][0])})"
        for what, wrong in faults_found.items()
        if wrong.any()
    ]
