"""Effects of device, hour, weekday, season, and of what was finished last, on what members look at and open.

Sizes are in `spec.EffectsSpec`, shapes are here. A world whose sizes are all 0 has none of this, see `World.effects`.
Axis letters: N questions, K places, T titles, D devices, G genres, C countries, F factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Floats32, Floats64, Ints32, Ints64
from playbill.schema import KINDS
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import logistic
from playbill_lab.simulator.world.launches import DAY_US, HOUR_US

if TYPE_CHECKING:
    from playbill_lab.simulator.policies.policy_request import PolicyRequest
    from playbill_lab.simulator.world.catalogue import WorldCatalogue
    from playbill_lab.simulator.world.spec import EffectsSpec, WorldSpec
    from playbill_lab.simulator.world.state import State
    from playbill_lab.simulator.world.world import GroundTruth, World

LENGTH_BY_DEVICE = {"tv": 1.0, "web": 0.2, "tablet": -0.4, "mobile": -1.0}
"""Device -> weight of a sitting's length; the same weights say how far along a list people look there."""
EVENING = range(19, 23)
GENRE_HOURS = {
    "animation": 8,
    "family": 9,
    "documentary": 12,
    "western": 14,
    "sport": 15,
    "reality": 17,
    "comedy": 18,
    "adventure": 19,
    "fantasy": 19,
    "drama": 20,
    "romance": 21,
    "war": 21,
    "action": 21,
    "crime": 22,
    "sci_fi": 22,
    "mystery": 23,
    "thriller": 23,
    "stand_up": 24,
    "horror": 25,
}
"""Genre -> the local hour at which it is wanted most."""
GENRE_DAYS = {
    "documentary": 20,
    "romance": 45,
    "war": 125,
    "western": 150,
    "sport": 185,
    "adventure": 200,
    "action": 215,
    "sci_fi": 235,
    "crime": 265,
    "mystery": 285,
    "horror": 303,
    "drama": 325,
    "animation": 350,
    "family": 357,
    "fantasy": 360,
}
"""Genre -> the day of the year at which it is wanted most."""
WEEKEND = np.array([-0.5, -0.6, -0.5, -0.3, 0.5, 1.0, 0.6])  # How much of a weekend a day is, from Monday on
WEEKEND_KINDS = {"film": 1.0, "series": -1.0}
ROWS_BY_DEVICE = {
    "tv": {"top_10": 1.0, "new_releases": 0.6, "trending": -0.5},
    "mobile": {"continue_watching": 0.6, "trending": 1.0, "top_10": -0.5, "new_releases": -0.5},
    "web": {"my_list": 0.8, "genre_rows": 0.6, "because_you_watched": 0.4},
    "tablet": {"because_you_watched": 0.8, "watch_it_again": 0.8},
}
RECENT = np.array([1.0, 0.45, 0.2])  # Weights of the titles finished last, newest first
_HOUR_WIDTH, _DAY_WIDTH = 3.0, 5.0  # Concentration of the bumps: some five hours wide, some nine weeks wide


@dataclass(frozen=True, eq=False)
class WorldEffects:
    """The effects of a world, worked out for its titles."""

    spec: EffectsSpec
    by_hour: Floats64  # [24 D, T] log odds by local hour and device
    by_weekday: Floats64  # [7, T] log odds
    by_day: Floats64  # [366, T] log odds by day of the year
    rows: Floats64  # [D, rows + 1] log odds; the last, which -1 reads, is that of no row
    look: Floats64  # [canvases, D] chance to look at the next place
    next_row: Floats64  # [D] chance to scroll on to the next row
    offset_us: Ints64  # [C] local time minus UTC
    follows: Ints32  # [T] the title that each continues; -1 none
    then: Ints32  # [T] the title that continues each; -1 none
    vector: Floats32  # [T, F] of the titles

    @classmethod
    def make(cls, spec: WorldSpec, catalogue: WorldCatalogue, truth: GroundTruth) -> WorldEffects:
        """Work the effects out."""
        sizes = spec.effects
        side = np.array([LENGTH_BY_DEVICE[name] for name in on.DEVICES])
        along, down = sizes.device_look * side, -sizes.device_look * side
        with np.errstate(divide="ignore"):
            look = logistic(_log_odds(on.LOOK)[:, None] + along)
        return cls(
            spec=sizes,
            by_hour=_by_hour(sizes, catalogue, side),
            by_weekday=sizes.weekday_kind * np.outer(WEEKEND, _by_kind(catalogue, WEEKEND_KINDS)),
            by_day=sizes.season_genre * _bumps(catalogue, GENRE_DAYS, 366, _DAY_WIDTH),
            rows=sizes.device_rows * _rows(),
            look=look,
            next_row=logistic(_log_odds(np.array(on.NEXT_ROW)) + down),
            offset_us=np.array([country.utc_offset_hours * HOUR_US for country in spec.countries]).astype(np.int64),
            follows=catalogue.franchises.follows,
            then=catalogue.franchises.then,
            vector=truth.vector,
        )

    def attraction(self, request: PolicyRequest, title: Ints32) -> Floats64:
        """Return [N, K] what the moment and what was finished last add to the log odds of a click."""
        local = request.at_us + self.offset_us[request.country]
        hour = (local // HOUR_US) % 24
        weekday = (local // DAY_US + 3) % 7  # 1970 began on a Thursday
        added: Floats64 = (
            self.by_hour[(request.device * 24 + hour)[:, None], title]
            + self.by_weekday[weekday[:, None], title]
            + self.by_day[day_of_year(local)[:, None], title]
            + self.rows[request.device, request.row][:, None]
            + self.carried_on(request.state, request.member, title)
        )
        return added

    def carried_on(self, state: State, member: AnyInts, title: Ints32) -> Floats64:
        """Return [N, K] log odds: sequels of what was finished last, parts out of order, and more of the same."""
        part_before, recent = self.follows[title], state.recent[member]
        later = part_before >= 0
        missed = later & (state.played[member[:, None], np.maximum(part_before, 0)] == 0)
        added: Floats64 = self.spec.sequel * self.next_parts(recent, title) - self.spec.out_of_order * missed
        if self.spec.momentum:
            weight = RECENT * (recent >= 0)
            weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
            lately = np.einsum("nr,nrf->nf", weight, self.vector[np.maximum(recent, 0)])
            scale = self.spec.momentum * np.sqrt(self.vector.shape[1])
            added += scale * np.einsum("nf,nkf->nk", lately, self.vector[title], dtype=np.float64)
        return added

    def next_parts(self, recent: Ints32, title: Ints32) -> Floats64:
        """Return [N, K] how lately the part before a title was finished: 1 if it was the last thing, 0 if never."""
        parts = np.where(recent >= 0, self.then[np.maximum(recent, 0)], -1)
        dealt = np.zeros((len(recent), len(self.then) + 1))
        np.put_along_axis(dealt, parts, np.broadcast_to(RECENT, parts.shape), axis=1)
        dealt[:, -1] = 0.0  # where -1 was written to
        return np.take_along_axis(dealt, title, axis=1)


def examination_logit(request: PolicyRequest) -> Floats64:
    """Return [N] the chance to look at the next place after one that was not played."""
    own = request.world.effects
    return on.LOOK[request.canvas] if own is None else own.look[request.canvas, request.device]


def next_row_of(world: World, device: AnyInts) -> Floats64:
    """Return [N] the chance to scroll on to the next row where nothing was played."""
    own = world.effects
    return np.full(len(device), on.NEXT_ROW) if own is None else own.next_row[device]


def taste_of(truth: GroundTruth, member: AnyInts, device: AnyInts) -> Floats32:
    """Return [N, F] the taste of who sits at the device: in a household it is someone else away from the TV."""
    taste: Floats32 = truth.taste[member]
    if truth.taste_alone is not None:
        in_process = device != on.DEVICES.index("tv")
        taste[in_process] = truth.taste_alone[member[in_process]]
    return taste


def day_of_year(local_us: Ints64) -> Ints64:
    """Return [N] days since the first of January."""
    days = (local_us // DAY_US).astype("datetime64[D]")
    since: Ints64 = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    return since


def _by_hour(sizes: EffectsSpec, catalogue: WorldCatalogue, side: Floats64) -> Floats64:
    length = np.log(np.maximum(catalogue.runtime_min, 1).astype(np.float64))
    length = (length - length.mean()) / max(float(length.std()), 1e-9)
    genres = sizes.hour_genre * _bumps(catalogue, GENRE_HOURS, 24, _HOUR_WIDTH)
    found = np.broadcast_to(genres, (len(on.DEVICES), *genres.shape)).copy()
    found += sizes.device_length * (side[:, None] * length)[:, None, :]
    long_films = (catalogue.kind == KINDS.index("film")) * np.maximum(length, 0.0)
    found[on.DEVICES.index("tv"), list(EVENING)] += sizes.evening_films * long_films
    return found.reshape(-1, len(catalogue))


def _bumps(catalogue: WorldCatalogue, peaks: dict[str, int], length: int, width: float) -> Floats64:
    """Return [length, T]: a bump around the peaks of a title's genres, of mean 0 over the round; 0 without any."""
    at = np.arange(length)[:, None] - np.array([peaks.get(name, 0) for name in catalogue.genres])
    bump = np.exp(width * (np.cos(2 * np.pi * at / length) - 1))
    bump = (bump - bump.mean(axis=0)) * np.array([name in peaks for name in catalogue.genres])
    genre = catalogue.genre.astype(np.float64)
    found: Floats64 = bump @ (genre / np.maximum(genre.sum(axis=1, keepdims=True), 1.0)).T
    return found


def _by_kind(catalogue: WorldCatalogue, kinds: dict[str, float]) -> Floats64:
    return np.array([kinds.get(name, 0.0) for name in KINDS])[catalogue.kind]


def _rows() -> Floats64:
    found = np.zeros((len(on.DEVICES), len(on.ROWS) + 1))
    for device, rows in ROWS_BY_DEVICE.items():
        for row, draw in rows.items():
            found[on.DEVICES.index(device), on.ROWS.index(row)] = draw
    return found


def _log_odds(chance: NDArray[Any]) -> Floats64:
    return np.asarray(np.log(chance) - np.log1p(-chance), np.float64)
