"""A workspace's Feast store, opened. Importing Feast takes a second, so `door` imports this when needed."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter
from typing import Any

import polars as pl
import pyarrow as pa
from feast import FeatureStore, FileSource
from feast.errors import FeastError, FeastModuleImportError
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.repo_config import RepoConfig, load_repo_config
from sqlalchemy.exc import SQLAlchemyError

from playbill.config import Workspace
from playbill.errors import ConfigError, DataError, IntegrityError, Problem, ServiceError, StateError
from playbill.features.catalog import Catalog, read_catalog
from playbill.features.earlier_paths import EARLIER_MODULE, rename_registered
from playbill.features.registration import apply_repository, render, require_rendered
from playbill.features.reports import ApplyReport, MaterializedView, MaterializeReport
from playbill.features.store_errors import at_the_door, store_errors
from playbill.features.vectors import TAG
from playbill.files import database_file, storage_error
from playbill.tables import missing_driver
from playbill_feast.frames import in_utc
from playbill_feast.offline.sources import local_path
from playbill_feast.offline.store import scan_source
from playbill_feast.online.store import PackedOnlineStore, reading_at

BEGINNING = datetime(1800, 1, 1, tzinfo=UTC)
"""Before any value: titles are older than Unix time."""


@at_the_door
class FeastDoor:
    """A workspace's Feast store, opened once.

    `fresh` renders the configuration first: the workspace may never have been applied.

    Raises:
        StateError: Not fresh, and the workspace was never applied.
        ServiceError: The registry cannot be reached.
    """

    def __init__(self, workspace: Workspace, fresh: bool = False) -> None:
        self.workspace = workspace
        if fresh:
            render(workspace)
            self._rename_registered()
        else:
            require_rendered(workspace)
        self._catalogs: dict[str, Catalog] = {}
        self.config = self._load_config()
        self.store = self._open(self.config)

    def _rename_registered(self) -> None:
        # A registry of an earlier version is brought up to date, where there is one.
        file = database_file(self.workspace.feast_registry_url)
        if file is None or file.is_file():
            with self.registry_errors():
                rename_registered(self.workspace.feast_registry_url, self.workspace.name)

    def _load_config(self) -> RepoConfig:
        config = load_repo_config(self.workspace.project.feature_repo, self.workspace.feature_store_yaml)
        # A server must not stop for a refresh within a request; a new registration is for new processes.
        config.registry_config["cache_ttl_seconds"] = 0
        config.mlflow_config = None
        return config

    def _open(self, config: RepoConfig) -> FeatureStore:
        with self.registry_errors():
            store = FeatureStore(config=config)
            _ = store.registry
            return store

    @cached_property
    def _mlflow_link(self) -> Any:
        """Feast's own MLflow client as feature_store.yaml has it, or None."""
        config = self._load_config()
        linked = load_repo_config(self.workspace.project.feature_repo, self.workspace.feature_store_yaml)
        config.mlflow_config = linked.mlflow_config
        return self._open(config).mlflow

    def tag_active_run(self, service: str, rows: int, seconds: float) -> bool:
        """Tag the active MLflow run, if any, with what was retrieved, by Feast's own tags; returns whether it was."""
        if "mlflow" not in sys.modules:
            return False
        with quiet():
            link = self._mlflow_link
            return bool(
                link is not None
                and link.log_feature_retrieval(
                    feature_refs=self.catalog(service).refs("member", "request", "title"),
                    entity_count=rows,
                    duration_seconds=seconds,
                    feature_service_name=service,
                )
            )

    @contextmanager
    def registry_errors(self) -> Iterator[None]:
        """Turn a database's errors into a ServiceError, and those of the stores into Playbill's."""
        try:
            with store_errors():
                yield
        except FeastModuleImportError as error:
            if EARLIER_MODULE not in str(error):
                raise
            name = self.workspace.name
            raise StateError(
                f"the feature registry of workspace '{name}' was written by an earlier version of Playbill: {error}. "
                f"Run `playbill -w {name} apply`."
            ) from error
        except ModuleNotFoundError as error:
            what = missing_driver(error)
            raise ConfigError(f"services.feast_registry in playbill.toml cannot be used: {what}") from None
        except SQLAlchemyError as error:
            refused = storage_error(error, "the feature registry", database_file(self.workspace.feast_registry_url))
            raise refused or self._silent_registry(str(error).splitlines()[0]) from error

    def _silent_registry(self, reason: str) -> ServiceError:
        name, url = self.workspace.name, self.workspace.feast_registry_url
        file = url.removeprefix("sqlite:///")
        advice = "Start it, or correct services.feast_registry in playbill.toml."
        if file != url:
            advice = f"If {file} is damaged, remove it and run `playbill -w {name} apply`."
        return ServiceError(f"the feature registry of workspace '{name}' does not answer: {reason}. {advice}")

    @contextmanager
    def online_errors(self) -> Iterator[None]:
        """Turn the online store's errors into a ServiceError that names our own commands."""
        try:
            with store_errors():
                yield
        except (ServiceError, IntegrityError, FeastError, OSError) as error:
            name, path = self.workspace.name, self.workspace.online_store_path
            if refused := storage_error(error, "the online store", path):
                raise refused from error
            reason = str(error.__cause__ or error).rstrip(".")
            advice = f"Run `playbill -w {name} materialize`; if {path} is damaged, remove it first."
            if path is None:
                advice = "Start it, or correct services.online_store in playbill.toml."
            where = "" if path else f" at {self.workspace.online_store}"
            raise ServiceError(
                f"the online store of workspace '{name}'{where} does not answer: {reason}. {advice}"
            ) from error

    def apply(self) -> ApplyReport:
        """Register the project's feature_repo."""
        started = perf_counter()
        with self.registry_errors():
            log = apply_repository(self.config, self.workspace.project.feature_repo)
            self.forget_catalogs()
            registry, project = self.store.registry, self.workspace.name
            return ApplyReport(
                project=project,
                entities=_names(e for e in registry.list_entities(project) if not e.name.startswith("__")),
                views=_names(registry.list_feature_views(project)),
                on_demand_views=_names(registry.list_on_demand_feature_views(project)),
                services=_names(registry.list_feature_services(project)),
                seconds=perf_counter() - started,
                log=log,
            )

    def label_views(self) -> tuple[str, ...]:
        """Return the names of the registered label views."""
        with self.registry_errors():
            return _names(self.store.registry.list_label_views(self.workspace.name))

    def catalog(self, service: str) -> Catalog:
        """Return what a service consists of, read once."""
        if service not in self._catalogs:
            with self.registry_errors():
                self._catalogs[service] = read_catalog(self.store, service, self.workspace.name)
        return self._catalogs[service]

    def forget_catalogs(self) -> None:
        """Read services from the registry anew when they are next asked for."""
        self._catalogs.clear()
        with self.registry_errors():
            self.store.registry.refresh(self.workspace.name)

    def require_materialized(self, views: Iterable[FeatureView]) -> None:
        """Check that there is a store with values of some views.

        Raises:
            ServiceError: The SQLite file is gone, or a view was never materialized.
        """
        advice = f"Run `playbill -w {self.workspace.name} materialize`."
        path = self.workspace.online_store_path
        if path is not None and not path.is_file():
            raise ServiceError(f"the online store {path} is gone. {advice}")
        if bare := sorted(view.name for view in views if not view.materialization_intervals):
            self.forget_catalogs()
            raise ServiceError(f"the online store has no values of {', '.join(bare)}. {advice}")

    def read_online(self, view: FeatureView, keys: pa.Table, features: Sequence[str], at: datetime) -> pa.Table:
        """Return a view's values from the online store and their time, a row per row of `keys`.

        Raises:
            ServiceError: The store does not answer.
        """
        with self.online_errors(), reading_at(at):
            try:
                with store_errors():
                    return self._online_store.read_arrow(self.config, view, keys, features)
            except StateError as error:
                raise ServiceError(f"the online store has no values of {view.name}.") from error

    @cached_property
    def _online_store(self) -> PackedOnlineStore:
        store: PackedOnlineStore = self.store.provider.online_store
        return store

    def materialize(
        self, until: datetime, progress: Callable[[str], None] | None, wanted: Collection[str] | None = None
    ) -> MaterializeReport:
        """Write every wanted view's newest values up to `until` into the online store."""
        views = [view for view in self._online_views() if wanted is None or view.name in wanted]
        rows = {view.name: self._rows_to_write(view, until) for view in views}
        with self.registry_errors(), self.online_errors(), quiet():
            # `feast apply` makes the tables once; a store that was removed since needs them again.
            entities = self.store.registry.list_entities(self.workspace.name)
            self.store.provider.update_infra(self.workspace.name, [], views, [], entities, partial=True)
        done = []
        for view in views:
            if progress:
                progress(view.name)
            started = perf_counter()
            with self.registry_errors(), self.online_errors(), quiet():
                self.store.materialize(BEGINNING, until, feature_views=[view.name])
            done.append(MaterializedView(view.name, rows[view.name], perf_counter() - started))
        self.forget_catalogs()
        return MaterializeReport(self.workspace.name, until, tuple(done))

    def _online_views(self) -> list[FeatureView]:
        with self.registry_errors():
            found = self.store.registry.list_feature_views(self.workspace.name)
        if views := sorted((view for view in found if view.online), key=lambda view: str(view.name)):
            return [view for view in views if self._published(view)]
        raise StateError(
            f"workspace '{self.workspace.name}' has no feature views registered. "
            f"Run `playbill -w {self.workspace.name} apply` first."
        )

    def _published(self, view: FeatureView) -> bool:
        """Say whether a view of vectors has any here: its definition is the same in every workspace."""
        source = view.batch_source
        path = local_path(self.config, source.path) if TAG in view.tags and isinstance(source, FileSource) else None
        return path is None or path.is_file()

    def _rows_to_write(self, view: FeatureView, until: datetime) -> int:
        source = view.batch_source
        frame = scan_source(self.config, source, view.name)
        types = frame.collect_schema()
        at = (source.field_mapping or {}).get(source.timestamp_field, source.timestamp_field)
        keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        if absent := sorted({at, *keys, *(field.name for field in view.features)} - set(types.names())):
            problems = [Problem(f"{view.name}.{name}", "is not a column of the view's file.") for name in absent]
            raise DataError(f"feature view '{view.name}'", problems)
        before = frame.filter(in_utc(at, types[at]) <= until)
        # A view without an entity has one row.
        entities = before.select(keys).drop_nulls().unique() if keys else before.head(1)
        return int(entities.select(pl.len()).collect().item())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's own prints and warnings off the terminal, where `--json` must be the last line.

    Not for use beside other threads: there is one standard output.
    """
    sink = io.StringIO()
    with redirect_stdout(sink), redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _names(objects: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted(str(item.name) for item in objects))
