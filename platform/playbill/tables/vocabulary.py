"""Strings outside, dense integers inside: vocabularies that only ever grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.errors import DataError, IntegrityError, Problem
from playbill.files import file_digest, remove_leftovers, replaced_file, write_text

UNKNOWN = 0
"""The index of everything a vocabulary does not know, and of padding."""
SHORT = 512
"""Up to so many values a dictionary is faster than a query."""


class Vocabulary:
    """Indices 1, 2, ... for strings in the order they were first seen; 0 is unknown.

    Existing indices never change, so weights trained with an older state keep their meaning.

    Args:
        kind: What the strings are, such as "title".
        entries: The strings of indices 1, 2, ...

    Raises:
        DataError: `entries` holds one string twice.
    """

    def __init__(self, kind: str, entries: Iterable[str] = ()) -> None:
        self.kind = kind
        self._entries = list(entries)
        self._index = {entry: index for index, entry in enumerate(self._entries, start=1)}
        self._lookup: pl.Enum | None = None
        if len(self._index) != len(self._entries):
            raise DataError(f"vocabulary '{kind}'", [Problem(kind, "an entry is listed twice")])

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, value: object) -> bool:
        return value in self._index

    @property
    def size(self) -> int:
        """The number of indices, counting 0: the rows an embedding table needs."""
        return len(self._entries) + 1

    @property
    def entries(self) -> tuple[str, ...]:
        """The strings of indices 1, 2, ..."""
        return tuple(self._entries)

    def encode(self, values: pl.Series | Sequence[str | None]) -> NDArray[np.int32]:
        """Return one index per value, int32; 0 for null and for strings never seen."""
        if not isinstance(values, pl.Series):
            return np.fromiter(
                (self._index.get(value, UNKNOWN) if value else UNKNOWN for value in values), np.int32, len(values)
            )
        if not self._entries or values.null_count() == len(values):
            return np.zeros(len(values), np.int32)
        if len(values) <= SHORT:
            texts = values if values.dtype == pl.String else values.cast(pl.String)
            return np.fromiter((self._index.get(text, UNKNOWN) for text in texts.to_list()), np.int32, len(values))
        if self._lookup is None:
            self._lookup = pl.Enum(self._entries)
        codes = values.cast(pl.String).cast(self._lookup, strict=False).to_physical().cast(pl.Int32)
        return (codes + 1).fill_null(UNKNOWN).to_numpy().astype(np.int32, copy=False)

    def decode(self, indices: Iterable[int] | NDArray[np.integer]) -> list[str]:
        """Return the string of each index; index 0 gives an empty string.

        Raises:
            IndexError: An index is beyond the vocabulary.
        """
        return [self._entries[int(index) - 1] if index > UNKNOWN else "" for index in indices]

    def grow(self, values: Iterable[str | None]) -> int:
        """Append the strings not yet known, in the order given, and return how many were new."""
        before = len(self._entries)
        for value in values:
            if value and value not in self._index:
                self._entries.append(value)
                self._index[value] = len(self._entries)
        if len(self._entries) > before:
            self._lookup = None
        return len(self._entries) - before

    def to_list(self) -> list[str]:
        """Return the entries for JSON; `from_list` reads them back."""
        return list(self._entries)

    @classmethod
    def from_list(cls, kind: str, entries: Sequence[str]) -> Vocabulary:
        """Rebuild a vocabulary from `to_list`."""
        return cls(kind, entries)


class VocabularyFolder:
    """The vocabularies of a workspace, one parquet file each, replaced as a whole.

    Beside `KIND.parquet` stands `KIND.sha256` with its digest and that of the file it replaces. It is written first, so
    a kill between the two leaves a file that one of them fits. A file of a release that wrote none is not compared.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, kind: str) -> Vocabulary:
        """Return a vocabulary; one never grown is empty. Its file is compared with its digest.

        Raises:
            IntegrityError: It was changed since it was written.
        """
        path = self._path(kind)
        if not path.is_file():
            return Vocabulary(kind)
        known = self._digests(kind)
        if known.is_file() and file_digest(path) not in known.read_bytes().decode(errors="replace").split():
            raise IntegrityError(
                f"the vocabulary '{kind}' is damaged: {path} was changed since it was written. Put a copy of it and of "
                f"{known.name} in its place; where there is none, remove {self._folder} and ingest again"
            )
        return Vocabulary(kind, pl.read_parquet(path).get_column("value").to_list())

    def grow(self, kind: str, values: pl.Series) -> int:
        """Append new strings, sorted by length and then alphabetically, save atomically, and return how many were new.

        That order is the numeric one for ids that are numbers, and it does not depend on the order of rows.
        """
        vocabulary = self.load(kind)
        unique = values.cast(pl.String).drop_nulls().unique().to_frame("value")
        ordered = unique.sort(pl.col("value").str.len_bytes(), pl.col("value")).get_column("value")
        added = vocabulary.grow(ordered.to_list())
        if added:
            self._save(vocabulary)
        return added

    def _save(self, vocabulary: Vocabulary) -> None:
        path, what = self._path(vocabulary.kind), f"the vocabulary '{vocabulary.kind}'"
        remove_leftovers(path)
        with replaced_file(path, what) as beside:
            pl.DataFrame({"value": vocabulary.to_list()}, schema={"value": pl.String}).write_parquet(beside)
            valid = [file_digest(beside), *([file_digest(path)] if path.is_file() else [])]
            write_text(self._digests(vocabulary.kind), "\n".join(valid), what)

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}.parquet"

    def _digests(self, kind: str) -> Path:
        return self._folder / f"{kind}.sha256"
