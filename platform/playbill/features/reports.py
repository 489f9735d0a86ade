"""What the feature door answers with. Plain dataclasses; nothing here imports Feast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from playbill.features.leaks import Leak

FeatureEntity = Literal["member", "title", "title_country", "request"]
OF_TITLES: tuple[FeatureEntity, ...] = ("title", "title_country")
"""Entities whose values a title has, the second in each country its own."""
FeatureKind = Literal["numeric", "categorical"]

REQUEST_AT = "request_at"
"""The moment of the request, for on-demand views. Further request fields are taken from columns of that name."""


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column that a feature service delivers."""

    name: str
    """`view__feature`."""
    view: str
    feature: str
    entity: FeatureEntity
    """Whose value it is: of a member on a canvas too it is `member`. A value derived from the request's time is
    `request`, or that of the title, or of the title in a country, that it is derived for."""
    kind: FeatureKind
    item: int | None = None
    """Which number of a vector it is; None for a feature that is a number or a string itself."""

    @property
    def source(self) -> str:
        """`view__feature`, as which the feature itself is read."""
        return f"{self.view}__{self.feature}"


def feature_of(column: str) -> str:
    """Return the feature that a column is of: the numbers of a vector are called `view__feature[0]` and so on."""
    return column.rpartition("[")[0] if column.endswith("]") else column


@dataclass(frozen=True, slots=True)
class ServiceSchema:
    """The columns of a feature service, in the service's order."""

    service: str
    columns: tuple[FeatureColumn, ...]
    version: str
    """Hash of the definitions behind the columns: names, types, ttl, keys, code of on-demand views."""
    reads: tuple[str, ...] = ()
    """Fields of a request, beside its member and moment, that member and request columns depend on."""

    def of(self, *entities: FeatureEntity) -> tuple[FeatureColumn, ...]:
        """Return the columns of some entities, in order."""
        return tuple(column for column in self.columns if column.entity in entities)


@dataclass(frozen=True, slots=True)
class TitleSnapshots:
    """Title features at several moments, each in a country of its own. S moments, T titles, F numeric columns."""

    moments: tuple[datetime, ...]
    title_ids: tuple[str, ...]
    columns: tuple[str, ...]
    """Names of the F numeric columns."""
    values: npt.NDArray[np.float32]
    """[S, T, F]; nan = missing."""
    categorical: pl.DataFrame
    """title_id and the categorical columns, T rows in the order of `title_ids`, as of the last moment."""
    vector_columns: tuple[str, ...] = ()
    """Names of the V numbers of vectors."""
    vectors: npt.NDArray[np.float32] | None = None
    """[T, V] as of the last moment, nan = missing; None where there are none."""


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """What the online store answered, a row per member asked for."""

    rows: pl.DataFrame
    """member_id, event_at, the request's fields, then `view__feature` columns."""
    values_at: pl.DataFrame
    """A column per member or request view: the time of the value that was used, null where there was none."""
    from_store: pl.Series
    """False where the store's values were from after the moment, so that the feature files were read instead."""


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What the leak checks of one's own views found."""

    views: tuple[str, ...]
    """Views that were tried."""
    leaks: tuple[Leak, ...]
    """Columns that know the event they are joined to."""
    notes: tuple[str, ...]
    """What was accepted by a view's owner, could not be tried, or is worth a look."""


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


@dataclass(frozen=True, slots=True)
class ViewProvenance:
    """One feature view behind a service: its definition, and the values that were there to be read."""

    view: str
    kind: Literal["stored", "on_demand"]
    definition: str
    """Hash of what decides its values: keys, ttl, types, code."""
    version: int | None
    """Feast's own number of the definition, where the registry keeps one."""
    rows: int | None = None
    """Rows of the source; None for an on-demand view."""
    event_from: datetime | None = None
    event_until: datetime | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None
    """Created times of the first and the last known row; None where the source keeps none."""
    files: str | None = None
    """SHA-256 over the source's files; None where it is no local file."""
    encoder: str | None = None
    """Version of what computed the values; this and the rest are None where `features build` did not write them."""
    snapshot_id: str | None = None
    """State of the tables they were computed from."""
    built_since: datetime | None = None
    """Values from this moment are there; None is from the first event."""
    built_until: datetime | None = None
    """Values up to this moment are there; None where values do not age."""


@dataclass(frozen=True, slots=True)
class FeatureProvenance:
    """Which features a service gave: definitions as registered, and the values behind them."""

    service: str
    service_version: str
    """`ServiceSchema.version`."""
    project: str
    registry_version: str | None
    """Feast's id of the registry's state; a SQL registry keeps none."""
    registry_updated: datetime | None
    """When the service was last registered with a change; materializing does not move it."""
    views: tuple[ViewProvenance, ...]
    """By name."""


def other_files(then: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the views that are read from other files than before, sorted.

    Files that were added leave a view what it was: an increment only adds. A merge of parts counts as another file.
    Arguments are view -> digests of its files; a view that is not in `now` is read from another kind of source now.
    """
    return tuple(sorted(view for view, files in then.items() if not set(files) <= set(now.get(view, ()))))


@dataclass(frozen=True, slots=True)
class FeaturePushReport:
    """What was written to the online store for some members, and the moment up to which their events count."""

    project: str
    at: datetime
    rows: Mapping[str, int]
    """View -> members with values."""
    unknown: tuple[str, ...]
    """Members without events before the moment; nothing was written for them."""


Cause = Literal["from the future", "recorded later", "stale", "unexplained"]
"""Why a served value is not the regenerated one.

`from the future`: a value from after the request was served. `recorded later`: history as it was known at the request
gives the served value, so rows with earlier times were recorded since: late data, or a row stamped before its event.
`stale`: the online store held an earlier state of the member, materialized too long ago. `unexplained`: history gives
neither; the code that computes the values has changed, or a store is damaged.
"""


@dataclass(frozen=True, slots=True)
class FeatureDifference:
    """One value that was served and is not the regenerated one."""

    request_id: str
    member_id: str | None
    at: datetime
    view: str
    feature: str
    served: float | str | None
    regenerated: float | str | None
    cause: Cause


@dataclass(frozen=True, slots=True)
class ViewParity:
    """The values of one view."""

    view: str
    compared: int
    different: int
    causes: Mapping[Cause, int]
    """How many of the different values have which cause."""
    examples: tuple[FeatureDifference, ...]
    """The first differences, by time."""

    @property
    def equal(self) -> int:
        """Values that are the regenerated ones: numbers as float32 to the bit, missing as missing."""
        return self.compared - self.different


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Logged requests against what their features are now computed to have been."""

    workspace: str
    requests: int
    """Requests that were compared."""
    requests_different: int
    unanswered: int
    """Requests of the same time without features: fallbacks answered, or the store was down."""
    views: tuple[ViewParity, ...]
    only_logged: tuple[str, ...]
    """Columns that were served and that no service has any more."""
    only_registered: tuple[str, ...]
    """Columns that were added to a service since."""

    @property
    def compared(self) -> int:
        """Values that were compared."""
        return sum(view.compared for view in self.views)

    @property
    def different(self) -> int:
        """Values that differ."""
        return sum(view.different for view in self.views)
