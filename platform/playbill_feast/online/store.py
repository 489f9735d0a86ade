"""A Feast online store: one packed row of bytes per entity and view, in SQLite or Redis.

Feast's stores keep, fetch and convert one protobuf per value. Here a view's row is read at once and opened for all
entities at once (`playbill_feast.online`), and a request for several views is one round trip. Late rows never
replace newer ones, and values past their view's ttl are not served.

The class and its configuration live in one module and end in `OnlineStore` and `OnlineStoreConfig`, because Feast
finds the one by the name of the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from feast.entity import Entity
from feast.feature_service import FeatureService
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import NonNegativeFloat, PositiveInt

from playbill_feast.clock import utc_now
from playbill_feast.online.backend import PackedDatabase, ReadRequest, WriteProgress
from playbill_feast.online.request_plan import EntityRows, PlanCache, RequestEntities, RequestPlan, response_of
from playbill_feast.online.response import PackedOnlineResponse
from playbill_feast.online.sqlite_backend import SqliteBackend
from playbill_feast.online.stored_view import (
    CountedBatches,
    FeastRow,
    StoredRow,
    StoredView,
    batch_of_protos,
    batches_of_arrow,
    moment_us,
    stored_name,
)
from playbill_feast.online.vector_search import (
    Document,
    VectorCache,
    documents,
    nearest_frame,
    neighbours,
    refuse_other_searches,
)

_NOW: ContextVar[datetime | None] = ContextVar("reading_at", default=None)


@contextmanager
def reading_at(moment: datetime) -> Iterator[None]:
    """Count ages to a given moment instead of now, in this thread or task.

    Raises:
        ValueError: The moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    token = _NOW.set(moment.astimezone(UTC))
    try:
        yield
    finally:
        _NOW.reset(token)


def now_us(config: RepoConfig) -> int | None:
    """Return the moment that ages are counted to, None where the configuration sets no limit."""
    if not config.online_store.enforce_ttl:
        return None
    return moment_us(_NOW.get() or utc_now())


def open_database(config: RepoConfig) -> PackedDatabase:
    """Return the rows that a configuration names. Redis' client is imported only where it is used."""
    settings = config.online_store
    if settings.backend == "redis":
        from playbill_feast.online.redis_backend import RedisBackend

        redis = RedisBackend(settings.connection_string, settings.key_ttl_seconds, settings.busy_timeout_s)
        return PackedDatabase(redis, redis.name)
    path = Path(settings.path)
    if not path.is_absolute():
        path = Path(config.repo_path or os.getcwd()) / path
    return PackedDatabase(SqliteBackend(path, settings.busy_timeout_s), f"online store {path}")


__all__ = ["PackedOnlineStore", "PackedOnlineStoreConfig", "reading_at"]


class PackedOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`online_store:` in feature_store.yaml."""

    type: Literal["playbill_feast.online.store.PackedOnlineStore"] = "playbill_feast.online.store.PackedOnlineStore"
    """The store's dotted path."""
    backend: Literal["sqlite", "redis"] = "sqlite"
    """Where rows are stored."""
    path: str = "data/online_store.db"
    """The SQLite file; a relative path starts from the feature repository."""
    connection_string: str = "localhost:6379"
    """Redis: `host:port,db=0,password=...` as Feast writes it, or a redis:// URL. `${NAME}` is filled in from the
    environment."""
    key_ttl_seconds: PositiveInt | None = None
    """Redis: seconds after its last write that a row is removed; None keeps rows."""
    enforce_ttl: bool = True
    """Values older than their view's ttl are null, with status OUTSIDE_MAX_AGE. Feast serves them."""
    busy_timeout_s: NonNegativeFloat = 5.0
    """SQLite: seconds to wait for another writer, twice, before giving up. Redis: seconds to wait for an answer."""


class PackedOnlineStore(OnlineStore):  # type: ignore[misc]
    """Packed rows in SQLite or Redis. See the module's text."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], PackedDatabase] = {}
        self._plans = PlanCache()
        self._vectors = VectorCache()

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes have asynchronous twins."""
        return SupportedAsyncMethods(read=True, write=True)

    def database(self, config: RepoConfig) -> PackedDatabase:
        """Return the database that a configuration names, opened once."""
        settings = config.online_store
        key = (settings.backend, settings.path, settings.connection_string, settings.key_ttl_seconds)
        database = self._rows.get(key)
        if database is None:
            database = self._rows.setdefault(key, open_database(config))
        return database

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make a place for every view that stays, and remove the rows of those that go."""
        backend = self.database(config).backend
        for view in tables_to_delete:
            backend.drop(stored_name(config.project, view))
        for view in tables_to_keep:
            backend.create(stored_name(config.project, view))

    def teardown(self, config: RepoConfig, tables: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Remove the rows of the views, and nothing else that the database holds."""
        for view in tables:
            self.database(config).backend.drop(stored_name(config.project, view))

    def write_arrow(self, config: RepoConfig, view: Any, table: pa.Table, progress: WriteProgress | None = None) -> int:
        """Write a table's rows, each only where it is not older than what the store has.

        Of two rows of one key the later event time stays, of equal ones the one created later, then the later row. The
        table has join keys, features and times under the view's own names. NaN among numbers counts as null, and rows
        with a null in their key are left out. `progress` is called with the number of rows written since its last call.

        Returns the number of rows handed to the database.

        Raises:
            StoreDataError: Columns are missing or of another type, or a row has no event time. Nothing was written.
            StoreServiceError: The database does not answer.
        """
        if not table.num_rows:
            return 0
        counted = CountedBatches(batches_of_arrow(view, table))
        self.database(config).backend.write(stored_name(config.project, view), counted, progress)
        return counted.rows

    def online_write_batch(
        self, config: RepoConfig, table: Any, data: list[FeastRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows that come as Feast's protobufs, such as pushes. Each replaces the whole row of its entity."""
        if data:
            batch = batch_of_protos(table, data)
            self.database(config).backend.write(stored_name(config.project, table), [batch], progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: Any, data: list[FeastRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Do the same without blocking the event loop."""
        if data:
            batch = await asyncio.to_thread(batch_of_protos, table, data)
            await self.database(config).backend.write_async(stored_name(config.project, table), [batch], progress)

    def online_read(
        self, config: RepoConfig, table: Any, entity_keys: list[EntityKey], requested_features: list[str] | None = None
    ) -> list[StoredRow]:
        """Read rows as Feast's protobufs, aligned to the keys. A row past its view's ttl has its time and no values."""
        stored = self._stored(config, table)
        (packed,) = stored.rows.backend.read([stored.read_request(entity_keys)])
        return stored.protos(packed, requested_features)

    async def online_read_async(
        self, config: RepoConfig, table: Any, entity_keys: list[EntityKey], requested_features: list[str] | None = None
    ) -> list[StoredRow]:
        """Do the same without blocking the event loop."""
        stored = self._stored(config, table)
        (packed,) = await stored.rows.backend.read_async([stored.read_request(entity_keys)])
        return stored.protos(packed, requested_features)

    def read_packed(
        self, config: RepoConfig, view: Any, keys: pa.Table | pl.DataFrame, features: Sequence[str]
    ) -> pl.DataFrame:
        """Read features of a view by columns, for a row of join keys each: the fastest way out of the store.

        Returns a row per row of `keys`, in order: the features, then `__event_timestamp` (microseconds, UTC, null where
        the store has no row). Values past the view's ttl are null; their time stays.

        Raises:
            StoreDataError: A join key is missing or of another type, or the view has no such feature.
        """
        return pl.DataFrame(pl.from_arrow(self.read_arrow(config, view, keys, features)))

    def read_arrow(
        self, config: RepoConfig, view: Any, keys: pa.Table | pl.DataFrame, features: Sequence[str]
    ) -> pa.Table:
        """Do the same as `read_packed`, as an Arrow table: for a few rows several times faster than a frame."""
        return self._stored(config, view).table(keys, features)

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> PackedOnlineResponse:
        """Answer a request as Feast does, in one round trip, without a protobuf per value.

        Entity rows are a row per entity, or columns, with request data of on-demand views.

        Raises:
            ValueError: Entity rows have different keys, or a view cannot be served now.
            KeyError: A join key is missing.
            StoreServiceError: The database does not answer.
        """
        plan, entities, requests = self._prepared(features, entity_rows, registry, project, full_feature_names)
        read = self.database(config).backend.read(requests) if requests else []
        return response_of(
            plan, entities, self.database(config), read, now_us(config), include_feature_view_version_metadata
        )

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> PackedOnlineResponse:
        """Answer a request as `get_online_features` does, without blocking the event loop while the database works."""
        plan, entities, requests = self._prepared(features, entity_rows, registry, project, full_feature_names)
        read = await self.database(config).backend.read_async(requests) if requests else []
        return response_of(
            plan, entities, self.database(config), read, now_us(config), include_feature_view_version_metadata
        )

    async def close(self) -> None:
        """Close the connections of the running event loop, as Feast's server does when it stops."""
        for rows in self._rows.values():
            await rows.backend.close_async()

    def _prepared(
        self,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_names: bool,
    ) -> tuple[RequestPlan, RequestEntities, list[ReadRequest]]:
        plan = self._plans.get(registry, project, features, full_names)
        self._check_versioned_read_support(plan.groups)
        entities = RequestEntities(plan, entity_rows)
        return plan, entities, [ReadRequest(view.stored, entities.keys(view)) for view in plan.views]

    def nearest(
        self,
        config: RepoConfig,
        view: Any,
        vector: Sequence[float],
        top_k: int,
        metric: str = "cosine",
        features: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Find the `top_k` entities whose vectors are nearest by `cosine`, `dot` or `l2`, by exact comparison.

        The view has one field declared with `vector_index=True`. Returns, nearest first, the join keys, the features,
        `__event_timestamp` and `__distance` (smaller is nearer: 1 - cosine, the negative inner product, or the
        Euclidean distance). Entities past the ttl are left out.

        Raises:
            StoreDataError: The view has no vector field, or vectors have another length.
            UnknownFeatureError: There is no such metric.
        """
        stored = self._stored(config, view)
        return nearest_frame(stored, neighbours(stored, self._vectors, vector, top_k, metric), features)

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: Any,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: Any = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[Document]:
        """Find the nearest vectors for Feast, in the order of their keys. See `nearest` for the distances.

        Raises:
            StoreDataError: As `nearest`, or a search by text or with filters, which needs one of Feast's vector stores.
        """
        refuse_other_searches(table, embedding, query_string, filters)
        stored = self._stored(config, table)
        nearest = neighbours(stored, self._vectors, embedding or [], top_k, distance_metric or "cosine")
        return documents(stored, nearest, requested_features)

    def _stored(self, config: RepoConfig, view: Any) -> StoredView:
        return StoredView(self.database(config), config.project, view, now_us(config))
