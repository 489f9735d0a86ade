"""From the canonical tables to the feature files of a workspace: whole builds, increments and backfills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter

import polars as pl

from playbill.config import Workspace
from playbill.errors import DataError, Problem, UnknownNameError
from playbill.features.axis import CHANGED_AT, Span
from playbill.features.increments import TABLE_VIEWS, How, LogState, Updated, increment, update_table_view, why_anew
from playbill.features.own_views import has_own_views, own_event_views
from playbill.features.store_errors import raises_product_errors
from playbill.features.view_folder import ViewFolder, building
from playbill.features.views import EVENT_COLUMNS, EVENT_VIEWS, EventView
from playbill.tables import Tables, workspace_clock
from playbill.tables.frames import utc_literal

Progress = Callable[[str, int, int], None]
"""Told a view's name, how many views are done and how many there are, before the view is computed."""

EVENTS_PER_PART = 1_000_000
"""Events whose states are held in memory at once; a part takes about 1 GiB."""

MOST_PARTS = 64
"""A view with more part files than this has its small ones merged."""


@dataclass(frozen=True, slots=True)
class BuiltView:
    """One view after a build."""

    view: str
    rows: int
    """Rows of all its parts."""
    written: int
    """Rows that this build wrote."""
    seconds: float
    path: Path
    how: How
    why: str = ""
    """Why it was built anew."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, and for which state of the tables."""

    workspace: str
    snapshot_id: str
    until: datetime
    """States up to this moment are there."""
    views: tuple[BuiltView, ...]
    notes: tuple[str, ...] = ()
    """What the leak checks of one's own views say beside errors."""


@raises_product_errors
def build_features(
    workspace: Workspace, progress: Progress | None = None, *, full: bool = False, until: datetime | None = None
) -> BuildReport:
    """Bring all views over the tables up to date, one's own too, as of every moment they change.

    A view gets one part of new and corrected rows, or is built anew where that is needed. A reader sees a view's old
    values or its new ones, and a killed build leaves the old ones.

    Args:
        workspace: Whose tables.
        progress: Told about each view before it is computed.
        full: Build every view anew.
        until: States up to this moment (default: the workspace's clock); windows empty only that far.

    Raises:
        StateError: Nothing has been ingested yet, or another process is building.
        DataError: `until` has no zone, or a view of one's own fails or knows the event it is joined to.
        DefinitionError: A definition in feature_repo is wrong.
    """
    build = _Build(workspace, progress, until)
    notes = build.check()
    with building(workspace.features):
        names = [*TABLE_VIEWS, *build.views]
        built = [build.update(name, full) for name in build.announced(names)]
    return build.report(built, notes)


@raises_product_errors
def backfill_features(
    workspace: Workspace,
    weeks: int,
    views: Sequence[str] | None = None,
    progress: Progress | None = None,
    until: datetime | None = None,
) -> BuildReport:
    """Build views over the last weeks of the log only: a new view has values of past moments without new logging.

    Events before the weeks count in the states, and the state that a key has at the beginning is there too, so
    values within the weeks are those of a whole build. Without `views`, those without values, and those whose encoder
    has changed, are built; `until` (default: the workspace's clock) is the end of the weeks.

    Raises:
        UnknownNameError: There is no such view to build from the log.
        StateError: Nothing has been ingested yet, or another process is building.
        DataError: `until` has no zone, or there are no weeks.
    """
    if weeks < 1:
        raise DataError("backfill", [Problem("weeks", f"needs at least 1, got {weeks}.")])
    build = _Build(workspace, progress, until)
    for name in views or ():
        if name not in build.views:
            raise UnknownNameError("view built from the event log", name, build.views)
    notes = build.check()
    with building(workspace.features):
        names = build.outdated() if views is None else list(dict.fromkeys(views))
        built = [build.backfill(build.views[name], timedelta(weeks=weeks)) for name in build.announced(names)]
    return build.report(built, notes)


class _Build:
    def __init__(self, workspace: Workspace, progress: Progress | None, until: datetime | None) -> None:
        if until is not None and until.tzinfo is None:
            raise DataError("features build", [Problem("until", f"{until.isoformat()} has no time zone.")])
        self.workspace, self.progress = workspace, progress
        tables = Tables(workspace).require()
        self.own = own_event_views(workspace.project.feature_repo)
        self.views: dict[str, EventView] = {**EVENT_VIEWS, **self.own}
        columns = dict.fromkeys([*EVENT_COLUMNS, *(name for view in self.views.values() for name in view.log_columns)])
        self.log = LogState.read(tables, until or workspace_clock(workspace).now(), list(columns))

    def report(self, built: Sequence[BuiltView], notes: tuple[str, ...]) -> BuildReport:
        return BuildReport(self.workspace.name, self.log.tables.snapshot_id(), self.log.until, tuple(built), notes)

    def check(self) -> tuple[str, ...]:
        """Refuse views of one's own that leak, before anything is written."""
        if not has_own_views(self.workspace.project.feature_repo):
            return ()
        # Feast takes seconds to import, and is not needed for the shipped views.
        from playbill.features.leak_checks import check_before_build

        return check_before_build(self.workspace, self.own)

    def outdated(self) -> list[str]:
        states = {name: self._folder(name).state() for name in self.views}
        return [name for name, old in states.items() if old is None or old.version != self.views[name].version]

    def announced(self, names: Sequence[str]) -> Iterator[str]:
        for done, name in enumerate(names):
            if self.progress:
                self.progress(name, done, len(names))
            yield name

    def update(self, name: str, full: bool) -> BuiltView:
        started, folder = perf_counter(), self._folder(name)
        if name in TABLE_VIEWS:
            done = update_table_view(TABLE_VIEWS[name], folder, self.log, full)
        else:
            done = self._update(self.views[name], folder, full)
        if len(done.state.parts) > MOST_PARTS:
            folder.compact(done.state, EVENTS_PER_PART)
        seconds = perf_counter() - started
        return BuiltView(name, done.state.rows, done.written, seconds, folder.path, done.how, done.why)

    def backfill(self, view: EventView, length: timedelta) -> BuiltView:
        started, folder = perf_counter(), self._folder(view.name)
        since = self.log.until - length
        frames = (_from(rows, view, since) for rows in self._states(view))
        state = folder.replace(frames, self.log.state(view, since))
        return BuiltView(
            view.name, state.rows, state.rows, perf_counter() - started, folder.path, "backfilled", f"from {since:%F}"
        )

    def _update(self, view: EventView, folder: ViewFolder, full: bool) -> Updated:
        old = folder.sound_state()
        why = "as asked" if full else why_anew(view, old, self.log)
        if old is None or why is not None:
            state = folder.replace(self._states(view), self.log.state(view))
            return Updated("built", why or "", state, state.rows)
        rows = increment(view, old, self.log)
        if rows is None:
            return Updated("unchanged", "", old, 0)
        state = folder.append(rows, self.log.state(view).following(old), old)
        return Updated("increment", "", state, rows.height)

    def _states(self, view: EventView) -> Iterator[pl.DataFrame]:
        for part in parts_of_log(self.log.events.filter(view.counted()), view.part_by):
            yield view.encode(part, self.log.titles, Span(until=self.log.until))

    def _folder(self, name: str) -> ViewFolder:
        return ViewFolder(self.workspace.features / f"{name}.parquet")


def parts_of_log(events: pl.DataFrame, key: str) -> Iterator[pl.DataFrame]:
    """Split events into parts of bounded size that hold whole keys; there is at least one part."""
    count = max(1, -(-events.height // EVENTS_PER_PART))
    if count == 1:
        yield events
        return
    part = events.select(pl.col(key).hash() % count).to_series()
    for index in range(count):
        yield events.filter(part == index)


def _from(rows: pl.DataFrame, view: EventView, since: datetime) -> pl.DataFrame:
    """Return the states from a moment on, and the one that every key has at it."""
    begin = utc_literal(since)
    next_at = pl.col(CHANGED_AT).shift(-1).over(view.keys)
    return rows.filter((pl.col(CHANGED_AT) >= begin) | next_at.is_null() | (next_at > begin))
