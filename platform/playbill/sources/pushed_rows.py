"""Pushed rows: read from ndjson, JSON, parquet or mapped files, checked, and filled in where they leave things out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import polars as pl

from playbill.errors import DataError, DefinitionError, Problem
from playbill.schema import INTERACTIONS, TABLES, UNKNOWN_COUNTRY
from playbill.sources.ratings import RATING, rating_events
from playbill.sources.tabular.columns import read_column, read_rating
from playbill.sources.tabular.files import FileError, bad_lines, open_file
from playbill.sources.tabular.mapping import ColumnMapping, FileTable, read_mapping, unknown_columns
from playbill.tables import TIMESTAMP, Places, RowMistake, Tables, empty_frame, example_row, polars_schema
from playbill.tables.frames import utc_literal
from playbill.tables.validation import ProblemLog, check_frame

EVENTS = INTERACTIONS.name
VERSIONED = ("titles", "members")
"""Tables whose rows are versions: valid from a moment on, until the next."""

_REFERENCES = {EVENTS: ("title_id", "source_title_id"), "availability": ("title_id",)}
_STAMPS = ("valid_from", "recorded_at")


@dataclass(frozen=True, slots=True)
class Offered:
    """Rows of one table, and where they were written."""

    frame: pl.DataFrame
    """The rows."""
    places: Places | None = None
    """Where each was written, for messages."""
    rated: bool = False
    """They were made of ratings without ids of the source's own."""


@dataclass(frozen=True, slots=True)
class KnowledgeBounds:
    """The moment rows become known at where they do not say, and the one after which nothing may be."""

    now: datetime
    limit: datetime


def check_offered(
    tables: Tables, offered: Mapping[str, Offered], moments: KnowledgeBounds, log: ProblemLog
) -> dict[str, pl.DataFrame]:
    """Bring rows (table -> what was offered) into canonical shape, with everything filled in but `seq`.

    Raises:
        DataError: There are mistakes, those noted in `log` before included; all are named.
    """
    filled: dict[str, pl.DataFrame] = {}
    shaped: dict[str, pl.DataFrame] = {}
    # Profiles first: an event without a country has its member's, who may be in the same push.
    for table in sorted(offered, key=lambda name: name == EVENTS):
        frame = offered[table].frame
        if table == EVENTS:
            filled[table] = _filled_events(frame, _countries(tables, shaped.get("members")), moments)
        else:
            filled[table] = _filled_profile(tables, table, frame, moments)
        checked = check_frame(table, filled[table], moments.limit, log, offered[table].places)
        if checked is not None:
            shaped[table] = checked
    # With broken titles every reference to them would be reported too, which hides the cause.
    if "titles" not in offered or "titles" in shaped:
        titles = [
            frame.get_column("title_id") for frame in (tables.titles(), shaped.get("titles")) if frame is not None
        ]
        known = pl.concat(titles).unique().implode()
        for table, columns in _REFERENCES.items():
            if table in filled:
                _note_strangers(table, columns, filled[table], known, offered[table].places, log)
    log.raise_if_any("the rows were not pushed")
    return shaped


def _note_strangers(
    table: str, columns: tuple[str, ...], frame: pl.DataFrame, known: pl.Series, places: Places | None, log: ProblemLog
) -> None:
    for name in columns:
        if frame.schema.get(name) != pl.String:
            continue
        strange = frame.select(pl.col(name).is_not_null() & ~pl.col(name).is_in(known)).to_series()
        if strange.any():
            found = places.of(strange) if places else ""
            example = example_row(frame.filter(strange).head(1))
            mistake = RowMistake(name, "a title that is not in titles", int(strange.sum()), example, "", found)
            log.add_rows(table, [mistake])


def _filled_profile(tables: Tables, table: str, frame: pl.DataFrame, moments: KnowledgeBounds) -> pl.DataFrame:
    filled = _carried_over(tables, table, frame) if table in VERSIONED else frame
    if table == "members":
        filled = _coalesced(filled, "country", pl.lit(UNKNOWN_COUNTRY))
    now = utc_literal(moments.now)
    for name in _STAMPS:
        if TABLES[table].column(name) is not None:
            filled = _coalesced(filled, name, now)
    return filled


def _filled_events(frame: pl.DataFrame, countries: pl.DataFrame, moments: KnowledgeBounds) -> pl.DataFrame:
    filled = _coalesced(frame, "seq", pl.lit(0, dtype=pl.Int64))
    if frame.schema.get("event_at") == TIMESTAMP:
        # Where the clock stands at the end of the data, an event after it is known when it happens.
        filled = _coalesced(filled, "recorded_at", pl.max_horizontal("event_at", utc_literal(moments.now)))
    if frame.schema.get("member_id") == pl.String:
        joined = filled.join(countries, on="member_id", how="left", maintain_order="left")
        filled = _coalesced(joined, "country", pl.col("_country").fill_null(UNKNOWN_COUNTRY)).drop("_country")
    return filled


def _countries(tables: Tables, pushed: pl.DataFrame | None) -> pl.DataFrame:
    frames = [tables.members(), *([pushed] if pushed is not None else [])]
    known = pl.concat([frame.select("member_id", _country="country") for frame in frames])
    return known.unique("member_id", keep="last", maintain_order=True)


def _coalesced(frame: pl.DataFrame, name: str, otherwise: pl.Expr) -> pl.DataFrame:
    if name not in frame.columns or frame.schema[name] == pl.Null:
        return frame.with_columns(otherwise.alias(name))
    if not frame.get_column(name).null_count():
        return frame
    return frame.with_columns(pl.coalesce(name, otherwise.cast(frame.schema[name], strict=False)).alias(name))


def _carried_over(tables: Tables, table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Take columns that are left out from each row's newest version."""
    identity = TABLES[table].key[0]
    if frame.schema.get(identity) != pl.String:
        return frame
    newest = tables.published().newest(table, None).collect()
    absent = [name for name in newest.columns if name not in frame.columns and name not in _STAMPS]
    return frame.join(newest.select(identity, *absent), on=identity, how="left", maintain_order="left")


_LINE = "_line"
_WORDS = {".ndjson": "line", ".jsonl": "line", ".json": "item"}


def read_pushed(files: Mapping[str, Path | BinaryIO], mapping: Path | None, log: ProblemLog) -> dict[str, Offered]:
    """Read the files of a push, or streams of ndjson; values that cannot be read are noted in `log`.

    `mapping` is a YAML file that says which column feeds which canonical one; the files it names are not read.

    Raises:
        DataError: A file is missing or is not what its ending says.
        DefinitionError: The mapping has mistakes.
    """
    specs = _mapping(mapping, tuple(files)) if mapping is not None else {}
    offered = {}
    with TemporaryDirectory(prefix="playbill-") as scratch:
        for table, file in files.items():
            rows, word = _opened(table, file, specs.get(table), Path(scratch))
            if table in specs:
                _refuse_unknown(mapping, table, specs[table], rows)
            offered[table] = _read(table, rows, word, specs.get(table), log)
    return offered


def _mapping(path: Path, tables: tuple[str, ...]) -> dict[str, FileTable]:
    specs, problems = read_mapping(path, FileTable, needed=tables)
    events = specs.get(EVENTS)
    if EVENTS in tables and events is not None and events.rating is None and "event_id" not in events.columns:
        what = "this column has to be mapped for a push: it is what makes pushing again harmless."
        problems.append(Problem(f"{EVENTS}.columns.event_id", what))
    problems += [
        Problem(f"{table}.join", "a push takes one file; join the columns before.")
        for table in tables
        if table in specs and specs[table].join
    ]
    if problems:
        raise DefinitionError(f"mapping {path}", problems)
    return specs


def _refuse_unknown(mapping: Path | None, table: str, spec: FileTable, rows: pl.DataFrame) -> None:
    if problems := unknown_columns(table, spec, rows.columns):
        raise DefinitionError(f"mapping {mapping}", problems)


def _opened(table: str, file: Path | BinaryIO, spec: FileTable | None, scratch: Path) -> tuple[pl.DataFrame, str]:
    """Return a file's rows with `_line`, and what that counts."""
    if not isinstance(file, Path):
        return _ndjson(file.read(), "standard input"), "line"
    if not file.is_file():
        raise DataError(str(file), [Problem(table, "there is no such file.")])
    word = _WORDS.get(file.suffix.lower(), "row")
    if word == "line":
        return _ndjson(file.read_bytes(), str(file)), word
    if spec is None and file.suffix.lower() not in (".json", ".parquet"):
        what = f"the ending '{file.suffix}' is none of .ndjson, .jsonl, .json and .parquet."
        raise DataError(str(file), [Problem(table, what, "Other files need --mapping.")])
    origin = (spec or FileTable(file=file.name, columns={})).model_copy(update={"file": file.name})
    try:
        rows = open_file(table, origin, file.parent, scratch).collect()
    except FileError as error:
        raise DataError(str(file), [error.problem]) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(str(file), [Problem(table, f"it cannot be read: {_first_line(error)}")]) from None
    return rows.with_row_index(_LINE, offset=1), word


def _ndjson(content: bytes, name: str) -> pl.DataFrame:
    filled = [number for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    if not filled:
        return pl.DataFrame(schema={_LINE: pl.UInt32})
    try:
        rows = pl.read_ndjson(content, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(name, bad_lines(content) or [Problem("lines", _first_line(error))]) from None
    if rows.height != len(filled):
        raise DataError(name, bad_lines(content) or [Problem("lines", "some line is no single JSON object.")])
    return rows.with_columns(pl.Series(_LINE, filled, dtype=pl.UInt32))


def _read(table: str, rows: pl.DataFrame, word: str, spec: FileTable | None, log: ProblemLog) -> Offered:
    """Read a file's columns as canonical ones, and note what cannot be."""
    if rows.columns == [_LINE]:
        return Offered(empty_frame(table))
    schema = polars_schema(table)
    columns = {name: ColumnMapping(source=name) for name in rows.columns if name in schema}
    own = {name: ColumnMapping(source=name) for name in rows.columns if name not in schema and name != _LINE}
    if spec is not None:
        columns, own = dict(spec.columns), dict(spec.profile)
    if spec is not None and spec.rating is not None:
        own[RATING] = ColumnMapping(source=spec.rating.source)
    places = Places(word, rows.get_column(_LINE))
    found: list[pl.Series] = []
    for name, column in {**columns, **own}.items():
        target = schema.get(name)
        if name == RATING:
            read = read_rating(rows, column.source or "")
        else:
            read = read_column(rows, _as_written(rows, column, table, name), target)
        found.append(read.values.rename(name))
        if read.broken is not None and read.broken.any():
            example = example_row(rows.filter(read.broken).drop(_LINE).head(1))
            count = int(read.broken.sum())
            log.add_rows(table, [RowMistake(name, read.what, count, example, read.hint, places.of(read.broken))])
    frame = pl.DataFrame([*found, rows.get_column(_LINE)])
    if spec is not None and spec.rating is not None:
        frame = rating_events(frame, spec.rating.rule).drop("seq")
    made = spec is not None and spec.rating is not None and "event_id" not in spec.columns
    return Offered(frame.drop(_LINE), Places(word, frame.get_column(_LINE)), rated=made)


def _as_written(rows: pl.DataFrame, column: ColumnMapping, table: str, name: str) -> ColumnMapping:
    """Read text as ISO 8601 where a canonical file has moments: JSON has no other way to write them."""
    known = TABLES[table].column(name)
    plain = column.reading is None and column.source is not None and column.zone is None
    if known is None or known.type != "timestamp" or not plain:
        return column
    is_text = rows.schema[column.source or ""] == pl.String
    return column.model_copy(update={"reading": "iso_text"}) if is_text else column


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
