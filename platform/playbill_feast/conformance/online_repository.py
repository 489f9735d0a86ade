"""The small Feast repository of the online suite, and its responses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp, from_value_type

from playbill_feast.clock import utc_now
from playbill_feast.conformance.cells import ACCOUNT, MEMBER, TITLE, cells, rows_table, suite_store

TASTE_TTL = timedelta(hours=1)
FOREVER = timedelta(0)
TYPES: Mapping[str, Any] = {
    "an_int32": Int32,
    "an_int64": Int64,
    "a_float32": Float32,
    "a_float64": Float64,
    "a_bool": Bool,
    "a_text": String,
    "some_bytes": Bytes,
    "a_moment": UnixTimestamp,
    "int_list": Array(Int64),
    "float_list": Array(Float64),
    "text_list": Array(String),
    "bool_list": Array(Bool),
    "vector": Array(Float32),
}


def ago(*, hours: float = 0, seconds: float = 0) -> pd.Timestamp:
    """Return a moment before now, in UTC. Online stores count ages to the machine's own clock."""
    now = pd.Timestamp(utc_now())
    return now - pd.Timedelta(hours=hours) - pd.Timedelta(seconds=seconds)


def now(**columns: Any) -> dict[str, Any]:
    """Return a row of a second ago."""
    return {"event_timestamp": ago(seconds=1), **columns}


@dataclass(frozen=True)
class OnlineAnswer:
    """A response to a request for online features; `event_seconds` are since 1970, 0 where there is no event time."""

    values: Mapping[str, list[Any]]  # Name -> a value per entity row, None for null
    statuses: Mapping[str, list[str]]  # Feature -> Feast's name of the status per entity row
    event_seconds: Mapping[str, list[int]]


def answer_of(response: Any) -> OnlineAnswer:
    """Read one of Feast's online responses."""
    values = response.to_dict(include_event_timestamps=True)
    names = list(response.proto.metadata.feature_names.val)
    return OnlineAnswer(
        values={name: cells(column) for name, column in response.to_dict().items()},
        statuses={
            name: [FieldStatus.Name(status) for status in result.statuses]
            for name, result in zip(names, response.proto.results, strict=True)
        },
        event_seconds={name: values[f"{name}__ts"] for name in names},
    )


@dataclass(frozen=True)
class OnlineRepository:
    """An applied repository on the online store under test."""

    store: FeatureStore
    views: Mapping[str, FeatureView]
    folder: Path

    def frame(self, view: str, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Return rows as `write_to_online_store` takes them; a created time left out is the event time."""
        fields = [*self.views[view].entity_columns, *self.views[view].features]
        columns = {field.name: pd.Series([row.get(field.name) for row in rows], dtype=object) for field in fields}
        times = {"event_timestamp": [row["event_timestamp"] for row in rows]}
        created = {"created_timestamp": [row.get("created_timestamp", row["event_timestamp"]) for row in rows]}
        return pd.DataFrame(columns | times | created)

    def write(self, view: str, *rows: Mapping[str, Any]) -> None:
        """Write rows, in this order, in one call, by the view as it is registered now.

        Feast remembers cached listings by memory address, and may hand the store a former definition of the view.
        """
        self.store.write_to_online_store(view, df=self.frame(view, rows), allow_registry_cache=False)

    def load(self, view: str, *rows: Mapping[str, Any]) -> None:
        """Make rows the view's whole offline history, and materialize what lies up to an hour back."""
        about = self.views[view]
        types = {field.name: field.dtype for field in [*about.entity_columns, *about.features]}
        types.pop(DUMMY_ENTITY_ID, None)
        write_file(self.folder / f"{view}.parquet", types, rows)
        self.store.materialize(
            start_date=ago(hours=24).to_pydatetime(), end_date=ago(hours=1).to_pydatetime(), feature_views=[view]
        )

    def read(self, features: list[str] | FeatureService, entities: Any, *, full_names: bool = False) -> OnlineAnswer:
        """Ask for features of entities, given as a list of rows or as columns."""
        return answer_of(
            self.store.get_online_features(features=features, entity_rows=entities, full_feature_names=full_names)
        )

    def one(self, feature: str, **keys: Any) -> Any:
        """Return one feature of one entity."""
        return self.read([feature], [keys]).values[feature.split(":")[1]][0]

    def status(self, feature: str, **keys: Any) -> str:
        """Return the status of one feature of one entity."""
        return self.read([feature], [keys]).statuses[feature.split(":")[1]][0]


def open_online_repository(
    folder: Path, online_store: Mapping[str, Any], views: Sequence[FeatureView] = ()
) -> OnlineRepository:
    """Register views (none = those of the suite) in a project of their own, whose name no other run has.

    Registry and sources go to `folder`, which two projects may share.
    """
    project = f"conformance_{uuid.uuid4().hex[:10]}"
    store = suite_store(folder, project, offline_store={"type": "dask"}, online_store=dict(online_store))
    named = {view.name: view for view in views or suite_views(folder)}
    store.apply([MEMBER, TITLE, ACCOUNT, *named.values(), *([] if views else suite_services(named))])
    return OnlineRepository(store, named, folder)


def suite_views(folder: Path) -> list[FeatureView]:
    """Return the views that most tests use."""
    return [
        online_view(folder, "kinds", [MEMBER], TYPES),
        online_view(folder, "taste", [MEMBER], {"x": Float64, "y": String}, ttl=TASTE_TTL),
        online_view(folder, "mood", [MEMBER], {"x": Float64}, ttl=None),
        online_view(folder, "fame", [TITLE], {"score": Float64}),
        online_view(folder, "pair", [MEMBER, TITLE], {"z": Float64}),
        online_view(folder, "wallet", [ACCOUNT], {"credit": Float64}),
        online_view(folder, "weather", [], {"rain": Float64}),
    ]


def suite_services(views: Mapping[str, FeatureView]) -> list[FeatureService]:
    """Return the services: several views at once, and one view under two names and keys."""
    mood = views["mood"]
    friend = mood.with_name("friend").with_join_key_map({"member_id": "friend_id"})
    return [
        FeatureService(name="evening", features=[mood, views["fame"], views["pair"], views["weather"]]),
        FeatureService(name="friends", features=[mood.with_name("own"), friend]),
    ]


def online_view(
    folder: Path, name: str, entities: list[Entity], features: Mapping[str, Any], ttl: timedelta | None = FOREVER
) -> FeatureView:
    """Return a view over a parquet file, which is written with one old row if it is not there."""
    keys = {entity.join_key: from_value_type(entity.value_type) for entity in entities}
    path = folder / f"{name}.parquet"
    if not path.exists():
        write_file(path, keys | dict(features), [{"event_timestamp": ago(hours=9999)}])
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[Field(name=field, dtype=dtype) for field, dtype in {**keys, **features}.items()],
        source=FileSource(
            name=name, path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
        ),
        online=True,
    )


def write_file(path: Path, types: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as the parquet file of a view with columns of these Feast types."""
    pq.write_table(rows_table(types, rows), path)


def vector(seed: int, length: int = 64) -> list[float]:
    """Return a vector that float32 holds exactly."""
    return [float(value) for value in np.random.default_rng(seed).normal(size=length).astype("float32")]
