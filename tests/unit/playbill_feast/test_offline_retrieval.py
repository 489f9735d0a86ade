"""Historical retrieval through Feast: what goes in, what comes out, what is known when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, ValueType
from feast.errors import FeatureViewNotFoundException
from feast.types import Float32, Float64, Int64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.asof_store import HOUR, START, ask, at, open_store, source, taste, values
from playbill_feast.errors import StoreConfigError, StoreDataError, UnknownFeatureError
from playbill_feast.offline.scan_filter import as_known_on


@pytest.fixture
def store(tmp_path):
    values(("a", START, START, 1.0, "one"), ("a", START + HOUR, START + 5 * HOUR, 2.0, "two")).write_parquet(
        tmp_path / "taste.parquet"
    )
    return open_store(tmp_path, taste())


def xs(frame):
    return frame.get_column("x").to_list()


@pytest.mark.parametrize("form", ["pandas", "polars", "lazy", "arrow", "dask"])
def test_entity_rows_may_be_any_kind_of_table(store, form):
    rows = at(("zz", START), ("a", START + 2 * HOUR), ("a", START - HOUR), ("a", START)).with_columns(label=pl.lit(7))
    if form == "dask":
        import dask.dataframe as dask

        given = dask.from_pandas(rows.to_pandas(), npartitions=2)
    else:
        given = {"pandas": rows.to_pandas, "polars": lambda: rows, "lazy": rows.lazy, "arrow": rows.to_arrow}[form]()
    found = ask(store, given, "taste:x", "taste:y")
    assert found.columns == ["member_id", "event_timestamp", "label", "x", "y"]
    assert found.get_column("member_id").to_list() == ["zz", "a", "a", "a"]
    assert xs(found) == [None, 2.0, None, 1.0]
    assert found.schema["x"] == pl.Float32()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(date(2024, 5, 2), id="date"),
        pytest.param(np.datetime64("2024-05-01T13:00"), id="numpy"),
        pytest.param(datetime(2024, 5, 1, 22, tzinfo=timezone(HOUR * 9)), id="tokyo"),
        pytest.param("2024-05-01", id="early"),
        pytest.param("2024-05-01T13:00:00.123456789+00:00", id="nanoseconds"),
        pytest.param("2024-05-01 22:00 +0900", id="offset"),
    ],
)
def test_times_come_as_objects_and_text(store, moment):
    found = ask(store, pd.DataFrame({"member_id": ["a"], "event_timestamp": [moment]}))
    assert xs(found) == [None if moment == "2024-05-01" else 2.0]
    assert found.schema["event_timestamp"] == pl.Datetime("us", "UTC")


def test_objects_of_several_zones_are_moments_and_null_times_stay(store):
    tokyo = datetime(2024, 5, 1, 22, tzinfo=timezone(9 * HOUR))
    times = pd.Series(
        [tokyo, datetime(2024, 5, 1, 12, tzinfo=UTC), None, START.replace(hour=11, tzinfo=None)], dtype=object
    )
    found = ask(store, pd.DataFrame({"member_id": ["a"] * 4, "event_timestamp": times}))
    assert xs(found) == [2.0, 1.0, None, None]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-05-01T12:00Z", "soon", "2024-02-30"], r"no time: row 1 is 'soon', row 2 is '2024-02-30'"),
        (["2024-05-01T12:00+02:00", "2024-05-01T12:00Z"], r"mixes time zones: row 0 is .*, row 1 is .*best UTC"),
        ([1, 2], r"event_timestamp: is Int64, and has to be a time"),
    ],
)
def test_unusable_times_name_row_and_value(store, times, message):
    with pytest.raises(StoreDataError, match=message):
        ask(store, pd.DataFrame({"member_id": ["a"] * len(times), "event_timestamp": times}))


def test_columns_that_clash_or_are_missing_are_told_together(store):
    rows = pl.DataFrame({"x": [1.0], "event_timestamp": [START]})
    with pytest.raises(
        StoreDataError, match=r"(?s)member_id: join key is missing.*x: is also the name of a requested feature"
    ):
        ask(store, rows)
    assert ask(store, at(("a", START)).with_columns(x=1), full_feature_names=True).columns[-2:] == ["x", "taste__x"]
    doubled = pd.DataFrame([["a", "a", START]], columns=["member_id", "member_id", "event_timestamp"])
    with pytest.raises(StoreDataError, match="member_id: is the name of several columns"):
        ask(store, doubled)


def test_unknown_names_are_told_with_the_nearest_one(store):
    with pytest.raises(FeatureViewNotFoundException, match="tastes"):
        ask(store, at(("a", START)), "tastes:x")
    view = store.get_feature_view("taste")
    refs = {"feature_refs": ["taste:yy"], "feature_views": [view], "project": "small", "registry": store.registry}
    offline = store.provider.offline_store
    with pytest.raises(UnknownFeatureError, match=r"feature of view 'taste' 'yy'. Did you mean 'y'"):
        offline.get_historical_features(config=store.config, entity_df=at(("a", START)), **refs)


def test_what_is_wrong_with_the_sources_of_all_views_is_told_together(tmp_path):
    mood = FeatureView(name="mood", entities=[], schema=[Field(name="z", dtype=Float32)], source=source("mood.parquet"))
    store = open_store(tmp_path, taste(), mood)
    values().drop("y").with_columns(event_timestamp=pl.lit("now")).write_parquet(tmp_path / "taste.parquet")
    values().drop("created_timestamp").write_parquet(tmp_path / "mood.parquet")
    with pytest.raises(StoreDataError) as caught:
        ask(store, at(("a", START)), "taste:x", "taste:y", "mood:z")
    for mistake in (
        "taste.y: column is missing",
        "taste.event_timestamp: is String, and has to be a time",
        "mood.z: column is missing",
        "mood.created_timestamp: column is missing",
    ):
        assert mistake in str(caught.value)


def test_keys_of_another_kind_are_refused(store):
    with pytest.raises(StoreDataError, match="member_id: key is Int64, but the values have String"):
        ask(store, pl.DataFrame({"member_id": [1], "event_timestamp": [START]}))


def test_what_was_created_after_the_row_is_not_seen(store, tmp_path):
    rows = at(("a", START + 2 * HOUR), ("a", START + 5 * HOUR), ("a", START - HOUR))
    assert xs(ask(store, rows)) == [2.0, 2.0, None]
    assert xs(ask(store, rows, filter_by_created_timestamp=True)) == [1.0, 2.0, None]


def test_a_view_without_created_times_sees_everything(tmp_path):
    values(("a", START, START + 9 * HOUR, 1.0, "")).write_parquet(tmp_path / "taste.parquet")
    store = open_store(tmp_path, taste(source("taste.parquet", created_timestamp_column="")))
    assert xs(ask(store, at(("a", START)), filter_by_created_timestamp=True)) == [1.0]


row = st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.one_of(st.none(), st.integers(0, 9)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(row, max_size=12),
    st.lists(st.tuples(st.sampled_from("abz"), st.integers(-1, 12)), max_size=8),
    st.sampled_from([0, 1, 3]),
)
def test_created_cutoff_is_the_plain_loop(history, requested, ttl_hours):
    from playbill_feast.asof_join import ViewValues, as_of_join

    frame = pl.DataFrame(
        {
            "k": [key for key, _, _ in history],
            "at": [START + HOUR * hours for _, hours, _ in history],
            "made": [None if made is None else START + HOUR * made for _, _, made in history],
            "v": list(range(len(history))),
        },
        schema={"k": pl.String, "at": pl.Datetime("us", "UTC"), "made": pl.Datetime("us", "UTC"), "v": pl.Int64},
    )
    rows = pl.DataFrame(
        {"k": [key for key, _ in requested], "t": [START + HOUR * hours for _, hours in requested]},
        schema={"k": pl.String, "t": pl.Datetime("us", "UTC")},
    )
    ttl = timedelta(hours=ttl_hours) if ttl_hours else None
    view = ViewValues("v", frame.lazy(), {"k": "k"}, "at", "made", {"v": "v"}, ttl, created_by_row=True)
    expected = []
    for key, now in requested:
        seen = [
            (hours, made, number)
            for number, (other, hours, made) in enumerate(history)
            if other == key and hours <= now and made is not None and made <= now
        ]
        best = max(seen, default=None)
        fresh = best is not None and (not ttl_hours or now - best[0] <= ttl_hours)
        expected.append(best[2] if best and fresh else None)
    assert as_of_join(rows, "t", view).get_column("v").to_list() == expected


def test_as_known_on_hides_later_corrections(store, tmp_path):
    rows = at(("a", START + 2 * HOUR))
    with as_known_on(START + 4 * HOUR):
        job = store.get_historical_features(rows, features=["taste:x"])
        assert xs(ask(store, rows)) == [1.0]
        pulled = store.provider.offline_store.pull_latest_from_table_or_query(
            store.config, source("taste.parquet"), ["member_id"], ["x"], "event_timestamp", "created_timestamp"
        )
        with as_known_on(START + 6 * HOUR):
            assert xs(ask(store, rows)) == [2.0]
    assert xs(ask(store, rows)) == [2.0]
    assert job.to_df()["x"].to_list() == [1.0], "the moment is that of the question"
    assert pulled.to_df()["x"].to_list() == [1.0]
    configured = open_store(tmp_path, as_known_on="2024-05-01T16:00:00Z")
    assert xs(ask(configured, rows)) == [1.0]
    with (
        pytest.raises(StoreConfigError, match="needs a moment with a time zone"),
        as_known_on(START.replace(tzinfo=None)),
    ):
        pass


def test_without_entity_rows_every_moment_of_every_key_comes_back(tmp_path):
    values(
        ("a", START, START, 1.0, ""),
        ("a", START + HOUR, START, 2.0, ""),
        ("b", START + HOUR, START, 3.0, ""),
        ("a", START + 9 * HOUR, START, 4.0, ""),
        (None, START, START, 5.0, ""),
    ).write_parquet(tmp_path / "taste.parquet")
    title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.INT64)
    fame = FeatureView(
        name="fame", entities=[title], ttl=HOUR, schema=[Field(name="z", dtype=Float64)], source=source("fame.parquet")
    )
    pl.DataFrame({"title_id": [7], "event_timestamp": [START], "created_timestamp": [START], "z": [0.5]}).write_parquet(
        tmp_path / "fame.parquet"
    )
    store = open_store(tmp_path, title, taste(), fame)
    job = store.get_historical_features(None, features=["taste:x"], start_date=START, end_date=START + 2 * HOUR)
    found = pl.DataFrame(pl.from_arrow(job.to_arrow()))
    assert found.rows() == [("a", START, 1.0), ("a", START + HOUR, 2.0), ("b", START + HOUR, 3.0)]
    assert job.metadata.keys == ["member_id"]
    both = ask(store, None, "taste:x", "fame:z", start_date=START, end_date=START + HOUR)
    assert both.select("member_id", "title_id", "x", "z").rows()[:2] == [("a", None, 1.0, None), (None, 7, None, 0.5)]
    with pytest.raises(StoreDataError, match=r"start_date: .* is after end_date"):
        store.get_historical_features(None, features=["taste:x"], start_date=START + HOUR, end_date=START)


def test_floats_that_are_no_whole_numbers_match_no_integer_key(tmp_path):
    title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.INT64)
    fame = FeatureView(name="fame", entities=[title], schema=[Field(name="z", dtype=Int64)], source=source("f.parquet"))
    frame = {"title_id": [2], "event_timestamp": [START], "created_timestamp": [START], "z": [1]}
    pl.DataFrame(frame).write_parquet(tmp_path / "f.parquet")
    store = open_store(tmp_path, title, fame)
    rows = pd.DataFrame({"title_id": [2.0, 2.5, np.nan, 1e300], "event_timestamp": [START] * 4})
    assert ask(store, rows, "fame:z").get_column("z").to_list() == [1, None, None, None]


def test_long_ages_and_many_keys_do_not_overflow(tmp_path):
    from playbill_feast.asof_join import ViewValues, as_of_join

    keys = pl.int_range(300_000, eager=True)
    old, new = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    frame = pl.DataFrame({"k": keys, "v": keys}).with_columns(at=pl.lit(START))
    edges = pl.DataFrame({"k": [5, 5], "v": [-1, -2], "at": [old, new]}, schema=frame.schema)
    rows = pl.DataFrame({"k": keys}).with_columns(t=pl.lit(new))
    view = ViewValues("v", pl.concat([edges, frame]).lazy(), {"k": "k"}, "at", None, {"v": "v"})
    expected = keys.alias("v").scatter(5, -2)
    assert as_of_join(rows, "t", view).get_column("v").equals(expected)
    view = replace(view, ttl=2 * HOUR)
    late = pl.DataFrame({"k": [5, 5, 5], "t": [new, new - HOUR, old]})
    assert as_of_join(late, "t", view).get_column("v").to_list() == [-2, None, -1]


def test_pandas_comes_back_numbered_and_ray_and_tensors_are_fed_from_the_same_table(store):
    rows = at(("a", START)).to_pandas().set_index(pd.Index([9]))
    job = store.get_historical_features(rows, features=["taste:x"])
    assert list(job.to_df().index) == [0]
    assert job.to_polars().equals(pl.DataFrame(pl.from_arrow(job.to_arrow())))
    assert isinstance(job.to_arrow(), pa.Table)
    assert job.to_feast_df().data.num_rows == 1
