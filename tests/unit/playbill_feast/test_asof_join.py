"""The as-of join's rules, one by one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from playbill_feast.asof_join import ViewValues, as_of_join, latest_values
from playbill_feast.errors import StoreDataError

T = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def values(*rows: tuple[object, datetime, datetime | None, float]) -> pl.LazyFrame:
    schema = {"k": pl.String, "at": pl.Datetime("us", "UTC"), "made": pl.Datetime("us", "UTC"), "v": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row").lazy()


def view(frame: pl.LazyFrame, ttl: timedelta | None = None, keys: dict[str, str] | None = None) -> ViewValues:
    return ViewValues("view", frame, {"k": "k"} if keys is None else keys, "at", "made", {"out": "v"}, ttl)


def rows(*pairs: tuple[object, object]) -> pl.DataFrame:
    return pl.DataFrame(
        {"k": pl.Series([k for k, _ in pairs], dtype=pl.String), "t": [t for _, t in pairs]},
        schema_overrides={"t": pl.Datetime("us", "UTC")},
    )


def joined(entities: pl.DataFrame, some_view: ViewValues) -> list[float | None]:
    return as_of_join(entities, "t", some_view).get_column("out").to_list()


def test_slates_keep_every_row_in_order() -> None:
    entities = rows(("a", T), ("b", T), ("a", T), ("a", T - HOUR), ("a", T))
    frame = values(("a", T - 2 * HOUR, None, 1), ("a", T, None, 2), ("b", T - HOUR, None, 3))
    assert joined(entities, view(frame)) == [2, 3, 2, 1, 2]


def test_future_values_and_unknown_keys_are_null() -> None:
    frame = values(("a", T + timedelta(microseconds=1), None, 1))
    assert joined(rows(("a", T), ("zz", T)), view(frame)) == [None, None]


def test_age_exactly_ttl_is_kept_and_a_microsecond_more_is_null() -> None:
    frame = values(("a", T - HOUR, None, 1))
    assert joined(rows(("a", T), ("a", T + timedelta(microseconds=1))), view(frame, HOUR)) == [1, None]
    assert joined(rows(("a", T + 10_000 * HOUR)), view(frame)) == [1]


def test_an_expired_value_hides_nothing_newer_and_shows_nothing_older() -> None:
    frame = values(("a", T - 5 * HOUR, None, 1), ("a", T - 3 * HOUR, None, 2))
    assert joined(rows(("a", T)), view(frame, HOUR)) == [None]


def test_ties_go_to_the_later_created_whatever_the_files_order() -> None:
    frame = values(("a", T, T + 3 * HOUR, 3), ("a", T, T + 5 * HOUR, 5), ("a", T, None, 0), ("a", T, T, 1))
    assert joined(rows(("a", T)), view(frame)) == [5]
    assert joined(rows(("a", T)), replace(view(frame), created=None)) == [1]


def test_null_keys_are_kept_and_never_match() -> None:
    frame = values((None, T, None, 9), ("a", T, None, 1))
    assert joined(rows((None, T), ("a", T)), view(frame)) == [None, 1]
    assert joined(rows((None, T)), view(frame)) == [None]


def test_null_moments_are_kept_on_both_sides() -> None:
    frame = values(("a", None, None, 9), ("a", T, None, 1))
    assert joined(rows(("a", None), ("a", T)), view(frame)) == [None, 1]


def test_a_null_value_is_a_value() -> None:
    frame = values(("a", T - HOUR, None, 1), ("a", T, None, None))
    assert joined(rows(("a", T)), view(frame)) == [None]


def test_times_without_a_zone_are_utc() -> None:
    entities = rows(("a", T)).with_columns(pl.col("t").dt.replace_time_zone(None))
    frame = values(("a", T, None, 1)).with_columns(pl.col("at").dt.replace_time_zone(None))
    assert joined(entities, view(frame)) == [1]


def test_other_zones_are_converted() -> None:
    entities = rows(("a", T)).with_columns(pl.col("t").dt.convert_time_zone("Asia/Tokyo"))
    assert joined(entities, view(values(("a", T, None, 1), ("a", T + HOUR, None, 2)))) == [1]


def test_a_view_without_keys_joins_every_row() -> None:
    frame = values(("x", T - HOUR, None, 1), ("y", T, None, 2))
    assert joined(rows(("a", T - HOUR), (None, T), ("b", T - 2 * HOUR)), view(frame, keys={})) == [1, 2, None]


def test_integer_keys_meet_the_floats_that_pandas_makes_of_them() -> None:
    frame = pl.LazyFrame({"k": [1, 2], "at": [T, T], "made": [T, T], "v": [1.0, 2.0]})
    entities = pl.DataFrame({"k": [2.0, None, 1.0], "t": [T] * 3})
    assert joined(entities, view(frame)) == [2, None, 1]


def test_no_values_at_all_gives_nulls() -> None:
    assert joined(rows(("a", T), ("b", T)), view(values())) == [None, None]
    assert joined(rows(), view(values(("a", T, None, 1)))) == []


def test_keys_of_different_kinds_are_refused() -> None:
    entities = pl.DataFrame({"k": [1], "t": [T]})
    with pytest.raises(StoreDataError, match="k: key is Int64, but the values have String"):
        as_of_join(entities, "t", view(values(("1", T, None, 1))))


def test_every_missing_column_is_named() -> None:
    broken = ViewValues("taste", values(("a", T, None, 1)), {"k": "k"}, "at", "made", {"x": "x", "y": "y"})
    with pytest.raises(StoreDataError, match=r"(?s)'taste'.*x: column is missing.*y: column is missing"):
        as_of_join(rows(("a", T)), "t", broken)
    with pytest.raises(
        StoreDataError, match=r"(?s)k: column is missing from the rows.*t: column is missing from the rows"
    ):
        as_of_join(pl.DataFrame({"z": [1]}), "t", view(values()))


def test_latest_takes_the_newest_of_each_key() -> None:
    frame = values(("a", T, T, 1), ("a", T, T + HOUR, 2), ("b", T, None, 3), ("a", T - HOUR, T + 9 * HOUR, 4))
    newest = latest_values(frame, ["k"], "at", "made", ["v"]).sort("k").collect()
    assert newest.get_column("v").to_list() == [2, 3]
    assert latest_values(frame, [], "at", "made", ["v"]).collect().get_column("v").to_list() == [2]
