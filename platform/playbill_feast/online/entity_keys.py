"""Entity keys as bytes: a tag per type, so that 1 and "1" differ, and whole numbers of any width agree.

The join keys of a view stand in the order of their names. A number takes nine bytes; text takes its length (four
bytes) unless it comes last. The same key has the same bytes however it arrives: as Arrow columns, as Python
values or as Feast's protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill_feast.errors import Mistake, StoreDataError

NUMBER, TEXT, BYTES, TIME = b"i", b"s", b"b", b"t"
OTHER_TEXT = {"uuid": b"u", "time_uuid": b"v", "decimal": b"d"}
_NUMBERS = (NUMBER, TIME, b"o")
_TAGS = {"int32": NUMBER, "int64": NUMBER, "string": TEXT, "bytes": BYTES, "time": TIME, "bool": b"o"}
_A_SECOND_US = 1_000_000

KeyKinds = Sequence[tuple[str, str]]
"""(join key, kind) of a view, in the order of names. Kinds are `_TAGS`' and `OTHER_TEXT`'s names."""


def tag_of(kind: str) -> bytes:
    """Return the tag of a kind of key.

    Raises:
        StoreDataError: Values of this kind cannot be keys.
    """
    tag = _TAGS.get(kind) or OTHER_TEXT.get(kind)
    if tag is None:
        known = ", ".join(sorted({*_TAGS, *OTHER_TEXT}))
        raise StoreDataError("entity keys", [Mistake(kind, f"cannot be a join key. Kinds of keys: {known}.")])
    return tag


def keys_of_values(kinds: KeyKinds, values: Mapping[str, Sequence[Any]], count: int) -> list[bytes | None]:
    """Encode `count` keys from Python values: ints, str or bytes as their kinds say; None anywhere has no key."""
    if not kinds:
        return [b""] * count
    parts = []
    for number, (name, kind) in enumerate(kinds, start=1):
        parts.append(_parts(tag_of(kind), name, values[name], last=number == len(kinds)))
    if len(parts) == 1:
        return parts[0]
    return [None if None in row else b"".join(row) for row in zip(*parts, strict=True)]


def _parts(tag: bytes, name: str, values: Sequence[Any], last: bool) -> list[bytes | None]:
    if None in values:
        there = iter(_parts(tag, name, [value for value in values if value is not None], last))
        return [None if value is None else next(there) for value in values]
    expected = int if tag in _NUMBERS else bytes if tag == BYTES else str
    if strangers := sorted({type(value).__name__ for value in values if not isinstance(value, expected)}):
        what = f"holds {', '.join(strangers)}, the key is made of {expected.__name__}."
        raise StoreDataError("entity keys", [Mistake(name, what)])
    if tag in _NUMBERS:
        return _numbers(tag, np.array(values, np.int64))
    texts = values if tag == BYTES else list(map(str.encode, values))
    if last:
        return [tag + text for text in texts]
    return [tag + struct.pack(">I", len(text)) + text for text in texts]


def _numbers(tag: bytes, values: np.ndarray[Any, Any]) -> list[Any]:
    encoded = np.empty(len(values), [("tag", "S1"), ("value", ">i8")])
    encoded["tag"], encoded["value"] = tag, values
    return encoded.view("V9").tolist()


def keys_of_arrow(kinds: KeyKinds, table: pa.Table) -> list[bytes | None]:
    """Encode the keys of a table's rows; a null anywhere has no key.

    Raises:
        StoreDataError: A join key is missing, or its values are of another type; all are named.
    """
    problems = [Mistake(name, "join key is missing.") for name, _ in kinds if name not in table.column_names]
    if problems:
        raise StoreDataError("entity keys", problems)
    if not kinds:
        return [b""] * table.num_rows
    if len(kinds) == 1 and tag_of(kinds[0][1]) == NUMBER and not table.column(kinds[0][0]).null_count:
        return _numbers(NUMBER, _whole(table.column(kinds[0][0]).combine_chunks(), *kinds[0]))
    parts = []
    for number, (name, kind) in enumerate(kinds, start=1):
        column = table.column(name).combine_chunks()
        parts.append(_arrow_parts(column, name, kind, last=number == len(kinds)))
    keys = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))
    listed: list[bytes | None] = keys.to_pylist()
    return listed


def _arrow_parts(column: pa.Array, name: str, kind: str, last: bool) -> pa.Array:
    tag = tag_of(kind)
    if tag in _NUMBERS:
        nulls = column.is_null() if column.null_count else None
        filled = column.fill_null(_zero(column.type)) if column.null_count else column
        joined = pa.array(_numbers(tag, _whole(filled, name, kind)), pa.large_binary())
        return joined if nulls is None else pc.if_else(nulls, pa.scalar(None, pa.large_binary()), joined)
    texts = _texts(column, name, kind)
    head: Any = pa.scalar(tag, pa.large_binary())
    nothing = pa.scalar(b"", pa.large_binary())
    if not last:
        sizes = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False).astype(">u4")
        lengths = pa.array(sizes.view("V4").tolist(), pa.large_binary())
        head = pc.binary_join_element_wise(head, lengths, nothing)
    return pc.binary_join_element_wise(head, texts, nothing)


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(False) if pa.types.is_boolean(kind) else pa.scalar(0, pa.int64()).cast(kind)


def _whole(column: pa.Array, name: str, kind: str) -> np.ndarray[Any, Any]:
    """Return whole numbers; times as whole seconds, as Feast's keys hold them."""
    try:
        if kind == "time" and pa.types.is_timestamp(column.type):
            return np.asarray(column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())) // (
                _A_SECOND_US
            )
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _unfit(name, kind, column, error) from None


def _texts(column: pa.Array, name: str, kind: str) -> pa.Array:
    try:
        text = column if kind == "bytes" else column.cast(pa.large_string())
        return text.cast(pa.large_binary())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _unfit(name, kind, column, error) from None


def _unfit(name: str, kind: str, column: pa.Array, error: Exception) -> StoreDataError:
    reason = str(error).splitlines()[0]
    return StoreDataError("entity keys", [Mistake(name, f"{column.type} is no {kind}: {reason}.")])


def open_key(kinds: KeyKinds, key: bytes) -> list[Any]:
    """Return the values of one encoded key: ints, str or bytes, in the order of `kinds`."""
    values: list[Any] = []
    at = 0
    for number, (_, kind) in enumerate(kinds, start=1):
        tag = tag_of(kind)
        at += 1
        if tag in _NUMBERS:
            values.append(struct.unpack_from(">q", key, at)[0])
            at += 8
            continue
        size = len(key) - at
        if number < len(kinds):
            size = struct.unpack_from(">I", key, at)[0]
            at += 4
        text = key[at : at + size]
        values.append(text if tag == BYTES else text.decode())
        at += size
    return values
