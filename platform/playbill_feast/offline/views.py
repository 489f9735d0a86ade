"""Registered views as the as-of join reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.repo_config import RepoConfig

from playbill.errors import DataError, Problem, UnknownNameError
from playbill_feast.asof_join import ViewValues, value_problems
from playbill_feast.offline.knowledge import known_by, known_on
from playbill_feast.offline.scan_filter import Wanted
from playbill_feast.offline.sources import scan_source, source_files


def join_keys(view: FeatureView) -> dict[str, str]:
    """Return the entity rows' column -> the source's column for a view's keys."""
    return {
        view.projection.join_key_map.get(column.name, column.name): column.name
        for column in view.entity_columns
        if column.name != DUMMY_ENTITY_ID
    }


def output_names(view: FeatureView, features: Sequence[str], full_names: bool) -> dict[str, str]:
    """Return the name each feature of a view has in the result -> its name in the view."""
    name = view.projection.name_to_use()
    return {f"{name}__{feature}" if full_names else feature: feature for feature in features}


def view_values(
    config: RepoConfig,
    view: FeatureView,
    features: Sequence[str],
    full_names: bool,
    until: datetime | None = None,
    keys: Mapping[str, Sequence[Any]] | None = None,
) -> ViewValues:
    """Return a registered view as the as-of join reads it, held to what was known then.

    Args:
        config: The feature store's configuration.
        view: The view, with the projection it is asked by.
        features: Its features that are wanted.
        full_names: Name outputs `view__feature` instead of `feature`.
        until: Values after it are not needed. None where the frame is to be read in slices.
        keys: Column of the view -> all values that are needed; None is every value.

    Raises:
        StateError, DataError: See `scan_source`.
    """
    source = view.batch_source
    mapping = source.field_mapping or {}
    own = {mapped: name for name, mapped in mapping.items()}
    created = source.created_timestamp_column or None
    at = mapping.get(source.timestamp_field, source.timestamp_field)
    created = mapping.get(created, created) if created else None
    span = _span(view)
    wanted = Wanted(
        at=source.timestamp_field,
        until=until,
        keys={own.get(name, name): values for name, values in (keys or {}).items()},
    )
    frame = scan_source(config, source, view.name, wanted)
    return ViewValues(
        name=view.projection.name_to_use(),
        frame=frame,
        keys=join_keys(view),
        at=at,
        created=created,
        features=output_names(view, features, full_names),
        ttl=span,
        counts=known_by(frame.collect_schema(), at, created, known_on(config)),
        sliceable=until is None and bool(source_files(config, source)),
    )


def _span(view: FeatureView) -> timedelta | None:
    return view.ttl if view.ttl and view.ttl > timedelta(0) else None


def require_columns(values: Sequence[ViewValues]) -> None:
    """Check that every view's source has what is asked of it.

    Raises:
        DataError: Columns are missing or no times; those of all views are named together.
    """
    problems = [
        Problem(f"{view.name}.{problem.where}", problem.what, problem.hint)
        for view in values
        for problem in value_problems(view)
    ]
    if problems:
        raise DataError("feature views", problems)


def require_features(wanted: Mapping[FeatureView, Sequence[str]]) -> None:
    """Check that views have the features asked of them.

    Raises:
        UnknownNameError: One has not; the nearest name is told.
    """
    for view, features in wanted.items():
        known = [field.name for field in view.features]
        for feature in features:
            if feature not in known:
                raise UnknownNameError(f"feature of view '{view.name}'", feature, known)
