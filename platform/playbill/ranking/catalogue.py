"""Titles in a fixed order, with what is known of them: names, metadata, availability and launches.

Axis letters: T titles, A availability rows. A mask is [T] bool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import polars as pl

from playbill.arrays import Ints64, Mask
from playbill.clock import to_microseconds
from playbill.datasets.candidate_masks import ALWAYS, NEVER, Described
from playbill.definitions.specs import CandidatesSpec

Columns = Ints64
Counts = Ints64

Value = TypeVar("Value")

EVERYWHERE = "*"
ABSENT = -1  # column of a title that is not in the catalogue

_COUNTRIES_KEPT = 512
_MOMENTS_KEPT = 32
_RULES_KEPT = 64
_NAME_AND_YEAR = re.compile(r"(.+?) *\((\d{4})\)")


@dataclass(frozen=True, slots=True)
class _Spans:
    column: Columns
    start: Ints64
    end: Ints64
    known: Ints64  # since when each row is known
    firsts: Columns  # where each title's rows begin


class Catalogue:
    """Titles in a fixed order of columns, with what is known of them. Immutable, safe to share between threads.

    Args:
        title_ids: [T] one id per column, usually those of a scorer. Equal scores are ranked in this order.
        titles: Rows of `titles`, one per title; ids without a row have no genres and are named by their id, and
            columns that are not there are not known.
        availability: Rows of `availability`; those of other titles are left out.
    """

    def __init__(self, title_ids: Sequence[str], titles: pl.DataFrame, availability: pl.DataFrame) -> None:
        self.title_ids = tuple(title_ids)
        order = pl.DataFrame({"title_id": pl.Series(self.title_ids, dtype=pl.String)})
        names = titles.select("title_id", "name", "names")
        self._titles = order.join(names, on="title_id", how="left", maintain_order="left")
        self.described = Described.of(self.title_ids, titles)
        self._column = {title: column for column, title in enumerate(self.title_ids)}
        self._read_availability(availability)
        self._spans_of = lru_cache(maxsize=_COUNTRIES_KEPT)(self._make_spans)
        self._allowed = lru_cache(maxsize=_RULES_KEPT)(self.described.matches)
        self._once: dict[str, Any] = {}
        self._available = lru_cache(maxsize=_MOMENTS_KEPT)(self._find_available)

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
        names = self._by_language.get(language, {}) if language else {}
        return names.get(column) or self._main_names[column]

    def find(self, text: str) -> tuple[str, ...]:
        """Return the ids of titles with exactly this id, else with this name in any language, case ignored.

        A name may be followed by the year of release, `Star Wars (1977)`, to tell titles of one name apart.
        """
        if text in self._column:
            return (text,)
        columns = self._by_name.get(text.casefold(), [])
        if not columns and (dated := _NAME_AND_YEAR.fullmatch(text)):
            years = self.described.frame["year"]
            columns = [one for one in self._by_name.get(dated[1].casefold(), ()) if years[one] == int(dated[2])]
        return tuple(dict.fromkeys(self.title_ids[column] for column in columns))

    def known_names(self) -> tuple[str, ...]:
        """Return every main name, to suggest the nearest one."""
        return tuple(self._main_names)

    @property
    def texts(self) -> pl.DataFrame:
        """[T] rows with what people search titles by: name, names, and metadata."""
        released = pl.date(pl.col("year"), 1, 1).alias("release_date")
        return self._titles.hstack(self.described.frame.drop("title_id").with_columns(released))

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """Return what was made of this catalogue under a name, made now where it was not yet."""
        if name not in self._once:
            self._once[name] = make()
        found: Value = self._once[name]
        return found

    @property
    def kids(self) -> Mask:
        """[T] titles marked for kids; not knowing counts as no."""
        return self.described.kids

    @cached_property
    def genres(self) -> dict[str, Mask]:
        """Genre -> [T] titles that have it, genres sorted by name."""
        return self.described.groups("genres")

    @cached_property
    def characters(self) -> dict[str, Mask]:
        """Character -> [T] titles that have it, characters sorted by name."""
        return self.described.groups("characters")

    def allowed(self, rules: CandidatesSpec) -> Mask:
        """Mark titles that rules about what a title is allow, [T], not to be changed."""
        return self._allowed(rules)

    def available(self, at: datetime, country: str) -> Mask:
        """Mark titles that can be played: from <= at < until, in the country or everywhere, [T], not to be changed."""
        return self._available(to_microseconds(at), country)

    def upcoming(self, at: datetime, country: str) -> Mask:
        """Mark titles that cannot be played yet but launch in the country after `at`, as far as `at` knows, [T].

        A title that was there before and comes back has launched already; it is not upcoming. Nor is one whose launch
        is announced after `at`.
        """
        later: Mask = self.known_launches(at, country) != NEVER
        return later

    def known_launches(self, at: datetime, country: str) -> Ints64:
        """Return the launches to come that are known at `at`, microseconds, `NEVER` where there is none, [T]."""
        spans, now = self._spans_of(country), to_microseconds(at)
        launches = np.full(len(self), NEVER, dtype=np.int64)
        if spans.column.size:
            ahead = np.where((spans.start > now) & (spans.known <= now), spans.start, NEVER)
            first = np.minimum.reduceat(ahead, spans.firsts)
            first[np.logical_or.reduceat(spans.start <= now, spans.firsts)] = NEVER
            launches[spans.column[spans.firsts]] = first
        return launches

    def launches(self, country: str) -> Ints64:
        """Return each title's first moment in the country, microseconds, `NEVER` where there is none, [T]."""
        spans = self._spans_of(country)
        launches = np.full(len(self), NEVER, dtype=np.int64)
        if spans.column.size:
            launches[spans.column[spans.firsts]] = np.minimum.reduceat(spans.start, spans.firsts)
        return launches

    def _find_available(self, now: int, country: str) -> Mask:
        spans = self._spans_of(country)
        mask = np.zeros(len(self), dtype=np.bool_)
        if spans.column.size:
            open_now = (spans.start <= now) & (now < spans.end)
            single = len(spans.firsts) == len(spans.column)
            mask[spans.column[spans.firsts]] = open_now if single else np.logical_or.reduceat(open_now, spans.firsts)
        mask.flags.writeable = False
        return mask

    def _make_spans(self, country: str) -> _Spans:
        own = np.nonzero((self._country == EVERYWHERE) | (self._country == country))[0]
        column = self._span_column[own]
        firsts = np.nonzero(np.diff(column, prepend=ABSENT))[0]
        return _Spans(column, self._start[own], self._end[own], self._known[own], firsts)

    def _read_availability(self, availability: pl.DataFrame) -> None:
        order = self._titles.select("title_id", pl.int_range(pl.len()).alias("column"))
        rows = availability.join(order, on="title_id", how="inner").sort("column", "available_from")
        self._span_column: Columns = rows["column"].to_numpy().astype(np.int64)
        self._country = rows["country"].to_numpy().astype(object)
        self._start: Ints64 = rows["available_from"].dt.epoch("us").to_numpy().astype(np.int64)
        self._end: Ints64 = rows["available_until"].dt.epoch("us").fill_null(NEVER).to_numpy().astype(np.int64)
        recorded = "recorded_at" in rows.columns
        known = (
            rows["recorded_at"].dt.epoch("us").fill_null(ALWAYS).to_numpy() if recorded else np.full(len(rows), ALWAYS)
        )
        self._known: Ints64 = known.astype(np.int64)

    @cached_property
    def _main_names(self) -> list[str]:
        return self._titles.select(pl.col("name").fill_null(pl.col("title_id")))["name"].to_list()

    @cached_property
    def _translations(self) -> pl.DataFrame:
        rows = self._titles.select(pl.int_range(pl.len()).alias("column"), pl.col("names").alias("translation"))
        found = rows.explode("translation").drop_nulls("translation").unnest("translation")
        return found.drop_nulls(["language", "name"])

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
