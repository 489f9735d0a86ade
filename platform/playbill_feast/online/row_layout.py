"""Where each feature lies in a packed row.

A row is a header, then values of a fixed width (widest first), then where each value of variable width ends, then
one validity bit per feature, then the values of variable width:

```
0      1        4          8              16               24
| version | 0 0 0 | schema id | event time us | created us | 8-byte | 4-byte | ends | 1-byte | validity | variable ...
```

Everything is little-endian. Features stand in the order of their names, so the schema's id, a hash of names and
kinds, does not depend on how a view lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from playbill_feast.errors import StoreIntegrityError

FORMAT_VERSION = 1
NEVER = -(2**63)  # Stands for "no created time" in a row: every created time is later
NO_TIME = -(2**63)  # Stands for a null inside a list of times

FIXED = {"int64": "<i8", "float64": "<f8", "time": "<i8", "int32": "<i4", "float32": "<f4", "bool": "|u1"}
"""Kinds of a fixed width. `time` is microseconds since 1970, UTC."""
VARIABLE = ("string", "bytes", "proto", *(f"list<{kind}>" for kind in (*FIXED, "string", "bytes")))
"""Kinds of variable width. `proto` is a serialized Feast value, for types that have no kind of their own."""

HEADER = {"version": ("|u1", 0), "schema": ("<u4", 4), "event": ("<i8", 8), "created": ("<i8", 16)}
_BODY = 24


@dataclass(frozen=True, slots=True)
class PackedField:
    """A feature as it is stored."""

    name: str
    kind: str


@dataclass(frozen=True)
class RowLayout:
    """The fields of one schema of a view, and where they lie. Build it with `layout_of`."""

    fields: tuple[PackedField, ...]

    @cached_property
    def text(self) -> str:
        """The schema as JSON, as it is stored beside the rows."""
        return json.dumps([[field.name, field.kind] for field in self.fields], separators=(",", ":"))

    @cached_property
    def schema_id(self) -> int:
        """32-bit hash of the schema."""
        return int.from_bytes(blake2b(self.text.encode(), digest_size=4).digest(), "little")

    @cached_property
    def fixed(self) -> tuple[PackedField, ...]:
        """Fields of a fixed width, widest first."""
        fixed_fields = [field for field in self.fields if field.kind in FIXED]
        return tuple(sorted(fixed_fields, key=lambda field: -np.dtype(FIXED[field.kind]).itemsize))

    @cached_property
    def variable(self) -> tuple[PackedField, ...]:
        """Fields of variable width."""
        return tuple(field for field in self.fields if field.kind not in FIXED)

    @cached_property
    def position(self) -> dict[str, int]:
        """Field name -> its validity bit."""
        return {field.name: number for number, field in enumerate(self.fields)}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Field name -> its kind."""
        return {field.name: field.kind for field in self.fields}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The fixed part of a row: the header's names, `f:NAME` per fixed field, `ends` and `valid`."""
        names, formats, offsets = [], [], []
        for name, (code, offset) in HEADER.items():
            names.append(name)
            formats.append(code)
            offsets.append(offset)
        at = _BODY
        for name, code, size in self._placed():
            names.append(name)
            formats.append(code)
            offsets.append(at)
            at += size
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": at})

    def _placed(self) -> list[tuple[str, str, int]]:
        wide = [field for field in self.fixed if field.kind != "bool"]
        parts = [(f"f:{field.name}", FIXED[field.kind], np.dtype(FIXED[field.kind]).itemsize) for field in wide]
        if self.variable:
            parts.append(("ends", f"({len(self.variable)},)<u4", 4 * len(self.variable)))
        parts += [(f"f:{field.name}", "|u1", 1) for field in self.fixed if field.kind == "bool"]
        width = (len(self.fields) + 7) // 8
        return [*parts, ("valid", f"({width},)|u1", width)] if width else parts

    @cached_property
    def all_valid(self) -> bytes:
        """The validity bits of a row without nulls."""
        return np.packbits(np.ones(len(self.fields), np.bool_), bitorder="little").tobytes()

    @cached_property
    def size(self) -> int:
        """Bytes of the fixed part."""
        return int(self.dtype.itemsize)


def layout_of(fields: Iterable[PackedField]) -> RowLayout:
    """Return the layout of some fields, in the order of their names."""
    return RowLayout(tuple(sorted(fields, key=lambda field: field.name)))


def parse_layout(text: str | bytes, where: str) -> RowLayout:
    """Read a schema as it is stored beside the rows.

    Raises:
        StoreIntegrityError: The text is no schema of this version.
    """
    try:
        fields = [PackedField(str(name), str(kind)) for name, kind in json.loads(text)]
    except (ValueError, TypeError):
        raise StoreIntegrityError(
            f"{where}: a stored schema is damaged. Remove the store and materialize again."
        ) from None
    known = {*FIXED, *VARIABLE}
    if strangers := sorted({field.kind for field in fields} - known):
        raise StoreIntegrityError(
            f"{where}: a stored schema has kinds this version does not know: {', '.join(strangers)}."
        )
    return layout_of(fields)
