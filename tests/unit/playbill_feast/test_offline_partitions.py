"""Rows and values cut by key and joined piece by piece give what one join gives. No cluster needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from playbill_feast.asof_join import ViewValues, as_of_join
from playbill_feast.errors import StoreDataError
from playbill_feast.offline.partitions import (
    cut_rows,
    cut_values,
    decode,
    join_pieces,
    joined_features,
    partition_of,
    plan_partitions,
)

T = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KNOWN_ON = datetime(2024, 5, 1, 1)  # noqa: DTZ001
SCHEMA = {"k": pl.Int32, "s": pl.String, "at": pl.Datetime("us", "UTC"), "made": pl.Datetime("us"), "v": pl.Float32}

moments = st.none() | st.integers(0, 6).map(lambda hours: T + hours * HOUR)
keys = st.none() | st.integers(0, 3)
texts = st.none() | st.sampled_from(["a", "ä", ""])
made = st.none() | st.integers(0, 3).map(lambda hours: (T + hours * HOUR).replace(tzinfo=None))


def in_pieces(
    rows: pl.DataFrame, views: Sequence[ViewValues], partitions: int, length: int, reverse: bool = False
) -> pl.DataFrame:
    plan = plan_partitions(rows, "t", views, partitions)
    pieces = [*cut_rows(rows, plan)]
    for number, view in enumerate(views):
        height = view.frame.select(pl.len()).collect().item()
        for start in range(0, height, length):
            pieces += cut_values(plan, number, start, length)
    together = pa.concat_tables(pieces[::-1] if reverse else pieces)
    joined = [
        join_pieces(plan, together.filter(pa.compute.equal(together["partition"], number)))
        for number in together["partition"].unique().to_pylist()
    ]
    return joined_features(plan, joined[::-1], rows.height)


def at_once(rows: pl.DataFrame, views: Sequence[ViewValues]) -> pl.DataFrame:
    return pl.concat([as_of_join(rows, "t", view) for view in views], how="horizontal")


def views_of(frame: pl.LazyFrame, ttl: timedelta | None) -> list[ViewValues]:
    return [
        ViewValues("by_k", frame, {"k": "k"}, "at", "made", {"a": "v", "b": "s"}, ttl),
        ViewValues("by_both", frame, {"k": "k", "s": "s"}, "at", "made", {"c": "v"}),
        ViewValues("again_by_k", frame, {"k": "k"}, "at", None, {"d": "v"}, ttl),
        ViewValues("for_all", frame, {}, "at", "made", {"e": "v"}, ttl),
        ViewValues("by_then", frame, {"k": "k"}, "at", "made", {"f": "v"}, ttl, created_by_row=True),
        ViewValues("as_known", frame, {"k": "k"}, "at", "made", {"g": "v"}, counts=pl.col("made") <= KNOWN_ON),
    ]


@given(
    st.lists(st.tuples(keys, texts, moments), min_size=1, max_size=12),
    st.lists(st.tuples(keys, texts, moments, made, st.integers(0, 99)), max_size=25),
    st.sampled_from([None, 2 * HOUR]),
    st.integers(1, 5),
    st.integers(1, 7),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_pieces_in_any_order_join_to_the_same_table(
    requested: list[tuple[object, ...]],
    known: list[tuple[object, ...]],
    ttl: timedelta | None,
    partitions: int,
    length: int,
    reverse: bool,
) -> None:
    schema = {"k": pl.Int64, "s": pl.String, "t": pl.Datetime("us", "UTC")}
    rows = pl.DataFrame(requested, schema=schema, orient="row")
    views = views_of(pl.DataFrame(known, schema=SCHEMA, orient="row").lazy(), ttl)
    assert_frame_equal(in_pieces(rows, views, partitions, length, reverse), at_once(rows, views))


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([2**62, -1, 0], dtype=pl.Int64),
        pl.Series([0.0, 1.5, float("nan")]),
        pl.Series(["x", "yy", ""]),
        pl.Series(["x", "y", "x"], dtype=pl.Categorical),
        pl.Series([b"\xff", b"", b"a"]),
        pl.Series([True, False, True]),
        pl.Series([T, T + HOUR, T - HOUR]),
    ],
)
def test_equal_keys_meet_whatever_else_is_there(series: pl.Series) -> None:
    alone = [partition_of(series[[index]].to_frame("k"), 7).item() for index in range(len(series))]
    assert partition_of(series.to_frame("k"), 7).to_list() == alone
    assert all(0 <= number < 7 for number in alone)


def test_the_two_zeros_are_one_key_and_null_keys_have_none() -> None:
    found = partition_of(pl.DataFrame({"k": [0.0, -0.0, None]}), 1000).to_list()
    assert found[0] == found[1]
    assert found[2] is None


def test_keys_spread_over_the_partitions() -> None:
    numbers = pl.DataFrame({"k": range(8000)})
    for keys_ in (numbers, numbers.select(pl.format("m{}", "k")), numbers.with_columns(country=pl.lit("US"))):
        counts = partition_of(keys_, 8).value_counts().get_column("count")
        assert counts.len() == 8
        assert counts.min() > 800


def test_a_hash_is_the_same_in_every_process() -> None:
    found = partition_of(pl.DataFrame({"k": [1, 2, 3], "s": ["a", "b", "c"]}), 1000).to_list()
    assert found == [229, 581, 633]


def test_values_that_no_row_can_see_stay_where_they_are(tmp_path: Path) -> None:
    known = [(1, "a", T + hours * HOUR, None, hours) for hours in range(-9, 9)]
    pl.DataFrame(known, schema=SCHEMA, orient="row").write_parquet(tmp_path / "v.parquet")
    view = views_of(pl.scan_parquet(tmp_path / "v.parquet"), 2 * HOUR)[0]
    rows = pl.DataFrame({"k": [1, 1], "t": [T, T + HOUR]})
    plan = plan_partitions(rows, "t", [view], 1)
    (whole,) = cut_values(plan, 0, 0, None)
    assert decode(whole["payload"][0].as_buffer()).get_column("v").to_list() == [-2, -1, 0, 1]
    assert list(cut_values(plan, 0, 0, 5)) == []


def test_a_source_that_breaks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    pl.DataFrame([(1, "a", T, None, 1)], schema=SCHEMA, orient="row").write_parquet(path)
    view = views_of(pl.scan_parquet(path), None)[0]
    plan = plan_partitions(pl.DataFrame({"k": [1], "t": [T]}), "t", [view], 1)
    path.unlink()
    with pytest.raises(StoreDataError, match=r"by_k.*\n.*cannot be read"):
        list(cut_values(plan, 0, 0, None))


def test_workers_need_no_feast() -> None:
    code = "import sys, playbill_feast.offline.ray_asof; print({'feast', 'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
