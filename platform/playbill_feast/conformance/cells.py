"""What the suites of both stores share: entities, a repository's configuration, rows as Arrow, and plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureStore, ValueType
from feast.repo_config import RepoConfig
from feast.types import Bytes, from_feast_to_pyarrow_type

MEMBER = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
TITLE = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING)
ACCOUNT = Entity(name="account", join_keys=["account_id"], value_type=ValueType.INT64)


def suite_store(folder: Path, project: str, **stores: Any) -> FeatureStore:
    """Return a store of an empty project in a folder, with the sections `offline_store` and `online_store`."""
    config = RepoConfig(
        project=project,
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/{project}.db"},
        provider="local",
        entity_key_serialization_version=3,
        repo_path=folder,
        **stores,
    )
    return FeatureStore(config=config)


def rows_table(
    types: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    at: str = "event_timestamp",
    created: str = "created_timestamp",
) -> pa.Table:
    """Return rows with columns of these Feast types and times; a created time left out is the event time."""
    # Feast names no Arrow type for bytes.
    arrow = {name: pa.binary() if kind == Bytes else from_feast_to_pyarrow_type(kind) for name, kind in types.items()}
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in arrow.items()}
    for name in filter(None, (at, created)):
        moments = [row.get(name, row[at]).to_pydatetime() for row in rows]
        columns[name] = pa.array(moments, pa.timestamp("us", "UTC"))
    return pa.table(columns)


def cells(column: Any) -> list[Any]:
    """Return a column's values in order: None for null, lists for arrays, numbers as Python's own."""
    return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_cell(part) for part in value]
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def in_folder(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with `{folder}` replaced by the folder's path, in nested sections too."""
    return {key: _placed(value, folder) for key, value in settings.items()}


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    return in_folder(value, folder) if isinstance(value, Mapping) else value
