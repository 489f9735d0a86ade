"""Which titles a member could have seen, request by request, as masks.

Requests of one country between two changes of its catalogue, under one rule about kids, share a mask, so a batch
holds few of them.
Letters: m requests, S distinct states, G states of a batch, K spans of one title in one country, C countries, T titles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.datasets.arrays import Bool, Int
from playbill.datasets.audience import Audience
from playbill.specs import CandidatesSpec, ResolvedModel
from playbill.tables import Vocabulary

EVERYWHERE = "*"
NEVER = np.iinfo(np.int64).max
"""Stands for an open end, and for the start of a span that there is not."""
CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class States:
    """What could be seen in S different (country, stretch of time, rule); none where all could always be seen."""

    start: Int
    """[K, C, T] first moment of each span, microseconds since 1970."""
    end: Int
    """[K, C, T] moment after it."""
    country: Int
    """[S]."""
    moment: Int
    """[S] a moment of the stretch."""
    upcoming: Bool
    """[S] whether titles are asked for that launch later, and not those that are there."""
    only_kids: Bool
    """[S] whether titles for kids alone could be seen: by the profile's rule or the canvas's."""
    no_kids: Bool
    """[S] whether the canvas shows none of them."""
    kids: Bool
    """[T] titles marked for kids; not knowing counts as no."""

    def __len__(self) -> int:
        return len(self.country)

    def mask(self, states: Int) -> Bool:
        """Return [G, T] which titles could be seen. Column 0 (padding) never could.

        Args:
            states: [G].
        """
        country, moment = self.country[states], self.moment[states, None]
        found = np.zeros((len(states), self.start.shape[2]), np.bool_)
        for start, end in zip(self.start, self.end, strict=True):
            found |= (start[country] <= moment) & (moment < end[country])
        later = np.nonzero(self.upcoming[states])[0]
        if len(later):
            launch = self.start.min(axis=0)[country[later]]
            found[later] = (launch > moment[later]) & (launch != NEVER)
        found[self.only_kids[states]] &= self.kids
        found[self.no_kids[states]] &= ~self.kids
        return found

    @classmethod
    def everything(cls) -> States:
        """Return no states: nothing ever needs a mask."""
        return cls(
            start=np.zeros((0, 0, 0), np.int64),
            end=np.zeros((0, 0, 0), np.int64),
            country=np.zeros(0, np.int64),
            moment=np.zeros(0, np.int64),
            upcoming=np.zeros(0, np.bool_),
            only_kids=np.zeros(0, np.bool_),
            no_kids=np.zeros(0, np.bool_),
            kids=np.zeros(0, np.bool_),
        )

    def hide_nothing(self) -> bool:
        """Return whether every title could be seen in every state."""
        step = max(1, CELLS_AT_ONCE // max(1, self.start.shape[2]))
        everyone = np.arange(len(self))
        return all(self.mask(everyone[at : at + step])[:, 1:].all() for at in range(0, len(self), step))


def availability_states(
    titles: Vocabulary, availability: pl.DataFrame, requests: pl.DataFrame, resolved: ResolvedModel, audience: Audience
) -> tuple[States, Int]:
    """Find the states of requests.

    Args:
        titles: Rows of titles; T counts the padding row.
        availability: The canonical table. `*` is every country; a country it does not name sees those spans only.
        requests: [m] rows with event_at, country and canvas.
        resolved: The model; a canvas whose candidates are upcoming titles shows those, one for kids those for kids.
        audience: Which titles are for kids, and which requests came from a profile that sees no others.

    Returns:
        The states, and [m] which one each request is in. Where all titles could always be seen there are no states,
        and the numbers are 0.
    """
    spans = _spans(titles, availability)
    countries = Vocabulary("country", sorted(set(spans["country"].to_list()) - {EVERYWHERE}))
    start, end = _layers(spans, countries, titles.size)
    at = requests["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
    country = countries.encode(requests["country"].cast(pl.String)).astype(np.int64)
    upcoming = _on(requests, resolved, lambda rules: rules.available == "upcoming")
    only_kids = audience.profile | _on(requests, resolved, lambda rules: rules.kids is True)
    no_kids = _on(requests, resolved, lambda rules: rules.kids is False)
    key = _stretches(start, end, country, at)
    for part in (country, upcoming, only_kids, no_kids):
        key = key * (int(part.max(initial=0)) + 1) + part
    _, first, state = np.unique(key, return_index=True, return_inverse=True)
    chosen = (country[first], at[first], upcoming[first], only_kids[first], no_kids[first])
    found = States(start, end, *chosen, audience.titles)
    if found.hide_nothing():
        return States.everything(), np.zeros(len(at), np.int64)
    return found, state.reshape(-1).astype(np.int64)


def _on(requests: pl.DataFrame, resolved: ResolvedModel, holds: Callable[[CandidatesSpec], bool]) -> Bool:
    """Return [m] whether the candidates of each request's canvas follow a rule."""
    canvases = [name for name, canvas in resolved.canvases.items() if holds(canvas.candidates)]
    found: Bool = requests["canvas"].is_in(canvases).fill_null(False).to_numpy().astype(np.bool_)
    return found


def _spans(titles: Vocabulary, availability: pl.DataFrame) -> pl.DataFrame:
    """Return title row, country, start and end of each span of a known title."""
    until = pl.col("available_until") if "available_until" in availability.columns else pl.lit(None, pl.Int64)
    as_moment = pl.col("available_from").dt.epoch("us")
    end = until.dt.epoch("us") if "available_until" in availability.columns else until
    return (
        availability.select("country", start=as_moment, end=end.fill_null(NEVER))
        .with_columns(title=pl.Series(titles.encode(availability["title_id"]), dtype=pl.Int64))
        .filter(pl.col("title") > 0)
        .sort("title", "start")
    )


def _layers(spans: pl.DataFrame, countries: Vocabulary, titles: int) -> tuple[Int, Int]:
    """Lay spans out as [K, C, T] starts and ends; country 0 is every one that has no span of its own."""
    everywhere = spans.filter(pl.col("country") == EVERYWHERE)
    found = [everywhere.with_columns(place=pl.lit(0))]
    for place, country in enumerate(countries.entries, 1):
        own = spans.filter((pl.col("country") == country) | (pl.col("country") == EVERYWHERE))
        found.append(own.with_columns(place=pl.lit(place)))
    laid = pl.concat(found).with_columns(layer=pl.int_range(pl.len()).over("place", "title"))
    depth = 1 + int(laid["layer"].max() or 0)  # type: ignore[arg-type]
    start = np.full((depth, countries.size, titles), NEVER, np.int64)
    end = start.copy()
    where = tuple(laid[name].to_numpy().astype(np.int64) for name in ("layer", "place", "title"))
    start[where], end[where] = laid["start"].to_numpy(), laid["end"].to_numpy()
    return start, end


def _stretches(start: Int, end: Int, country: Int, at: Int) -> Int:
    """Number the stretches between changes of each country's catalogue, and return that of each request."""
    stretch = np.zeros(len(at), np.int64)
    for place in np.unique(country).tolist():
        rows = country == place
        changes = np.unique(np.concatenate([start[:, place].ravel(), end[:, place].ravel()]))
        stretch[rows] = np.searchsorted(changes, at[rows], side="right")
    return stretch
