"""Source columns -> canonical columns. What cannot be read is a mistake with a row to look at, never a null."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from playbill.schema import EARLIEST, LATEST
from playbill.sources.tabular.mapping import ColumnMapping
from playbill.sources.value_parsing import name_of_title, region_of_zip, start_of_year, year_in_name
from playbill.tables import TIMESTAMP, RowMistake, example_row, polars_schema


@dataclass(frozen=True, slots=True)
class Read:
    """A column that was read: its values, and which rows could not be."""

    values: pl.Series
    """The column."""
    broken: pl.Series | None = None
    """True where a value could not be read, or None when every value could."""
    what: str = ""
    """What is wrong with those."""
    hint: str = ""
    """How the mapping could say it right."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that cannot be what their table needs, and why."""

    mistake: RowMistake
    """What is wrong."""
    rows: pl.Series
    """True where it is."""


def read_table(
    rows: pl.DataFrame, table: str, columns: Mapping[str, ColumnMapping], own: Mapping[str, ColumnMapping]
) -> tuple[pl.DataFrame, list[Fault]]:
    """Read one batch of a source as canonical columns; the source's own (`own`) keep its types.

    Returns:
        The canonical columns of all rows, and the values that could not be read, which are null in them.
    """
    schema = polars_schema(table)
    values: list[pl.Series] = []
    faults: list[Fault] = []
    for name, column in {**columns, **own}.items():
        read = read_column(rows, column, schema.get(name))
        values.append(read.values.rename(name))
        faults += unread(name, column, read, rows)
    return pl.DataFrame(values), faults


def unread(name: str, column: ColumnMapping, read: Read, rows: pl.DataFrame) -> list[Fault]:
    """Return the rows of a batch whose value of one column could not be read, if there are any."""
    if read.broken is None or not read.broken.any():
        return []
    example = example_row(rows.filter(read.broken).head(1))
    what = f"column '{column.source}': {read.what}"
    return [Fault(RowMistake(name, what, int(read.broken.sum()), example, read.hint), read.broken)]


def read_column(rows: pl.DataFrame, column: ColumnMapping, target: pl.DataType | None) -> Read:
    """Read one column; `target` is its canonical type, or None to keep the source's. NaN is null: no value."""
    if column.source is None:
        text = pl.Series([column.constant]).new_from_index(0, rows.height)
        return _as_type(text, column, target)
    source = rows.get_column(column.source)
    try:
        return _read_values(source.fill_nan(None) if source.dtype.is_float() else source, column, target)
    except pl.exceptions.PolarsError:
        return _all_broken(source, target or pl.String(), f"a value of type {source.dtype} that cannot be read", "")


def read_rating(rows: pl.DataFrame, source: str) -> Read:
    """Read a column of ratings as float32. Null, NaN and empty text are no rating; an infinite one is a mistake."""
    if rows.schema[source] == pl.Boolean:
        hint = "Map an action in place of the rating, with values: {true: thumbs_up, false: thumbs_down}."
        return _all_broken(rows.get_column(source), pl.Float32(), "a truth value, which is no rating", hint)
    read = read_column(rows, ColumnMapping(source=source, reading="number"), None)
    infinite = read.values.is_infinite().fill_null(False)
    if infinite.any():
        broken = infinite if read.broken is None else read.broken | infinite
        return Read(read.values.cast(pl.Float32), broken, "a rating that is no finite number")
    return Read(read.values.cast(pl.Float32), read.broken, read.what, read.hint)


def _read_values(source: pl.Series, column: ColumnMapping, target: pl.DataType | None) -> Read:
    if column.values is not None:
        read = _looked_up(source, column)
        if read.broken is not None:
            return Read(_nulls(len(source), target or read.values.dtype), read.broken, read.what, read.hint)
        source = read.values
    if column.split is not None:
        parts = _text(source).str.split(column.split)
        return Read(parts.list.eval(pl.element().filter(pl.element().str.strip_chars() != "")))
    read = _READERS[column.reading](source, column) if column.reading else _as_type(source, column, target)
    if column.default is not None:
        stand_in = pl.Series([column.default]).cast(read.values.dtype)[0]
        return Read(read.values.fill_null(stand_in), read.broken, read.what, read.hint)
    return read


def _as_type(source: pl.Series, column: ColumnMapping, target: pl.DataType | None) -> Read:
    if target is None or source.dtype == target:
        return Read(source)
    if isinstance(target, pl.Datetime):
        return _moment(source, column)
    if target == pl.String():
        return _identifier(source)
    if isinstance(target, pl.List):
        hint = "Give a separator with split."
        if not isinstance(source.dtype, pl.List) and source.dtype != pl.Null:
            return _all_broken(source, target, "a value that is no list", hint)
    if target == pl.Boolean() and source.dtype == pl.String:
        words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        values = source.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
        return _checked(source, values, "a value that is neither true nor false")
    if target.is_numeric() and source.dtype == pl.String:
        source = _number_text(source)
    values = source.cast(target, strict=False)
    if target.is_integer() and not source.dtype.is_integer():
        # `12.0` is how tools write 12 in a column that also has nulls.
        numbers = source.cast(pl.Float64, strict=False)
        whole = pl.when(numbers % 1 == 0).then(numbers.cast(target, strict=False))
        values = pl.select(pl.coalesce(values if source.dtype == pl.String else whole, whole)).to_series()
    return _checked(source, values, f"a value that is no {_word_of(target)}")


def _moment(source: pl.Series, column: ColumnMapping) -> Read:
    if source.dtype == pl.Null:
        return Read(source.cast(TIMESTAMP))
    if source.dtype == pl.Date:
        source = source.cast(pl.Datetime("us"))
    if not isinstance(source.dtype, pl.Datetime):
        hint = "Say how to read it with as: iso_text." if source.dtype == pl.String else "Perhaps as: epoch_seconds."
        return _all_broken(source, TIMESTAMP, "a value that is no timestamp", hint)
    if source.dtype.time_zone is None:
        if column.zone is None:
            return _all_broken(source, TIMESTAMP, "a timestamp without time zone", "Say which with zone: UTC.")
        values = source.dt.replace_time_zone(column.zone, ambiguous="earliest", non_existent="null")
        return _checked(source, values.dt.convert_time_zone("UTC").cast(TIMESTAMP), "a time its zone skipped")
    return Read(source.dt.convert_time_zone("UTC").cast(TIMESTAMP))


def _identifier(source: pl.Series) -> Read:
    if source.dtype.is_nested():
        return _all_broken(source, pl.String(), f"a value of type {source.dtype} that cannot be read", "")
    if source.dtype.is_float():
        # Number columns with nulls come as floats from some tools; `12.0` must be the id 12.
        whole = source.cast(pl.Int64, strict=False)
        values = pl.select(pl.when(source == whole).then(whole).cast(pl.String)).to_series()
        return _checked(source, values, "a number with a fraction")
    return Read(_text(source))


def _looked_up(source: pl.Series, column: ColumnMapping) -> Read:
    listed = {_key(key): value for key, value in (column.values or {}).items()}
    text = _text(source)
    kinds = {type(value) for value in listed.values()}
    dtype = pl.String if len(kinds) > 1 else pl.Series(list(listed.values())).dtype
    values = text.replace_strict(listed, default=None, return_dtype=dtype)
    if column.default is not None:
        return Read(values)
    read = _checked(source, values, "a value that is not listed in values")
    return read if read.broken is not None and read.broken.any() else Read(values)


def _key(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number_text(source: pl.Series) -> pl.Series:
    """Return the text of numbers without spaces; empty text and `NaN`, as tools write a missing number, is null."""
    text = source.str.strip_chars()
    return pl.select(pl.when(~text.str.to_lowercase().is_in(["", "nan"])).then(text)).to_series()


def _word_of(target: pl.DataType) -> str:
    """Name a type as people do: `whole number`, `number`, or what polars calls it."""
    if target.is_integer():
        return "whole number"
    return "number" if target.is_numeric() else str(target)


_SCALES = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
"""Unit of a moment since 1970 -> microseconds in it."""

_YEAR_US = 365.2425 * 24 * 3600 * 1_000_000


def _epoch(unit: str) -> Callable[[pl.Series, ColumnMapping], Read]:
    def read(source: pl.Series, column: ColumnMapping) -> Read:
        if source.dtype.is_temporal():
            what = f"a value of type {source.dtype}, which is no number of {unit}"
            return _all_broken(source, TIMESTAMP, what, "Leave out as: it is a moment already.")
        source = _number_text(source) if source.dtype == pl.String else source
        numbers = source.cast(pl.Float64 if source.dtype.is_float() else pl.Int64, strict=False)
        years = 1970 + numbers.cast(pl.Float64) * _SCALES[unit] / _YEAR_US
        far = ~years.is_between(EARLIEST.year, LATEST.year).fill_null(True)
        near = numbers.set(far, None)
        values = (near * _SCALES[unit]).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        if far.any():
            no_number = source.is_not_null() & numbers.is_null()
            return Read(values, far | no_number, *_far_away(unit, years.filter(far)[0]))
        return _checked(source, values, f"a value that is no number of {unit} since 1970")

    return read


def _far_away(unit: str, year: float) -> tuple[str, str]:
    """Say which year a number would be in, and in which unit it would be in our time."""
    what = f"a number of {unit} since 1970 whose year would be {year:,.0f}"
    for other, scale in _SCALES.items():
        if 1990 <= 1970 + (year - 1970) * scale / _SCALES[unit] <= 2100:
            return what, f"Did you mean as: epoch_{other}?"
    return what, ""


def _iso_text(source: pl.Series, column: ColumnMapping) -> Read:
    # `2020-01-01 10:00:00+01` and a date alone are common in databases; RFC 3339 wants more.
    text = _text(source).str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2}) ", "${1}T")
    text = text.str.replace(r"([+-]\d{2})$", "${1}:00") if text.str.contains(r"T.*[+-]\d{2}$").any() else text
    aware = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    if column.zone is None:
        return _checked(source, aware, "no ISO 8601 moment with a time zone", "Without one, say which with zone: UTC.")
    local = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    days = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    naive = pl.select(pl.coalesce(local, days)).to_series()
    zoned = naive.dt.replace_time_zone(column.zone, ambiguous="earliest", non_existent="null")
    values = pl.select(pl.coalesce(aware, zoned.dt.convert_time_zone("UTC"))).to_series()
    return _checked(source, values, "no ISO 8601 moment", "Expected text such as 2020-12-31 or 2020-12-31T18:30:00.")


def _year(source: pl.Series, column: ColumnMapping) -> Read:
    years = source.cast(pl.Int32, strict=False)
    usable = pl.select(pl.when(years.is_between(1, 9999)).then(years)).to_series()
    values = pl.select(start_of_year(pl.lit(usable))).to_series()
    return _checked(source, values, "a value that is no year")


def _year_in_name(source: pl.Series, column: ColumnMapping) -> Read:
    return Read(pl.select(start_of_year(year_in_name(pl.lit(_text(source))))).to_series())


def _name_of_title(source: pl.Series, column: ColumnMapping) -> Read:
    return Read(pl.select(name_of_title(pl.lit(_text(source)))).to_series())


def _zip_region(source: pl.Series, column: ColumnMapping) -> Read:
    from_number = source.dtype.is_numeric()
    text = _identifier(source).values
    return Read(pl.select(region_of_zip(pl.lit(text), digits_only=from_number)).to_series())


_READERS: dict[str, Callable[[pl.Series, ColumnMapping], Read]] = {
    "epoch_seconds": _epoch("seconds"),
    "epoch_milliseconds": _epoch("milliseconds"),
    "epoch_microseconds": _epoch("microseconds"),
    "iso_text": _iso_text,
    "year": _year,
    "year_in_name": _year_in_name,
    "name_of_title": _name_of_title,
    "zip_region": _zip_region,
    "integer": lambda source, column: _as_type(source, column, pl.Int64()),
    "number": lambda source, column: _as_type(source, column, pl.Float64()),
}


def _text(source: pl.Series) -> pl.Series:
    return source.cast(pl.String, strict=False)


def _nulls(height: int, target: Any) -> pl.Series:
    return pl.Series([None], dtype=target).new_from_index(0, height)


def _checked(source: pl.Series, values: pl.Series, what: str, hint: str = "") -> Read:
    return Read(values, source.is_not_null() & values.is_null(), what, hint)


def _all_broken(source: pl.Series, target: pl.DataType, what: str, hint: str) -> Read:
    return Read(_nulls(len(source), target), source.is_not_null(), what, hint)
