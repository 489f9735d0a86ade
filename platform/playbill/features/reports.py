"""What the feature door answers with. Plain dataclasses; nothing here imports Feast."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

FeatureEntity = Literal["member", "title", "request"]
FeatureKind = Literal["numeric", "categorical"]


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column that a feature service delivers."""

    name: str
    """`view__feature`."""
    view: str
    feature: str
    entity: FeatureEntity
    """Whose value it is. A value derived from the request's time is `request`, or `title` if a title's."""
    kind: FeatureKind


@dataclass(frozen=True, slots=True)
class ServiceSchema:
    """The columns of a feature service, in the service's order."""

    service: str
    columns: tuple[FeatureColumn, ...]
    version: str
    """Hash of the definitions behind the columns: names, types, ttl, keys, code of on-demand views."""

    def of(self, *entities: FeatureEntity) -> tuple[FeatureColumn, ...]:
        """Return the columns of some entities, in order."""
        return tuple(column for column in self.columns if column.entity in entities)


@dataclass(frozen=True, slots=True)
class TitleSnapshots:
    """Title features at several moments. S moments, T titles, F numeric columns."""

    moments: tuple[datetime, ...]
    title_ids: tuple[str, ...]
    columns: tuple[str, ...]
    """Names of the F numeric columns."""
    values: npt.NDArray[np.float32]
    """[S, T, F]; nan = missing."""
    categorical: pl.DataFrame
    """title_id and the categorical columns, T rows in the order of `title_ids`, as of the last moment."""


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What is registered after `apply`."""

    project: str
    entities: tuple[str, ...]
    views: tuple[str, ...]
    on_demand_views: tuple[str, ...]
    services: tuple[str, ...]
    seconds: float
    log: str = field(default="", repr=False)
    """What Feast printed: the objects it created, updated and removed."""


@dataclass(frozen=True, slots=True)
class MaterializedView:
    """One view's newest values in the online store."""

    view: str
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MaterializeReport:
    """What `materialize` wrote, and the moment up to which values count."""

    project: str
    until: datetime
    views: tuple[MaterializedView, ...]
