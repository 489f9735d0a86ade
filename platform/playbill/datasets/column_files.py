"""Arrays that grow on disk, part by part, and are mapped into memory in the end."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENTRIES_AT_ONCE = 1 << 20


@dataclass
class ColumnFiles:
    """Named arrays in a folder, each a file of raw numbers; parts are appended along the first axis.

    An array may have a second section, which comes behind all of the first one.
    """

    folder: Path
    _kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = field(default_factory=dict)
    _counts: dict[tuple[str, bool], int] = field(default_factory=dict)

    def append(self, name: str, values: NDArray[Any], *, second: bool = False) -> None:
        """Append [n, ...] to an array, or to its second section."""
        values = np.ascontiguousarray(values)
        kind = self._kinds.setdefault(name, (values.dtype, values.shape[1:]))
        if kind != (values.dtype, values.shape[1:]):
            raise AssertionError(f"'{name}' has entries of {kind}, not of {values.dtype} {values.shape[1:]}")
        with self._path(name, second).open("ab") as file:
            values.tofile(file)
        self._counts[name, second] = self.count(name, second=second) + len(values)

    def count(self, name: str, *, second: bool = False) -> int:
        """Return the entries that a section of an array has so far."""
        return self._counts.get((name, second), 0)

    def names(self) -> tuple[str, ...]:
        """Return the names of all arrays."""
        return tuple(self._kinds)

    def joined(self, name: str) -> NDArray[Any]:
        """Put the second section behind the first, and return the array, mapped, to be written to as well."""
        first, second = self._path(name, False), self._path(name, True)
        if second.exists():
            with first.open("ab") as whole, second.open("rb") as rest:
                shutil.copyfileobj(rest, whole)
            second.unlink()
            self._counts[name, False] = self.count(name) + self._counts.pop((name, True))
        dtype, entry = self._kinds[name]
        shape = (self.count(name), *entry)
        if not np.prod(shape):  # An empty file cannot be mapped.
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(first, dtype, "r+", shape=shape))

    def _path(self, name: str, second: bool) -> Path:
        return self.folder / f"{name}{'.second' if second else ''}.raw"


def shift(values: NDArray[Any], by: int, chosen: NDArray[Any] | None = None) -> None:
    """Add to a mapped array in place, a stretch at a time; only where `chosen` holds, if that is given."""
    for start in range(0, len(values), ENTRIES_AT_ONCE):
        part = slice(start, start + ENTRIES_AT_ONCE)
        values[part] += by if chosen is None else np.where(chosen[part], by, 0).astype(values.dtype)
