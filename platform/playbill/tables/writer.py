"""Writing a whole new set of canonical tables: batches are checked and staged, then published as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import UnknownNameError
from playbill.files import file_digest
from playbill.schema import TABLES, Table
from playbill.tables.event_log import LogSummary, write_log
from playbill.tables.frames import changed_types, columns_of, empty_frame, polars_schema, scan_files
from playbill.tables.generations import INTERACTIONS, GenerationManifest, bucket_digests
from playbill.tables.validation import ProblemLog, RowMistake, check_frame, example_row
from playbill.tables.vocabulary import VocabularyFolder

WRITABLE = ("titles", "availability", "members", "interactions")
"""Tables an ingest writes. `requests` and `slates` live in the request log."""

REQUIRED = ("titles", "interactions")
"""Tables a load cannot be without."""

VOCABULARY_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "title": (("titles", "title_id"), ("interactions", "title_id")),
    "member": (("members", "member_id"), ("interactions", "member_id")),
    "country": (("members", "country"), ("interactions", "country")),
    "genre": (("titles", "genres"),),
    "kind": (("titles", "kind"),),
    "maturity": (("titles", "maturity"),),
    "language": (
        ("titles", "original_language"),
        ("members", "language"),
        ("interactions", "language"),
    ),
    "origin": (("titles", "countries"),),
    "action": (("interactions", "action"),),
    "canvas": (("interactions", "canvas"),),
    "device": (("interactions", "device"),),
}
"""Vocabulary -> the columns that feed it."""

_SUBJECT = "the offered data was not written"


class TableWriter:
    """Takes batches of canonical rows. Mistakes are gathered, and reported together at the end."""

    def __init__(self, building: Path, now: datetime) -> None:
        self._building, self._now = building, now
        self._log = ProblemLog()
        self._small: dict[str, list[pl.DataFrame]] = {name: [] for name in WRITABLE if name != INTERACTIONS}
        self._staging = building / "staging"
        self._staged: list[Path] = []
        self._log_schema = polars_schema(INTERACTIONS)
        self._rows = dict.fromkeys(WRITABLE, 0)
        self._new_values: dict[str, list[pl.Series]] = {kind: [] for kind in VOCABULARY_COLUMNS}

    @property
    def rows(self) -> dict[str, int]:
        """Rows offered so far, by table."""
        return dict(self._rows)

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Check one batch and stage it. A batch with mistakes is noted and left out; nothing is raised yet.

        Columns that may be null can be left out.

        Raises:
            UnknownNameError: There is no such table to write.
        """
        if table not in WRITABLE:
            raise UnknownNameError("table", table, WRITABLE)
        self._rows[table] += frame.height
        checked = check_frame(table, frame, self._now, self._log)
        if checked is None or checked.is_empty():
            return
        self._collect_values(table, checked)
        if table != INTERACTIONS:
            self._small[table].append(checked)
            return
        for mistake in changed_types(columns_of(dict(self._log_schema)), columns_of(dict(checked.schema))):
            self._log.add(f"{table}.{mistake.column}", mistake.what)
            return
        self._log_schema = pl.Schema({**self._log_schema, **checked.schema})
        self._staging.mkdir(exist_ok=True)
        path = self._staging / f"{len(self._staged):05d}.parquet"
        checked.write_parquet(path, compression="lz4")
        self._staged.append(path)

    def note(self, table: str, mistakes: Sequence[RowMistake]) -> None:
        """Note rows a source could not even bring into canonical shape. They are reported with all else."""
        self._log.add_rows(table, mistakes)

    def check(self) -> dict[str, pl.DataFrame]:
        """Check what spans batches, and return the tables other than interactions, whole.

        Raises:
            DataError: Anything in the load was wrong.
        """
        small = {name: self._joined(name) for name in self._small}
        self._check_small(small)
        self._check_interactions(small["titles"])
        self._log.raise_if_any(_SUBJECT)
        return small

    def finish(self, vocabularies: VocabularyFolder) -> GenerationManifest:
        """Check the load, write the generation, and grow the vocabularies.

        Raises:
            DataError: Anything in the load was wrong. The published tables are as before.
        """
        small = self.check()
        files: dict[str, str] = {}
        for name, frame in small.items():
            path = self._building / f"{name}.parquet"
            frame.sort(TABLES[name].key).write_parquet(path)
            files[path.name] = file_digest(path)
        summary = write_log(self._staged, self._building, self._log_schema)
        for part in sorted((self._building / INTERACTIONS).rglob("*.parquet")):
            files[part.relative_to(self._building).as_posix()] = file_digest(part)
        self._clear_staging()
        self.grow(vocabularies)
        rows = {name: frame.height for name, frame in small.items()}
        buckets = bucket_digests(self._building, None, {})
        return manifest_of(files, rows, summary, columns_of(dict(self._log_schema)), buckets)

    def grow(self, vocabularies: VocabularyFolder) -> None:
        """Append every new string of this load to the workspace's vocabularies."""
        for kind, parts in self._new_values.items():
            if parts:
                vocabularies.grow(kind, pl.concat(parts))

    def _joined(self, name: str) -> pl.DataFrame:
        frames = self._small[name]
        return pl.concat(frames, how="diagonal_relaxed") if frames else empty_frame(name)

    def _check_small(self, small: dict[str, pl.DataFrame]) -> None:
        for name in REQUIRED:
            if not self._rows[name] and not self._log.touches(name):
                self._log.add(name, "the source is empty: there is not a single row.")
        for name, frame in small.items():
            repeated = frame.filter(pl.struct(TABLES[name].key).is_duplicated())
            self._note_repeats(TABLES[name], TABLES[name].key, repeated)
        self._note_strangers("availability", "title_id", small["availability"], small["titles"])

    def _check_interactions(self, titles: pl.DataFrame) -> None:
        if not self._staged:
            return
        log = scan_files(self._staged, self._log_schema)
        for key in (TABLES[INTERACTIONS].key, ("member_id", "seq")):
            self._note_repeats(TABLES[INTERACTIONS], key, repeated_rows(log, key))
        for column in ("title_id", "source_title_id"):
            known = titles.get_column("title_id").unique().implode()
            foreign = log.filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(known)).collect()
            self._note_strangers(INTERACTIONS, column, foreign, titles)

    def _note_repeats(self, table: Table, key: Sequence[str], repeated: pl.DataFrame) -> None:
        if repeated.height:
            example = example_row(repeated.select(list(dict.fromkeys([*key, *table.names()]))))
            what = f"the key ({', '.join(key)}) is used more than once"
            self._log.add_rows(table.name, [RowMistake(key[-1], what, repeated.height, example)])

    def _note_strangers(self, table: str, column: str, frame: pl.DataFrame, titles: pl.DataFrame) -> None:
        # With broken titles every reference to them would be reported too, which hides the cause.
        if not self._small["titles"]:
            return
        known = titles.get_column("title_id").unique().implode()
        foreign = frame.filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(known))
        if foreign.height:
            what, hint = "a title that is not in titles", "Add it there, or have such rows set aside (`set_aside`)."
            self._log.add_rows(table, [RowMistake(column, what, foreign.height, example_row(foreign), hint)])

    def _collect_values(self, table: str, frame: pl.DataFrame) -> None:
        for kind, values in vocabulary_values(table, frame).items():
            self._new_values[kind].append(values)

    def _clear_staging(self) -> None:
        for path in self._staged:
            path.unlink()
        if self._staging.is_dir():
            self._staging.rmdir()


def manifest_of(
    files: dict[str, str],
    rows: dict[str, int],
    summary: LogSummary,
    columns: Mapping[str, str],
    buckets: Mapping[str, str],
) -> GenerationManifest:
    """Put a generation's manifest together; `columns` are the log's, with their types; `buckets` from its folder."""
    counts = {**rows, INTERACTIONS: summary.rows}
    return GenerationManifest(
        files, counts, summary.days, summary.bucket_starts, summary.last_event_us, columns, buckets
    )


def vocabulary_values(table: str, frame: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the distinct strings of a canonical batch for every vocabulary it feeds."""
    found: dict[str, pl.Series] = {}
    for kind, sources in VOCABULARY_COLUMNS.items():
        parts = [_distinct(frame.get_column(column)) for name, column in sources if name == table]
        if parts:
            found[kind] = pl.concat(parts)
    return found


def repeated_rows(log: pl.LazyFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return the rows whose key occurs more than once.

    Keys are compared by 64-bit hash first, so only those hashes are held, 8 bytes a row; rows that merely
    share a hash are told apart by their key.
    """
    hashes = log.select(pl.struct(key).hash().alias("hash")).collect().get_column("hash").to_numpy()
    ordered = np.sort(hashes)
    suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(suspects):
        return log.head(0).collect()
    wanted = pl.Series(suspects).implode()
    rows = log.filter(pl.struct(key).hash().is_in(wanted)).collect()
    return rows.filter(pl.struct(key).is_duplicated())


def _distinct(values: pl.Series) -> pl.Series:
    flat = values.explode() if values.dtype == pl.List(pl.String) else values
    return flat.cast(pl.String).drop_nulls().unique().rename("value")
