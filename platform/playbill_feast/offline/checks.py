"""What Feast asks about a source before it registers a view."""

from __future__ import annotations

from feast.data_source import DataSource, PushSource, RequestSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from playbill.errors import DataError, Problem, StateError, nearest
from playbill.features.values import plain_arrow
from playbill_feast.offline.sources import scan_source
from playbill_feast.offline.sql_source import SqlSource


def require_source(config: RepoConfig, source: DataSource) -> None:
    """Check a source, where it exists: features may be registered before they are computed.

    Raises:
        DataError: It is damaged, or has no such time columns; the nearest ones are told.
    """
    if not isinstance(source, FileSource | SqlSource):
        return
    try:
        names = scan_source(config, source, source.name, mapped=False).collect_schema().names()
    except StateError:
        return
    problems = []
    for name in filter(None, (source.timestamp_field, source.created_timestamp_column)):
        if name not in names:
            close = nearest(name, names)
            problems.append(Problem(name, "column is missing.", f"Did you mean '{close}'?" if close else ""))
    if problems:
        raise DataError(f"source '{source.name}'", problems)


def source_columns(config: RepoConfig, source: DataSource) -> list[tuple[str, str]]:
    """Return the columns of a source with their Arrow types.

    Raises:
        StateError: The source does not exist yet.
        DataError: It is damaged.
    """
    if isinstance(source, PushSource):
        return source_columns(config, source.batch_source)
    if isinstance(source, RequestSource):
        return []
    frame = scan_source(config, source, source.name, mapped=False)
    schema = plain_arrow(frame.collect_schema().to_frame()).schema
    return [(field.name, str(field.type)) for field in schema]
