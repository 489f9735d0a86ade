"""A feature view's source, opened wherever it is: `scan_source`, and `view_values` as the as-of join reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from playbill_feast.asof_join import ViewValues, value_problems
from playbill_feast.errors import Mistake, StoreDataError, StoreStateError, UnknownFeatureError
from playbill_feast.frames import as_utc, in_utc, utc_literal
from playbill_feast.offline.parquet_files import damaged, first_line, parts_of, scan_parts
from playbill_feast.offline.remote_files import remote_parts, scan_remote
from playbill_feast.offline.scan_filter import ScanFilter, known_by, known_on
from playbill_feast.offline.sql_reader import scan_sql
from playbill_feast.offline.sql_source import SqlSource


def scan_source(
    config: RepoConfig, source: DataSource, view: str, scan_filter: ScanFilter | None = None, mapped: bool = True
) -> pl.LazyFrame:
    """Open a source under the names it maps its columns to (if `mapped`), old parts before new ones.

    A file source's path is one parquet file, a folder of part files, a hive-partitioned folder, or any of these behind
    a URL that fsspec knows. Relative paths start from `features_folder`. A SqlSource is read in batches; only the
    columns that are used, and only the rows that the filter keeps, leave the database. `view` is for messages.

    Raises:
        StoreStateError: The file does not exist yet.
        StoreDataError: The source is of a kind that cannot be read, or a file is damaged; every damaged one is named.
        StoreServiceError: A database or object store does not answer.
    """
    if isinstance(source, SqlSource):
        frame = scan_sql(source.rows, scan_filter)
    elif isinstance(source, FileSource):
        require_parquet(source, view)
        frame = _scan_files(config, source, view)
    else:
        what = f"needs a FileSource or a SqlSource, got {type(source).__name__}."
        raise StoreDataError("offline store", [Mistake(view, what)])
    if scan_filter is not None:
        frame = _within(frame, scan_filter)
    return frame.rename(dict(source.field_mapping), strict=False) if mapped and source.field_mapping else frame


def source_files(config: RepoConfig, source: DataSource) -> Sequence[Path]:
    """Return the local files of a source; none for a database or a URL."""
    path = local_path(config, source.path) if isinstance(source, FileSource) else None
    return parts_of(path) if path is not None else ()


def features_root(config: RepoConfig) -> Path | None:
    """Return the folder that relative paths start from."""
    folder = getattr(config.offline_store, "features_folder", None)
    return Path(folder) if folder else config.repo_path


def local_path(config: RepoConfig, path: str) -> Path | None:
    """Return where a path of a source, a saved dataset or a log is on this machine; None when it is a URL."""
    path = path.removeprefix("file://")
    return None if "://" in path else Path(FileSource.get_uri_for_file_path(features_root(config), path))


def storage_options(config: RepoConfig, source: FileSource | None = None) -> Mapping[str, Any]:
    """Return what fsspec needs to open a source's URL: `storage_options` of the store, and the source's own."""
    options = dict(getattr(config.offline_store, "storage_options", None) or {})
    if source is not None and source.s3_endpoint_override:
        options["endpoint_url"] = source.s3_endpoint_override
    credentials = source.resolve_credentials() if source is not None else None
    named = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    return options | {
        ours: credentials[theirs] for theirs, ours in named.items() if credentials and credentials.get(theirs)
    }


def require_parquet(source: FileSource, view: str) -> None:
    """Raise StoreDataError for a source in a format that is not read here."""
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        what = f"is in {type(source.file_format).__name__}, and only parquet is read."
        raise StoreDataError("offline store", [Mistake(view, what)])


def advice(config: RepoConfig) -> str:
    """Say how feature files come to be."""
    command = getattr(config.offline_store, "build_command", None)
    return f"Run `{command}`, or write that file." if command else "Write that file."


def _scan_files(config: RepoConfig, source: FileSource, view: str) -> pl.LazyFrame:
    path = local_path(config, source.path)
    try:
        if path is not None:
            if files := parts_of(path):
                return scan_parts(files, path)
        else:
            filesystem, names = remote_parts(source.path, storage_options(config, source))
            if names:
                root = filesystem._strip_protocol(source.path)
                return scan_remote(filesystem, names, root)
    except StoreDataError as error:
        problems = [Mistake(problem.where, problem.what, advice(config)) for problem in error.problems]
        raise StoreDataError(f"feature view '{view}'", problems) from None
    what = "holds no parquet files" if path is not None and path.is_dir() else "does not exist"
    raise StoreStateError(f"feature view '{view}' has no values: {path or source.path} {what}. {advice(config)}")


def _within(frame: pl.LazyFrame, scan_filter: ScanFilter) -> pl.LazyFrame:
    schema = frame.collect_schema()
    # A missing time column, or one of another type, is named together with all else that is wrong.
    if (scan_filter.since is None and scan_filter.until is None) or not isinstance(
        schema.get(scan_filter.at), pl.Datetime | pl.Date
    ):
        return frame
    when = in_utc(scan_filter.at, schema[scan_filter.at])
    if scan_filter.since is not None:
        frame = frame.filter(when >= utc_literal(as_utc(scan_filter.since)))
    return frame if scan_filter.until is None else frame.filter(when <= utc_literal(as_utc(scan_filter.until)))


@contextmanager
def reading(config: RepoConfig, source: DataSource, view: str) -> Iterator[None]:
    """Turn a failure to read a source into one that names its files.

    A file whose footer is whole opens, and shows only when its pages are read that they are damaged.

    Raises:
        StoreDataError: In place of the reader's own error; every damaged file is named.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        hint = advice(config)
        problems = damaged(source_files(config, source))
        damages = [Mistake(problem.where, problem.what, hint) for problem in problems]
        where = getattr(source, "path", "") or source.name
        unreadable = [Mistake(where, f"cannot be read: {first_line(error)}.", hint)]
        raise StoreDataError(f"feature view '{view}'", damages or unreadable) from error


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
    """Return a registered view, with the request's projection, as the as-of join reads it, held to what was known then.

    Values after `until` are not needed; None where the frame is to be read in slices. `keys`: column of the view -> all
    values that are needed; None is every value.

    Raises:
        StoreStateError, StoreDataError: See `scan_source`.
    """
    source = view.batch_source
    mapping = source.field_mapping or {}
    own = {mapped: name for name, mapped in mapping.items()}
    created = source.created_timestamp_column or None
    at = mapping.get(source.timestamp_field, source.timestamp_field)
    created = mapping.get(created, created) if created else None
    span = _span(view)
    scan_filter = ScanFilter(
        at=source.timestamp_field,
        until=until,
        keys={own.get(name, name): values for name, values in (keys or {}).items()},
    )
    frame = scan_source(config, source, view.name, scan_filter)
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
    """Check that every view's source has the columns that are read.

    Raises:
        StoreDataError: Columns are missing or no times; those of all views are named together.
    """
    problems = [
        Mistake(f"{view.name}.{problem.where}", problem.what, problem.hint)
        for view in values
        for problem in value_problems(view)
    ]
    if problems:
        raise StoreDataError("feature views", problems)


def require_features(requested: Mapping[FeatureView, Sequence[str]]) -> None:
    """Check that views have the requested features.

    Raises:
        UnknownFeatureError: One has not; the nearest name is suggested.
    """
    for view, features in requested.items():
        known = [field.name for field in view.features]
        for feature in features:
            if feature not in known:
                raise UnknownFeatureError(f"feature of view '{view.name}'", feature, known)
