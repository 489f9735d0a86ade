"""Features while a simulation runs: the encoders that build a workspace's feature files, over the events so far.

In a simulation events come about as policies answer, so the same encoders, as-of join and on-demand code are given the
events so far, strictly before each request. There is no second implementation of a feature here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl

from playbill.datasets.build import TrainingFeatureSource
from playbill.errors import Problem, ProblemsError
from playbill.features.axis import Span
from playbill.features.catalog import Catalog
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import from_states
from playbill.features.members import member_profile
from playbill.features.reports import REQUEST_AT, ServiceSchema, TitleSnapshots
from playbill.features.snapshots import empty
from playbill.features.titles import title_profile
from playbill.features.views import EVENT_VIEWS

NO_FEATURES = "none"
"""Feature service of a model that reads its members' histories and its titles' metadata, and nothing else."""


class SimulationFeatures(TrainingFeatureSource, Protocol):
    """What building a training set and scoring in a running simulation read of features."""

    @property
    def reads_log(self) -> bool:
        """Whether it has to be told what has happened."""
        ...

    def follow(self, members: pl.DataFrame, plays: pl.DataFrame) -> None:
        """Take the events so far."""
        ...


class NoFeatures:
    """No columns at all: a lean model, whose training and serving cannot differ in them."""

    reads_log = False

    def schema(self, service: str) -> ServiceSchema:
        """Return a service without columns."""
        return ServiceSchema(service, (), "without columns")

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame as it is."""
        return frame

    def title_snapshots(
        self,
        service: str,
        moments: Sequence[datetime],
        title_ids: Sequence[str],
        countries: Sequence[str | None] | None = None,
    ) -> TitleSnapshots:
        """Return [S, T, 0]."""
        values = np.zeros((len(moments), len(title_ids), 0), np.float32)
        categorical = pl.DataFrame({"title_id": pl.Series(title_ids, dtype=pl.String)})
        return TitleSnapshots(tuple(moments), tuple(title_ids), (), values, categorical)

    def follow(self, members: pl.DataFrame, plays: pl.DataFrame) -> None:
        """Read nothing."""


@dataclass
class LiveFeatures:
    """The features of a workspace's services over the events that `follow` was given; none before it is called."""

    door: FeastDoor  # The workspace's registry, for definitions; its files are not read
    titles: pl.DataFrame
    availability: pl.DataFrame
    members: pl.DataFrame

    reads_log: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._of_members = _no_events()
        self._of_titles = _no_events()

    def follow(self, members: pl.DataFrame, plays: pl.DataFrame) -> None:
        """Take every event of the `members` who will ask, before they ask, and the `plays` of all members.

        Plays are the events whose action is one of `COUNTED_OF_TITLES`, before the moments that will be asked about.
        """
        self._of_members, self._of_titles = members, plays

    def schema(self, service: str) -> ServiceSchema:
        """Return the columns of a feature service.

        Raises:
            UnknownNameError: There is no such service.
            ProblemsError: It has views that are not computed from the canonical tables; all are named.
        """
        return self._catalog(service).schema

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with member and request columns as of each row's `event_at`, strictly before it."""
        catalog = self._catalog(service)
        columns = catalog.schema.of("member", "request")
        if frame.is_empty() or not columns:
            return frame.hstack(empty(columns)) if frame.is_empty() else frame
        until = frame["event_at"].max()
        rows = frame.rename({"event_at": REQUEST_AT})
        states = partial(self._states, self._of_members, until)
        return frame.hstack(from_states(catalog, rows, "member_id", states, "member", "request"))

    def title_snapshots(
        self,
        service: str,
        moments: Sequence[datetime],
        title_ids: Sequence[str],
        countries: Sequence[str | None] | None = None,
    ) -> TitleSnapshots:
        """Return the title columns at each moment, dense; see `FeatureDoor.title_snapshots`."""
        catalog = self._catalog(service)
        columns = catalog.schema.of("title")
        numeric = [column for column in columns if column.kind == "numeric"]
        titles = pl.Series("title_id", title_ids, dtype=pl.String)
        at = pl.Series(REQUEST_AT, moments, dtype=pl.Datetime("us", "UTC"))
        rows = at.to_frame().join(titles.to_frame(), how="cross", maintain_order="left_right")
        states = partial(self._states, self._of_titles, at.max())
        found = from_states(catalog, rows, "title_id", states, "title")
        dense = found.select(column.name for column in numeric).to_numpy()
        newest = found.tail(len(title_ids)) if len(moments) else empty(columns)
        categorical = [column.name for column in columns if column.kind == "categorical"]
        return TitleSnapshots(
            moments=tuple(moments),
            title_ids=tuple(title_ids),
            columns=tuple(column.name for column in numeric),
            values=dense.reshape(len(moments), len(title_ids), len(numeric)).astype(np.float32),
            categorical=titles.to_frame().hstack(newest.select(categorical)),
        )

    def _catalog(self, service: str) -> Catalog:
        catalog = self.door.catalog(service)
        known = {*EVENT_VIEWS, "member_profile", "title_profile"}
        strange = sorted((set(catalog.plain("member", "request", "title")) - known) | {*catalog.plain("title_country")})
        if strange:
            what = "is not computed from the canonical tables, so a simulation has no values of it."
            raise ProblemsError(f"feature service '{service}'", [Problem(name, what) for name in strange])
        return catalog

    def _states(self, events: pl.DataFrame, until: Any, name: str) -> pl.DataFrame:
        if name == "member_profile":
            return member_profile(self.members)
        if name == "title_profile":
            return title_profile(self.titles, self.availability)
        view = EVENT_VIEWS[name]
        return view.encode(events.filter(view.counted()), self.titles.select("title_id", "genres"), Span(until=until))


COUNTED_OF_TITLES = tuple(
    sorted({action for view in EVENT_VIEWS.values() if view.keys == ("title_id",) for action in view.actions or ()})
)
"""Actions that count in a view of titles."""

_EVENTS: Mapping[str, Any] = {
    "member_id": pl.String,
    "event_at": pl.Datetime("us", "UTC"),
    "recorded_at": pl.Datetime("us", "UTC"),
    "action": pl.String,
    "title_id": pl.String,
    "country": pl.String,
    "progress": pl.Float32,
}


def _no_events() -> pl.DataFrame:
    return pl.DataFrame(schema=dict(_EVENTS))
