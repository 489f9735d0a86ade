"""The sources `parquet` and `sql`: a user's own files, and tables or queries of any database, through a mapping."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from playbill.clock import WallClock
from playbill.config import expand_variables
from playbill.errors import DataError, DefinitionError, Problem, ServiceError
from playbill.sources.canonicalise import Noted, Progress, SourceData, member_slices
from playbill.sources.cleaning import Cleaner
from playbill.sources.observing import plural
from playbill.sources.ratings import ORDER, RATING
from playbill.sources.registry import ParquetOptions, SqlOptions
from playbill.sources.tabular.columns import read_rating, read_table, unread
from playbill.sources.tabular.files import FileError, open_table, wrong_separator
from playbill.sources.tabular.mapping import (
    ColumnMapping,
    FileTable,
    QueryTable,
    TableMapping,
    read_mapping,
    unknown_columns,
)
from playbill.sources.value_parsing import same_titles
from playbill.tables import database_errors, open_database


def mapped_offer(
    tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], mapping: Path, scratch: Path
) -> SourceData:
    """Offer a user's tables, titles and interactions among them.

    `opened` has the rows of each with every column its mapping names. Values that cannot be read are noted in the offer
    while it is consumed; rows that are set aside are written to `scratch`.

    Raises:
        DataError: A file's rows cannot be read, or no titles are mapped.
    """
    reading = _Reading(tables, opened, scratch)
    titles = reading.small("titles")
    if titles is None:
        raise DataError(str(mapping), [Problem("titles", "this table has to be mapped.")])
    same = same_titles(titles)
    merge = bool(tables["titles"].merge_duplicates and same)
    offer = SourceData(
        titles,
        reading.batches(),
        reading.rows("interactions"),
        reading.small("members"),
        reading.small("availability"),
        rule=reading.rule,
        noted=reading.noted,
        same=same if merge else None,
        cleaners=reading.cleaners,
        ordered=tables["interactions"].order_by is not None or "seq" in tables["interactions"].columns,
    )
    if same is not None and not merge:
        offer.notes.append(
            f"{plural(same.ids.height, 'title')} with the name, kind, release and genres of another one "
            f"({same.example}): `merge_duplicates: true` under titles makes one of them"
        )
    return offer


class _Reading:
    """Reads mapped tables one after the other; titles first, since other tables name them."""

    def __init__(self, tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], scratch: Path) -> None:
        self._tables, self._scratch, self._now = tables, scratch, WallClock().now()
        self._opened = {
            name: rows.select(sorted(set(tables[name].sources().values()))) for name, rows in opened.items()
        }
        self._known_titles: pl.Series | None = None
        self.cleaners: list[Cleaner] = []
        self.noted: list[Noted] = []
        rating = tables["interactions"].rating
        self.rule = rating.rule if rating else None

    def rows(self, name: str) -> int:
        """Count the rows of a table."""
        return int(_collected(name, self._opened[name].select(pl.len())).item())

    def small(self, name: str) -> pl.DataFrame | None:
        """Read a table that is held whole: all of its sound rows, or none of them when it is refused."""
        if name not in self._tables:
            return None
        spec = self._tables[name]
        opened, key = self._opened[name], spec.columns.get("title_id")
        if spec.distinct and key is not None and key.source is not None:
            opened = opened.drop_nulls(key.source).unique(key.source, keep="first", maintain_order=True)
        rows = _collected(name, opened)
        frame, faults = read_table(rows, name, spec.columns, spec.profile)
        cleaner = self._cleaner(name)
        sound = cleaner.clean(rows, frame, faults)
        self.noted += [Noted(name, mistake) for mistake in cleaner.mistakes()]
        # References to titles that are refused would be reported one by one, which hides the cause.
        frame = frame.clear() if cleaner.refused else frame.filter(sound)
        if name == "titles" and not cleaner.refused:
            self._known_titles = frame.get_column("title_id").unique()
        return frame

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the sound events, whole members at a time, and note what is wrong once all have been seen."""
        spec, log = self._tables["interactions"], self._opened["interactions"]
        cleaner = self._cleaner("interactions")
        cleaner.repeated_ids = self._repeated_ids(spec, log) if cleaner.limit is not None else None
        for rows in self._read_batches(log, spec.columns["member_id"].source or ""):
            frame, faults = read_table(rows, "interactions", spec.columns, {})
            if spec.rating:
                read = read_rating(rows, spec.rating.source)
                faults += unread("rating", ColumnMapping(source=spec.rating.source), read, rows)
                # A rating is a play, which needs a title.
                frame = frame.with_columns(read.values.rename(RATING), action=pl.lit("play"))
            if spec.order_by:
                frame = frame.with_columns(rows.get_column(spec.order_by).rename(ORDER))
            sound = cleaner.clean(rows, frame, faults)
            yield frame.filter(sound)
        self.noted += [Noted("interactions", mistake) for mistake in cleaner.mistakes()]

    def _cleaner(self, name: str) -> Cleaner:
        rule = self._tables[name].set_aside
        made = Cleaner(name, rule.limit if rule else None, self._now, self._scratch, self._known_titles)
        self.cleaners.append(made)
        return made

    def _repeated_ids(self, spec: TableMapping, log: pl.LazyFrame) -> pl.Series | None:
        column = spec.columns.get("event_id")
        if column is None or column.source is None:
            return None
        ids = log.select(pl.col(column.source).cast(pl.String).alias("event_id"))
        counts = _collected("interactions", ids.group_by("event_id").len().filter(pl.col("len") > 1))
        return counts.get_column("event_id").drop_nulls()

    def _read_batches(self, log: pl.LazyFrame, member: str) -> Iterator[pl.DataFrame]:
        batches = member_slices(log, member)
        while True:
            try:
                rows = next(batches, None)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _unreadable("interactions", error) from None
            if rows is None:
                return
            yield rows


def _collected(table: str, rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(table, error) from None


def _unreadable(table: str, error: Exception) -> DataError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(table, [Problem(table, f"its rows cannot be read: {first}.")])


class OwnFiles:
    """Files in a folder: parquet, separated text, JSON."""

    terms = ""

    def __init__(self, options: ParquetOptions) -> None:
        self._folder, self._mapping = options.path, options.mapping

    def open(self, scratch: Path, progress: Progress) -> tuple[SourceData, str]:
        """Check the mapping against the files and offer their rows. See `playbill.sources.registry.Source`."""
        tables, problems = read_mapping(self._mapping, FileTable)
        opened: dict[str, pl.LazyFrame] = {}
        for name, table in tables.items():
            try:
                opened[name] = open_table(name, table, self._folder, scratch)
            except FileError as error:
                problems.append(error.problem)
                continue
            problems += self._column_problems(name, table, opened[name].collect_schema().names())
        if problems:
            raise DefinitionError(f"mapping {self._mapping}", problems)
        offer = mapped_offer(tables, opened, self._mapping, scratch)
        return offer, f"the files in {self._folder}"

    def _column_problems(self, name: str, table: FileTable, known: list[str]) -> list[Problem]:
        problems = unknown_columns(name, table, known)
        # Of columns with one name polars calls the second one so.
        problems += [
            Problem(
                f"{name}.{path}", f"the column '{source}' is there twice.", "Give the columns other names in the file."
            )
            for path, source in table.sources().items()
            if f"{source}_duplicated_0" in known
        ]
        if problems and (separator := wrong_separator(known)):
            what = f"'{table.file}' has a single column, '{known[0][:80]}'."
            return [Problem(f"{name}.file", what, f"Say how columns are separated, perhaps separator: {separator!r}.")]
        return problems


BATCH_ROWS = 50_000
"""Rows fetched at a time from a server-side cursor."""


class OwnDatabase:
    """A database, read in batches: neither the server's nor our memory ever holds a whole table."""

    terms = ""

    def __init__(self, options: SqlOptions) -> None:
        self._url, self._mapping = options.url, options.mapping

    def open(self, scratch: Path, progress: Progress) -> tuple[SourceData, str]:
        """Check the mapping against the database and offer its rows. See `playbill.sources.registry.Source`."""
        engine = open_database(expand_variables(self._url, os.environ, "the database URL (--url)"))
        _require_file(engine)
        tables, problems = read_mapping(self._mapping, QueryTable)
        with database_errors(engine), engine.connect() as connection:
            for name, table in tables.items():
                problems += _query_problems(connection, name, table)
            if problems:
                raise DefinitionError(f"mapping {self._mapping}", problems)
            opened = {
                name: _fetched(connection, name, _query(table), scratch, progress) for name, table in tables.items()
            }
        place = engine.url.render_as_string(hide_password=True)
        return mapped_offer(tables, opened, self._mapping, scratch), f"database {place}"


def _require_file(engine: sa.Engine) -> None:
    # SQLite would quietly create an empty database in its place.
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not file.startswith(("file:", ":")) and not Path(file).is_file():
        raise ServiceError(f"database {engine.url}: there is no file {file}")


def _query(mapping: QueryTable) -> sa.Select[Any]:
    wanted = sorted(set(mapping.sources().values()))
    columns: Sequence[sa.ColumnClause[Any]] = [sa.column(name) for name in wanted]
    return sa.select(*columns).select_from(_origin(mapping))


def _origin(mapping: QueryTable) -> sa.FromClause:
    if mapping.select is not None:
        return sa.text(mapping.select.strip().rstrip(";")).columns().subquery("mapped")
    schema, _, name = (mapping.table or "").rpartition(".")
    return sa.table(name, schema=schema or None)


def _query_problems(connection: sa.Connection, name: str, mapping: QueryTable) -> list[Problem]:
    where = f"{name}.{'select' if mapping.select is not None else 'table'}"
    probe = sa.select(sa.text("*")).select_from(_origin(mapping)).where(sa.false())
    try:
        with connection.begin_nested():
            known = list(connection.execute(probe).keys())
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        return [Problem(where, f"the database refuses this: {str(cause).splitlines()[0]}.")]
    return unknown_columns(name, mapping, known)


def _fetched(
    connection: sa.Connection, name: str, query: sa.Select[Any], scratch: Path, progress: Progress
) -> pl.LazyFrame:
    parts: list[Path] = []
    done = 0
    streamed = connection.execution_options(yield_per=BATCH_ROWS).execute(query)
    names = list(streamed.keys())
    for rows in streamed.partitions():
        frame = _frame(name, names, rows)
        parts.append(scratch / f"{name}-{len(parts):05d}.parquet")
        frame.write_parquet(parts[-1], compression="lz4")
        done += len(rows)
        progress(f"read {name}", done, None)
    if not parts:
        return pl.LazyFrame(schema={column: pl.Null for column in names})
    # A batch of nulls alone has no type of its own, so batches are brought to a common one.
    return pl.concat([pl.scan_parquet(part) for part in parts], how="vertical_relaxed")


def _frame(name: str, names: Sequence[str], rows: Sequence[sa.Row[Any]]) -> pl.DataFrame:
    try:
        return pl.DataFrame([tuple(row) for row in rows], schema=list(names), orient="row", infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0]
        raise DataError(name, [Problem(name, f"the database's values cannot be read: {first}")]) from None
