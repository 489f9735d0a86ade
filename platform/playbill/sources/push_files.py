"""Reading pushed files: canonical rows as ndjson, JSON or parquet, or any file of yours through a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import polars as pl

from playbill.errors import DataError, DefinitionError, Problem
from playbill.schema import TABLES
from playbill.sources.pushed_rows import EVENTS, Offered
from playbill.sources.ratings import RATING, rating_events
from playbill.sources.tabular.columns import read_column, read_rating
from playbill.sources.tabular.files import FileError, bad_lines, open_file
from playbill.sources.tabular.mapping import ColumnMapping, FileTable
from playbill.sources.tabular.mapping_file import read_mapping, unknown_columns
from playbill.tables import Places, RowMistake, empty_frame, example_row, polars_schema
from playbill.tables.validation import ProblemLog

_LINE = "_line"
_WORDS = {".ndjson": "line", ".jsonl": "line", ".json": "item"}


def read_pushed(files: Mapping[str, Path | BinaryIO], mapping: Path | None, log: ProblemLog) -> dict[str, Offered]:
    """Read the files of a push.

    Args:
        files: Table -> its file, or a stream of ndjson.
        mapping: YAML file that says which column feeds which canonical one; the files it names are not read.
        log: Where values that cannot be read are noted.

    Returns:
        Table -> rows, with the place of each.

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
