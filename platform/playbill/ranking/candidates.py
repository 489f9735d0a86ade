"""Which titles may be shown to whom: availability, launches, kids, watched, source and popularity, as masks.

Axis letters: T titles, A availability rows, W watched titles. A mask is [T] bool, True = may be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.specs import CandidatesSpec, PercentileRange

Mask = npt.NDArray[np.bool_]
Columns = npt.NDArray[np.int64]
Moments = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

EVERYWHERE = "*"
NEVER = np.iinfo(np.int64).max
"""Stands for an open end, and for the launch of a title that has none."""
ABSENT = -1
"""Column of a title that is not in the catalogue."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTRIES_KEPT = 512


def to_microseconds(moment: datetime) -> int:
    """Return exact microseconds since 1970 of a zone-aware moment."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Spans:
    """Availability rows that count in one country, sorted by title."""

    column: Columns
    start: Moments
    end: Moments
    firsts: Columns
    """Where each title's rows begin."""


class Catalogue:
    """Titles in a fixed order of columns, with what is known of them. Immutable, safe to share between threads.

    Args:
        title_ids: [T] one id per column, usually those of a scorer. Equal scores are ranked in this order.
        titles: Rows of `titles`, one per title; ids without a row have no genres and are named by their id.
        availability: Rows of `availability`; those of other titles are left out.
    """

    def __init__(self, title_ids: Sequence[str], titles: pl.DataFrame, availability: pl.DataFrame) -> None:
        self.title_ids = tuple(title_ids)
        order = pl.DataFrame({"title_id": pl.Series(self.title_ids, dtype=pl.String)})
        known = titles.select("title_id", "name", "names", "genres", "kids")
        self._titles = order.join(known, on="title_id", how="left", maintain_order="left")
        self._column = {title: column for column, title in enumerate(self.title_ids)}
        self._read_availability(availability)
        self._spans_of = lru_cache(maxsize=_COUNTRIES_KEPT)(self._make_spans)

    def __len__(self) -> int:
        return len(self.title_ids)

    def __contains__(self, title_id: object) -> bool:
        return title_id in self._column

    def column(self, title_id: str | None) -> int:
        """Return a title's column, `ABSENT` (-1) when it has none."""
        return ABSENT if title_id is None else self._column.get(title_id, ABSENT)

    def columns(self, title_ids: Iterable[str | None]) -> Columns:
        """Return the columns of those titles that have one, in the order given."""
        found = (self.column(title) for title in title_ids)
        return np.fromiter((column for column in found if column != ABSENT), dtype=np.int64)

    def mask_of(self, columns: Columns) -> Mask:
        """Return the [T] mask of some columns."""
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[columns] = True
        return mask

    def name(self, column: int, language: str | None = None) -> str:
        """Return a title's name in a language, its main name where there is none in that language."""
        return self._names_in(language).get(column) or self._main_names[column]

    def find(self, text: str) -> tuple[str, ...]:
        """Return the ids of titles with exactly this id, else with this name in any language, case ignored."""
        if text in self._column:
            return (text,)
        return tuple(dict.fromkeys(self.title_ids[column] for column in self._by_name.get(text.casefold(), ())))

    def known_names(self) -> tuple[str, ...]:
        """Return every main name, to suggest the nearest one."""
        return tuple(self._main_names)

    @cached_property
    def kids(self) -> Mask:
        """[T] titles marked for kids; not knowing counts as no."""
        marked: Mask = self._titles["kids"].fill_null(False).to_numpy().astype(np.bool_)
        return marked

    @cached_property
    def genres(self) -> dict[str, Mask]:
        """Genre -> [T] titles that have it, genres sorted by name."""
        pairs = self._titles.select(pl.int_range(pl.len()).alias("column"), "genres").explode("genres").drop_nulls()
        grouped = pairs.group_by("genres").agg("column").sort("genres")
        columns = (group.to_numpy().astype(np.int64) for group in grouped["column"])
        return {genre: self.mask_of(own) for genre, own in zip(grouped["genres"], columns, strict=True)}

    def available(self, at: datetime, country: str) -> Mask:
        """Mark titles that can be played: from <= at < until, in the country or everywhere, [T]."""
        now = to_microseconds(at)
        return self._any_span(country, lambda spans: (spans.start <= now) & (now < spans.end))

    def upcoming(self, at: datetime, country: str) -> Mask:
        """Mark titles that cannot be played yet but launch in the country after `at`, [T].

        A title that was there before and comes back has launched already; it is not upcoming.
        """
        launches = self.launches(country)
        later: Mask = (launches > to_microseconds(at)) & (launches != NEVER)
        return later

    def launches(self, country: str) -> Moments:
        """Return each title's first moment in the country, microseconds, `NEVER` where there is none, [T]."""
        spans = self._spans_of(country)
        launches = np.full(len(self), NEVER, dtype=np.int64)
        if spans.column.size:
            launches[spans.column[spans.firsts]] = np.minimum.reduceat(spans.start, spans.firsts)
        return launches

    def _any_span(self, country: str, holds: Callable[[_Spans], Mask]) -> Mask:
        spans = self._spans_of(country)
        mask = np.zeros(len(self), dtype=np.bool_)
        if spans.column.size:
            mask[spans.column[spans.firsts]] = np.logical_or.reduceat(holds(spans), spans.firsts)
        return mask

    def _make_spans(self, country: str) -> _Spans:
        own = np.nonzero((self._country == EVERYWHERE) | (self._country == country))[0]
        column = self._span_column[own]
        firsts = np.nonzero(np.diff(column, prepend=ABSENT))[0]
        return _Spans(column, self._start[own], self._end[own], firsts)

    def _read_availability(self, availability: pl.DataFrame) -> None:
        order = self._titles.select("title_id", pl.int_range(pl.len()).alias("column"))
        rows = availability.join(order, on="title_id", how="inner").sort("column", "available_from")
        self._span_column: Columns = rows["column"].to_numpy().astype(np.int64)
        self._country = rows["country"].to_numpy().astype(object)
        self._start: Moments = rows["available_from"].dt.epoch("us").to_numpy().astype(np.int64)
        self._end: Moments = rows["available_until"].dt.epoch("us").fill_null(NEVER).to_numpy().astype(np.int64)

    @cached_property
    def _main_names(self) -> list[str]:
        return self._titles.select(pl.col("name").fill_null(pl.col("title_id")))["name"].to_list()

    @cached_property
    def _translations(self) -> pl.DataFrame:
        rows = self._titles.select(pl.int_range(pl.len()).alias("column"), pl.col("names").alias("translation"))
        found = rows.explode("translation").drop_nulls("translation").unnest("translation")
        return found.drop_nulls(["language", "name"])

    def _names_in(self, language: str | None) -> dict[int, str]:
        return self._by_language.get(language, {}) if language else {}

    @cached_property
    def _by_language(self) -> dict[str, dict[int, str]]:
        found: dict[str, dict[int, str]] = {}
        for column, language, name in self._translations.iter_rows():
            found.setdefault(language, {})[column] = name
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self._main_names):
            found.setdefault(name.casefold(), []).append(column)
        for column, _language, name in self._translations.iter_rows():
            found.setdefault(name.casefold(), []).append(column)
        return found


@dataclass(frozen=True)
class Viewer:
    """What candidate rules ask about one request.

    Args:
        at: The request's moment.
        country: Its country, `ZZ` = unknown, where only titles available everywhere count.
        watched: [W] columns of titles the member has played before `at`.
        source: Column of the source title, `ABSENT` without one.
        kids_profile: Only titles for kids may be shown, whatever the canvas says.
        plays: Returns [T] plays before `at`; asked only by rules about popularity.
    """

    at: datetime
    country: str
    watched: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    source: int = ABSENT
    kids_profile: bool = False
    plays: Callable[[], Counts] | None = None


def select(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> Mask:
    """Return the [T] titles that satisfy every rule.

    Raises:
        ValueError: A rule asks for popularity and the viewer carries no plays.
    """
    present = rules.available == "now"
    mask = (catalogue.available if present else catalogue.upcoming)(viewer.at, viewer.country)
    if rules.popularity_percentile is not None:
        # Percentiles are among all that can be had here and now, before anything personal is taken out.
        mask = mask & _within(rules.popularity_percentile, viewer, mask)
    if rules.watched is not None:
        mask = mask & (catalogue.mask_of(viewer.watched) == rules.watched)
    if rules.kids is not None:
        mask = mask & (catalogue.kids == rules.kids)
    if viewer.kids_profile:
        mask = mask & catalogue.kids
    if rules.launched_within is not None:
        mask = mask & _launched_within(catalogue, viewer, rules.launched_within)
    if rules.exclude_source and viewer.source != ABSENT:
        mask[viewer.source] = False
    return mask


def popularity_percentile(plays: Counts, among: Mask) -> npt.NDArray[np.float64]:
    """Return each title's popularity percentile among some titles, [T]; NaN for all others.

    The percentile is the share of those titles that have fewer plays, counting ties by half, in [0, 100]: the
    most played of n titles has 100 (n - 0.5) / n. Titles without a play are ties too.
    """
    percentiles = np.full(plays.shape, np.nan)
    own = plays[among]
    ordered = np.sort(own)
    below = np.searchsorted(ordered, own, side="left")
    upto = np.searchsorted(ordered, own, side="right")
    percentiles[among] = 100.0 * (below + upto) / (2.0 * max(own.size, 1))
    return percentiles


def _within(limits: PercentileRange, viewer: Viewer, among: Mask) -> Mask:
    if viewer.plays is None:
        raise ValueError("a popularity rule needs the plays before the request")
    percentiles = popularity_percentile(viewer.plays(), among)
    low = limits.above if limits.above is not None else -np.inf
    high = limits.below if limits.below is not None else np.inf
    within: Mask = (percentiles > low) & (percentiles < high)
    return within


def _launched_within(catalogue: Catalogue, viewer: Viewer, span: timedelta) -> Mask:
    now = to_microseconds(viewer.at)
    launches = catalogue.launches(viewer.country)
    recent: Mask = (launches <= now) & (launches >= now - span // timedelta(microseconds=1))
    return recent
