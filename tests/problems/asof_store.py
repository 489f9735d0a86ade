"""A small Feast store on our offline store, in a folder of its own: one view of member tastes, as its tests need it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RepoConfig
from feast.types import Float32, String

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENT = pl.Datetime("us", "UTC")
SCHEMA = pl.Schema(
    {
        "member_id": pl.String(),
        "event_timestamp": MOMENT,
        "created_timestamp": MOMENT,
        "x": pl.Float32(),
        "y": pl.String(),
    }
)

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)


def source(path: str, **options: Any) -> FileSource:
    """Return a file source with the usual time columns."""
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
    return FileSource(name=path, path=path, **(times | options))


def taste(batch_source: Any = None, **options: Any) -> FeatureView:
    """Return the view `taste` of a member: x and y."""
    given = {"ttl": timedelta(0), "schema": [Field(name="x", dtype=Float32), Field(name="y", dtype=String)]}
    return FeatureView(
        name="taste", entities=[member], source=batch_source or source("taste.parquet"), **(given | options)
    )


def values(*rows: tuple[str | None, datetime | None, datetime | None, float | None, str | None]) -> pl.DataFrame:
    """Return feature rows: member, event time, created time, x, y."""
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def open_store(folder: Path, *objects: Any, **offline: Any) -> FeatureStore:
    """Return a Feast store whose feature files are in `folder`, with objects applied."""
    config = RepoConfig(
        project="small",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        provider="local",
        offline_store={
            "type": "playbill_feast.offline.store.AsofOfflineStore",
            "features_folder": str(folder),
            "build_command": "make features",
            **offline,
        },
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([member, *objects])
    return store


def ask(store: FeatureStore, rows: Any, *features: str, **options: Any) -> pl.DataFrame:
    """Return a retrieval as a polars frame."""
    job = store.get_historical_features(rows, features=list(features or ("taste:x",)), **options)
    return pl.DataFrame(pl.from_arrow(job.to_arrow()))


def at(*pairs: tuple[Any, Any]) -> pl.DataFrame:
    """Return entity rows: member and moment."""
    return pl.DataFrame(
        {"member_id": [key for key, _ in pairs], "event_timestamp": [moment for _, moment in pairs]},
        schema_overrides={"event_timestamp": MOMENT},
    )


__all__ = ["HOUR", "MOMENT", "START", "ask", "at", "member", "open_store", "source", "taste", "values"]
