"""A training set on disk, opened: checked, read lazily, and compared with another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from playbill.datasets.export.manifest import ExportManifest, FileRecord, Inputs
from playbill.datasets.splits import FOLDS
from playbill.errors import IntegrityError, UnknownNameError
from playbill.files import file_digest


@dataclass(frozen=True, slots=True)
class ExportDifference:
    """One thing that two training sets do not share."""

    name: str  # dotted name in the manifest, such as `labels.thumbs_up.version`
    here: Any  # none where only the other one has it
    there: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.here} here, {self.there} there"


@dataclass(frozen=True)
class StoredDataset:
    """A training set on disk. Open it with `open`."""

    folder: Path
    manifest: ExportManifest

    @classmethod
    def open(cls, folder: Path | str, verify: bool = True) -> StoredDataset:
        """Open a folder that `playbill dataset build` wrote.

        With `verify` every file is compared with it (reads them all); otherwise the manifest alone is checked.

        Raises:
            StateError: It is no training set.
            IntegrityError: The manifest or files are not as they were written; every file is named.
        """
        where = Path(folder).resolve()
        opened = cls(where, ExportManifest.load(where))
        if verify:
            opened.verify()
        return opened

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            IntegrityError: Some are missing, changed or not in the manifest; each is named.
        """
        records = [self.manifest.entities, *self.manifest.parts]
        wrong = [f"{record.path} {problem}" for record in records if (problem := self._problem(record))]
        known = {record.path for record in records}
        there = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.parquet"))
        wrong += [f"{path} is not in the manifest" for path in sorted(there) if path not in known]
        if wrong:
            more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            raise IntegrityError(f"training set {self.folder}: {'; '.join(wrong[:10])}{more}")

    def _problem(self, record: FileRecord) -> str | None:
        path = self.folder / record.path
        try:
            size = path.stat().st_size
            if size != record.bytes:
                return f"has {size} bytes, not {record.bytes}"
            return None if file_digest(path) == record.sha256 else "was changed"
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    def files(self, fold: str | None = None) -> tuple[Path, ...]:
        """Return the part files of a fold, or of all, in order; none for an empty fold.

        Raises:
            UnknownNameError: There is no such fold.
        """
        _require_fold(fold)
        return tuple(self.folder / part.path for part in self.manifest.parts if fold in (None, part.fold))

    def scan(self, fold: str | None = None) -> pl.LazyFrame:
        """Return the rows of a fold, or of all, with fold and day as columns. Nothing is read until asked for.

        Raises:
            UnknownNameError: There is no such fold.
        """
        _require_fold(fold)
        folds = [name for name in FOLDS if fold in (None, name)]
        return pl.concat([self._scan(name) for name in folds])

    def _scan(self, fold: str) -> pl.LazyFrame:
        files = list(self.files(fold))
        frame = pl.scan_parquet(files, glob=False, hive_partitioning=False) if files else self._nothing()
        return frame.with_columns(
            pl.lit(fold, dtype=pl.Enum(FOLDS)).alias("fold"), pl.col("event_at").dt.date().alias("day")
        )

    def _nothing(self) -> pl.LazyFrame:
        """Return no rows. The train fold is never empty, and all folds have its columns."""
        return pl.scan_parquet(self.files("train")[0], glob=False, hive_partitioning=False).clear()

    def entities(self) -> pl.DataFrame:
        """Return the entity frame: member_id, title_id, event_at, event_id of every row."""
        return pl.read_parquet(self.folder / self.manifest.entities.path, glob=False, hive_partitioning=False)

    def diff(self, other: StoredDataset) -> tuple[ExportDifference, ...]:
        """Return which inputs differ: model, protocol, tables, features, labels, vocabularies, libraries."""
        return differences(self.manifest.inputs, other.manifest.inputs)

    def same_rows(self, other: StoredDataset) -> bool:
        """Return whether both say the same, whatever they were made from."""
        return self.manifest.rows_digest == other.manifest.rows_digest


def differences(here: Inputs, there: Inputs) -> tuple[ExportDifference, ...]:
    """Return the inputs that are not the same, by dotted name."""
    mine, theirs = dict(_flat(here.model_dump(mode="json"))), dict(_flat(there.model_dump(mode="json")))
    return tuple(
        ExportDifference(name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    )


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _require_fold(fold: str | None) -> None:
    if fold is not None and fold not in FOLDS:
        raise UnknownNameError("fold", fold, FOLDS)
