"""Leak checks of a workspace's own views: by running their code on less, and by judging their values beside the log.

A view that Playbill ships is tested with Playbill. What an engineer adds is tried here: in `features build`, before a
model is trained, and by `evaluate --leakage_checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import polars as pl
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.repo_config import RepoConfig, load_repo_config

from playbill.config import Workspace
from playbill.errors import DataError, Problem
from playbill.features.axis import CHANGED_AT, Span
from playbill.features.catalog import feature_kind
from playbill.features.leaks import Leak, ViewLeaks, leaks_of
from playbill.features.outcomes import Outcomes, outcomes_of
from playbill.features.own_views import SHIPPED, own_feature_views
from playbill.features.registration import render
from playbill.features.reports import LeakReport
from playbill.features.views import EVENT_COLUMNS, EventView
from playbill.tables import Tables
from playbill.tables.frames import utc_literal
from playbill_feast.errors import StoreStateError
from playbill_feast.offline.sources import scan_source, view_values

ACCEPTED = "playbill.leaks_accepted"
"""Tag of a view whose owner answers for it: its text says why, and is shown instead of an error."""

ON_EVENTS = 0.9
"""Share of values stamped at exactly their events' moments from which that is said."""

_MEND_STAMPS = (
    "Stamp a value after the events it was computed from (event_at + 1 microsecond), or compute it from earlier events "
    "only; `event_view` of playbill.features.own stamps by itself. A view that is right all the same says why in its "
    f'tags: {{"{ACCEPTED}": "..."}}.'
)
_MEND_CODE = "Compute it from its entity's own events up to and including the row, and from nothing else."

_ENTITIES = 200
_CUTS = (0.4, 0.7, 0.9)


@dataclass(frozen=True)
class LeakCheck:
    """What a check reads, once for all views: the log, Feast's configuration, and the views feature_repo computes."""

    tables: Tables
    config: RepoConfig
    recipes: Mapping[str, EventView]

    def run(self, views: Iterable[FeatureView], *, built: bool = True) -> LeakReport:
        """Check stored views that are no shipped ones, as registered or declared.

        Files of computed views are what their code gives now and are judged too where they are `built`.

        Raises:
            StateError: A view's file does not exist; the text names the command.
        """
        own = [view for view in views if view.name not in SHIPPED]
        leaks: list[Leak] = []
        notes: list[str] = []
        for view in own:
            if not _keys(view) or not set(_keys(view)) <= set(self._events.columns):
                notes.append(f"view '{view.name}' is of no entity of the event log, so it was not tried for leaks")
                continue
            found, on_events = self._tried(view, built)
            why = dict(view.tags or {}).get(ACCEPTED, "").strip()
            if why:
                notes += [f"view '{view.name}': {leak}. Accepted by its owner: {why}" for leak in found]
            else:
                leaks += found
                notes += [on_events] if on_events and not found else []
        return LeakReport(tuple(view.name for view in own), tuple(leaks), tuple(notes))

    def _tried(self, view: FeatureView, built: bool) -> tuple[list[Leak], str]:
        """Return what leaks in a view, and what is worth a look."""
        recipe, leaks = self.recipes.get(view.name), []
        if recipe is not None:
            columns = dict.fromkeys([*EVENT_COLUMNS, *recipe.log_columns])
            leaks = code_leaks(recipe, self._events.select(list(columns)), self._titles)
            if not built:
                return leaks, ""
        names = [field.name for field in view.features if feature_kind(field) is not None]
        judged = leaks_of(view_values(self.config, view, names, full_names=True), self._outcomes(_keys(view)))
        known = {leak.feature for leak in leaks}
        leaks += [leak for leak in judged.leaks if leak.feature not in known]
        stamped = judged.on_events >= ON_EVENTS and recipe is None
        return leaks, _on_events(view.name, judged) if stamped else ""

    @cached_property
    def _events(self) -> pl.DataFrame:
        return self.tables.interactions()

    @cached_property
    def _titles(self) -> pl.DataFrame:
        return self.tables.titles()

    def _outcomes(self, keys: tuple[str, ...]) -> Outcomes:
        if keys not in self._known_outcomes:
            self._known_outcomes[keys] = outcomes_of(self._events, self._titles, keys)
        return self._known_outcomes[keys]

    @cached_property
    def _known_outcomes(self) -> dict[tuple[str, ...], Outcomes]:
        return {}


def require_none(report: LeakReport) -> None:
    """Refuse what leaks.

    Raises:
        DataError: A view knows the event it is joined to; every view and column is named, with an example.
    """
    if report.leaks:
        mends = (_MEND_STAMPS, _MEND_CODE)
        problems = [Problem(f"{leak.view}.{leak.feature}", f"{leak}.", mends[leak.code]) for leak in report.leaks]
        raise DataError("feature views that know the event they are joined to", problems)


def code_leaks(view: EventView, events: pl.DataFrame, titles: pl.DataFrame) -> list[Leak]:
    """Run a view's code with later events, and with other entities, left out, and compare the values before."""
    counted = events.filter(view.counted())
    keys = list(view.keys)
    entities = counted.select(keys).unique(maintain_order=True).sort(pl.struct(keys).hash(0), *keys)
    sample = counted.join(entities.head(_ENTITIES), on=keys, how="semi", maintain_order="left")
    if sample.is_empty():
        return []
    whole = view.encode(sample, titles, Span())
    fewer = sample.join(entities.head(_ENTITIES // 2), on=keys, how="semi", maintain_order="left")
    some = view.encode(fewer, titles, Span())
    own = whole.join(some.select(keys).unique(), on=keys, how="semi", maintain_order="left")
    leaks = _moved(view, own, some, "changes when other entities are left out of the log")
    moments = sample["event_at"].sort()
    for share in _CUTS:
        cut = moments[int(share * (len(moments) - 1))]
        before = view.encode(sample.filter(pl.col("event_at") < cut), titles, Span())
        # A state of closed hours holds events up to its own moment.
        seen = pl.col(CHANGED_AT) <= utc_literal(cut)
        known = {leak.feature for leak in leaks}
        late = _moved(view, whole.filter(seen), before.filter(seen), "changes with events after its moment")
        leaks += [leak for leak in late if leak.feature not in known]
    return leaks


def _moved(view: EventView, whole: pl.DataFrame, less: pl.DataFrame, what: str) -> list[Leak]:
    """Return the columns whose values are others where less of the log was there."""
    columns = [name for name in whole.columns if name not in (*view.keys, CHANGED_AT, "created_timestamp")]
    both = whole.join(less, on=[*view.keys, CHANGED_AT], how="full", suffix="__less", coalesce=True)
    leaks = []
    for name in columns:
        changed = both.filter(pl.col(name).ne_missing(pl.col(f"{name}__less"))).sort(*view.keys, CHANGED_AT)
        if changed.height:
            row = changed.row(0, named=True)
            value, instead = row[name], row[f"{name}__less"]
            text = f"{what}: {value!r} becomes {instead!r} at {changed.height} of {both.height} moments"
            entity = {key: str(row[key]) for key in view.keys}
            at = row[CHANGED_AT] - timedelta(microseconds=0 if view.hourly else 1)
            leaks.append(Leak(view.name, name, entity, at, row[CHANGED_AT], value, text, code=True))
    return leaks


def _keys(view: FeatureView) -> tuple[str, ...]:
    return tuple(column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID)


def _on_events(view: str, tried: ViewLeaks) -> str:
    return (
        f"view '{view}': {tried.on_events:.0%} of its values are stamped at exactly the moment of the event they are "
        "joined to. Make sure that each was computed from events strictly before its stamp"
    )


def check_before_build(workspace: Workspace, recipes: Mapping[str, EventView]) -> tuple[str, ...]:
    """Try what `features build` is about to compute, and files of one's own that are there, and return notes.

    Raises:
        DataError: A view knows the event it is joined to; every view and column is named, with an example.
        DefinitionError: A definition in feature_repo is wrong.
    """
    views = own_feature_views(workspace.project.feature_repo)
    if not views:
        return ()
    render(workspace)
    config = load_repo_config(workspace.project.feature_repo, workspace.feature_store_yaml)
    there = [view for name, view in views.items() if name in recipes or _is_there(view, config)]
    report = LeakCheck(Tables(workspace).require(), config, recipes).run(there, built=False)
    require_none(report)
    return report.notes


def _is_there(view: FeatureView, config: RepoConfig) -> bool:
    try:
        scan_source(config, view.batch_source, view.name)
    except StoreStateError:
        return False
    return True
