"""Which titles a member could have seen, request by request, as masks.

Requests of one country between two changes of its catalogue, under one canvas's rules, share a mask, so a batch holds
few of them. Rules about titles and launches are those that `datasets.candidate_masks` gives evaluation and serving;
rules about popularity and about the member's own past mask nothing here, as they say what is worth showing and not
what could be seen.
Letters: m requests, S distinct states, G states of a batch, K spans of one title in one country, C countries, R rules,
T titles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill.arrays import Bools, Ints32, Ints64
from playbill.datasets.candidate_masks import (
    ALWAYS,
    NEVER,
    Audience,
    Described,
    in_launch_window,
    known_launches,
    launch_bounds,
    launch_edges,
)
from playbill.definitions.specs import CandidatesSpec, ResolvedModel
from playbill.definitions.specs.candidates import ABOUT_LAUNCHES, ABOUT_TITLES
from playbill.tables import Vocabulary

EVERYWHERE = "*"
CELLS_AT_ONCE = 1 << 22
KEPT_BYTES = 1 << 26  # memory for masks that are asked for again, one bit for each state and title


@dataclass(frozen=True, slots=True)
class States:
    """What could be seen in S different (country, stretch of time, rule); none where all could always be seen."""

    start: Ints64  # [K, C, T] first moment of each span, microseconds since 1970
    end: Ints64  # [K, C, T] moment after it
    known: Ints64  # [K, C, T] since when each span is known
    country: Ints64  # [S]
    moment: Ints64  # [S] a moment of the stretch
    rule: Ints64  # [S] the rules of the canvas
    only_kids: Bools  # [S] whether the profile sees titles for kids alone
    upcoming: Bools  # [R] whether rules ask for titles that launch later, and not for those that are there
    bounds: Ints64  # [R, 4] rules about launches, see `launch_bounds`
    shown: Bools  # [R, T] titles that rules about what a title is allow
    kids: Bools  # [T] titles marked for kids; not knowing counts as no

    def __len__(self) -> int:
        return len(self.country)

    def mask(self, states: Ints64) -> Bools:
        """Return [G, T] which titles could be seen. Column 0 (padding) never could."""
        country, moment, rule = self.country[states], self.moment[states, None], self.rule[states]
        found = np.zeros((len(states), self.start.shape[2]), np.bool_)
        for start, end in zip(self.start, self.end, strict=True):
            found |= (start[country] <= moment) & (moment < end[country])
        for own in np.unique(rule).tolist():
            rows = np.nonzero(rule == own)[0]
            launch = self._launches(own, country[rows], moment[rows])
            if self.upcoming[own]:
                found[rows] = launch != NEVER
            found[rows] &= in_launch_window(self.bounds[own], launch, moment[rows]) & self.shown[own]
        found[self.only_kids[states]] &= self.kids
        found[:, 0] = False
        return found

    def _launches(self, rule: int, country: Ints64, moment: Ints64) -> Ints64:
        """Return [G, T] what rules about launches look at; nothing is worked out where there are none."""
        if self.upcoming[rule]:
            return known_launches(self.start[:, country], self.known[:, country], moment)
        if (self.bounds[rule] == NEVER).all():
            return np.full((1, self.start.shape[2]), NEVER, np.int64)
        first: Ints64 = self.start.min(axis=0)[country]
        return first

    @classmethod
    def everything(cls) -> States:
        """Return no states: nothing ever needs a mask."""
        spans, numbers, yes_or_no = np.zeros((0, 0, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_)
        return cls(
            start=spans,
            end=spans,
            known=spans,
            country=numbers,
            moment=numbers,
            rule=numbers,
            only_kids=yes_or_no,
            upcoming=yes_or_no,
            bounds=np.zeros((0, 4), np.int64),
            shown=np.zeros((0, 0), np.bool_),
            kids=yes_or_no,
        )

    def hide_nothing(self) -> bool:
        """Return whether every title could be seen in every state."""
        step = max(1, CELLS_AT_ONCE // max(1, self.start.shape[2]))
        everyone = np.arange(len(self))
        return all(self.mask(everyone[at : at + step])[:, 1:].all() for at in range(0, len(self), step))


class KeptMasks:
    """Masks of states, worked out once each where all of them together are small: every batch asks for most of them.

    Where they take more than `most` bytes, each is worked out when it is asked for.
    """

    def __init__(self, states: States, most: int = KEPT_BYTES) -> None:
        self.states = states
        self.titles = states.start.shape[2]
        size = -(-self.titles // 8)
        kept = len(states) if len(states) * size <= most else 0
        self._known = np.zeros(kept, np.bool_)
        self._bits = np.zeros((kept, size), np.uint8)

    def of(self, states: Ints64) -> Bools:
        """Return [G, T] `States.mask`."""
        if not len(self._known):
            return self.states.mask(states)
        new = np.unique(states[~self._known[states]])
        if len(new):
            self._bits[new] = np.packbits(self.states.mask(new), axis=1)
            self._known[new] = True
        found = np.unpackbits(self._bits[states], axis=1, count=self.titles)
        return found.view(np.bool_)


def availability_states(
    titles: Vocabulary,
    availability: pl.DataFrame,
    requests: pl.DataFrame,
    resolved: ResolvedModel,
    audience: Audience,
    *,
    competing: Bools | None = None,
) -> tuple[States, Ints64]:
    """Find the states of [m] requests (rows with event_at, country and canvas), and [m] which one each is in.

    `*` in `availability` is every country; a country it does not name sees those spans only. On a canvas without a
    definition all that is there could be seen. Where all titles could always be seen there are no states, and the
    numbers are 0. `competing` [T] are the titles that count as seen at all (None = every one).
    """
    found, state, _ = distinct_states(titles, availability, requests, resolved, audience, competing)
    if found.hide_nothing():
        return States.everything(), np.zeros(requests.height, np.int64)
    return found, state


def distinct_states(
    titles: Vocabulary,
    availability: pl.DataFrame,
    requests: pl.DataFrame,
    resolved: ResolvedModel,
    audience: Audience,
    competing: Bools | None = None,
) -> tuple[States, Ints64, Ints64]:
    """Find the states of [m] requests as `availability_states` does, also where they hide nothing.

    Returns:
        The states, [m] which one each request is in, and [S] the first request in each.
    """
    spans = _spans(titles, availability)
    countries = Vocabulary("country", sorted(set(spans["country"].to_list()) - {EVERYWHERE}))
    start, end, known = _layers(spans, countries, titles.size)
    at = requests["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
    country = countries.encode(requests["country"].cast(pl.String)).astype(np.int64)
    rules, rule = _rules(requests, resolved)
    bounds = np.stack([launch_bounds(own) for own in rules])
    upcoming = np.array([own.available == "upcoming" for own in rules])
    key = rule
    for part in (_stretches((start, end, known), (upcoming, bounds), country, rule, at), country, audience.profile):
        key = key * (int(part.max(initial=0)) + 1) + part
    _, first, state = np.unique(key, return_index=True, return_inverse=True)
    found = States(
        start,
        end,
        known,
        country=country[first],
        moment=at[first],
        rule=rule[first],
        only_kids=audience.profile[first],
        upcoming=upcoming,
        bounds=bounds,
        shown=np.stack([audience.described.matches(own) for own in rules]) & (True if competing is None else competing),
        kids=audience.titles,
    )
    return found, state.reshape(-1).astype(np.int64), first.astype(np.int64)


_EARLIEST = 2
"""Section of requests that say from when on a state's rules hold; 0 and 1 are those of tokens and of impressions."""


@dataclass
class StatesInParts:
    """States of the requests of a log that is read in parts: in the end those of `availability_states` of all of it.

    A few requests stand for the states of each part, so that no more is kept of it than these.
    """

    titles: Vocabulary
    availability: pl.DataFrame
    resolved: ResolvedModel
    described: Described
    _stand_ins: list[pl.DataFrame] = field(default_factory=list)

    def of(self, requests: pl.DataFrame, own: int, kids: Bools) -> Ints32:
        """Return [m] the state of each request of the next part among those of the part.

        The first `own` requests are those of tokens; `kids` [m] are those of kids' profiles.
        """
        _, state, first = self._distinct(requests, kids)
        rows = requests.select("event_at", "country", "canvas").with_row_index("place")
        rows = rows.with_columns(
            pl.Series("kids", kids),
            pl.Series("state", state),
            section=(pl.col("place") >= own).cast(pl.Int8),
            part=pl.lit(len(self._stand_ins)),
        )
        # Rules are numbered in the order of the moments at which they come to hold, so the earliest ones stand in too.
        earliest = rows.sort("event_at", maintain_order=True).unique(["state", "canvas"], keep="first")
        self._stand_ins.append(pl.concat([rows[first], earliest.with_columns(section=pl.lit(_EARLIEST, pl.Int8))]))
        return state.astype(np.int32)

    def joined(self, competing: Bools | None) -> tuple[States, list[Ints64]]:
        """Return the states of all parts together, and for each part which one each of its states is.

        `competing` is as in `availability_states`. The order of requests is that of a training set: those of tokens,
        then those of impressions.
        """
        ordered = pl.concat(self._stand_ins).sort("section", "part", "place", maintain_order=True)
        states, state, _ = self._distinct(ordered, ordered["kids"].to_numpy(), competing)
        if states.hide_nothing():
            states, state = States.everything(), np.zeros_like(state)
        numbered = ordered.with_columns(pl.Series("number", state)).filter(pl.col("section") < _EARLIEST)
        by_part = numbered.sort("part", "state").partition_by("part", maintain_order=True)
        return states, [part["number"].to_numpy() for part in by_part]

    def _distinct(
        self, requests: pl.DataFrame, kids: Bools, competing: Bools | None = None
    ) -> tuple[States, Ints64, Ints64]:
        audience = Audience(self.described, kids)
        return distinct_states(self.titles, self.availability, requests, self.resolved, audience, competing)


def _rules(requests: pl.DataFrame, resolved: ResolvedModel) -> tuple[list[CandidatesSpec], Ints64]:
    places: dict[CandidatesSpec, int] = {CandidatesSpec(): 0}
    # A local hour begins at a quarter of an UTC hour everywhere, so rules about hours hold for whole quarters.
    requested = requests.select(pl.col("canvas").cast(pl.String), quarter=pl.col("event_at").dt.truncate("15m"))
    number = np.zeros(requests.height, np.int64)
    for name, canvas in resolved.canvases.items():
        own = (requested["canvas"] == name).fill_null(False).to_numpy()
        if not canvas.candidates.hours:
            number[own] = places.setdefault(_lasting(canvas.candidates), len(places))
            continue
        quarters, back = np.unique(requested["quarter"].to_numpy()[own], return_inverse=True)
        moments = pl.Series(quarters).dt.replace_time_zone("UTC").to_list()
        held = [_lasting(canvas.candidates.at(moment)) for moment in moments]
        codes = np.array([places.setdefault(rules, len(places)) for rules in held], np.int64)
        number[own] = codes[back.reshape(-1)] if len(codes) else 0
    return list(places), number


def _lasting(rules: CandidatesSpec) -> CandidatesSpec:
    """Return the rules that say what could be seen, so that canvases which differ in others share masks."""
    requested = (*ABOUT_TITLES, *ABOUT_LAUNCHES, "available")
    return CandidatesSpec(**{name: getattr(rules, name) for name in requested if getattr(rules, name) is not None})


def _spans(titles: Vocabulary, availability: pl.DataFrame) -> pl.DataFrame:
    until = pl.col("available_until") if "available_until" in availability.columns else pl.lit(None, pl.Int64)
    as_moment = pl.col("available_from").dt.epoch("us")
    end = until.dt.epoch("us") if "available_until" in availability.columns else until
    recorded = "recorded_at" in availability.columns
    known = pl.col("recorded_at").dt.epoch("us") if recorded else pl.lit(None, pl.Int64)
    return (
        availability.select("country", start=as_moment, end=end.fill_null(NEVER), known=known.fill_null(ALWAYS))
        .with_columns(title=pl.Series(titles.encode(availability["title_id"]), dtype=pl.Int64))
        .filter(pl.col("title") > 0)
        .sort("title", "start")
    )


def _layers(spans: pl.DataFrame, countries: Vocabulary, titles: int) -> tuple[Ints64, Ints64, Ints64]:
    """Lay spans out as [K, C, T] starts, ends and times of knowing; country 0 is every one without its own."""
    everywhere = spans.filter(pl.col("country") == EVERYWHERE)
    found = [everywhere.with_columns(place=pl.lit(0))]
    for place, country in enumerate(countries.entries, 1):
        own = spans.filter((pl.col("country") == country) | (pl.col("country") == EVERYWHERE))
        found.append(own.with_columns(place=pl.lit(place)))
    laid = pl.concat(found).with_columns(layer=pl.int_range(pl.len()).over("place", "title"))
    depth = 1 + int(laid["layer"].max() or 0)  # type: ignore[arg-type]
    start = np.full((depth, countries.size, titles), NEVER, np.int64)
    end, known = start.copy(), start.copy()
    where = tuple(laid[name].to_numpy().astype(np.int64) for name in ("layer", "place", "title"))
    for array, name in ((start, "start"), (end, "end"), (known, "known")):
        array[where] = laid[name].to_numpy()
    return start, end, known


def _stretches(
    spans: tuple[Ints64, Ints64, Ints64], rules: tuple[Bools, Ints64], country: Ints64, rule: Ints64, at: Ints64
) -> Ints64:
    """Number the stretches between changes of what a country's catalogue shows under each rule; return [m] numbers."""
    (start, end, known), (upcoming, bounds) = spans, rules
    stretch = np.zeros(len(at), np.int64)
    for place, own in np.unique(np.stack([country, rule]), axis=1).T.tolist():
        rows = (country == place) & (rule == own)
        begins = np.unique(start[:, place])
        begins = begins[begins != NEVER]
        parts = [begins, end[:, place].ravel(), *(begins + edge for edge in launch_edges(bounds[own]))]
        if upcoming[own]:
            parts.append(known[:, place].ravel())
        stretch[rows] = np.searchsorted(np.unique(np.concatenate(parts)), at[rows], side="right")
    return stretch
