"""Fixtures that several folders of tests share. Everything heavy is imported when a test asks for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fixtures.database_urls import postgres_url, redis_program, redis_url
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.errors import IntegrityError

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from fixtures.small_project import Playbill
    from playbill.versions.tracking import Tracking

__all__ = ["postgres_url", "redis_program", "redis_url"]

collect_ignore = ["stores"]  # run without Playbill, by integration/test_stores_alone.py

# Two test processes with two torch threads each wait for one another on two cores: more than half of their time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A change is judged by the same hundred examples every time; whoever works on it looks for new ones, fewer at a time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("quick", max_examples=40, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of a card where there is none; `make gpu` refuses to run without one."""
    of_cards = [item for item in items if item.get_closest_marker("gpu")]
    if not of_cards:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=of_cards)
        items[:] = [item for item in items if item not in of_cards]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> Iterator[None]:
    """End with what was skipped for want of a server, and with the command that would bring it."""
    from fixtures.servers import skipped_lines

    yield
    for line in skipped_lines(str(report.longrepr) for report in terminalreporter.getreports("skipped")):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an invented service's parquet files and mapping.yaml."""
    from fixtures.small_service import write_small_service

    return write_small_service(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Playbill:
    """A project with data and features, and no model. One of this process; what costs time is made once for all."""
    from fixtures.kept_folder import kept_folder
    from fixtures.small_project import Playbill, fill, start

    kept = kept_folder(tmp_path_factory, "filled", lambda folder: fill(start(folder), small_data))
    return Playbill(kept).copy_with_models(tmp_path_factory.mktemp("filled") / "project")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, filled: Playbill, migrated_mlflow: Path) -> Playbill:
    """Such a project with one registered version, promoted; the artifacts of its MLflow are all processes' own."""
    from fixtures.kept_folder import kept_folder
    from fixtures.small_project import Playbill, run_all

    def make(folder: Path) -> None:
        project = filled.copy_with_models(folder)
        shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
        run_all(project, ("train", "everycanvas"), ("promote", "everycanvas:1"))

    kept = Playbill(kept_folder(tmp_path_factory, "trained", make))
    return kept.copy_with_models(tmp_path_factory.mktemp("trained") / "project")


@pytest.fixture(scope="session")
def migrated_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take seconds, so tests copy this one."""
    from fixtures.kept_folder import kept_folder

    return kept_folder(tmp_path_factory, "mlflow", _migrate) / "mlflow.db"


def _migrate(folder: Path) -> None:
    from playbill.versions.tracking.connection import Connection

    folder.mkdir()
    client = Connection(f"sqlite:///{folder}/mlflow.db").client
    client.search_experiments()
    client.search_registered_models()


@pytest.fixture
def mlflow_workspace(tmp_path: Path, migrated_mlflow: Path) -> Workspace:
    """Workspace `ml` of an otherwise empty project, with an MLflow database of its own."""
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("ml")
    workspace.folder.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, workspace.mlflow_uri.removeprefix("sqlite:///"))
    return workspace


@pytest.fixture
def own_plugins() -> Iterator[None]:
    """Let a test claim names of plug-ins; afterwards they are forgotten."""
    from playbill.definitions.specs import CONTEXTS, EXTRACTORS, TRUNKS
    from playbill.definitions.specs.head import NEGATIVES

    with ExitStack() as stack:
        for registry in (CONTEXTS, EXTRACTORS, NEGATIVES, TRUNKS):
            stack.enter_context(registry.temporary_claims())
        yield


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of small folders that stand in for bundles; `tiny_digest` checks them."""

    def make(weights: str = "w", spec: str = "{}") -> Path:
        folder = tmp_path / "bundles" / hashlib.sha256(f"{weights}\0{spec}".encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {"weights.safetensors": weights, "spec.json": spec}.items():
            (folder / name).write_text(text)
        files = {path.name: _sha256(path) for path in folder.iterdir() if path.name != "manifest.json"}
        (folder / "manifest.json").write_text(json.dumps(files, sort_keys=True))
        return folder

    return make


@pytest.fixture
def tiny_digest() -> Callable[[Path], str]:
    """Return the reader of `tiny_bundle` folders: checks every file, returns the manifest's hash."""

    def verify(folder: Path) -> str:
        files = json.loads((folder / "manifest.json").read_text())
        for name, digest in files.items():
            if _sha256(folder / name) != digest:
                raise IntegrityError(f"{name} differs from the manifest")
        return _sha256(folder / "manifest.json")

    return verify


@pytest.fixture
def tracking_of(tiny_digest: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Workspace], Tracking]:
    """Return a maker of a workspace's MLflow door that takes `tiny_bundle` folders and copies no titles."""
    import polars as pl

    from playbill.versions.tracking import Tracking
    from playbill.versions.tracking.packaging import CatalogueCopy

    # MLflow tries every model on its example and warns of those that, like these, cannot answer.
    monkeypatch.setattr("mlflow.models.utils._validate_serving_input", lambda **_: None)
    empty = CatalogueCopy(pl.DataFrame(), pl.DataFrame(), datetime(1998, 4, 23, tzinfo=UTC))
    return lambda workspace: Tracking(workspace, verify=tiny_digest, catalogue=lambda _: empty)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
