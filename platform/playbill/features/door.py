"""`FeatureDoor`: everything the rest of Playbill asks of Feast. Feast itself is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from playbill.config import Workspace
from playbill.errors import ConfigError, PlaybillError, StateError
from playbill.features.feast_import import import_feast
from playbill.features.labels import LabelValues, PublishedLabel, require_label_views
from playbill.features.own_views import own_event_views
from playbill.features.reading_plan import PlainReader, ServiceNote, read_note, write_notes
from playbill.features.reports import (
    ApplyReport,
    FeatureProvenance,
    FeaturePushReport,
    LeakReport,
    MaterializeReport,
    OnlineFeatures,
    ParityReport,
    ServiceSchema,
    TitleSnapshots,
)
from playbill.features.store_errors import at_the_door
from playbill.features.vectors import Pins, pins_of, require_pinned
from playbill.tables import RequestLog, Tables, workspace_clock
from playbill_feast.errors import StoreError

if TYPE_CHECKING:
    from playbill.features.feast_door import FeastDoor

Found = TypeVar("Found")

# Feast takes a second to import. Imports in functions, here alone, keep commands fast that do not touch features.


@at_the_door
class FeatureDoor:
    """A workspace's features.

    No wall time: every moment is given, or is the workspace's clock. Nothing is opened until a method is called;
    `plain` reads features without Feast where its registry is noted down, for a process that answers once.

    A method raises StateError where something has to be applied, ingested or built first, UnknownNameError for a
    service that is not registered, DefinitionError for a mistake in feature_repo, and ServiceError where the registry
    cannot be reached.
    """

    def __init__(self, workspace: Workspace, *, plain: bool = False) -> None:
        self.workspace, self._plain = workspace, plain
        self._readers: dict[str, PlainReader | None] = {}

    def apply(self) -> ApplyReport:
        """Render feature_store.yaml and register feature_repo; what was removed from it leaves the registry."""
        import_feast()
        from playbill.features.feast_door import FeastDoor

        self.__dict__["_feast"] = FeastDoor(self.workspace, fresh=True)
        return self._feast.apply()

    def materialize(
        self,
        until: datetime | None = None,
        progress: Callable[[str], None] | None = None,
        views: Collection[str] | None = None,
    ) -> MaterializeReport:
        """Write every view's newest values up to a moment (default: the workspace's clock) into the online store.

        `progress` is called with each view's name before it is written; `views` are the wanted ones, None = all. Views
        of vectors that this workspace has not published are left out.

        Raises:
            DataError: A view's file lacks declared columns; all are named.
        """
        moment = until or workspace_clock(self.workspace).now()
        if moment.tzinfo is None:
            raise ConfigError(f"materialize needs a moment with a time zone, got {moment.isoformat()}")
        report = self._feast.materialize(moment, progress, views)
        write_notes(self.workspace, self._notes)
        return report

    def push(self, member_ids: Sequence[str], at: datetime | None = None) -> FeaturePushReport:
        """Encode some members anew, with their events in the journal, and write their values to the online store.

        Events before `at` count (default: the workspace's clock). Values that are newer already stay.
        """
        moment = at or workspace_clock(self.workspace).now()
        import_feast()
        from playbill.features.online import push_members

        return push_members(self._feast, member_ids, moment)

    def publish_labels(
        self, labels: Sequence[LabelValues], parts: Iterable[pl.DataFrame], as_of: datetime, *, keep: bool = False
    ) -> tuple[PublishedLabel, ...]:
        """Register feature_repo and put labels' values where its LabelViews read them: all labels, or none.

        Args:
            labels: What to publish; each has a LabelView `label_NAME` in feature_repo.
            parts: The labelled log, a part at a time; the labels make their rows of it.
            as_of: What was known when the values were told.
            keep: Leave other labels as they were published; without it they go.
        """
        self.apply()
        from playbill.features.labels import write_labels

        views = self._feast.label_views()
        require_label_views([label.name for label in labels], views, self.workspace.project.feature_repo)
        return write_labels(self.workspace.features, labels, parts, as_of, keep=keep)

    def schema(self, service: str) -> ServiceSchema:
        """Return the columns of a feature service as registered.

        Raises:
            DefinitionError: A feature cannot enter a model; all are named.
        """
        return self._feast.catalog(service).schema

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Look up member and request features as of each row's moment, strictly before it.

        No event of that member at or after `event_at` is in them. Feast's MLflow link tags the active run, if any.
        `frame` has member_id (null = anonymous), event_at, and a column per further request field; `view__feature`
        columns (float32 and strings, null where missing) are appended.

        Raises:
            DataError: `frame` lacks a column or has null moments; every mistake is named.
        """
        feast, started = self._feast, perf_counter()
        from playbill.features.historical import member_features

        found = member_features(feast, service, frame)
        feast.tag_active_run(service, frame.height, perf_counter() - started)
        return found

    def title_snapshots(
        self,
        service: str,
        moments: Sequence[datetime],
        title_ids: Sequence[str],
        countries: Sequence[str | None] | None = None,
    ) -> TitleSnapshots:
        """Return the service's title features [S, T, F] at each moment, as known at the last full hour up to it.

        With `countries`, one for each moment, the columns of titles in a country follow; of None they are missing.
        Takes S * T * F * 4 bytes and about 500 MB more. An unknown title is missing everywhere.

        Raises:
            DataError: A moment has no time zone.
        """
        plain = self._without_feast(service, lambda reader: reader.title_snapshots(moments, title_ids))
        if plain is not None:
            return plain
        feast = self._feast
        from playbill.features.historical import title_snapshots

        return title_snapshots(feast, service, moments, title_ids, countries)

    def title_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Look up title features of single titles (title_id), each as of a moment of its own (event_at).

        With `country` in the frame those of the title there follow.
        The values are those of `title_snapshots` at the same moments, without a row for every other title.

        Raises:
            DataError: `frame` lacks a column or has null moments; every mistake is named.
        """
        feast = self._feast
        from playbill.features.historical import title_features

        return title_features(feast, service, frame)

    def leaks(self, service: str) -> LeakReport:
        """Try the views of one's own behind a service for values that know the event they are joined to.

        Views computed by feature_repo are run again on less of the log, and all are judged beside the log. Shipped
        views are not tried.
        """
        views = list(self._feast.catalog(service).views.values())
        from playbill.features.leak_checks import LeakCheck

        recipes = own_event_views(self.workspace.project.feature_repo)
        return LeakCheck(Tables(self.workspace).require(), self._feast.config, recipes).run(views)

    def require_no_leaks(self, service: str) -> tuple[str, ...]:
        """Refuse a service with views that leak, and return notes about the others; see `leaks`.

        Raises:
            DataError: A view knows the event it is joined to; every view and column is named, with an example.
        """
        report = self.leaks(service)
        from playbill.features.leak_checks import require_none

        require_none(report)
        return report.notes

    def provenance(self, service: str) -> FeatureProvenance:
        """Return which definitions and which values a service reads now. Reads the views' files once."""
        feast = self._feast
        from playbill.features.provenance import provenance

        return provenance(feast, service)

    def file_digests(self, service: str) -> dict[str, list[str]]:
        """Return view -> digests of the files that a service reads now, old to new; reads each file once."""
        feast = self._feast
        from playbill.features.provenance import file_digests

        return file_digests(feast, service)

    def vector_pins(self, service: str) -> dict[str, dict[str, str]]:
        """Return which published vectors a service reads now, by view; see `vectors.VectorPin`.

        Raises:
            StateError: It names vectors that this workspace has not published.
        """
        return pins_of(self.workspace.features, self._feast.catalog(service).views)

    def require_pinned(self, pins: Pins, reader: str) -> None:
        """Check that the store holds the vectors that a model was trained with; `reader` is the model.

        Raises:
            IntegrityError: It holds others, or none.
        """
        require_pinned(self.workspace.features, pins, reader)

    def online(
        self,
        service: str,
        member_ids: Sequence[str | None],
        at: datetime,
        request: Mapping[str, Any] | None = None,
    ) -> pl.DataFrame:
        """Return the rows of `served`."""
        return self.served(service, member_ids, at, request).rows

    def served(
        self,
        service: str,
        member_ids: Sequence[str | None],
        at: datetime,
        request: Mapping[str, Any] | None = None,
    ) -> OnlineFeatures:
        """Return what `member_features` would, from the online store, and the times of the values.

        A value older than its view's ttl at `at` is null. A member with values from after `at` (a replay, a clock
        set back) is read from the feature files, so no answer depends on the future. Unknown members and None get
        nulls; `request` has further fields that on-demand views read.

        Raises:
            ServiceError: The online store is missing, empty or broken; the caller should fall back.
            DataError: `at` has no zone or a request field is missing.
        """
        plain = self._without_feast(service, lambda reader: reader.served(member_ids, at, request or {}))
        if plain is not None:
            return plain
        feast = self._feast
        from playbill.features.online import online_features

        return online_features(feast, service, member_ids, at, request or {})

    def parity(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        sample: int | None = None,
        seed: int = 0,
    ) -> ParityReport:
        """Compare the features that logged requests were answered with to what they are now computed to have been.

        Requests are those with `since <= at < until`, or `sample` of them, drawn at random by `seed`.

        Raises:
            DataError: The facts of a request cannot be read; every one is named.
        """
        requests = RequestLog(self.workspace.database_url).requests()
        if since is not None:
            requests = requests.filter(pl.col("at") >= since)
        if until is not None:
            requests = requests.filter(pl.col("at") < until)
        import_feast()
        from playbill.features.parity import compare_requests

        report = compare_requests(self._feast, requests, sample, seed)
        if not report.requests:
            raise StateError(
                f"workspace '{self.workspace.name}' has {requests.height} logged requests of that time, none of them "
                f"answered with features: nothing to compare. `playbill -w {self.workspace.name} serve` logs them."
            )
        return report

    def _without_feast(self, service: str, read: Callable[[PlainReader], Found | None]) -> Found | None:
        """Return what can be read without Feast; None where Feast has to read it, or to say what is wrong."""
        reader = self._reader(service)
        try:
            return None if reader is None else read(reader)
        except (PlaybillError, StoreError, OSError, pl.exceptions.PolarsError):
            return None

    def _reader(self, service: str) -> PlainReader | None:
        """Return what reads a service without Feast; None where Feast has to."""
        if not self._plain:
            return None
        if service not in self._readers:
            note = read_note(self.workspace, service)
            if note is None:
                write_notes(self.workspace, self._notes)
            self._readers[service] = None if note is None else PlainReader(self.workspace, note)
        return self._readers[service]

    def _notes(self) -> Mapping[str, ServiceNote]:
        feast = self._feast
        from playbill.features.service_notes import notes_of

        return notes_of(feast)

    @cached_property
    def _feast(self) -> FeastDoor:
        import_feast()
        from playbill.features.feast_door import FeastDoor

        return FeastDoor(self.workspace)
