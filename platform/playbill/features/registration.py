"""Registering `feature_repo/` in this process as `feast apply` does, under the rendered `feature_store.yaml`.

Feast imports every file of the folder as a top-level module of the current directory. That is undone afterwards, so
that two versions can be applied one after the other. Not for use beside other threads: it changes the current folder.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from feast import errors as feast_errors
from feast.base_feature_view import BaseFeatureView
from feast.repo_config import RepoConfig
from feast.repo_operations import apply_total, get_repo_files

from playbill.config import Workspace
from playbill.errors import DefinitionError, Problem, StateError, nearest
from playbill.features.earlier_paths import earlier_modules
from playbill.features.feast_import import types_checked
from playbill.files import make_folder, write_text

OFFLINE_STORE = "playbill_feast.offline.store.AsofOfflineStore"
ONLINE_STORE = "playbill_feast.online.store.PackedOnlineStore"
COMPUTE_ENGINE = "playbill_feast.compute_engine.PackedComputeEngine"

_HEADER = "# Rendered by `playbill apply` from playbill.toml. Edit that, not this.\n"


def feature_store_config(workspace: Workspace) -> dict[str, Any]:
    """Return the Feast configuration of a workspace, with absolute paths only.

    A service URL that takes a secret from the environment keeps its `${NAME}`, which Feast fills in as well.
    Feast's own MLflow link is on when MLflow is installed: a retrieval inside a run tags the run.
    """
    services = workspace.project.settings.services
    config: dict[str, Any] = {
        "project": workspace.name,
        "provider": "local",
        "registry": {
            "registry_type": "sql",
            "path": _with_secrets_named(workspace, services.feast_registry, workspace.feast_registry_url),
            # Servers go on answering from a view while it is being materialized.
            "serve_features_while_materializing": True,
        },
        "offline_store": _offline_store(workspace),
        "online_store": _online_store(workspace),
        "batch_engine": {"type": COMPUTE_ENGINE},
        "entity_key_serialization_version": 3,
    }
    if find_spec("mlflow") is not None:
        uri = _with_secrets_named(workspace, services.mlflow, workspace.mlflow_uri)
        config["mlflow"] = {"enabled": True, "tracking_uri": uri}
    return config


def _offline_store(workspace: Workspace) -> dict[str, Any]:
    settings = workspace.project.settings.features
    config: dict[str, Any] = {
        "type": OFFLINE_STORE,
        "features_folder": str(workspace.features),
        "build_command": f"playbill -w {workspace.name} features build",
    }
    if settings.engine == "ray":
        ray = {"address": workspace.project.settings.services.ray_address, **settings.ray.model_dump()}
        config |= {"engine": "ray", "ray": {name: value for name, value in ray.items() if value is not None}}
    if settings.storage_options:
        config["storage_options"] = dict(settings.storage_options)
    return config


def _online_store(workspace: Workspace) -> dict[str, Any]:
    config: dict[str, Any] = {"type": ONLINE_STORE}
    path = workspace.online_store_path
    if path is not None:
        config |= {"backend": "sqlite", "path": str(path)}
    else:
        template = workspace.project.settings.services.online_store
        config |= {"backend": "redis", "connection_string": _with_places_filled(workspace, template)}
    if workspace.clock_setting != "wall":
        # Historical data is years past every ttl by the wall clock that plain Feast commands go by. Playbill holds
        # values to the request's own moment itself.
        config["enforce_ttl"] = False
    return config


def render(workspace: Workspace) -> bool:
    """Write HOME/NAME/feature_store.yaml, if it would change. Returns whether it did."""
    text = _HEADER + yaml.safe_dump(feature_store_config(workspace), sort_keys=False)
    path = workspace.feature_store_yaml
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if workspace.online_store_path is not None:
        make_folder(workspace.online_store_path.parent)
    write_text(path, text, "Feast's settings")
    return True


def require_rendered(workspace: Workspace) -> None:
    """Bring the rendered file up to date with playbill.toml.

    Raises:
        StateError: The workspace was never applied, or its registry file is gone.
    """
    advice = f"Run `playbill -w {workspace.name} apply` first."
    if not workspace.feature_store_yaml.is_file():
        raise StateError(f"workspace '{workspace.name}' has no feature registry. {advice}")
    url = workspace.feast_registry_url
    # Feast would quietly create an empty database in its place.
    if url.startswith("sqlite:///") and not os.path.isfile(url.removeprefix("sqlite:///")):
        raise StateError(f"the feature registry {url.removeprefix('sqlite:///')} does not exist. {advice}")
    render(workspace)


def _with_secrets_named(workspace: Workspace, template: str, filled: str) -> str:
    return _with_places_filled(workspace, template) if "${" in template else filled


def _with_places_filled(workspace: Workspace, template: str) -> str:
    return template.replace("{home}", str(workspace.project.home)).replace("{workspace}", workspace.name)


_WRONG_TOGETHER = (
    feast_errors.ConflictingFeatureViewNames,
    feast_errors.DataSourceRepeatNamesException,
    feast_errors.EntityTimestampInferenceException,
    feast_errors.FeatureNameCollisionError,
    feast_errors.FeatureViewMissingDuringFeatureServiceInference,
    feast_errors.RegistryInferenceFailure,
)
"""What Feast finds of definitions only when it has read them all."""
_PROJECTED = "A name of a module that holds `view[[...]]` counts as one more view: write that in the feature service."
_NO_FEATURE = re.compile(r"Feature (\S+) does not exist in this feature view")


def apply_repository(config: RepoConfig, folder: Path) -> str:
    """Register everything in `folder` and return what Feast printed.

    Raises:
        DefinitionError: The folder is empty, a file's name hides it from Feast, or a definition is wrong.
    """
    files = get_repo_files(folder) if folder.is_dir() else []
    _check_names(folder, files)
    printed = io.StringIO()
    with _imported_from(folder, files), redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            apply_total(config, folder, skip_source_validation=False)
        except SystemExit:
            raise DefinitionError(str(folder), [Problem("feature_repo", printed.getvalue().strip())]) from None
        except DefinitionError as error:
            raise _placed(folder, error) from None
        except _WRONG_TOGETHER as error:
            hint = _PROJECTED if isinstance(error, feast_errors.ConflictingFeatureViewNames) else ""
            raise DefinitionError(str(folder), [Problem("feature_repo", str(error), hint)]) from error
        except (ImportError, NameError, SyntaxError, TypeError, ValueError, AttributeError) as error:
            raise DefinitionError(str(folder), [_located(folder, error)]) from error
    return printed.getvalue()


def imported(folder: Path, files: Sequence[str]) -> list[Any]:
    """Import some files of a folder as Feast would, and return what stands at the top level of all that are read.

    Raises:
        DefinitionError: A file's name hides it from Feast, or a definition is wrong.
    """
    every = get_repo_files(folder)
    _check_names(folder, every)
    found: dict[int, Any] = {}
    with _imported_from(folder, every), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for file in files:
                import_module(file.removesuffix(".py").replace("/", "."))
            for path in every:
                module = sys.modules.get(path.stem)
                found |= {id(one): one for one in vars(module).values()} if module else {}
        except DefinitionError as error:
            raise _placed(folder, error) from None
        except Exception as error:
            raise DefinitionError(str(folder), [_located(folder, error)]) from error
    return list(found.values())


def _check_names(folder: Path, files: list[Path]) -> None:
    if not files:
        raise DefinitionError(str(folder), [Problem("feature_repo", "has no Python files.")])
    # Feast would import the other module instead of the file, and say nothing.
    hidden = [
        Problem(path.name, "a module of this name is installed, so Feast would never read this file.", "Rename it.")
        for path in files
        if path.parent == folder.resolve() and _installed(path.stem, folder)
    ]
    if hidden:
        raise DefinitionError(str(folder), hidden)


def _installed(name: str, folder: Path) -> bool:
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return True
    here = {folder.resolve(), _script_folder()}
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() not in here]
    spec = PathFinder.find_spec(name, elsewhere)
    return spec is not None and spec.origin is not None


def _script_folder() -> Path | None:
    """Return where the running script lies: Python puts that on the path, and the `feast` command never sees it."""
    started = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(started).resolve().parent if started else None


def _placed(folder: Path, error: DefinitionError) -> DefinitionError:
    """Return mistakes that a definition itself found, with file and line."""
    where = _located(folder, error).where
    return DefinitionError(
        str(folder), [Problem(f"{where}: {one.where}", one.what, one.hint) for one in error.problems]
    )


def _located(folder: Path, error: Exception) -> Problem:
    where, trace = "feature_repo", error.__traceback__
    while trace:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.parent == folder.resolve():
            where = f"{path.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{Path(error.filename).name}:{error.lineno}"
    return Problem(where, f"{type(error).__name__}: {error}", _nearest_feature(error))


def _nearest_feature(error: Exception) -> str:
    """Say which view lacks a feature that was asked for, and what comes nearest: Feast tells neither."""
    named, trace = _NO_FEATURE.match(str(error)), error.__traceback__
    if not named or trace is None:
        return ""
    while trace.tb_next:
        trace = trace.tb_next
    view = trace.tb_frame.f_locals.get("self")
    if not isinstance(view, BaseFeatureView):
        return ""
    known = [field.name for field in view.features]
    close = nearest(named[1], known)
    return f"View '{view.name}'" + (f": did you mean '{close}'?" if close else f" has {', '.join(known)}.")


@contextmanager
def _imported_from(folder: Path, files: list[Path]) -> Iterator[None]:
    names = {path.stem for path in files}
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    here, path, bytecode = Path.cwd(), list(sys.path), sys.dont_write_bytecode
    # First, so that a script's own neighbours of the same names do not come before it.
    sys.path.insert(0, str(folder.resolve()))
    try:
        with types_checked(), earlier_modules():
            yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        os.chdir(here)
