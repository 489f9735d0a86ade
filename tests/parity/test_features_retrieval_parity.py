"""Feast's historical retrieval through our store against a plain pandas loop over the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RepoConfig
from feast.types import Array, Float32, Float64, String

from playbill_feast.errors import StoreDataError, StoreStateError

START = pd.Timestamp("2024-01-01", tz="UTC")
HOUR = pd.Timedelta(hours=1)
member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING)


def source(name: str, **options: object) -> FileSource:
    settings = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"} | options
    return FileSource(name=name, path=f"{name}.parquet", **settings)


def view(name: str, entities: list[Entity], ttl: timedelta, *fields: Field, **options: object) -> FeatureView:
    return FeatureView(
        name=name, entities=entities, ttl=ttl, schema=list(fields), source=source(name, **options), online=True
    )


MEMBER = view("taste", [member], timedelta(hours=6), Field(name="x", dtype=Float64), Field(name="y", dtype=String))
TITLE = view("fame", [title], timedelta(0), Field(name="x", dtype=Float64))
PAIR = view("pair", [member, title], timedelta(hours=30), Field(name="z", dtype=Float64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asof")


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    config = RepoConfig(
        project="parity",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        provider="local",
        offline_store={
            "type": "playbill_feast.offline.store.AsofOfflineStore",
            "features_folder": str(folder),
        },
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([member, title, MEMBER, TITLE, PAIR])
    return store


def history(rng: np.random.Generator, rows: int, *keys: str) -> pd.DataFrame:
    """Values on a coarse grid of times, so ties and edges are common; some created times are null."""
    at = START + pd.to_timedelta(rng.integers(0, 60, rows), unit="h")
    # Unique creation times: a tie beyond them is the file's order, which pandas need not keep.
    created = (at + pd.to_timedelta(rng.permutation(rows), unit="min")).as_unit("us")
    frame = pd.DataFrame({key: [f"{key[0]}{rng.integers(7)}" for _ in range(rows)] for key in keys})
    frame["event_timestamp"] = at.as_unit("us")
    frame["created_timestamp"] = created
    frame["x"] = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows))
    frame["y"] = [f"y{rng.integers(5)}" for _ in range(rows)]
    frame["z"] = rng.normal(size=rows)
    return frame


def entity_rows(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Slates of three titles for one member and time, exact duplicates, unknown and null keys."""
    slates = rows // 3
    frame = pd.DataFrame(
        {
            "label": rng.random(slates * 3),
            "member_id": np.repeat([f"m{rng.integers(9)}" for _ in range(slates)], 3),
            "event_timestamp": np.repeat(START + pd.to_timedelta(rng.integers(-9, 90, slates), unit="h"), 3),
            "title_id": [f"t{rng.integers(9)}" for _ in range(slates * 3)],
        }
    )
    frame.loc[rng.random(len(frame)) < 0.05, "member_id"] = None
    doubled = pd.concat([frame, frame.head(5)])
    return doubled.sample(frac=1, random_state=int(rng.integers(1000))).reset_index(drop=True)


def plain(rows: pd.DataFrame, values: pd.DataFrame, keys: list[str], ttl: pd.Timedelta | None, column: str) -> list:
    """For every row: the newest value at or before it, ties by creation, null beyond the ttl."""
    found = []
    for row in rows.to_dict("records"):
        match = values[values["event_timestamp"] <= row["event_timestamp"]]
        for key in keys:
            match = match[match[key] == row[key]]
        if ttl is not None:
            match = match[match["event_timestamp"] >= row["event_timestamp"] - ttl]
        newest = match.sort_values(["event_timestamp", "created_timestamp"], kind="stable").tail(1)
        found.append(None if newest.empty or pd.isna(newest[column].iloc[0]) else newest[column].iloc[0])
    return found


def as_list(column: pd.Series) -> list:
    return [None if pd.isna(value) else value for value in column]


@pytest.mark.parametrize("seed", range(12))
def test_retrieval_is_the_plain_loop(store: FeatureStore, folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    taste, fame = history(rng, 80, "member_id"), history(rng, 60, "title_id")
    pair = history(rng, 200, "member_id", "title_id")
    for name, frame in (("taste", taste), ("fame", fame), ("pair", pair)):
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    rows = entity_rows(rng, 60)
    given = rows.copy()

    result = store.get_historical_features(
        rows, features=["taste:x", "taste:y", "fame:x", "pair:z"], full_feature_names=True
    ).to_df()

    pd.testing.assert_frame_equal(rows, given)
    pd.testing.assert_frame_equal(result[list(given.columns)], given, check_dtype=False)
    assert as_list(result["taste__x"]) == plain(rows, taste, ["member_id"], 6 * HOUR, "x")
    assert as_list(result["taste__y"]) == plain(rows, taste, ["member_id"], 6 * HOUR, "y")
    assert as_list(result["fame__x"]) == plain(rows, fame, ["title_id"], None, "x")
    assert as_list(result["pair__z"]) == plain(rows, pair, ["member_id", "title_id"], 30 * HOUR, "z")


@pytest.fixture
def one_value(folder: Path) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"member_id": ["m1"], "event_timestamp": [START], "created_timestamp": [START], "x": [1.0], "y": ["why"]}
    )
    frame.to_parquet(folder / "taste.parquet", index=False)
    return frame


@pytest.mark.usefixtures("one_value")
def test_rows_whose_history_is_all_expired_or_all_to_come_are_kept(store: FeatureStore) -> None:
    rows = pd.DataFrame({"member_id": ["m1", "m1"], "event_timestamp": [START + 7 * HOUR, START - HOUR]})
    result = store.get_historical_features(rows, features=["taste:x", "taste:y"]).to_df()
    assert as_list(result["x"]) == [None, None]
    assert as_list(result["y"]) == [None, None]


@pytest.mark.usefixtures("one_value")
@pytest.mark.parametrize(
    "times",
    [
        pytest.param(["2024-01-01T02:00:00", "2024-01-01T02:00:00Z"], id="text"),
        pytest.param([pd.Timestamp("2024-01-01T02:00")] * 2, id="naive"),
        pytest.param([pd.Timestamp("2024-01-01T11:00", tz="Asia/Tokyo")] * 2, id="zoned"),
        pytest.param([datetime(2024, 1, 1, 2, tzinfo=UTC)] * 2, id="utc"),
    ],
)
def test_times_of_every_sort_mean_the_same_moment(store: FeatureStore, times: list) -> None:
    rows = pd.DataFrame({"member_id": ["m1", "m2"], "event_timestamp": times})
    result = store.get_historical_features(rows, features=["taste:x"]).to_df()
    assert as_list(result["x"]) == [1.0, None]
    assert list(result["event_timestamp"]) == [START + 2 * HOUR] * 2


@pytest.mark.usefixtures("one_value")
def test_one_time_column_of_another_name_will_do(store: FeatureStore) -> None:
    rows = pd.DataFrame({"member_id": ["m1"], "seen": [START + HOUR]}, index=[7])
    assert as_list(store.get_historical_features(rows, features=["taste:x"]).to_df()["x"]) == [1.0]


@pytest.mark.usefixtures("one_value")
def test_unusable_entity_rows_say_what_is_wrong(store: FeatureStore) -> None:
    with pytest.raises(StoreDataError, match="needs a column 'event_timestamp' or one time column, has 0"):
        store.get_historical_features(pd.DataFrame({"member_id": ["m1"]}), features=["taste:x"])
    rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": ["soon"]})
    with pytest.raises(StoreDataError, match="event_timestamp: holds what is no time"):
        store.get_historical_features(rows, features=["taste:x"])
    with pytest.raises(StoreDataError, match="member_id: join key is missing"):
        store.get_historical_features(rows.assign(event_timestamp=START)[["event_timestamp"]], ["taste:x"])
    with pytest.raises(StoreDataError, match="is SQL, which is only understood when every view has a SqlSource"):
        store.get_historical_features("select 1", features=["taste:x"])


def test_a_view_without_a_file_names_the_file(store: FeatureStore, folder: Path) -> None:
    (folder / "taste.parquet").unlink(missing_ok=True)
    rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": [START]})
    with pytest.raises(
        StoreStateError, match=r"feature view 'taste' has no values: .*taste.parquet does not exist. Write that file."
    ):
        store.get_historical_features(rows, features=["taste:x"]).to_df()


def test_lists_join_keys_of_other_names_mapped_columns_and_views_without_entity(folder: Path) -> None:
    days = FeatureView(
        name="days",
        entities=[],
        ttl=timedelta(0),
        schema=[Field(name="rain", dtype=Float32)],
        source=source("days"),
    )
    mapped = view(
        "mapped",
        [member],
        timedelta(0),
        Field(name="tags", dtype=Array(String)),
        Field(name="scores", dtype=Array(Float32)),
        timestamp_field="ts",
        created_timestamp_column="",
        field_mapping={"ts": "happened", "labels": "tags"},
    )
    pd.DataFrame(
        {"event_timestamp": [START, START + HOUR], "created_timestamp": [START] * 2, "rain": [0.0, 1.0]}
    ).astype({"rain": "float32"}).to_parquet(folder / "days.parquet", index=False)
    pd.DataFrame(
        {"member_id": ["m1"], "ts": [START], "labels": [["a", "b"]], "scores": [np.array([1, 2], dtype="float32")]}
    ).to_parquet(folder / "mapped.parquet", index=False)
    config = RepoConfig(
        project="others",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/others.db"},
        provider="local",
        offline_store={
            "type": "playbill_feast.offline.store.AsofOfflineStore",
            "features_folder": str(folder),
        },
        online_store={"type": "sqlite", "path": f"{folder}/others_online.db"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    friend = mapped.with_name("friend").with_join_key_map({"member_id": "friend_id"})
    service = FeatureService(name="all", features=[mapped.with_name("own"), friend, days.with_name("day")])
    store.apply([member, mapped, days, service])
    rows = pd.DataFrame(
        {"member_id": ["m1", "m2"], "friend_id": ["m2", "m1"], "event_timestamp": [START + HOUR, START]}
    )
    job = store.get_historical_features(rows, features=service, full_feature_names=True)
    table = job.to_arrow()
    assert str(table.schema.field("own__tags").type).startswith("list<")
    assert str(table.schema.field("own__tags").type.value_type) == "string"
    result = job.to_df()
    assert list(result["own__tags"].iloc[0]) == ["a", "b"]
    assert result["own__scores"].iloc[1] is None
    assert list(result["friend__tags"].iloc[1]) == ["a", "b"]
    assert result["friend__tags"].iloc[0] is None
    assert list(result["day__rain"]) == [1.0, 0.0]


@pytest.mark.usefixtures("one_value")
def test_a_snapshot_by_dates_needs_no_entity_rows(store: FeatureStore) -> None:
    end = (START + HOUR).to_pydatetime()
    job = store.get_historical_features(None, features=["taste:x"], start_date=end - timedelta(days=1), end_date=end)
    assert list(job.to_df()["x"]) == [1.0]
