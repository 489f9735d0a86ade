"""Plain Feast commands on the packed store and engine, vector search, and what the engine leaves to Feast."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, Entity, FeatureStore, FeatureView, Field, FileSource
from feast.repo_config import RepoConfig
from feast.types import Array, Float32, Int64
from feast.value_type import ValueType

from playbill_feast.errors import StoreDataError, UnknownFeatureError
from playbill_feast.online.store import reading_at

NOW = datetime.now(tz=UTC).replace(microsecond=0)  # noqa: TID251
HOUR = timedelta(hours=1)
TITLE = Entity(name="title", join_keys=["title_id"], value_type=ValueType.INT64)
FEAST = Path(sys.executable).with_name("feast")

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float32, Int64, String

title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.INT64)
rows = FileSource(path="{path}", timestamp_field="event_timestamp")
view = FeatureView(
    name="titles",
    entities=[title],
    schema=[
        Field(name="title_id", dtype=Int64),
        Field(name="plays", dtype=Int64),
        Field(name="genres", dtype=Array(String)),
        Field(name="vector", dtype=Array(Float32)),
    ],
    source=PushSource(name="pushed", batch_source=rows),
    ttl=timedelta(days=2),
)
"""


def titles(count=3):
    return pa.table(
        {
            "title_id": pa.array(range(count), pa.int64()),
            "plays": pa.array([10 * number for number in range(count)], pa.int64()),
            "genres": pa.array([["drama"]] * count, pa.list_(pa.string())),
            "vector": pa.array([[float(number), 1.0] for number in range(count)], pa.list_(pa.float32())),
            "event_timestamp": pa.array([NOW - HOUR] * count, pa.timestamp("us", "UTC")),
        }
    )


def settings(backend, folder, redis_url, engine=True):
    online = {"type": "playbill_feast.online.store.PackedOnlineStore"}
    if backend == "redis":
        online |= {"backend": "redis", "connection_string": redis_url}
    else:
        online |= {"path": str(folder / "packed.db")}
    return {
        "project": f"served_{backend}",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}"},
        "online_store": online,
        "offline_store": {"type": "playbill_feast.offline.store.AsofOfflineStore"},
        "entity_key_serialization_version": 3,
        **({"batch_engine": {"type": "playbill_feast.compute_engine.PackedComputeEngine"}} if engine else {}),
    }


@pytest.fixture(params=["sqlite", "redis"])
def repo(request, tmp_path):
    """A feature repository of its own with a file of titles."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    pq.write_table(titles(), tmp_path / "titles.parquet")
    (tmp_path / "feature_store.yaml").write_text(json.dumps(settings(request.param, tmp_path, url)))
    (tmp_path / "titles_views.py").write_text(DEFINITIONS.replace("{path}", str(tmp_path / "titles.parquet")))
    return tmp_path


def feast(repo, *arguments):
    environment = os.environ | {"FEAST_USAGE": "False"}
    return subprocess.run(
        [str(FEAST), "-c", str(repo), *arguments], capture_output=True, text=True, check=True, env=environment
    )


def post(port, path, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def served(port):
    body = {"features": ["titles:plays", "titles:genres"], "entities": {"title_id": [1, 2, 99]}}
    answer = post(port, "/get-online-features", body)
    columns = zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    return {name: (column["values"], column["statuses"]) for name, column in columns}


@pytest.fixture
def port(repo):
    """The port of a running `feast serve`, after `feast apply` and `feast materialize`."""
    feast(repo, "apply")
    if "redis" in (repo / "feature_store.yaml").read_text():
        FeatureStore(repo_path=str(repo)).materialize_incremental(NOW)
    else:
        feast(repo, "materialize-incremental", NOW.strftime("%Y-%m-%dT%H:%M:%S"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    log = (repo / "serve.log").open("w")
    server = subprocess.Popen(
        [str(FEAST), "-c", str(repo), "serve", "--port", str(number), "--no-access-log"],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_for(number, server, repo)
        yield number
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        log.close()


def _wait_for(number, server, repo):
    until = time.monotonic() + 240
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{number}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError((repo / "serve.log").read_text())


def test_feast_serve_answers_and_takes_pushes(port):
    found = served(port)
    assert found["plays"] == ([10, 20, None], ["PRESENT", "PRESENT", "NOT_FOUND"])
    assert found["genres"][0] == [["drama"], ["drama"], None]

    newer = {"title_id": [1], "plays": [77], "genres": [["crime", "noir"]], "vector": [[1.0, 1.0]]}
    for age, plays in ((timedelta(0), 77), (2 * HOUR, 5)):
        row = newer | {"plays": [plays], "event_timestamp": [(NOW - age).isoformat()]}
        post(port, "/push", {"push_source_name": "pushed", "df": row, "to": "online"})

    found = served(port)
    assert found["plays"][0] == [77, 20, None]
    assert found["genres"][0][0] == ["crime", "noir"]


def store_with(folder, views, **overrides):
    store = FeatureStore(config=RepoConfig(**(settings("sqlite", folder, "") | overrides)))
    store.apply([TITLE, *views])
    return store


def title_view(folder, table, name="titles", cls=FeatureView, mapping=None, **options):
    path = folder / f"{name}.parquet"
    pq.write_table(table, path)
    source = FileSource(name=name, path=str(path), timestamp_field="event_timestamp", field_mapping=mapping or {})
    schema = [Field(name="title_id", dtype=Int64), Field(name="plays", dtype=Int64)]
    return cls(name=name, entities=[TITLE], schema=options.pop("schema", schema), source=source, **options)


def plays(store, view="titles"):
    answer = store.get_online_features([f"{view}:plays"], [{"title_id": number} for number in range(3)])
    return answer.to_dict()["plays"]


def test_a_field_mapping_is_followed(tmp_path):
    table = titles().rename_columns(["title_id", "n_plays", "genres", "vector", "event_timestamp"])
    view = title_view(tmp_path, table, mapping={"n_plays": "plays"})
    store = store_with(tmp_path, [view])
    store.materialize(NOW - 2 * HOUR, NOW)
    assert plays(store) == [0, 10, 20]


def test_only_rows_between_the_two_moments_are_materialized(tmp_path):
    times = pa.array([NOW - 3 * HOUR, NOW - HOUR, NOW + HOUR], pa.timestamp("us", "UTC"))
    store = store_with(tmp_path, [title_view(tmp_path, titles().set_column(4, "event_timestamp", times))])
    store.materialize(NOW - 2 * HOUR, NOW)
    assert plays(store) == [None, 10, None]


def test_a_failing_materialization_raises_and_keeps_the_old_rows(tmp_path):
    view = title_view(tmp_path, titles())
    store = store_with(tmp_path, [view])
    store.materialize(NOW - 2 * HOUR, NOW)
    words = titles().set_column(1, "plays", pa.array(["one", "two", "three"]))
    pq.write_table(words, tmp_path / "titles.parquet")
    with pytest.raises(StoreDataError, match=r"plays: .*string is no int64"):
        store.materialize(NOW - 2 * HOUR, NOW)
    found = store.provider.online_store.read_packed(
        store.config, view, pl.DataFrame({"title_id": [0, 1, 2]}), ["plays"]
    )
    assert found["plays"].to_list() == [0, 10, 20]


def test_a_transformation_is_left_to_feasts_engine_and_said_so(tmp_path, caplog):
    def doubled(frame):
        return frame.assign(plays=2 * frame["plays"])

    view = title_view(tmp_path, titles(), cls=BatchFeatureView, mode="pandas", udf=doubled, udf_string="", online=True)
    store = store_with(tmp_path, [view])
    with caplog.at_level(logging.INFO, "playbill_feast.compute_engine"):
        store.materialize(NOW - 2 * HOUR, NOW)
    assert "view 'titles' is materialized by Feast's own engine: it has a transformation" in caplog.text
    assert plays(store) == [0, 20, 40]


def test_the_engine_serves_other_online_stores_through_feasts(tmp_path, caplog):
    other = {"online_store": {"type": "sqlite", "path": str(tmp_path / "feast.db")}}
    store = store_with(tmp_path, [title_view(tmp_path, titles())], **other)
    with caplog.at_level(logging.INFO, "playbill_feast.compute_engine"):
        store.materialize(NOW - 2 * HOUR, NOW)
    assert "the online store is not PackedOnlineStore" in caplog.text
    assert plays(store) == [0, 10, 20]


VECTOR = [
    Field(name="title_id", dtype=Int64),
    Field(name="plays", dtype=Int64),
    Field(name="vector", dtype=Array(Float32), vector_index=True),
]


@pytest.fixture
def searched(tmp_path):
    """A store of four vectors, one of them nothing but zeros, and one null."""
    vectors = pa.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 0.0], None], pa.list_(pa.float32()))
    table = titles(5).set_column(3, "vector", vectors)
    store = store_with(tmp_path, [title_view(tmp_path, table, schema=VECTOR, ttl=timedelta(days=1))])
    store.materialize(NOW - 2 * HOUR, NOW)
    return store


def nearest(store, metric, count=9, vector=(1.0, 0.1), features=("plays",)):
    view = store.get_feature_view("titles")
    return store.provider.online_store.nearest(store.config, view, vector, count, metric, features)


@pytest.mark.parametrize(
    ("metric", "order"), [("cosine", [0, 2, 3, 1]), ("dot", [2, 0, 1, 3]), ("l2", [0, 3, 1, 2]), ("L2", [0, 3, 1, 2])]
)
def test_the_nearest_vectors_come_first(searched, metric, order):
    import numpy as np

    found = nearest(searched, metric)
    if metric == "cosine":
        order = sorted([0, 1, 2, 3], key=lambda title: found.filter(pl.col("title_id") == title)["__distance"][0])
    assert found["title_id"].to_list() == order
    assert found["plays"].to_list() == [10 * title for title in order]
    stored = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 0.0]])
    query = np.array([1.0, 0.1])
    with np.errstate(invalid="ignore"):
        cosine = 1 - stored @ query / (np.linalg.norm(stored, axis=1) * np.linalg.norm(query))
    wanted = {
        "cosine": np.nan_to_num(cosine, nan=1.0),
        "dot": -stored @ query,
        "l2": np.linalg.norm(stored - query, axis=1),
    }[metric.lower()]
    assert found["__distance"].to_list() == pytest.approx(wanted[order], abs=1e-5)


def test_a_search_follows_the_view_and_its_ttl(searched, tmp_path):
    assert nearest(searched, "cosine", 1)["title_id"].to_list() == [0]
    moved = titles(1).set_column(3, "vector", pa.array([[-1.0, 0.0]], pa.list_(pa.float32())))
    moved = moved.set_column(4, "event_timestamp", pa.array([NOW], pa.timestamp("us", "UTC")))
    view = searched.get_feature_view("titles")
    searched.provider.online_store.write_arrow(searched.config, view, moved)
    assert nearest(searched, "cosine", 1)["title_id"].to_list() == [2]
    with reading_at(NOW + timedelta(hours=23, minutes=30)):
        assert nearest(searched, "cosine")["title_id"].to_list() == [0]


def test_feasts_own_search_pairs_values_with_their_entities(searched):
    answer = searched.retrieve_online_documents_v2(
        features=["titles:plays", "titles:vector"], query=[1.0, 0.1], top_k=3, distance_metric="L2"
    ).to_dict()
    assert answer["title_id"] == [0, 1, 3]
    assert answer["plays"] == [0, 10, 30]
    assert answer["distance"] == pytest.approx([0.1, 2.147, 1.005], abs=1e-3)


def test_a_join_key_may_be_asked_for_like_a_feature(searched):
    answer = searched.retrieve_online_documents_v2(
        features=["titles:title_id", "titles:plays"], query=[1.0, 0.1], top_k=3, distance_metric="L2"
    ).to_dict()
    assert answer["title_id"] == [0, 1, 3]
    assert answer["plays"] == [0, 10, 30]


def test_searches_that_cannot_be_are_refused(searched, tmp_path):
    with pytest.raises(StoreDataError, match="query: has 3 numbers, the stored vectors have 2"):
        nearest(searched, "l2", vector=(1.0, 2.0, 3.0))
    with pytest.raises(UnknownFeatureError, match="Did you mean 'cosine'"):
        nearest(searched, "cosin")
    with pytest.raises(StoreDataError, match="use one of Feast's vector stores"):
        searched.retrieve_online_documents_v2(features=["titles:plays"], query_string="noir", top_k=3)
    plain = title_view(tmp_path, titles(), name="plain")
    store = store_with(tmp_path, [plain])
    with pytest.raises(StoreDataError, match=r"vector_index=True, found none"):
        store.provider.online_store.nearest(store.config, plain, [1.0], 1)
