"""`engine: ray` of the offline store on two workers: the local engine's answers, and requests that cannot be met."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import ray
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int64, String

from playbill_feast.errors import StoreDataError, StoreServiceError
from playbill_feast.offline.scan_filter import as_known_on
from playbill_feast.offline.sql_source import SqlSource

START = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 24 * 40
FEATURES = ["taste:love", "taste:mood", "place:rank", "trend:heat", "trend:heat_created", "weather:rain", "plan:price"]
STORE_BYTES = 150 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=STORE_BYTES, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random feature files: a hot member, ties of time, late corrections, null keys; parts, a database, one file."""
    root = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(3)
    taste = values(rng, 4000).with_columns(
        member_id=some_null(np.where(rng.random(4000) < 0.4, 0, rng.integers(0, 60, 4000)), rng),
        love=pl.Series(rng.random(4000), dtype=pl.Float32),
        mood=pl.Series(rng.choice(["calm", "wild"], 4000)),
    )
    (root / "taste.parquet").mkdir()
    for number, part in enumerate(taste.iter_slices(700)):
        part.write_parquet(root / "taste.parquet" / f"part-{number:06d}.parquet", row_group_size=200)
    place = values(rng, 2000).with_columns(
        title_id=pl.Series(rng.integers(0, 25, 2000)).cast(pl.Int32),
        country=pl.Series(rng.choice(["US-MN", "FR", "JP"], 2000)),
        rank=pl.Series(rng.random(2000), dtype=pl.Float32),
    )
    place.write_parquet(root / "place.parquet")
    heat = values(rng, 1500).with_columns(
        title_id=pl.Series(rng.integers(0, 25, 1500)), heat=pl.Series(rng.random(1500), dtype=pl.Float32)
    )
    heat.with_columns(heat_created=pl.col("made_at").dt.epoch("us")).write_parquet(root / "trend.parquet")
    rain = values(rng, 300).with_columns(rain=pl.Series(rng.random(300), dtype=pl.Float32))
    rain.write_parquet(root / "weather.parquet")
    plan = values(rng, 300).with_columns(member_id=pl.Series(rng.integers(0, 60, 300)), price=pl.lit(1.5))
    text = plan.with_columns(pl.col("event_timestamp", "made_at").dt.to_string("iso"))
    text.write_database("plan", f"sqlite:///{root / 'plans.db'}")
    return root


def values(rng: np.random.Generator, count: int) -> pl.DataFrame:
    """Times by the hour, so that many tie, and created up to three days later."""
    at = pl.Series("event_timestamp", rng.integers(0, HOURS, count)) * 3600
    made = at + pl.Series(rng.integers(0, 72, count)) * 3600
    moments = [pl.from_epoch(at + int(START.timestamp())), pl.from_epoch(made + int(START.timestamp()))]
    utc = [series.cast(pl.Datetime("us")).dt.replace_time_zone("UTC") for series in moments]
    return pl.DataFrame({"event_timestamp": utc[0], "made_at": utc[1]})


def some_null(numbers: np.ndarray, rng: np.random.Generator) -> pl.Series:
    return pl.Series(
        [None if gone else int(x) for x, gone in zip(numbers, rng.random(len(numbers)) < 0.05, strict=True)]
    )


@pytest.fixture(scope="module")
def slates() -> pd.DataFrame:
    """Requests of five titles each, with one member in half of them, and some rows without a key."""
    rng = np.random.default_rng(4)
    requests = 300
    members = np.where(rng.random(requests) < 0.5, 0.0, rng.integers(0, 80, requests))
    members[rng.random(requests) < 0.05] = np.nan
    hours = rng.integers(-50, HOURS + 50, requests)
    slate = np.repeat(np.arange(requests), 5)
    return pd.DataFrame(
        {
            "event_timestamp": pd.Timestamp(START) + pd.to_timedelta(hours[slate], unit="h"),
            "member_id": members[slate],
            "title_id": rng.integers(0, 30, slate.size),
            "country": rng.choice(["US-MN", "FR", "JP", "BR", None], slate.size),
            "label": rng.random(slate.size),
        },
        index=rng.permutation(slate.size),
    )


def store(folder: Path, tmp_path: Path, **offline: object) -> FeatureStore:
    member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.INT64)
    title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.INT64)
    country = Entity(name="country", join_keys=["country"], value_type=ValueType.STRING)

    def view(
        name: str, entities: list[Entity], ttl: timedelta | None, fields: list[Field], sql: bool = False
    ) -> FeatureView:
        times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "made_at"}
        database = f"sqlite:///{folder / 'plans.db'}"
        source = (
            SqlSource(name=name, url=database, table=name, **times)
            if sql
            else FileSource(path=f"{name}.parquet", **times)
        )
        return FeatureView(name=name, entities=entities, ttl=ttl, schema=fields, source=source, offline=False)

    number = [Field(name="member_id", dtype=Int64)]
    titles = [Field(name="title_id", dtype=Int64)]
    views = [
        view(
            "taste",
            [member],
            timedelta(days=3),
            [*number, Field(name="love", dtype=Float32), Field(name="mood", dtype=String)],
        ),
        view(
            "place",
            [title, country],
            None,
            [*titles, Field(name="country", dtype=String), Field(name="rank", dtype=Float32)],
        ),
        view(
            "trend",
            [title],
            timedelta(days=1),
            [*titles, Field(name="heat", dtype=Float32), Field(name="heat_created", dtype=Int64)],
        ),
        view("weather", [], timedelta(days=2), [Field(name="rain", dtype=Float32)]),
        view("plan", [member], None, [*number, Field(name="price", dtype=Float32)], sql=True),
    ]
    config = RepoConfig(
        project="ray",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{tmp_path / 'registry.db'}"},
        online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        offline_store={
            "type": "playbill_feast.offline.store.AsofOfflineStore",
            "features_folder": str(folder),
            **offline,
        },
        entity_key_serialization_version=3,
        repo_path=tmp_path,
    )
    found = FeatureStore(config=config)
    found.apply([member, title, country, *views])
    return found


def retrieved(found: FeatureStore, rows: pd.DataFrame, **options: bool) -> pd.DataFrame:
    return found.get_historical_features(entity_df=rows, features=FEATURES, **options).to_df()


@pytest.mark.parametrize(("by_row", "known_on"), [(False, None), (True, START + timedelta(days=30))])
def test_two_workers_answer_as_one_process(
    cluster: None, folder: Path, tmp_path: Path, slates: pd.DataFrame, by_row: bool, known_on: datetime | None
) -> None:
    local = store(folder, tmp_path)
    spread = store(folder, tmp_path, engine="ray", ray={"workers": 2, "partitions": 5})
    with as_known_on(known_on):
        expected = retrieved(local, slates, filter_by_created_timestamp=by_row)
        found = retrieved(spread, slates, filter_by_created_timestamp=by_row)
    pd.testing.assert_frame_equal(found, expected)
    assert found["label"].tolist() == slates["label"].tolist()
    answered = found[[name.split(":")[1] for name in FEATURES]].notna().mean()
    assert answered.between(0.05, 0.98).all(), answered
    assert ray.is_initialized()


def test_one_row_and_no_rows_are_joined_too(cluster: None, folder: Path, tmp_path: Path, slates: pd.DataFrame) -> None:
    local, spread = store(folder, tmp_path), store(folder, tmp_path, engine="ray")
    for count in (0, 1):
        pd.testing.assert_frame_equal(retrieved(spread, slates[:count]), retrieved(local, slates[:count]))


@pytest.mark.parametrize(
    ("requested", "texts"),
    [
        ({"workers": 300}, r"300 worker\(s\) of 1 CPU\(s\), but the Ray cluster has 2"),
        ({"cpus_per_worker": 3}, r"1 worker\(s\) of 3 CPU\(s\), but the Ray cluster has 2"),
    ],
)
def test_more_than_the_cluster_has_is_refused_at_once(
    cluster: None, folder: Path, tmp_path: Path, slates: pd.DataFrame, requested: dict[str, int], texts: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(StoreServiceError, match=texts):
        retrieved(store(folder, tmp_path, engine="ray", ray=requested), slates)
    assert time.monotonic() - begun < 30


def test_a_busy_cluster_is_waited_for_only_so_long(
    cluster: None, folder: Path, tmp_path: Path, slates: pd.DataFrame
) -> None:
    @ray.remote(num_cpus=1)
    class Neighbour:
        def ready(self) -> bool:
            return True

    neighbours = [Neighbour.remote() for _ in range(2)]
    assert ray.get([neighbour.ready.remote() for neighbour in neighbours]) == [True, True]
    spread = store(folder, tmp_path, engine="ray", ray={"workers": 2, "start_timeout_s": 1.5})
    try:
        with pytest.raises(StoreServiceError, match=r"did not free them in 1\.5 s: 0 of its 2 CPUs are free"):
            retrieved(spread, slates)
    finally:
        for neighbour in neighbours:
            ray.kill(neighbour)


def test_a_file_that_breaks_on_a_worker_is_named(cluster: None, tmp_path: Path, slates: pd.DataFrame) -> None:
    broken = tmp_path / "values"
    broken.mkdir()
    frame = pl.DataFrame({"title_id": range(20_000), "heat": np.random.default_rng(0).random(20_000)})
    at = pl.lit(START, dtype=pl.Datetime("us", "UTC"))
    frame.with_columns(pl.col("heat").cast(pl.Float32), event_timestamp=at, made_at=at).write_parquet(
        broken / "trend.parquet"
    )
    raw = bytearray((broken / "trend.parquet").read_bytes())
    raw[4 : len(raw) // 2] = b"\x00" * (len(raw) // 2 - 4)
    (broken / "trend.parquet").write_bytes(raw)
    spread = store(broken, tmp_path, engine="ray")
    with pytest.raises(StoreDataError, match=r"trend.*\n.*cannot be read"):
        spread.get_historical_features(entity_df=slates, features=["trend:heat"]).to_df()


def test_a_cluster_at_an_address_is_joined_and_left(cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    code = (
        "import ray; from playbill_feast.offline.ray_asof import connected\n"
        "from playbill_feast.offline.partitions import RaySettings\n"
        f"with connected(RaySettings(address={address!r})): print(ray.cluster_resources()['CPU'])\n"
        "print(ray.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.0", "False"]
    assert ray.cluster_resources()["CPU"] == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_at_the_address(folder: Path, tmp_path: Path, slates: pd.DataFrame, answer: bytes) -> None:
    ray.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            # The other side leaves as soon as it has seen enough.
            with connection, suppress(ConnectionError):
                connection.recv(100)
                connection.sendall(answer)
                connection.recv(100)

        threading.Thread(target=serve, daemon=True).start()
        requested = {"address": f"127.0.0.1:{port}", "start_timeout_s": 2}
        with pytest.raises(StoreServiceError, match=f"no Ray cluster at 127.0.0.1:{port}"):
            retrieved(store(folder, tmp_path, engine="ray", ray=requested), slates)


def test_no_cluster_at_the_address(folder: Path, tmp_path: Path, slates: pd.DataFrame) -> None:
    ray.shutdown()
    with pytest.raises(StoreServiceError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        retrieved(store(folder, tmp_path, engine="ray", ray={"address": "127.0.0.1:1"}), slates)


def test_a_cluster_of_its_own_is_stopped_again(folder: Path, tmp_path: Path, slates: pd.DataFrame) -> None:
    ray.shutdown()
    spread = store(folder, tmp_path, engine="ray", ray={"workers": 1, "object_store_mib": 150})
    pd.testing.assert_frame_equal(retrieved(spread, slates), retrieved(store(folder, tmp_path), slates))
    assert not ray.is_initialized()
