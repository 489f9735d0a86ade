"""The packed online store inside Feast, on SQLite and on Redis, against Feast's own SQLite store."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.data_source import PushMode
from feast.errors import (
    FeatureNameCollisionError,
    FeatureViewNotFoundException,
    RequestDataNotFoundInEntityRowsException,
    VersionedOnlineReadNotSupported,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.value_type import ValueType

from playbill_feast.errors import StoreDataError
from playbill_feast.online.store import reading_at

NOW = datetime.now(tz=UTC).replace(microsecond=0)  # noqa: TID251
HOUR = timedelta(hours=1)
PACKED = "playbill_feast.online.store.PackedOnlineStore"
ENGINE = "playbill_feast.compute_engine.PackedComputeEngine"

MEMBER = Entity(name="member", join_keys=["member_id"], value_type=ValueType.INT64)
COUNTRY = Entity(name="country", join_keys=["country"], value_type=ValueType.STRING)

KINDS = {
    "f32": Float32,
    "f64": Float64,
    "i32": Int32,
    "i64": Int64,
    "flag": Bool,
    "text": String,
    "raw": Bytes,
    "seen_at": UnixTimestamp,
    "vector": Array(Float32),
    "doubles": Array(Float64),
    "counts": Array(Int64),
    "shorts": Array(Int32),
    "flags": Array(Bool),
    "genres": Array(String),
    "blobs": Array(Bytes),
    "seen": Array(UnixTimestamp),
    "document": Json,
    "uuid": Uuid,
    "price": Decimal,
}


def every_kind() -> pa.Table:
    """Four rows: ordinary values, nulls, empty ones, and values at edges."""
    moment = datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    ids = [str(uuid.UUID(int=number)) for number in range(4)]
    return pa.table(
        {
            "member_id": pa.array([1, 2, 3, 4], pa.int64()),
            "country": ["NO", "SE", "ÅX", ""],
            "event_timestamp": pa.array([NOW - HOUR] * 4, pa.timestamp("us", "UTC")),
            "created": pa.array([NOW] * 4, pa.timestamp("us", "UTC")),
            "f32": pa.array([0.1, None, float("nan"), 1e30], pa.float32()),
            "f64": [0.1, None, float("nan"), -0.0],
            "i32": pa.array([1, None, -5, 2**31 - 1], pa.int32()),
            "i64": pa.array([2**53 + 1, 0, -(2**63), 5], pa.int64()),
            "flag": [True, False, None, True],
            "text": ["x", None, "", "ünï😀"],
            "raw": [b"\0\1", None, b"", b"zz"],
            "seen_at": pa.array([moment, None, NOW, datetime(1960, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "vector": pa.array([[0.1, 2.0], None, [], [1.0]], pa.list_(pa.float32())),
            "doubles": pa.array([[0.1, 2.0], None, [], [1.0]], pa.list_(pa.float64())),
            "counts": pa.array([[1, 2], None, [], [3]], pa.list_(pa.int64())),
            "shorts": pa.array([[1, 2], None, [], [3]], pa.list_(pa.int32())),
            "flags": pa.array([[True], None, [], [False, True]], pa.list_(pa.bool_())),
            "genres": pa.array([["a", "", "ø"], None, [], ["q"]], pa.list_(pa.string())),
            "blobs": pa.array([[b"a", b""], None, [], [b"q"]], pa.list_(pa.binary())),
            "seen": pa.array([[moment], None, [], [NOW]], pa.list_(pa.timestamp("us", "UTC"))),
            "document": ['{"a":1}', None, "[]", "3"],
            "uuid": [ids[0], None, ids[2], ids[3]],
            "price": ["1.5", None, "2", "-3"],
        }
    )


def repository(folder):
    """Views over one file: every kind by two keys, one feature by one key, a global one, and views on demand."""
    path = folder / "rows.parquet"
    if not path.exists():
        pq.write_table(every_kind(), path)
    file = FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
    keys = [Field(name="member_id", dtype=Int64), Field(name="country", dtype=String)]
    kinds = FeatureView(
        name="kinds",
        entities=[MEMBER, COUNTRY],
        schema=[*(Field(name=name, dtype=dtype) for name, dtype in KINDS.items()), *keys],
        source=file,
        ttl=timedelta(days=1),
    )
    one = FeatureView(
        name="one",
        entities=[MEMBER],
        schema=[Field(name="f64", dtype=Float64), keys[0]],
        source=PushSource(name="pushed", batch_source=file),
        ttl=timedelta(days=1),
    )
    everywhere = FeatureView(name="everywhere", entities=[], schema=[Field(name="i64", dtype=Int64)], source=file)
    request = RequestSource(name="request", schema=[Field(name="added", dtype=Int64)])

    @on_demand_feature_view(sources=[one, request], schema=[Field(name="total", dtype=Float64)], mode="pandas")
    def totals(frame):
        return pd.DataFrame({"total": frame["f64"] + frame["added"]})

    @on_demand_feature_view(sources=[one], schema=[Field(name="twice", dtype=Float64)], mode="python")
    def doubled(columns):
        return {"twice": [None if value is None else 2 * value for value in columns["f64"]]}

    renamed = one.with_name("other").with_join_key_map({"member_id": "other_id"})
    service = FeatureService(name="service", features=[kinds[["f32", "text"]], renamed, totals, doubled])
    return [MEMBER, COUNTRY, file, kinds, one, everywhere, totals, doubled, service]


def open_store(folder, online, engine=None, project="shop"):
    settings = {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder / 'registry.db'}", "cache_ttl_seconds": 600},
        "online_store": online,
        "offline_store": {"type": "playbill_feast.offline.store.AsofOfflineStore"},
        "entity_key_serialization_version": 3,
        **({"batch_engine": {"type": engine}} if engine else {}),
    }
    return FeatureStore(config=RepoConfig(repo_path=str(folder), **settings))


def filled(folder, online, engine=None):
    store = open_store(folder, online, engine)
    store.apply(repository(folder))
    store.materialize(NOW - timedelta(days=1), NOW)
    return store


def online_settings(backend, folder, redis_url):
    if backend == "sqlite":
        return {"type": PACKED, "path": str(folder / "packed.db")}
    return {"type": PACKED, "backend": "redis", "connection_string": redis_url}


@pytest.fixture(scope="module")
def feasts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feasts")
    return filled(folder, {"type": "sqlite", "path": str(folder / "feast.db")})


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def ours(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    return filled(folder, online_settings(request.param, folder, url), ENGINE)


@pytest.fixture(params=["sqlite", "redis"])
def fresh(request, tmp_path):
    """A store of its own, applied and not materialized."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    store = open_store(tmp_path, online_settings(request.param, tmp_path, url), ENGINE, project="fresh")
    store.apply(repository(tmp_path))
    yield store
    store.teardown()


def packed_store(store):
    return store.provider.online_store


ROWS = [
    {"member_id": member, "country": country}
    for member, country in [(1, "NO"), (2, "SE"), (9, "NO"), (3, "ÅX"), (4, ""), (1, "NO"), (1, "SE")]
]
KIND_REFS = [f"kinds:{name}" for name in KINDS]
REQUESTS = {
    "every kind": (KIND_REFS, ROWS, False),
    "full names": (KIND_REFS, ROWS, True),
    "columns": (["kinds:f32", "one:f64"], {"member_id": [1, 3], "country": ["NO", "ÅX"]}, True),
    "values of Feast": (["one:f64"], {"member_id": [Value(int64_val=1), Value(int64_val=8)]}, False),
    "other python types": (["one:f64"], [{"member_id": np.int64(1)}, {"member_id": "4"}], False),
    "the entity's name": (["one:f64"], [{"member": 1}, {"member": 7}], False),
    "no entities": (["everywhere:i64"], [{"member_id": 1}, {"member_id": 2}], False),
    "some entities": (["everywhere:i64", "one:f64"], [{"member_id": 1}, {"member_id": 2}], False),
    "on demand": (
        ["totals:total", "doubled:twice"],
        [{"member_id": 1, "added": 4}, {"member_id": 5, "added": 6}],
        False,
    ),
    "on demand and its input": (["doubled:twice", "one:f64"], [{"member_id": 1}, {"member_id": 4}], True),
    "a service": (
        "service",
        [
            {"member_id": 1, "country": "NO", "other_id": 2, "added": 1},
            {"member_id": 4, "country": "", "other_id": 1, "added": 2},
        ],
        True,
    ),
}


def ask(store, request):
    features, rows, full_names = request
    wanted = store.get_feature_service(features) if isinstance(features, str) else features
    return store.get_online_features(wanted, rows, full_feature_names=full_names)


def shown(answer):
    """An answer as text, in which NaN equals NaN, and 1 and True differ."""
    return {name: [(type(value).__name__, repr(value)) for value in values] for name, values in answer.items()}


@pytest.mark.filterwarnings("ignore:Using entity name is deprecated")
@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_the_dictionary_is_feasts_own(ours, feasts, request_of):
    answer, wanted = ask(ours, request_of), ask(feasts, request_of)

    assert shown(answer.to_dict()) == shown(wanted.to_dict())
    assert list(answer.to_dict()) == list(wanted.to_dict())
    timed = answer.to_dict(include_event_timestamps=True)
    assert shown(timed) == shown(wanted.to_dict(include_event_timestamps=True))
    pd.testing.assert_frame_equal(answer.to_df(), wanted.to_df())


def test_arrow_tensors_and_protobuf_agree_with_feasts(ours, feasts):
    request = (["kinds:f32", "kinds:i64", "kinds:text", "kinds:vector"], ROWS, True)
    answer, wanted = ask(ours, request), ask(feasts, request)

    assert answer.to_arrow().equals(wanted.to_arrow())
    tensors, feasts_tensors = answer.to_tensor(), wanted.to_tensor()
    assert tensors.keys() == feasts_tensors.keys()
    np.testing.assert_array_equal(tensors["kinds__f32"].numpy(), feasts_tensors["kinds__f32"].numpy())
    assert tensors["kinds__text"][0] == "x"
    assert list(answer.proto.metadata.feature_names.val) == list(wanted.proto.metadata.feature_names.val)
    for ours_column, feasts_column in zip(answer.proto.results, wanted.proto.results, strict=True):
        assert list(ours_column.values) == list(feasts_column.values)
        assert [t.seconds for t in ours_column.event_timestamps] == [t.seconds for t in feasts_column.event_timestamps]


def test_the_asynchronous_twin_answers_the_same(ours):
    request = REQUESTS["every kind"]

    async def requested():
        answer = await ours.get_online_features_async(request[0], request[1])
        store = packed_store(ours)
        if hasattr(store.database(ours.config).backend, "close_async"):
            await store.database(ours.config).backend.close_async()
        return answer

    assert shown(asyncio.run(requested()).to_dict()) == shown(ask(ours, request).to_dict())
    assert packed_store(ours).async_supported.read
    assert packed_store(ours).async_supported.write


@pytest.mark.parametrize(
    ("features", "rows", "error"),
    [
        (["kinds:nothing"], ROWS, KeyError),
        (["nothing:f64"], ROWS, FeatureViewNotFoundException),
        (["kinds:f64", "one:f64"], ROWS, FeatureNameCollisionError),
        (["one:f64"], [{"member_id": 1}, {"member_id": 2, "added": 3}], ValueError),
        (["one:f64"], [{"member_id": 1, "added": 3}, {"member_id": 2}], ValueError),
        (["one:f64"], {"member_id": [1, 2], "country": ["NO"]}, ValueError),
        (["one:f64"], [{"added": 3}], KeyError),
        (["totals:total"], [{"member_id": 3}], RequestDataNotFoundInEntityRowsException),
        (["one:f64"], [{"member_id": 2**70}], ValueError),
    ],
)
def test_mistakes_are_feasts_errors(ours, feasts, features, rows, error):
    with pytest.raises(error):
        feasts.get_online_features(features, rows)
    with pytest.raises(error):
        ours.get_online_features(features, rows)


def test_a_missing_join_key_is_named(ours):
    with pytest.raises(KeyError, match=r"\['country'\] of feature view 'kinds'"):
        ours.get_online_features(["kinds:f32"], [{"member_id": 1}])
    with pytest.raises(ValueError, match="entity_rows is empty"):
        ours.get_online_features(["kinds:f32"], [])


def test_an_unknown_entity_a_null_and_a_null_key_have_their_status(ours):
    rows = {"member_id": [1, 2, 9, None]}
    answer = ours.get_online_features(["one:f64"], rows)
    assert answer.to_dict()["f64"] == [0.1, None, None, None]
    statuses = dict(zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True))["f64"].statuses
    assert list(statuses) == [
        FieldStatus.PRESENT,
        FieldStatus.NULL_VALUE,
        FieldStatus.NOT_FOUND,
        FieldStatus.NOT_FOUND,
    ]


def test_values_past_their_ttl_are_null_from_the_microsecond_after(ours):
    edge = NOW - HOUR + timedelta(days=1)
    for moment, wanted, status in [
        (edge, 0.1, FieldStatus.PRESENT),
        (edge + timedelta(microseconds=1), None, FieldStatus.OUTSIDE_MAX_AGE),
    ]:
        with reading_at(moment):
            answer = ours.get_online_features(["one:f64"], [{"member_id": 1}])
        assert answer.to_dict(include_event_timestamps=True) == {
            "member_id": [1],
            "member_id__ts": [0],
            "f64": [wanted],
            "f64__ts": [int((NOW - HOUR).timestamp())],
        }
        assert answer.proto.results[1].statuses == [status]
    with reading_at(edge + HOUR):
        assert packed_store(ours).online_read(ours.config, *_by_key(ours, 1)) == [(NOW - HOUR, None)]
        assert ours.get_online_features(["everywhere:i64"], [{"member_id": 1}]).to_dict()["i64"] != [None]


def _by_key(store, member):
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    view = store.get_feature_view("one")
    return view, [EntityKey(join_keys=["member_id"], entity_values=[Value(int64_val=member)])]


def test_without_enforcement_values_of_any_age_are_served(tmp_path):
    store = filled(tmp_path, {"type": PACKED, "path": str(tmp_path / "packed.db"), "enforce_ttl": False}, ENGINE)
    with reading_at(NOW + timedelta(days=400)):
        assert store.get_online_features(["one:f64"], [{"member_id": 1}]).to_dict()["f64"] == [0.1]


def pushed(value, age, created=None, member=1):
    return pd.DataFrame(
        {
            "member_id": [member],
            "country": ["NO"],
            "f64": [value],
            "event_timestamp": [NOW - age],
            "created": [created or NOW],
        }
    )


def served(store, member=1):
    return store.get_online_features(["one:f64"], [{"member_id": member}]).to_dict()["f64"][0]


def test_a_late_push_never_wins(fresh):
    steps = [
        (pushed(1.0, 2 * HOUR), 1.0),
        (pushed(2.0, 3 * HOUR), 1.0),
        (pushed(3.0, HOUR), 3.0),
        (pushed(4.0, HOUR, created=NOW - HOUR), 3.0),
        (pushed(5.0, HOUR), 5.0),
        (pushed(6.0, HOUR, created=NOW + HOUR), 6.0),
    ]
    for rows, wanted in steps:
        fresh.push("pushed", rows, to=PushMode.ONLINE)
        assert served(fresh) == wanted


def test_an_asynchronous_push_is_served(fresh):
    async def push():
        await fresh.push_async("pushed", pushed(7.5, HOUR), to=PushMode.ONLINE)
        backend = packed_store(fresh).database(fresh.config).backend
        if hasattr(backend, "close_async"):
            await backend.close_async()

    asyncio.run(push())
    assert served(fresh) == 7.5


def test_materialize_incremental_takes_up_where_it_left(fresh, tmp_path):
    fresh.materialize_incremental(NOW - 2 * HOUR)
    assert served(fresh) is None
    fresh.materialize_incremental(NOW)
    assert served(fresh) == 0.1


def test_materializing_again_after_a_newer_push_keeps_the_push(fresh):
    fresh.push("pushed", pushed(7.5, timedelta(0)), to=PushMode.ONLINE)
    fresh.materialize(NOW - timedelta(days=1), NOW)
    assert served(fresh) == 7.5
    assert served(fresh, 4) == -0.0


def test_writing_arrow_counts_its_rows_and_leaves_out_null_keys(fresh, caplog):
    view = fresh.get_feature_view("one")
    rows = pa.table(
        {
            "member_id": pa.array([1, None, 1], pa.int64()),
            "f64": [1.0, 2.0, 3.0],
            "event_timestamp": pa.array([NOW - HOUR, NOW, NOW - 2 * HOUR], pa.timestamp("ns", "UTC")),
        }
    )
    progress = []
    assert packed_store(fresh).write_arrow(fresh.config, view, rows, progress.append) == 2
    assert sum(progress) == 2
    assert "1 rows without a complete key" in caplog.text
    assert served(fresh) == 1.0
    assert packed_store(fresh).write_arrow(fresh.config, view, rows.slice(0, 0)) == 0


def test_a_table_that_does_not_fit_names_every_mistake_and_writes_nothing(fresh):
    view = fresh.get_feature_view("one")
    with pytest.raises(StoreDataError, match=r"(?s)f64: column is missing.*event_timestamp: column is missing"):
        packed_store(fresh).write_arrow(fresh.config, view, pa.table({"member_id": [1]}))
    late_null = pa.table(
        {
            "member_id": [1, 2],
            "f64": [1.0, 2.0],
            "event_timestamp": pa.array([NOW, None], pa.timestamp("us", "UTC")),
        }
    )
    with pytest.raises(StoreDataError, match="1 rows have no time"):
        packed_store(fresh).write_arrow(fresh.config, view, late_null)
    assert served(fresh) is None


def test_columns_come_as_a_frame_with_their_times(ours):
    view = ours.get_feature_view("kinds")
    keys = pl.DataFrame({"country": ["NO", "XX", None, "ÅX"], "member_id": [1, 1, 1, 3]})
    frame = packed_store(ours).read_packed(ours.config, view, keys, ["f32", "genres", "seen_at"])
    assert frame.columns == ["f32", "genres", "seen_at", "__event_timestamp"]
    assert frame["genres"].to_list() == [["a", "", "ø"], None, None, []]
    assert frame["f32"].dtype == pl.Float32
    assert frame["seen_at"][0].microsecond == 678
    assert frame["__event_timestamp"].to_list() == [NOW - HOUR, None, None, NOW - HOUR]
    with reading_at(NOW + timedelta(days=9)):
        late = packed_store(ours).read_packed(ours.config, view, keys.to_arrow(), ["f32"])
    assert late["f32"].to_list() == [None] * 4
    assert late["__event_timestamp"].to_list() == frame["__event_timestamp"].to_list()
    with pytest.raises(StoreDataError, match=r"genre: is no feature of the view. Did you mean 'genres'"):
        packed_store(ours).read_packed(ours.config, view, keys, ["genre"])
    with pytest.raises(StoreDataError, match="country: join key is missing"):
        packed_store(ours).read_packed(ours.config, view, keys.drop("country"), ["genres"])


def test_many_keys_are_read_at_once(fresh):
    view = fresh.get_feature_view("one")
    count = 60_000
    ids = pa.array(range(count), pa.int64())
    rows = pa.table(
        {
            "member_id": ids,
            "f64": pa.array(np.arange(count, dtype=np.float64)),
            "event_timestamp": pa.array([NOW] * count, pa.timestamp("us", "UTC")),
        }
    )
    assert packed_store(fresh).write_arrow(fresh.config, view, rows) == count
    frame = packed_store(fresh).read_packed(fresh.config, view, pa.table({"member_id": ids}), ["f64"])
    assert (frame["f64"] == pl.Series(range(count))).all()


def test_removing_a_view_removes_its_rows_and_no_others(fresh, tmp_path):
    fresh.materialize(NOW - timedelta(days=1), NOW)
    view = fresh.get_feature_view("everywhere")
    again = [item for item in repository(tmp_path) if getattr(item, "name", "") == "everywhere"]
    anyone = pl.DataFrame({"whoever": [1]})
    read = packed_store(fresh).read_packed
    assert read(fresh.config, view, anyone, ["i64"])["i64"].null_count() == 0

    fresh.apply([], objects_to_delete=[view], partial=False)
    fresh.apply(again)

    assert read(fresh.config, view, anyone, ["i64"])["i64"].to_list() == [None]
    assert served(fresh) == 0.1


def test_a_feature_added_later_reads_null_until_it_is_written(fresh):
    fresh.materialize(NOW - timedelta(days=1), NOW)
    assert ask(fresh, (["one:f64"], [{"member_id": 1}], False)).to_dict()["f64"] == [0.1]
    file = fresh.get_feature_view("one").batch_source
    wider = FeatureView(
        name="one",
        entities=[MEMBER],
        schema=[Field(name=name, dtype=KINDS[name]) for name in ("f64", "text", "vector")]
        + [Field(name="member_id", dtype=Int64)],
        source=PushSource(name="pushed", batch_source=file),
        ttl=timedelta(days=1),
    )
    fresh.apply([wider])
    request = (["one:f64", "one:text"], [{"member_id": 1}, {"member_id": 8}], False)
    assert ask(fresh, request).to_dict()["text"] == [None, None]
    assert ask(fresh, request).to_dict()["f64"] == [0.1, None]
    fresh.materialize(NOW - timedelta(days=1), NOW)
    assert ask(fresh, request).to_dict()["text"] == ["x", None]


def test_version_pinned_features_are_refused_as_feast_refuses_them(ours):
    request = (["one:f64"], [{"member_id": 1}], False)
    ask(ours, request)
    store = packed_store(ours)
    view = ours.get_feature_view("one")
    view.projection.version_tag = 2
    with pytest.raises(VersionedOnlineReadNotSupported):
        store._check_versioned_read_support([(view, ["f64"])])
