"""Opening a user's files: parquet, separated text of any encoding and separator, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from playbill.errors import Problem, nearest
from playbill.sources.mapping import FileOrigin, FileTable

_FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".dat": "csv",
    ".txt": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_SEPARATORS = {".tsv": "\t", ".dat": "::"}
_STAND_IN = "\x1f"
"""polars separates by one byte; longer separators are replaced by this control character."""

_BLOCK = 1 << 24


class FileError(Exception):
    """A file that cannot be opened as the mapping says."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem)


def open_table(table: str, mapping: FileTable, folder: Path, scratch: Path) -> pl.LazyFrame:
    """Open the file of a table, and the files joined to it.

    Args:
        table: The canonical table, for messages and names of temporary files.
        mapping: Where the rows are.
        folder: What file names are relative to.
        scratch: Folder for files that had to be converted.

    Raises:
        FileError: A file is missing or is not what the mapping says.
    """
    rows = open_file(f"{table}.file", mapping, folder, scratch)
    for index, joined in enumerate(mapping.join):
        where = f"{table}.join.{index}"
        added = open_file(f"{where}.file", joined, folder, scratch)
        for side, frame in (("the table", rows), ("the joined file", added)):
            names = frame.collect_schema().names()
            if joined.by not in names:
                close = nearest(joined.by, names)
                hint = f"Did you mean '{close}'?" if close else f"Known: {', '.join(names)}."
                raise FileError(Problem(f"{where}.by", f"{side} has no column '{joined.by}'.", hint))
        key = pl.col(joined.by).cast(pl.String).alias("_by")
        rows = rows.with_columns(key).join(added.with_columns(key).drop(joined.by), on="_by", how="left").drop("_by")
    return rows


def open_file(where: str, origin: FileOrigin, folder: Path, scratch: Path) -> pl.LazyFrame:
    """Open one file lazily; text columns stay text.

    Args:
        where: YAML path for messages.
        origin: The file and how to read it.
        folder: What its name is relative to.
        scratch: Folder for a converted copy.

    Raises:
        FileError: The file is missing or is not what the mapping says.
    """
    paths = sorted(folder.glob(origin.file))
    if not paths:
        present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        close = nearest(origin.file, present)
        hint = f"Did you mean '{close}'?" if close else ""
        raise FileError(Problem(where, f"there is no file '{origin.file}' in {folder}.", hint))
    ending = paths[0].suffix.lower()
    kind = origin.format or _FORMATS.get(ending)
    if kind is None:
        known = "parquet, csv, json, ndjson"
        raise FileError(Problem(where, f"the ending '{ending}' tells no format.", f"Say which with format: {known}."))
    try:
        rows = _scan(kind, paths, origin, scratch / where)
        rows.collect_schema()
    except (pl.exceptions.PolarsError, OSError, ValueError, LookupError) as error:
        raise FileError(Problem(where, f"'{origin.file}' cannot be read: {_first_line(error)}")) from None
    return rows


def _scan(kind: str, paths: list[Path], origin: FileOrigin, converted: Path) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(paths)
    if kind == "ndjson":
        return pl.scan_ndjson(paths, infer_schema_length=None)
    if kind == "json":
        return pl.concat([_json(path, origin) for path in paths], how="diagonal_relaxed").lazy()
    return pl.concat([_separated(path, origin, converted.with_suffix(f".{i}")) for i, path in enumerate(paths)])


def _separated(path: Path, origin: FileOrigin, converted: Path) -> pl.LazyFrame:
    ending = path.suffix.lower()
    separator = origin.separator or _SEPARATORS.get(ending, ",")
    plain = origin.encoding.lower().replace("-", "") == "utf8" and len(separator.encode()) == 1
    if not plain:
        _convert(path, converted, origin.encoding, separator)
    header = origin.header
    return pl.scan_csv(
        path if plain else converted,
        separator=separator if plain else _STAND_IN,
        has_header=header is None,
        schema={name: pl.String for name in header} if header else None,
        infer_schema=False,
        # Only comma-separated files quote; elsewhere a quotation mark is part of the text.
        quote_char='"' if separator == "," else None,
    )


def _convert(path: Path, target: Path, encoding: str, separator: str) -> None:
    with path.open(encoding=encoding) as source, target.open("w", encoding="utf-8") as written:
        while lines := source.readlines(_BLOCK):
            written.write("".join(lines).replace(separator, _STAND_IN))


def _json(path: Path, origin: FileOrigin) -> pl.DataFrame:
    content = json.loads(path.read_text(encoding=origin.encoding))
    if isinstance(content, list):
        return pl.DataFrame(content, infer_schema_length=None)
    names = origin.header or ("key", "value")
    if not isinstance(content, dict) or len(names) != 2:
        raise ValueError("expected a list of objects, or one object with a header of two names")
    return pl.DataFrame({names[0]: list(content), names[1]: list(content.values())}, strict=False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
