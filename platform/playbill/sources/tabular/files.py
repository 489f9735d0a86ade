"""Opening a user's files: parquet, separated text of any encoding and separator, JSON; also compressed."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import json
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import polars as pl

from playbill.errors import Problem, did_you_mean
from playbill.sources.tabular.mapping import FileOrigin, FileTable

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
_QUOTING = (",", ";")
"""Separators with which spreadsheets quote text; elsewhere a quotation mark is part of the text."""

_COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_STAND_IN = "\x1f"
"""polars separates by one byte; longer separators are replaced by this control character."""

_UNDECODED = {"\ufffd", "\0"}
"""What polars makes of bytes in the line of names that are no UTF-8; elsewhere it refuses them."""

_BLOCK = 1 << 24
_SHOWN = 20


class FileError(Exception):
    """A file that cannot be opened as the mapping says."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem)


def open_table(table: str, mapping: FileTable, folder: Path, scratch: Path) -> pl.LazyFrame:
    """Open the file of a table, and the files joined to it; converted copies go to `scratch`.

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
                hint = did_you_mean(joined.by, names, f"Known: {', '.join(names)}.")
                raise FileError(Problem(f"{where}.by", f"{side} has no column '{joined.by}'.", hint))
        key = pl.col(joined.by).cast(pl.String).alias("_by")
        _require_one_row_each(where, joined.by, added.select(key))
        rows = rows.with_columns(key).join(added.with_columns(key).drop(joined.by), on="_by", how="left").drop("_by")
    return rows


def _require_one_row_each(where: str, by: str, keys: pl.LazyFrame) -> None:
    """Refuse a joined file that has a key twice: it would make two rows of one."""
    counts = keys.drop_nulls().group_by("_by").len().filter(pl.col("len") > 1).sort("_by")
    repeated = counts.collect()
    if repeated.height:
        key, rows = repeated.row(0)
        what = f"the joined file has {rows} rows where '{by}' is {key}"
        more = f", and so for {repeated.height - 1:,} more" if repeated.height > 1 else ""
        raise FileError(Problem(f"{where}.by", f"{what}{more}.", "A join needs one row for each."))


def open_file(where: str, origin: FileOrigin, folder: Path, scratch: Path) -> pl.LazyFrame:
    """Open one file lazily; text columns stay text.

    Raises:
        FileError: The file is missing or is not what the mapping says.
    """
    paths = [_unpacked(where, path, scratch) for path in _paths(where, origin.file, folder)]
    kind = _kind(where, origin, paths[0])
    try:
        if empty := [path.name for path in paths if _is_empty(path)]:
            raise ValueError(f"{empty[0]} is empty")
        rows = _scan(kind, paths, origin, scratch / where)
        rows.collect_schema()
    except (pl.exceptions.PolarsError, OSError, ValueError, LookupError) as error:
        why = None if kind == "parquet" else _why_unread(kind, paths, origin)
        raise FileError(Problem(where, f"'{origin.file}' cannot be read: {why or _first_line(error)}")) from None
    return rows


def _is_empty(path: Path) -> bool:
    return path.stat().st_size < _BLOCK and not path.read_bytes().strip()


def wrong_separator(names: list[str]) -> str | None:
    """Return the separator that a file with a single column seems to have, or None."""
    if len(names) != 1:
        return None
    counts = {separator: names[0].count(separator) for separator in ("::", ";", ",", "\t", "|")}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else None


def _why_unread(kind: str, paths: list[Path], origin: FileOrigin) -> str | None:
    """Find the line for which text files cannot be read, or None where the reader's own words have to do."""
    for path in paths:
        if found := _undecodable(path, origin.encoding):
            return found
        if kind == "ndjson" and (bad := bad_lines(path.read_bytes())):
            return f"{bad[0].where}: {bad[0].what}"
        if kind == "csv" and (found := _uneven(path, origin)):
            return found
    return None


def _uneven(path: Path, origin: FileOrigin) -> str | None:
    """Say which line has more values than there are columns, or None."""
    wanted = len(origin.header or ())
    try:
        for number, count in _value_counts(path, origin):
            wanted = wanted or count
            if count > wanted:
                return f"line {number} has {count} values, and there are {wanted} columns"
    except csv.Error as error:
        return str(error)
    return None


def _value_counts(path: Path, origin: FileOrigin) -> Iterator[tuple[int, int]]:
    """Yield the number of each line, and how many values are in it."""
    separator = _separator(origin, path)
    with path.open(encoding=origin.encoding, newline="") as text:
        if separator in _QUOTING:
            reader = csv.reader(text, delimiter=separator)
            yield from ((reader.line_num, len(row)) for row in reader)
        else:
            yield from ((number, line.count(separator) + 1) for number, line in enumerate(text, start=1))


def _paths(where: str, name: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = f"{folder} is a file; give the folder it is in." if folder.exists() else f"there is no folder {folder}."
        raise FileError(Problem(where, what))
    if Path(name).is_absolute():
        raise FileError(Problem(where, f"'{name}' is no name within the folder {folder}.", "Names are relative to it."))
    found = sorted(folder.glob(name))
    if files := [path for path in found if path.is_file()]:
        return files
    if found:
        hint = f"For all parquet files in it, write '{name}/*.parquet'."
        raise FileError(Problem(where, f"'{name}' is a folder.", hint))
    hint = did_you_mean(name, sorted(path.name for path in folder.iterdir()))
    raise FileError(Problem(where, f"there is no file '{name}' in {folder}.", hint))


def _ending(path: Path) -> str:
    """Return what a file's name says of its content, in front of what says how it is compressed."""
    return (path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path).suffix.lower()


def _unpacked(where: str, path: Path, scratch: Path) -> Path:
    """Return the file itself, or an unpacked copy of a compressed one."""
    opened = _COMPRESSED.get(path.suffix.lower())
    if opened is None:
        return path
    target = scratch / path.with_suffix("").name
    try:
        with opened(path, "rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _BLOCK)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise FileError(Problem(where, f"'{path.name}' cannot be unpacked: {_first_line(error)}")) from None
    return target


def _kind(where: str, origin: FileOrigin, path: Path) -> str:
    kind = origin.format or _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = "parquet, csv, json, ndjson"
        hint = "Unpack it first." if path.suffix.lower() in (".zip", ".zst") else f"Say which with format: {known}."
        raise FileError(Problem(where, f"the ending '{path.suffix}' tells no format.", hint))
    return kind


def _undecodable(path: Path, encoding: str) -> str | None:
    """Say which line of a text file is in another encoding, and in which it may be; None where none is."""
    try:
        decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    except LookupError:
        return f"there is no encoding '{encoding}'; common ones are utf-8, latin-1, windows-1252 and utf-16"
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                return _other_encoding(path, encoding, line, error.object[error.start])
            line += block.count(b"\n")
            if not block:
                return None


def _other_encoding(path: Path, encoding: str, line: int, byte: int) -> str:
    with path.open("rb") as file:
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # 0x80 to 0x9f are control characters in Latin-1, and letters and quotation marks on Windows.
    likely = "utf-16" if marked else "windows-1252" if byte < 0xA0 else "latin-1"
    return f"line {line} is not {encoding} (byte 0x{byte:02x}); say which encoding it is, perhaps encoding: {likely}"


def _scan(kind: str, paths: list[Path], origin: FileOrigin, converted: Path) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(paths)
    if kind == "ndjson":
        return pl.scan_ndjson(paths, infer_schema_length=None)
    if kind == "json":
        return pl.concat([_json(path, origin) for path in paths], how="diagonal_relaxed").lazy()
    parts = [_separated(path, origin, converted.with_suffix(f".{i}")) for i, path in enumerate(paths)]
    names = [set(part.collect_schema()) for part in parts]
    if other := [path.name for path, own in zip(paths, names, strict=True) if own != names[0]]:
        raise ValueError(f"{other[0]} has other columns than {paths[0].name}")
    return pl.concat([part.select(parts[0].collect_schema().names()) for part in parts])


def _separator(origin: FileOrigin, path: Path) -> str:
    return origin.separator or _SEPARATORS.get(_ending(path), ",")


def _separated(path: Path, origin: FileOrigin, converted: Path) -> pl.LazyFrame:
    separator = _separator(origin, path)
    byte = separator if len(separator.encode()) == 1 else _STAND_IN
    encoding = codecs.lookup(origin.encoding).name
    plain = encoding == "utf-8" and byte == separator
    if not plain:
        # A mark at the beginning, which some tools write, is no part of the first name.
        with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding) as source:
            _convert(source, converted, separator, byte)
    header = origin.header
    if header and len(header) > 1:
        _require_separator(path if plain else converted, byte, separator)
    rows = pl.scan_csv(
        path if plain else converted,
        separator=byte,
        has_header=header is None,
        schema={name: pl.String for name in header} if header else None,
        infer_schema=False,
        quote_char='"' if separator in _QUOTING else None,
    )
    if any(set(name) & _UNDECODED for name in rows.collect_schema()):
        raise ValueError("its first line cannot be read")
    # Parsed once and whole: of a line with a value too many, a reader of a few columns takes the wrong ones in silence.
    parsed = converted.with_name(f"{converted.name}.parquet")
    rows.sink_parquet(parsed, compression="lz4")
    return pl.scan_parquet(parsed)


def _convert(source: IO[str], target: Path, separator: str, byte: str) -> None:
    with target.open("w", encoding="utf-8") as written:
        while lines := source.readlines(_BLOCK):
            written.write("".join(lines).replace(separator, byte))


def _require_separator(path: Path, byte: str, separator: str) -> None:
    """Refuse a file without a line of names whose first line is one value only."""
    with path.open(encoding="utf-8") as file:
        line = file.readline().rstrip("\r\n")
    if byte not in line:
        other = wrong_separator([line])
        hint = f"; say how columns are separated, perhaps separator: {other!r}" if other else ""
        raise ValueError(f"its first line has no {separator!r}{hint}")


def bad_lines(content: bytes) -> list[Problem]:
    """Find the lines that are no JSON objects, one by one: only asked once the whole could not be read."""
    problems = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                problems.append(Problem(f"line {number}", "this is no JSON object."))
        except ValueError as error:
            problems.append(Problem(f"line {number}", f"this is no JSON: {error}."))
    rest = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([Problem("lines", f"{rest} more are no JSON objects.")] if rest > 0 else [])


def _json(path: Path, origin: FileOrigin) -> pl.DataFrame:
    content = json.loads(path.read_text(encoding=origin.encoding))
    if not content:
        raise ValueError(f"{path.name} is empty")
    if isinstance(content, list):
        return pl.DataFrame(content, infer_schema_length=None)
    names = origin.header or ("key", "value")
    if not isinstance(content, dict) or len(names) != 2:
        raise ValueError("expected a list of objects, or one object with a header of two names")
    return pl.DataFrame({names[0]: list(content), names[1]: list(content.values())}, strict=False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
