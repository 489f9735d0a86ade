"""A Feast compute engine: from the offline store's Arrow table straight into packed online rows.

Feast's own engine turns every cell into a protobuf on the way. Here a view's newest rows go from one columnar form
into the other.

What is not a plain copy is left to Feast's own local engine, and logged: views with a transformation, with
aggregations, with other views as their source, with validation, views that are written back to the offline store
(`offline=True`), and every view when the online store is not `PackedOnlineStore`.

The class and its configuration live in one module and end in `Engine` and `EngineConfig`, as Feast demands.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
from feast import utils
from feast.entity import Entity
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from playbill_feast.online.store import PackedOnlineStore

_LOG = logging.getLogger(__name__)


class PackedComputeEngineConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`batch_engine:` in feature_store.yaml."""

    type: Literal["playbill_feast.compute_engine.PackedComputeEngine"] = (
        "playbill_feast.compute_engine.PackedComputeEngine"
    )
    """The engine's dotted path."""


class PackedComputeEngine(ComputeEngine):  # type: ignore[misc]
    """Arrow into packed rows. See the module's text."""

    def __init__(self, *, repo_config: Any, offline_store: Any, online_store: Any, **kwargs: Any) -> None:
        super().__init__(repo_config=repo_config, offline_store=offline_store, online_store=online_store, **kwargs)
        self._local_engine = LocalComputeEngine(
            backend="pandas", repo_config=repo_config, offline_store=offline_store, online_store=online_store
        )

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Do nothing: the engine keeps nothing of its own."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Do nothing: the engine keeps nothing of its own."""

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> Any:
        """Leave historical retrieval through an engine to Feast's own. `FeatureStore` calls the offline store."""
        return self._local_engine.get_historical_features(registry, task)

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> Any:
        """Write a view's newest rows of a time range; a failed job holds the error, the store its former rows."""
        if reason := self._beyond(task.feature_view):
            _LOG.info("view '%s' is materialized by Feast's own engine: %s", task.feature_view.name, reason)
            return self._local_engine._materialize_one(registry, task, **kwargs)
        name = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            self._copy(task, self._newest(registry, task))
        except Exception as error:
            # Feast raises what a job holds.
            return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.SUCCEEDED)

    def _beyond(self, view: Any) -> str:
        """Return why a view is more than a plain copy, an empty text when it is none."""
        reasons = {
            "the online store is not PackedOnlineStore": not isinstance(self.online_store, PackedOnlineStore),
            "it has a transformation": getattr(view, "feature_transformation", None) is not None,
            "it has aggregations": bool(getattr(view, "aggregations", None)),
            "its sources are other views": bool(getattr(view, "source_views", None)),
            "its values are validated": bool(getattr(view, "enable_validation", False)),
            "it is written back to the offline store": bool(view.offline),
            "it is not served online": not view.online,
        }
        return "; ".join(reason for reason, holds in reasons.items() if holds)

    def _newest(self, registry: BaseRegistry, task: MaterializationTask) -> pa.Table:
        view = task.feature_view
        entities = [registry.get_entity(name, task.project) for name in view.entities]
        keys, features, at, created = utils._get_column_names(view, entities)
        source = view.batch_source
        pulled = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=keys,
            feature_name_columns=features,
            timestamp_field=at,
            created_timestamp_column=created,
            start_date=task.start_time,
            end_date=task.end_time,
        ).to_arrow()
        mapping = source.field_mapping or {}
        return pulled.rename_columns([mapping.get(name, name) for name in pulled.column_names])

    def _copy(self, task: MaterializationTask, table: pa.Table) -> None:
        if task.tqdm_builder is None:
            self.online_store.write_arrow(self.repo_config, task.feature_view, table)
            return
        with task.tqdm_builder(table.num_rows) as bar:
            self.online_store.write_arrow(self.repo_config, task.feature_view, table, bar.update)
