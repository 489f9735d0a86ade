"""The point-in-time join that stores are compared on: entity rows, feature files, and the answer by hand.

Member views have many keys with short histories, title views fewer with longer ones, and countries are few and hot.
Every view has five float32 features and a ttl of 30 days. Entity rows fall in the last 30 of 120 days, values in all of
them, so about a fourth of the values lie in the future of a row and some rows have nothing that is still alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

AT, ROW = "event_timestamp", "row"
TTL = timedelta(days=30)
FEATURES = 5
START = np.datetime64("2025-01-01T00:00:00", "us")
DAYS, REQUEST_DAYS = 120, 30
CARDINALITY = {"member_id": 50_000, "title_id": 5_000, "country": 190}


@dataclass(frozen=True, slots=True)
class View:
    """One feature view: `keys` distinct keys with `per_key` values each."""

    name: str
    by: tuple[str, ...]
    keys: int
    per_key: int

    @property
    def features(self) -> list[str]:
        return [f"{self.name}_{number}" for number in range(FEATURES)]

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.parquet"


VIEWS = (
    View("member", ("member_id",), 50_000, 10),
    View("title", ("title_id",), 5_000, 30),
    View("country", ("country",), 190, 30),
    View("title_country", ("title_id", "country"), 100_000, 10),
    View("member_recent", ("member_id",), 50_000, 30),
)


def write_problem(folder: Path, rows: int, views: int, seed: int) -> None:
    """Write `entities.parquet` and one parquet file per view into a folder, all times in UTC microseconds."""
    rng = np.random.default_rng(seed)
    for view in VIEWS[:views]:
        _values(view, rng).write_parquet(view.path(folder))
    columns = {name: _keys(name, rng.integers(0, size, rows)) for name, size in CARDINALITY.items()}
    at = _moments(rng, rows, DAYS - REQUEST_DAYS, DAYS)
    entities = pl.DataFrame({**columns, AT: at, ROW: np.arange(rows)})
    entities.write_parquet(folder / "entities.parquet")


def entity_rows(folder: Path) -> pd.DataFrame:
    """Return the entity rows as a user of Feast holds them."""
    return pd.read_parquet(folder / "entities.parquet")


def by_hand_polars(entities: pd.DataFrame, views: tuple[View, ...], folder: Path) -> pd.DataFrame:
    """Do the bare join: read, sort, `join_asof`, back in order, as pandas. The least that any store has to do."""
    rows = pl.from_pandas(entities).with_row_index("__row").sort(AT)
    for view in views:
        values = pl.read_parquet(view.path(folder)).sort(AT)
        rows = rows.join_asof(values, on=AT, by=list(view.by), tolerance=TTL, check_sortedness=False)
    return rows.sort("__row").drop("__row").to_pandas()


def by_hand_pandas(entities: pd.DataFrame, views: tuple[View, ...], folder: Path) -> pd.DataFrame:
    """Return the reference: `merge_asof` of pandas, view by view, rows in order."""
    rows = entities.sort_values(AT, kind="stable")
    for view in views:
        values = pd.read_parquet(view.path(folder)).sort_values(AT, kind="stable")
        rows = pd.merge_asof(rows, values, on=AT, by=list(view.by), tolerance=pd.Timedelta(TTL))
    return rows.sort_values(ROW, kind="stable", ignore_index=True)


def differences(found: pd.DataFrame, reference: pd.DataFrame, views: tuple[View, ...]) -> int:
    """Count cells in which a result differs from the reference; a row too few or too many counts all its cells.

    Args:
        found: Has the entity rows and the features.
        reference: Of `by_hand_pandas`, for the same rows in the same order.
        views: Whose features are compared.
    """
    names = [name for view in views for name in view.features]
    if list(found[ROW]) != list(reference[ROW]):
        return len(reference) * len(names)
    mine, theirs = (frame[names].to_numpy(np.float32) for frame in (found, reference))
    return int(((mine != theirs) & ~(np.isnan(mine) & np.isnan(theirs))).sum())


def feature_store(kind: dict[str, Any], views: tuple[View, ...], folder: Path, repo: Path) -> Any:
    """Return a Feast store over the files, with everything registered.

    Args:
        kind: What `offline_store:` says.
        views: To register.
        folder: Of the problem. Sources are absolute: Feast's duckdb store reads others from the current directory.
        repo: Folder for the registry.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, Int64, String

    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{repo / 'registry.db'}"},
        online_store={"type": "sqlite", "path": str(repo / "online.db")},
        offline_store=kind,
        entity_key_serialization_version=3,
        repo_path=repo,
    )
    text = {name: name == "country" for name in CARDINALITY}
    entities = {
        name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING if text[name] else ValueType.INT64)
        for name in CARDINALITY
    }
    registered = [
        FeatureView(
            name=view.name,
            entities=[entities[name] for name in view.by],
            ttl=TTL,
            schema=[Field(name=name, dtype=String if text[name] else Int64) for name in view.by]
            + [Field(name=name, dtype=Float32) for name in view.features],
            source=FileSource(path=str(view.path(folder).resolve()), timestamp_field=AT),
            offline=False,
        )
        for view in views
    ]
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *registered])
    return store


def _values(view: View, rng: np.random.Generator) -> pl.DataFrame:
    if len(view.by) == 1:
        columns = {view.by[0]: np.arange(view.keys)}
    else:
        sizes = [CARDINALITY[name] for name in view.by]
        chosen = rng.choice(int(np.prod(sizes)), view.keys, replace=False)
        columns = dict(zip(view.by, np.unravel_index(chosen, sizes), strict=True))
    height = view.keys * view.per_key
    order = rng.permutation(height)
    keys = {name: _keys(name, np.repeat(column, view.per_key)[order]) for name, column in columns.items()}
    numbers = {name: rng.random(height, np.float32) for name in view.features}
    return pl.DataFrame({**keys, AT: _moments(rng, height, 0, DAYS), **numbers})


def _keys(name: str, numbers: np.ndarray) -> pl.Series:
    keys = pl.Series(name, numbers, dtype=pl.Int64)
    return pl.select(pl.format("C{}", keys)).to_series().alias(name) if name == "country" else keys


def _moments(rng: np.random.Generator, count: int, first_day: int, last_day: int) -> pl.Series:
    offsets = rng.integers(first_day * 86_400_000_000, last_day * 86_400_000_000, count)
    moments = START + offsets.astype("timedelta64[us]")
    return pl.Series(moments).dt.replace_time_zone("UTC")
