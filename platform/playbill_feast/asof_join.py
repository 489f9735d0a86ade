"""The as-of join: for every row the newest value that held at its moment. Knows polars and numpy only.

Keys become small numbers, and key and time together one integer. Values are sorted by it once, and every row finds
its value by one search, O(n log n): nothing is multiplied out, and a hot key costs no more than others.

Axes: R rows, V values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.frames import MOMENT, in_utc

Integers = NDArray[np.int64]

_LIMIT = 2**62
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class KeyedMoments:
    """Rows or values by key and time."""

    codes: pl.Series  # Number of each one's key, from 0; null matches nothing
    at: pl.Series  # Moment of each, UTC microseconds; null matches nothing


def newest_rows(
    rows: KeyedMoments, values: KeyedMoments, created: pl.Series | None, ttl: timedelta | None, created_by_row: bool
) -> pl.Series:
    """Return [R] positions of the newest value of each row's key at or before its moment, null where there is none.

    Values have no nulls. `created` [V] decides between values of one key and moment: the later wins, null is earliest.
    Values older than `ttl` are as good as none; age exactly `ttl` is kept. With `created_by_row` only values that were
    created at or before the row's moment count.
    """
    if values.codes.is_empty() or rows.codes.is_empty():
        return pl.repeat(None, rows.codes.len(), dtype=pl.UInt32, eager=True)
    row_codes, row_at = _integers(rows.codes, -1), _integers(rows.at, 0)
    codes, at = _integers(values.codes, 0), _integers(values.at, 0)
    if created_by_row and created is not None:
        newest = _newest_visible(row_codes, row_at, codes, at, created)
    else:
        newest = _newest(row_codes, row_at, codes, at, created)
    seen = (newest >= 0) & (row_codes >= 0) & rows.at.is_not_null().to_numpy()
    taken = np.where(seen, newest, 0)
    # What was found is held against the rows as they came: a shuffled answer cannot pass.
    age = row_at - at[taken]
    if not bool(np.all(~seen | ((codes[taken] == row_codes) & (age >= 0)))):
        raise AssertionError("a value was found for the wrong key or from the future")
    if ttl is not None:
        seen &= age <= ttl // _MICROSECOND
    return _positions(taken, seen)


def _newest(
    row_codes: Integers, row_at: Integers, codes: Integers, at: Integers, created: pl.Series | None
) -> Integers:
    """Return the position of the newest value, or a negative number; moments of null rows mean nothing."""
    key_width, row_places, places = _places(row_codes, row_at, codes, at)
    frame = pl.DataFrame({"place": places}).with_row_index("position").sort("place", maintain_order=True)
    if created is not None and bool((frame["place"].diff() == 0).any()):
        ties = pl.DataFrame({"place": places, "created": created}).with_row_index("position")
        frame = ties.sort("place", "created", nulls_last=False, maintain_order=True)
    ordered = frame["place"].to_numpy()
    index = _last_at_or_before(ordered, row_places)
    own = ordered[np.maximum(index, 0)] >= row_codes * key_width
    positions = frame["position"].to_numpy().astype(np.int64)
    return np.where((index >= 0) & own, positions[np.maximum(index, 0)], -1)


def _newest_visible(
    row_codes: Integers, row_at: Integers, codes: Integers, at: Integers, created: pl.Series
) -> Integers:
    """Like `_newest`, of the values that were created by then. A value can be seen from max(its time, created).

    Along the moments from which a key's values can be seen, the best so far is a running maximum: so one search
    answers, though there are two conditions on time.
    """
    known = np.flatnonzero(created.is_not_null().to_numpy())
    if not known.size:
        return np.full(row_codes.size, -1)
    created_at = created.gather(pl.Series(known))
    seen_from = np.maximum(at[known], _integers(created_at, 0))
    better = pl.DataFrame({"at": at[known], "created": created_at}).with_row_index("position")
    best_last = better.sort("at", "created", maintain_order=True)["position"].to_numpy().astype(np.int64)
    goodness = np.empty_like(best_last)
    goodness[best_last] = np.arange(best_last.size)
    key_width, row_places, places = _places(row_codes, row_at, codes[known], seen_from)
    order = pl.DataFrame({"place": places}).with_row_index("position").sort("place", maintain_order=True)
    ordered, positions = order["place"].to_numpy(), order["position"].to_numpy()
    owners = codes[known][positions]
    best = np.maximum.accumulate(owners * known.size + goodness[positions]) - owners * known.size
    index = _last_at_or_before(ordered, row_places)
    own = ordered[np.maximum(index, 0)] >= row_codes * key_width
    return np.where((index >= 0) & own, known[best_last[best[np.maximum(index, 0)]]], -1)


def _places(row_codes: Integers, row_at: Integers, codes: Integers, at: Integers) -> tuple[int, Integers, Integers]:
    """Return the width of a key, and the rows and the values as one integer each: key x width + time.

    A row before all values gets a place before its key's, one after them all the key's last.
    """
    lowest = int(at.min())
    width = int(at.max()) - lowest + 2
    if width * (int(max(codes.max(), row_codes.max())) + 2) < _LIMIT:
        row_times, times = np.clip(row_at - lowest, -1, width - 2), at - lowest
    else:
        distinct = np.unique(at)
        width = distinct.size + 1
        times = np.searchsorted(distinct, at)
        row_times = np.searchsorted(distinct, row_at, side="right") - 1
    return width, row_codes * width + row_times, codes * width + times


def _last_at_or_before(ordered: Integers, places: Integers) -> Integers:
    """Return for each place the index of the last one at or before it, -1 where there is none."""
    # Searching in order keeps to neighbouring memory: nine times faster with millions of rows.
    sorted_rows = pl.DataFrame({"place": places}).with_row_index("row").sort("place")
    index = np.empty(places.size, dtype=np.int64)
    index[sorted_rows["row"].to_numpy()] = np.searchsorted(ordered, sorted_rows["place"].to_numpy(), side="right") - 1
    return index


def _integers(values: pl.Series, null: int) -> Integers:
    return values.to_physical().cast(pl.Int64).fill_null(null).to_numpy()


def _positions(positions: Integers, valid: NDArray[np.bool_]) -> pl.Series:
    frame = pl.DataFrame({"position": positions.astype(np.uint32), "valid": valid})
    return frame.select(pl.when("valid").then("position")).to_series()


_AT, _VALUE_AT, _CREATED, _CODE, _FOUND = "__at", "__value_at", "__created", "__code", "__found"


@dataclass(frozen=True, slots=True)
class ViewValues:
    """Values of one view and how they are joined.

    With `created_by_row` only values whose `created` is at or before the row's moment count; without a `created` column
    every value counts, and one with a null there never does. `counts` is a condition on the frame's columns: rows where
    it is not true are as good as none. It is not part of the frame, so that a `sliceable` one can be read in slices,
    without the rows before, and counted without any.
    """

    name: str
    frame: pl.LazyFrame  # One row per (keys, moment)
    keys: Mapping[str, str]  # Column of the rows -> column of the values. Empty for a view without entity
    at: str
    created: str | None  # Column that decides between values of one moment (the later wins), or None
    features: Mapping[str, str]  # Output column -> column of the values
    ttl: timedelta | None = None  # Values older than this are null; None is no limit. Age exactly `ttl` is kept
    created_by_row: bool = False
    counts: pl.Expr | None = None
    sliceable: bool = False

    def rows(self) -> pl.LazyFrame:
        """Return the rows that count."""
        return self.frame if self.counts is None else self.frame.filter(self.counts)


def as_of_join(rows: pl.DataFrame, at: str, view: ViewValues) -> pl.DataFrame:
    """Look up a view's values for every row, as of the row's own moment; moments without a zone are UTC.

    A null key, a null moment, and a value that is expired or lies in the future give nulls. Ties of time go to the
    later `created`, then to the later row. Returns the output columns of `view.features` only, one row per row of
    `rows`, in the same order.

    Raises:
        StoreDataError: A column is missing, or keys of different kinds would be compared.
    """
    return AsOfRows(rows, at).join(view)


class AsOfRows:
    """Rows that several views' values are looked up for, as of column `at`. Keys that views share are numbered once."""

    def __init__(self, rows: pl.DataFrame, at: str) -> None:
        self._rows, self._at = rows, at
        self._moments: pl.Series | None = None
        self._numbered: dict[tuple[tuple[str, str], ...], tuple[pl.DataFrame, pl.Series]] = {}

    def join(self, view: ViewValues) -> pl.DataFrame:
        """Look up one view. See `as_of_join`."""
        if problems := [*self._problems(view), *value_problems(view)]:
            raise StoreDataError(f"feature view '{view.name}'", problems)
        moments = self._in_utc()
        known, codes = self._codes(view)
        values = _values(view, known, moments)
        positions = newest_rows(
            KeyedMoments(codes, moments),
            KeyedMoments(values.get_column(_CODE), values.get_column(_VALUE_AT)),
            created=values.get_column(_CREATED) if view.created else None,
            ttl=view.ttl,
            created_by_row=view.created_by_row,
        )
        result = _taken(values.select(list(view.features)), positions)
        if result.height != self._rows.height:
            raise AssertionError(f"as-of join of {view.name} returned {result.height} rows of {self._rows.height}")
        return result

    def _problems(self, view: ViewValues) -> Iterator[Mistake]:
        schema, types = self._rows.schema, view.frame.collect_schema()
        for name in [*view.keys, self._at]:
            if name not in schema:
                yield Mistake(name, "column is missing from the rows to join.")
        for name, source in view.keys.items():
            if name in schema and source in types and not comparable(schema[name], types[source]):
                yield Mistake(name, f"key is {schema[name]}, but the values have {types[source]}.")

    def _in_utc(self) -> pl.Series:
        if self._moments is None:
            moment = in_utc(self._at, self._rows.schema[self._at])
            self._moments = self._rows.select(moment.alias(_AT)).to_series()
        return self._moments

    def _codes(self, view: ViewValues) -> tuple[pl.DataFrame, pl.Series]:
        """Return the distinct keys of the rows with a number each, and every row's number (null: a null key)."""
        types = view.frame.collect_schema()
        typed_keys = tuple((name, str(types[source])) for name, source in view.keys.items())
        if typed_keys not in self._numbered:
            self._numbered[typed_keys] = _number(self._rows, {name: types[key] for name, key in view.keys.items()})
        return self._numbered[typed_keys]


def value_problems(view: ViewValues) -> list[Mistake]:
    """Return what is missing from a view's values, or has the wrong type, to be joined at all."""
    schema = view.frame.collect_schema()
    needed = [*view.keys.values(), view.at, *view.features.values(), *([view.created] if view.created else [])]
    problems = [Mistake(name, "column is missing.") for name in sorted({name for name in needed if name not in schema})]
    for name in filter(None, (view.at, view.created)):
        if name in schema and not isinstance(schema[name], pl.Datetime | pl.Date | pl.Null):
            problems.append(Mistake(name, f"is {schema[name]}, and has to be a time."))
    return problems


def latest_values(
    frame: pl.LazyFrame, keys: Sequence[str], at: str, created: str | None, features: Sequence[str]
) -> pl.LazyFrame:
    """Return the newest row of every key; ties go to the later `created`, then to the later row.

    Rows without a key or time are left out. Without keys the newest row of all is returned.
    """
    columns = list(dict.fromkeys([*keys, *features, at, *([created] if created else [])]))
    order = [at, *([created] if created else [])]
    rows = frame.select(columns).drop_nulls([*keys, at])
    if not keys:
        return rows.sort(order, nulls_last=False, maintain_order=True).tail(1)
    # Most rows are older than their key's newest; leaving them out first makes the sort small.
    newest = rows.filter(pl.col(at) == pl.col(at).max().over(keys))
    ordered = newest.sort(order, nulls_last=False, maintain_order=True)
    return ordered.unique(subset=list(keys), keep="last", maintain_order=True)


def comparable(source: pl.DataType, target: pl.DataType) -> bool:
    """Return whether keys of two types can be equal at all."""
    text = pl.String | pl.Categorical | pl.Enum
    return (
        source == target
        or pl.Null() in (source, target)
        or (source.is_numeric() and target.is_numeric())
        or (isinstance(source, text) and isinstance(target, text))
        or (isinstance(source, pl.Datetime) and isinstance(target, pl.Datetime))
    )


def like_key(name: str, source: pl.DataType, target: pl.DataType) -> pl.Expr:
    """Cast a key of the rows to the type of the values' key. What the type cannot hold matches nothing.

    pandas turns an integer column with nulls into floats, so floats may meet integers.
    """
    key = pl.col(name)
    if source.is_float() and target.is_integer():
        key = pl.when(key == key.floor()).then(key)
    if isinstance(source, pl.Datetime) and isinstance(target, pl.Datetime) and source.time_zone != target.time_zone:
        key = in_utc(name, source) if target.time_zone else in_utc(name, source).dt.replace_time_zone(None)
        return (key.dt.convert_time_zone(target.time_zone) if target.time_zone else key).cast(target)
    return key.cast(target, strict=False)


def _number(rows: pl.DataFrame, types: Mapping[str, pl.DataType]) -> tuple[pl.DataFrame, pl.Series]:
    if not types:
        codes = pl.repeat(0, rows.height, dtype=pl.UInt32, eager=True)
        return pl.DataFrame({_CODE: [0]}, schema={_CODE: pl.UInt32}), codes
    typed = [like_key(name, rows.schema[name], kind) for name, kind in types.items()]
    keys = rows.select(key.alias(_key(index)) for index, key in enumerate(typed))
    known = keys.unique().drop_nulls().with_row_index(_CODE)
    codes = keys.join(known, on=keys.columns, how="left", maintain_order="left").get_column(_CODE)
    return known, codes


def _key(index: int) -> str:
    return f"__key_{index}"


def _values(view: ViewValues, known: pl.DataFrame, moments: pl.Series) -> pl.DataFrame:
    """Return the values that some row may see: its keys, and not after the last row or expired for the first."""
    schema = view.frame.collect_schema()
    at = in_utc(view.at, schema[view.at])
    first, last = moments.min(), moments.max()
    frame = view.rows().filter(at.is_not_null() if last is None else at <= pl.lit(last, dtype=MOMENT))
    if view.ttl and first is not None:
        frame = frame.filter(at >= pl.lit(first, dtype=MOMENT) - view.ttl)
    created_at = in_utc(view.created, schema[view.created]).alias(_CREATED) if view.created else None
    # Rows of a few neighbouring keys, such as a range of members, then read little of a long file.
    for key, (low, high) in _key_ranges(view, known).items():
        frame = frame.filter(pl.col(key).is_between(low, high))
    keys = [pl.col(key).alias(_key(index)) for index, key in enumerate(view.keys.values())]
    features = [pl.col(source).alias(name) for name, source in view.features.items()]
    frame = frame.select(*keys, at.alias(_VALUE_AT), *([created_at] if created_at is not None else []), *features)
    if not keys:
        return frame.with_columns(pl.lit(0, dtype=pl.UInt32).alias(_CODE)).collect()
    on = [_key(index) for index in range(len(keys))]
    return frame.join(known.lazy(), on=on, how="inner", maintain_order="left").drop(on).collect()


def _key_ranges(view: ViewValues, known: pl.DataFrame) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    """Return the least and the largest wanted value of each column of keys, of types whose order is beyond doubt."""
    ranges: dict[str, tuple[pl.Expr, pl.Expr]] = {}
    for index, key in enumerate(view.keys.values()):
        values = known.get_column(_key(index))
        if len(values) and (values.dtype == pl.String or values.dtype.is_integer()):
            low, high = (pl.lit(end, dtype=values.dtype) for end in (values.min(), values.max()))
            ranges[key] = (low, high)
    return ranges


def _taken(values: pl.DataFrame, positions: pl.Series) -> pl.DataFrame:
    if values.is_empty():
        return values.clear(positions.len())
    return values.select(pl.all().gather(positions))
