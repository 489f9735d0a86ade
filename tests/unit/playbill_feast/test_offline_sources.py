"""Where feature rows are read from: files, parts, hive partitions, URLs; and that appending rewrites nothing."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureView, Field
from feast.data_format import DeltaFormat
from feast.types import Array, Float32, Float64, String

from fixtures.asof_store import HOUR, MOMENT, START, ask, at, open_store, source, taste, values
from playbill_feast.errors import StoreConfigError, StoreDataError, StoreStateError
from playbill_feast.offline.parquet_files import parts_of
from playbill_feast.offline.scan_filter import ScanFilter
from playbill_feast.offline.sources import scan_source

ONE = values(("a", START, START, 1.0, "one"))
TWO = values(("a", START, START, 2.0, "two"))


def put(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def x_of(store) -> list:
    return ask(store, at(("a", START))).get_column("x").to_list()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet") if path.is_file()}


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path, taste())


def test_later_parts_win_ties_and_hidden_files_are_never_read(store, tmp_path):
    put(tmp_path / "taste.parquet" / "part-9.parquet", ONE)
    put(tmp_path / "taste.parquet" / "part-10.parquet", TWO)
    for name in (".part-11.parquet", "_part-12.parquet", "_old/part-13.parquet", "part-14.parquet.tmp"):
        put(tmp_path / "taste.parquet" / name, values(("a", START, START, 9.0, "")))
    assert x_of(store) == [2.0]


def test_a_file_and_what_was_appended_to_it_are_one_source(store, tmp_path):
    put(tmp_path / "taste.parquet", ONE)
    put(tmp_path / "taste.parquet.appended" / "part-000000-x.parquet", TWO)
    assert x_of(store) == [2.0]


def test_hive_keys_are_columns_and_folders_above_are_not(tmp_path):
    root = tmp_path / "run=3"
    days = FeatureView(
        name="days",
        entities=[],
        schema=[Field(name="x", dtype=Float32), Field(name="country", dtype=String)],
        source=source("days"),
    )
    root.mkdir()
    store = open_store(root, days)
    for hours, country in ((0, "US"), (1, "007")):
        frame = values(("a", START + hours * HOUR, START, hours, "")).drop("member_id")
        put(root / "days" / "day=2024-05-01" / f"country={country}" / "part-0.parquet", frame)
    found = ask(store, at(("a", START), ("a", START + HOUR)), "days:x", "days:country")
    assert found.select("x", "country").rows() == [(0.0, "US"), (1.0, "007")]
    frame = scan_source(store.config, days.batch_source, "days")
    assert "run" not in frame.collect_schema()
    assert frame.collect_schema()["day"] == pl.Date()
    assert frame.filter(pl.col("day") > date(2024, 5, 1)).collect().is_empty()


def test_a_new_column_is_null_in_older_parts_and_numbers_widen(store, tmp_path):
    put(tmp_path / "taste.parquet" / "part-0.parquet", ONE.drop("y"))
    put(tmp_path / "taste.parquet" / "part-1.parquet", values(("b", START, START, None, "two")).cast({"x": pl.Float64}))
    found = ask(store, at(("a", START), ("b", START)), "taste:x", "taste:y")
    assert found.select("x", "y").rows() == [(1.0, None), (None, "two")]


def test_parts_with_and_without_zones_are_brought_together(store, tmp_path):
    put(
        tmp_path / "taste.parquet" / "part-0.parquet",
        ONE.with_columns(pl.col("event_timestamp").dt.replace_time_zone(None)),
    )
    put(
        tmp_path / "taste.parquet" / "part-1.parquet",
        TWO.with_columns(pl.col("event_timestamp").dt.cast_time_unit("ns")),
    )
    assert x_of(store) == [2.0]


def test_parts_that_disagree_and_damaged_parts_are_all_named(store, tmp_path):
    folder = tmp_path / "taste.parquet"
    put(folder / "part-0.parquet", ONE)
    put(folder / "part-1.parquet", ONE.with_columns(x=pl.lit("text"), y=pl.lit(3)))
    with pytest.raises(StoreDataError, match=r"(?s)part-1.*column 'x' is String, but Float32 in part-0.*'y' is Int32"):
        x_of(store)
    for name in ("part-2.parquet", "part-3.parquet"):
        (folder / name).write_bytes((folder / "part-0.parquet").read_bytes()[:-9])
    with pytest.raises(StoreDataError, match=r"(?s)part-2.parquet: cannot be read.*part-3.parquet: cannot be read"):
        x_of(store)


def test_nothing_there_says_which_command_makes_it(store, tmp_path):
    with pytest.raises(StoreStateError, match=r"taste.parquet does not exist. Run `make features`, or write that file"):
        x_of(store)
    (tmp_path / "taste.parquet").mkdir()
    with pytest.raises(StoreStateError, match="holds no parquet files"):
        x_of(store)


def test_other_formats_and_sources_are_refused(tmp_path):
    delta = source("taste.parquet", file_format=DeltaFormat())
    config = open_store(tmp_path).config
    with pytest.raises(StoreDataError, match="taste: is in DeltaFormat, and only parquet is read"):
        scan_source(config, delta, "taste")


def test_urls_are_read_and_appended_through_fsspec(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    view = taste(source("memory://bucket/run=1/taste"))
    store = open_store(tmp_path, view)
    with pytest.raises(StoreStateError, match="memory://bucket/run=1/taste does not exist"):
        x_of(store)
    fields = [Field(name="x", dtype=Float32), Field(name="y", dtype=String)]
    write(store, ONE, view)
    write(
        store,
        TWO.with_columns(z=pl.lit(1.5)),
        taste(view.batch_source, schema=[*fields, Field(name="z", dtype=Float64)]),
    )
    with memory.open("/bucket/run=1/taste/.part-9.parquet", "wb") as stream:
        stream.write(b"half")
    assert x_of(store) == [2.0]
    assert len(memory.find("/bucket/run=1/taste")) == 3
    assert scan_source(store.config, view.batch_source, "taste").collect_schema().names() == [*ONE.columns, "z"]
    memory.mv("/bucket/run=1/taste/.part-9.parquet", "/bucket/run=1/taste/part-000001-zz.parquet")
    with pytest.raises(StoreDataError, match=r"part-000001-zz.parquet: cannot be read"):
        x_of(store)


def test_an_unknown_scheme_says_what_is_missing(tmp_path):
    store = open_store(tmp_path, taste(source("nosuch://bucket/taste.parquet")))
    with pytest.raises(StoreConfigError, match=r"nosuch://bucket/taste.parquet cannot be opened: .*nosuch"):
        x_of(store)


def write(store, frame, view=None):
    written = []
    table = frame if isinstance(frame, pa.Table) else frame.to_arrow()
    offline = store.provider.offline_store
    offline.offline_write_batch(store.config, view or store.get_feature_view("taste"), table, written.append)
    return written


@pytest.mark.parametrize("form", ["file", "folder", "hive", "nothing"])
def test_appending_touches_nothing_that_was_there(store, tmp_path, form):
    if form == "file":
        put(tmp_path / "taste.parquet", ONE)
    elif form == "folder":
        put(tmp_path / "taste.parquet" / "some.parquet", ONE)
    elif form == "hive":
        put(tmp_path / "taste.parquet" / "y=one" / "part-7.parquet", ONE.drop("y"))
    before = tree(tmp_path)
    shuffled = TWO.select("y", "x", "created_timestamp", "member_id", "event_timestamp")
    assert write(store, shuffled) == [1]
    assert write(store, shuffled.with_columns(x=pl.lit(3.0))) == [1]
    after = tree(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert x_of(store) == [3.0]
    assert ask(store, at(("a", START)), "taste:y").get_column("y").to_list() == ["two"]
    assert not [path for path in tmp_path.rglob(".*")]


def test_what_is_wrong_with_rows_to_append_is_told_together_and_nothing_is_written(store, tmp_path):
    put(tmp_path / "taste.parquet", ONE)
    before = tree(tmp_path)
    wrong = TWO.drop("member_id", "created_timestamp").with_columns(x=pl.lit("text"), memberid=pl.lit("a"))
    with pytest.raises(StoreDataError) as caught:
        write(store, wrong)
    for mistake in (
        "created_timestamp: column is missing",
        "member_id: column is missing",
        "memberid: is no column of the source. Did you mean 'member_id'?",
        "x: is large_string, and the source has float",
    ):
        assert mistake in str(caught.value)
    assert tree(tmp_path) == before


def test_appended_numbers_are_never_rounded(store, tmp_path):
    put(tmp_path / "taste.parquet", ONE)
    write(store, TWO.cast({"x": pl.Float64}))
    assert scan_source(store.config, taste().batch_source, "taste").collect_schema()["x"] == pl.Float32()
    write(store, TWO.cast({"x": pl.Float64}).with_columns(x=pl.lit(0.1)))
    assert x_of(store) == [0.1]


def test_a_feature_declared_since_may_be_appended(store, tmp_path):
    put(tmp_path / "taste.parquet", ONE)
    tags = Field(name="tags", dtype=Array(String))
    view = taste(schema=[Field(name="x", dtype=Float32), Field(name="y", dtype=String), tags])
    store.apply([view])
    write(store, TWO.with_columns(member_id=pl.lit("b"), tags=pl.Series([["k"]])), view)
    found = ask(store, at(("a", START), ("b", START)), "taste:tags")
    assert found.get_column("tags").to_list() == [None, ["k"]]


def test_feast_writes_and_reads_back_through_its_own_methods(store, tmp_path):
    put(tmp_path / "taste.parquet", ONE)
    store.write_to_offline_store(
        "taste", TWO.select("y", "x", "member_id", "event_timestamp", "created_timestamp").to_pandas()
    )
    assert x_of(store) == [2.0]


def test_pulls_hold_to_their_bounds_and_break_ties(store, tmp_path):
    frame = values(
        ("a", START, START, 1.0, ""),
        ("a", START + HOUR, START, 2.0, ""),
        ("a", START + HOUR, None, 3.0, ""),
        ("b", START + 2 * HOUR, START, 4.0, ""),
        (None, START, START, 5.0, ""),
    )
    put(tmp_path / "taste.parquet", frame)
    offline = store.provider.offline_store
    args = (store.config, source("taste.parquet"), ["member_id"], ["x"], "event_timestamp", "created_timestamp")
    newest = offline.pull_latest_from_table_or_query(*args, START, START + HOUR).to_df()
    assert newest[["member_id", "x"]].values.tolist() == [["a", 2.0]]
    everything = offline.pull_all_from_table_or_query(*args, START, START + timedelta(hours=1)).to_arrow()
    assert everything.column_names == ["member_id", "x", "event_timestamp", "created_timestamp"]
    assert everything["x"].to_pylist() == [1.0, 2.0, 3.0, 5.0]
    keyless = offline.pull_latest_from_table_or_query(*args[:2], [], ["x"], *args[4:]).to_arrow()
    assert keyless["x"].to_pylist() == [4.0]
    assert "__dummy_id" in keyless.column_names
    job = offline.pull_all_from_table_or_query(*args[:3], ["xx"], "event_timestampp")
    with pytest.raises(
        StoreDataError, match=r"(?s)xx: column is missing.*event_timestampp: column is missing. Did you mean"
    ):
        job.to_arrow()


def test_a_source_is_checked_before_it_is_registered(tmp_path):
    put(tmp_path / "taste.parquet", ONE.rename({"created_timestamp": "created_timestmp"}))
    store = open_store(tmp_path, taste())
    provider = store.provider
    with pytest.raises(
        StoreDataError, match=r"created_timestamp: column is missing. Did you mean 'created_timestmp'\?"
    ):
        provider.validate_data_source(store.config, source("taste.parquet"))
    provider.validate_data_source(store.config, source("not_yet.parquet"))
    put(tmp_path / "taste.parquet", ONE)
    provider.validate_data_source(store.config, source("taste.parquet"))
    inferred = FeatureView(name="inferred", entities=[], source=source("taste.parquet"))
    store = open_store(tmp_path, inferred)
    assert {field.name for field in store.get_feature_view("inferred").features} == {"member_id", "x", "y"}


def test_only_what_is_wanted_comes_back(store, tmp_path):
    put(tmp_path / "taste.parquet", pl.concat([ONE, TWO.with_columns(pl.col("event_timestamp") + HOUR)]))
    wanted = ScanFilter("event_timestamp", since=START + HOUR, until=START + HOUR)
    assert scan_source(store.config, source("taste.parquet"), "taste", wanted).collect().get_column("x").to_list() == [
        2.0
    ]


def test_lists_come_back_as_lists_and_floats_stay_floats(tmp_path):
    frame = ONE.with_columns(tags=pl.Series([[0.5, None]], dtype=pl.List(pl.Float32)))
    put(tmp_path / "taste.parquet", frame)
    store = open_store(tmp_path, taste(schema=[Field(name="tags", dtype=Array(Float32))]))
    table = store.get_historical_features(at(("a", START)), features=["taste:tags"]).to_arrow()
    assert table.schema.field("tags").type == pa.list_(pa.float32())
    assert parts_of(tmp_path / "taste.parquet") == (tmp_path / "taste.parquet",)
    assert pq.read_schema(tmp_path / "taste.parquet").names == frame.columns
    assert np.isnan(table.to_pandas()["tags"].iloc[0][1])
    assert frame.schema["event_timestamp"] == MOMENT


def test_the_store_loads_no_other_store_and_no_ray():
    code = "import sys, playbill_feast.offline.store; print({'dask', 'ray', 'duckdb'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"
