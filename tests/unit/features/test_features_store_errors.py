"""Whatever the stores raise reaches the product as one of its own errors, with the same text."""

from __future__ import annotations

import inspect
import pickle
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from playbill.config import ProjectFolder, ProjectSettings
from playbill.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    PlaybillError,
    Problem,
    ServiceError,
    StateError,
    StorageError,
    UnknownNameError,
)
from playbill.features import FeatureDoor, as_known_on, backfill_features, build_features
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import from_states
from playbill.features.labels import write_labels
from playbill.features.store_errors import store_errors
from playbill.features.view_folder import ViewFolder
from playbill_feast import errors
from playbill_feast.errors import StoreServiceError

RAISED = {
    errors.StoreError("something else"): PlaybillError,
    errors.StoreConfigError("the url is malformed"): ConfigError,
    errors.StoreStateError("the file does not exist. Write that file."): StateError,
    errors.StoreServiceError("the database does not answer."): ServiceError,
    errors.StoreIntegrityError("rows are cut short."): IntegrityError,
    errors.UnknownFeatureError("feature of view 'taste'", "mod", ["mood", "words"]): UnknownNameError,
    errors.StoreDataError(
        "entity rows", [errors.Mistake("t", "is text.", "Give times."), errors.Mistake("k", "is missing.")]
    ): DataError,
}
EACH = [pytest.param(error, ours, id=type(error).__name__) for error, ours in RAISED.items()]

NAIVE = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Raises:
    """An object that raises an error however it is used."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "_error", error)

    def __getattr__(self, name: str) -> Any:
        raise self._error

    def __setattr__(self, name: str, value: object) -> None:
        raise self._error

    def __iter__(self) -> Iterator[Any]:
        raise self._error

    def __truediv__(self, name: str) -> Any:
        raise self._error


def calls() -> dict[str, Callable[..., Any]]:
    """Return every way in which product code reaches the stores, by its name."""
    functions = [build_features, backfill_features, write_labels, from_states]
    methods = [
        member
        for door in (FeatureDoor, FeastDoor, ViewFolder)
        for name, member in inspect.getmembers(door, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
        # A context manager does nothing before its block.
        if name not in ("registry_errors", "online_errors")
    ]
    return {function.__qualname__: function for function in [*functions, *methods]}


def test_every_error_of_the_stores_is_tried() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StoreError)}
    assert {type(error) for error in RAISED} == kinds


@pytest.mark.parametrize(("error", "ours"), EACH)
def test_every_way_in_raises_the_products_error_with_the_same_text(
    error: Exception, ours: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))  # a run is only tagged where MLflow is imported
    for name, function in calls().items():
        parameters = inspect.signature(function).parameters.values()
        required = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_POSITIONAL]
        given = {one: Raises(error) for one in required} | ({"weeks": 1} if name == "backfill_features" else {})
        with pytest.raises(PlaybillError) as caught:
            function(**given)
        assert type(caught.value) is ours, name
        assert str(caught.value) == str(error)


@pytest.mark.parametrize(("error", "ours"), EACH)
@pytest.mark.parametrize("block", ["registry_errors", "as_known_on", "store_errors"])
def test_every_block_raises_the_products_error(block: str, error: Exception, ours: type[Exception]) -> None:
    blocks = {
        "registry_errors": lambda: FeastDoor.registry_errors(Raises(error)),  # type: ignore[arg-type]
        "as_known_on": lambda: as_known_on(datetime(2024, 1, 1, tzinfo=UTC)),
        "store_errors": store_errors,
    }
    with pytest.raises(PlaybillError) as caught, blocks[block]():
        raise error
    assert type(caught.value) is ours
    assert str(caught.value) == str(error)


def test_problems_become_the_products_one_by_one() -> None:
    (error,) = (error for error in RAISED if isinstance(error, errors.StoreDataError))
    with pytest.raises(DataError) as caught, store_errors():
        raise error
    assert caught.value.subject == "entity rows"
    assert caught.value.problems == (Problem("t", "is text.", "Give times."), Problem("k", "is missing."))


def test_the_cause_stays_what_the_database_said() -> None:
    texts = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(ServiceError) as caught, store_errors():
        raise StoreServiceError("the online store does not answer.") from texts
    assert caught.value.__cause__ is texts


def test_an_online_store_on_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    door = object.__new__(FeastDoor)
    door.workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("small")
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    match = (
        r"the online store at .*online_store.db cannot be written: the disk is full.*What was there before is unchanged"
    )
    with pytest.raises(StorageError, match=match), door.online_errors():
        raise StoreServiceError("the online store does not answer: database or disk is full.") from full


def test_a_moment_without_a_zone_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="needs a moment with a time zone"), as_known_on(NAIVE):
        pass


@pytest.mark.parametrize("error", [pytest.param(error, id=type(error).__name__) for error in RAISED])
def test_store_errors_survive_pickling(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
