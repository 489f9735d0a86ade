"""Parquet files of one source, old to new, and their common schema. Knows polars and the file system only.

A source is one file, a folder of parts, or a folder with hive partitions (`day=2024-01-01/`). A single file
`x.parquet` may have a folder `x.parquet.appended/` beside it: parts that were appended later. Files and folders
whose name starts with `.` or `_` are never read, so a half-written part is invisible.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePath

import polars as pl
from polars.datatypes import DataTypeClass

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.frames import in_utc

APPENDED = ".appended"  # What the folder of parts appended to a single file is called, after the file's own name

STATE = "_state.json"
"""Beside parts: JSON whose `digests` give the SHA-256 of files of its folder; others are not compared."""

_PART = re.compile(r"part-(\d+)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NUMBER = re.compile(r"-?\d{1,18}")


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return a source's files, oldest part first; none when there is nothing yet."""
    appended = path.with_name(path.name + APPENDED)
    own = (path,) if path.is_file() else tuple(_inside(path))
    return (*own, *_inside(appended))


def part_order(name: str) -> tuple[bool, list[str | int]]:
    """Return a key that sorts `part-9` before `part-10`, and numbered parts after files of any other name."""
    pieces: list[str | int] = [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]
    return bool(_PART.match(name)), pieces


def part_after(names: Sequence[str]) -> str:
    """Return a file name that sorts after those of a source's parts. Two writers at once get two names."""
    numbers = [int(numbered[1]) for name in names if (numbered := _PART.match(name.rsplit("/", 1)[-1]))]
    return f"part-{max(numbers, default=-1) + 1:06d}-{uuid.uuid4().hex[:8]}.parquet"


def scan_parts(files: Sequence[Path], root: Path) -> pl.LazyFrame:
    """Open files of `parts_of` as one frame, in their order. Columns that a part lacks are null there.

    Hive keys are read from folder names below `root`, the source's path, only.

    Raises:
        StoreDataError: A file is damaged, or two files hold one column as types that do not go together.
    """
    schemas = _schemas(files)
    _require_agreement(files, schemas)
    keys = hive_schema(files, root)
    kinds = [
        (tuple(schema.items()), tuple(_hive_keys(file, root))) for file, schema in zip(files, schemas, strict=True)
    ]
    runs = groupby(range(len(files)), key=kinds.__getitem__)
    frames = []
    for (_, names), numbers in runs:
        run_keys = pl.Schema({name: kind for name, kind in keys.items() if name in names})
        frames.append(_scan_run([files[number] for number in numbers], run_keys, root))
    if len(frames) == 1:
        return frames[0]
    zoned = _mixed_moments([frame.collect_schema() for frame in frames])
    return pl.concat([_in_one_zone(frame, zoned) for frame in frames], how="diagonal_relaxed")


def require_sound(files: Sequence[Path], advice: str = "Write it again.") -> None:
    """Compare files with the digests beside them, each version of a file once in this process.

    Raises:
        StoreDataError: The content of files is not what was written; each is named.
    """
    problems = []
    for file in files:
        digest = _digests(file.parent).get(file.name)
        if digest is not None and content_digest(file) != digest:
            what = "cannot be read: it is damaged, its content is not what was written."
            problems.append(Mistake(str(file), what, advice))
    if problems:
        raise StoreDataError("feature files", problems)


def files_digest(path: Path) -> str:
    """Return one digest of the content of a source's files, old to new; it changes with any bit of them."""
    total = hashlib.sha256()
    for file in parts_of(path):
        total.update(bytes.fromhex(content_digest(file)))
    return total.hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, read once for each version of it (by size and time) in this process."""
    state = path.stat()
    return _content_digest(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=65_536)
def _content_digest(path: Path, _size: int, _changed_ns: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(folder: Path) -> Mapping[str, str]:
    try:
        state = (folder / STATE).stat()
    except OSError:
        return {}
    return _read_digests(folder, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=1_024)
def _read_digests(folder: Path, _changed_ns: int, _size: int, _inode: int) -> Mapping[str, str]:
    try:
        digests = json.loads((folder / STATE).read_text(encoding="utf-8")).get("digests", {})
    except (OSError, ValueError, AttributeError):
        # What is built next finds that nothing is known of the parts, and builds them anew.
        return {}
    return digests if isinstance(digests, dict) else {}


def damaged(files: Sequence[Path]) -> list[Mistake]:
    """Read files whole, one by one, and return those that cannot be read. For after a read has failed."""
    problems = []
    for file in files:
        try:
            pl.scan_parquet(file, glob=False, hive_partitioning=False).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            problems.append(Mistake(str(file), f"cannot be read: {first_line(error)}."))
    return problems


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")


def _inside(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda item: part_order(item.name)):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _inside(path)
        elif path.suffix == ".parquet":
            yield path


def _schemas(files: Sequence[Path]) -> list[pl.Schema]:
    require_sound([file for file in files if file.is_file()])
    schemas, problems = [], []
    for file in files:
        try:
            state = file.stat()
            schemas.append(_schema(file, state.st_mtime_ns, state.st_size))
        except (pl.exceptions.PolarsError, OSError) as error:
            problems.append(Mistake(str(file), f"cannot be read: {first_line(error)}."))
    if problems:
        raise StoreDataError("feature files", problems)
    return schemas


@lru_cache(maxsize=65_536)
def _schema(file: Path, _changed_ns: int, _size: int) -> pl.Schema:
    return pl.Schema(pl.read_parquet_schema(file))


def _require_agreement(files: Sequence[Path], schemas: Sequence[pl.Schema]) -> None:
    seen: dict[str, tuple[pl.DataType, Path]] = {}
    problems = []
    for file, schema in zip(files, schemas, strict=True):
        for name, kind in schema.items():
            known, first = seen.setdefault(name, (kind, file))
            if known == pl.Null():
                seen[name] = (kind, file)
            elif not agree(known, kind):
                problems.append(Mistake(str(file), f"column '{name}' is {kind}, but {known} in {first.name}."))
    if problems:
        raise StoreDataError("feature files", problems)


def agree(one: pl.DataType, other: pl.DataType) -> bool:
    """Return whether values of two types can stand in one column without changing what they say."""
    if one == other or pl.Null() in (one, other):
        return True
    if isinstance(one, pl.List | pl.Array) and isinstance(other, pl.List | pl.Array):
        return agree(_inner(one), _inner(other))
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        known = {field.name: _instance(field.dtype) for field in one.fields}
        return all(agree(known.get(field.name, pl.Null()), _instance(field.dtype)) for field in other.fields)
    text = pl.String | pl.Categorical | pl.Enum
    return any(
        isinstance(one, kinds) and isinstance(other, kinds) for kinds in (pl.Datetime | pl.Date, text, pl.Duration)
    ) or (one.is_numeric() and other.is_numeric())


def _inner(kind: pl.List | pl.Array) -> pl.DataType:
    return _instance(kind.inner)


def _instance(kind: pl.DataType | DataTypeClass) -> pl.DataType:
    return kind() if isinstance(kind, type) else kind


def _mixed_moments(schemas: Sequence[pl.Schema]) -> list[str]:
    kinds: dict[str, set[str]] = {}
    for schema in schemas:
        for name, kind in schema.items():
            if isinstance(kind, pl.Datetime | pl.Date):
                kinds.setdefault(name, set()).add(str(kind))
    return [name for name, types in kinds.items() if len(types) > 1]


def _in_one_zone(frame: pl.LazyFrame, names: Sequence[str]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    return frame.with_columns(in_utc(name, schema[name]) for name in names if name in schema)


def _scan_run(files: Sequence[Path], keys: pl.Schema, root: Path) -> pl.LazyFrame:
    if not keys:
        return pl.scan_parquet(list(files), glob=False, hive_partitioning=False)
    own = _schemas(files[:1])[0]
    # A folder above the source may be named like a partition; its key is none of the source's columns.
    above = {piece.split("=", 1)[0] for piece in root.parts if "=" in piece} - keys.keys()
    typed = {name: own.get(name, kind) for name, kind in (dict.fromkeys(above, pl.String()) | keys).items()}
    frame = pl.scan_parquet(list(files), glob=False, hive_partitioning=True, hive_schema=typed)
    return frame.drop(above - own.keys(), strict=False)


def _hive_keys(file: PurePath, root: PurePath) -> dict[str, str]:
    below = file.parent.relative_to(root).parts if file.parent.is_relative_to(root) else ()
    return dict(piece.split("=", 1) for piece in below if "=" in piece)


def hive_schema(files: Sequence[PurePath], root: PurePath) -> pl.Schema:
    """Return the columns that stand in folder names below `root`: integers, dates or text by all their values."""
    values: dict[str, set[str]] = {}
    for file in files:
        for name, value in _hive_keys(file, root).items():
            values.setdefault(name, set()).add(value)
    return pl.Schema({name: _hive_type(texts) for name, texts in values.items()})


def _hive_type(values: set[str]) -> pl.DataType:
    values = values - {_HIVE_NULL}
    if all(_NUMBER.fullmatch(value) for value in values):
        return pl.Int64()
    return pl.Date() if all(_DATE.fullmatch(value) for value in values) else pl.String()
