"""The small Feast repository of the offline suite, and how its sources are filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String, from_value_type

from playbill_feast.conformance.cells import ACCOUNT, MEMBER, TITLE, rows_table, suite_store

START = pd.Timestamp("2024-01-01", tz="UTC")
TASTE_TTL, PAIR_TTL = timedelta(hours=6), timedelta(hours=30)


def moment(hours: float = 0, *, microseconds: int = 0) -> pd.Timestamp:
    """Return a moment so long after the suite's start, 2024-01-01 UTC."""
    return START + pd.Timedelta(hours=hours) + pd.Timedelta(microseconds=microseconds)


def at(hours: float = 0, **columns: Any) -> dict[str, Any]:
    """Return a row of so long after the suite's start."""
    return {"event_timestamp": moment(hours), **columns}


class MakeSource(Protocol):
    """Makes the Feast source of one view; see `OfflineStoreConformance.make_source`."""

    def __call__(self, name: str, folder: Path, **options: Any) -> DataSource:
        """Return the source; `options` are `timestamp_field` and the like."""
        ...


@dataclass(frozen=True)
class OfflineRepository:
    """An applied repository and the door to its sources."""

    store: FeatureStore
    views: Mapping[str, FeatureView]
    fill: Callable[[DataSource, pa.Table], None]  # Replaces everything a source holds

    @property
    def offline(self) -> OfflineStore:
        """The store under test, below Feast's own door."""
        return self.store._get_provider().offline_store

    def write(self, view: str, *rows: Mapping[str, Any]) -> None:
        """Make `rows`, by the source's own column names, all that a view's source holds, in that order.

        What is left out is null; `created_timestamp` left out is the event time.
        """
        self.fill(self.views[view].batch_source, source_table(self.views[view], list(rows)))

    def job(self, rows: pd.DataFrame | None, features: list[str] | FeatureService, **options: Any) -> RetrievalJob:
        """Ask Feast for features as of each row."""
        return self.store.get_historical_features(entity_df=rows, features=features, **options)

    def get(self, rows: pd.DataFrame | None, features: list[str] | FeatureService, **options: Any) -> pd.DataFrame:
        """Ask Feast for features as of each row, as a frame in the order of `rows`, whatever order Feast gave.

        So a store that moves rows fails the test of order and no other.
        """
        if rows is None:
            snapshot: pd.DataFrame = self.job(None, features, **options).to_df()
            return snapshot
        numbered: pd.DataFrame = self.job(rows.assign(row_number=range(len(rows))), features, **options).to_df()
        return numbered.sort_values("row_number", kind="stable", ignore_index=True).drop(columns="row_number")

    def pull(self, method: str, view: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Call `pull_latest_from_table_or_query` or `pull_all_from_table_or_query` for one view."""
        about = self.views[view]
        source = about.batch_source
        job: RetrievalJob = getattr(self.offline, method)(
            config=self.store.config,
            data_source=source,
            join_key_columns=[column.name for column in about.entity_columns if column.name != DUMMY_ENTITY_ID],
            feature_name_columns=[field.name for field in about.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column or None,
            start_date=start.to_pydatetime(),
            end_date=end.to_pydatetime(),
        )
        frame: pd.DataFrame = job.to_df()
        return frame


def file_source(name: str, folder: Path, **options: Any) -> FileSource:
    """Return a source that is one parquet file, `folder/name.parquet`."""
    return FileSource(name=name, path=str(folder / f"{name}.parquet"), **options)


def fill_file(source: DataSource, rows: pa.Table) -> None:
    """Write a file source's whole content."""
    pq.write_table(rows, source.path)


def source_table(view: FeatureView, rows: list[Mapping[str, Any]]) -> pa.Table:
    """Return rows under the source's own column names and types."""
    source = view.batch_source
    own_names = {mapped: own for own, mapped in (source.field_mapping or {}).items()}
    types = {own_names.get(field.name, field.name): field.dtype for field in [*view.entity_columns, *view.features]}
    return rows_table(types, rows, source.timestamp_field, source.created_timestamp_column)


def open_offline_repository(
    folder: Path, offline_store: Mapping[str, Any], make: MakeSource, fill: Callable[[DataSource, pa.Table], None]
) -> OfflineRepository:
    """Register the suite's views in a repository of their own; `make` makes their sources, `fill` writes them."""
    online_store = {"type": "sqlite", "path": f"{folder}/online.db"}
    store = suite_store(folder, "conformance", offline_store=dict(offline_store), online_store=online_store)
    views = _views(folder, make)
    repository = OfflineRepository(store, views, fill)
    for view in views.values():  # Feast may look into a source when it is registered.
        repository.write(view.name, {view.batch_source.timestamp_field: START})
    taste = views["taste"]
    repository.store.apply([MEMBER, TITLE, ACCOUNT, *views.values(), _boosted(taste), friends(taste)])
    return repository


def _views(folder: Path, make: MakeSource) -> dict[str, FeatureView]:
    def view(
        name: str, entities: list[Entity], ttl: timedelta | None, features: dict[str, Any], **options: Any
    ) -> FeatureView:
        times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
        return FeatureView(
            name=name,
            entities=entities,
            ttl=ttl,
            schema=[Field(name=feature, dtype=dtype) for feature, dtype in (_keys(entities) | features).items()],
            source=make(name, folder, **(times | options)),
        )

    forever = timedelta(0)
    views = [
        view("taste", [MEMBER], TASTE_TTL, {"x": Float64, "y": String}),
        view("fame", [TITLE], forever, {"score": Float64}),
        view("age", [TITLE], None, {"days": Int64}),
        view("pair", [MEMBER, TITLE], PAIR_TTL, {"z": Float64}),
        # Only the test of writes uses this one: how a store keeps what is written to it is its own affair.
        view("journal", [MEMBER], forever, {"entry": String}),
        view("weather", [], forever, {"rain": Float64}),
        view("wallet", [ACCOUNT], forever, {"credit": Float64}),
        view("lists", [MEMBER], forever, {"tags": Array(String), "vector": Array(Float32)}),
        view(
            "mapped", [MEMBER], forever, {"value": Float64}, created_timestamp_column="", field_mapping={"v": "value"}
        ),
    ]
    return {one.name: one for one in views}


def _keys(entities: list[Entity]) -> dict[str, Any]:
    return {entity.join_key: from_value_type(entity.value_type) for entity in entities}


def friends(taste: FeatureView) -> FeatureService:
    """Return the service that reads one view twice: for a member and for the member's friend."""
    friend = taste.with_name("friend").with_join_key_map({"member_id": "friend_id"})
    return FeatureService(name="friends", features=[taste.with_name("own")[["x"]], friend[["x"]]])


def _boosted(taste: FeatureView) -> OnDemandFeatureView:
    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[taste, RequestSource(name="request", schema=[Field(name="boost", dtype=Float64)])],
        schema=[Field(name="boosted_x", dtype=Float64)],
    )
    def boosted(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"boosted_x": inputs["x"] + inputs["boost"]})

    return boosted
