"""Adding rows to a published generation: what is new, what is there already, what contradicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from playbill.errors import DataError, Problem, UnknownNameError
from playbill.files import file_digest
from playbill.schema import TABLES
from playbill.tables.event_log import ORDER, append_log
from playbill.tables.frames import aligned, canonical_frame, changed_types, columns_of, log_schema
from playbill.tables.generations import INTERACTIONS, GenerationManifest, bucket_digests, link_file
from playbill.tables.ordering import with_seq
from playbill.tables.published import Published
from playbill.tables.validation import ProblemLog, RowMistake, check_frame, example_row
from playbill.tables.vocabulary import VocabularyFolder
from playbill.tables.writer import manifest_of, vocabulary_values

SMALL_TABLES = ("titles", "availability", "members")
"""Tables of one file each, which an append writes anew."""


KNOWN_LATER = ("recorded_at",)
"""What may differ when a row is offered again: we may have come to know it twice."""

_SUBJECT = "the rows were not added"


@dataclass(frozen=True, slots=True)
class Added:
    """What became of offered rows."""

    added: int
    """Rows that were new."""
    duplicates: int
    """Rows that say again what was there."""
    conflicting: pl.DataFrame
    """Rows whose key was there with other content; what was there stays."""


@dataclass(frozen=True, slots=True)
class SortedOut:
    """Offered rows, told apart by their key."""

    fresh: pl.DataFrame
    """The first row of every key that is not stored."""
    duplicates: int
    """How many rows say again what is stored or offered before."""
    conflicting: pl.DataFrame
    """Rows whose key is there with other content; what is there stays."""


def sort_out(offered: pl.DataFrame, stored: pl.DataFrame, key: Sequence[str], ignored: Sequence[str]) -> SortedOut:
    """Tell new rows, in the order they came, from repeated and contradicting ones.

    `stored` has the same columns and a row per key. `ignored` columns may differ in a repeated row, such as when we
    came to know it.
    """
    compared = [name for name in offered.columns if name not in key and name not in ignored]
    numbered = offered.with_row_index("_row")
    firsts = numbered.unique(key, keep="first", maintain_order=True)
    fresh = firsts.join(stored, on=key, how="anti", maintain_order="left")
    there = pl.concat([stored.select(*key, *compared), fresh.select(*key, *compared)], how="vertical_relaxed")
    again = numbered.join(fresh, on="_row", how="anti", maintain_order="left")
    beside = again.join(there, on=key, how="left", suffix="_there", maintain_order="left")
    equal = [pl.col(name).eq_missing(pl.col(f"{name}_there")) for name in compared]
    same = beside.select(pl.all_horizontal(pl.lit(True), *equal).alias("same")).get_column("same")
    conflicting = again.filter(~same).drop("_row")
    return SortedOut(fresh.drop("_row"), int(same.sum()), conflicting)


def new_rows(published: Published, table: str, rows: pl.DataFrame) -> SortedOut:
    """Tell which rows of a table are new to a generation.

    Raises:
        DataError: A column comes with another type than it is stored with; all are named with both types.
    """
    if table == INTERACTIONS:
        refuse_changed_types(table, columns_of(dict(published.log_schema)), rows)
        stored = published.events_with_ids(rows.get_column("event_id"))
    else:
        stored = published.table(table).collect()
        refuse_changed_types(table, columns_of(dict(stored.schema)), rows)
    return sort_out(rows, aligned(stored, rows.schema), TABLES[table].key, KNOWN_LATER)


def checked_rows(published: Published, table: str, frame: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return rows of titles, members or availability in canonical shape.

    Raises:
        UnknownNameError: There is no such table.
        DataError: They have mistakes; all are named.
    """
    if table not in SMALL_TABLES:
        raise UnknownNameError("table", table, SMALL_TABLES)
    log = ProblemLog()
    shaped = check_frame(table, frame, now, log)
    if shaped is not None and table == "availability":
        titles = published.table("titles").select("title_id").unique().collect()
        strangers = shaped.join(titles, on="title_id", how="anti")
        if strangers.height:
            what = "a title that is not in titles"
            log.add_rows(table, [RowMistake("title_id", what, strangers.height, example_row(strangers))])
    log.raise_if_any(_SUBJECT)
    return frame if shaped is None else shaped


def canonical_events(events: pl.DataFrame) -> pl.DataFrame:
    """Return events that are checked already with all canonical columns and their types.

    Raises:
        DataError: Columns are missing, unknown, or of another type; all are named.
    """
    shaped, mistakes = canonical_frame(INTERACTIONS, events)
    if mistakes:
        problems = [Problem(f"{INTERACTIONS}.{item.column}", item.what, item.hint) for item in mistakes]
        raise DataError(_SUBJECT, problems)
    return shaped


def with_own_seq(published: Published, fresh: pl.DataFrame) -> pl.DataFrame:
    """Give new events another `seq` where a stored event of their member, or one before them here, has it.

    Two writers may number events of one moment alike; only here, where one process writes at a time, is it seen.
    """
    order = fresh.sort(*ORDER, "event_id")
    places = published.places(order.get_column("member_id"))
    key = ["member_id", "seq"]
    numbered = order.with_row_index("_row")
    stored = numbered.join(places.unique(key), on=key, how="semi").get_column("_row")
    clash = pl.col("_row").is_in(stored.implode()) | ~pl.struct(key).is_first_distinct()
    opened = numbered.with_columns(seq=pl.when(~clash).then("seq")).drop("_row")
    return with_seq(opened, places) if opened.get_column("seq").null_count() else fresh


def refuse_changed_types(table: str, stored: Mapping[str, str], rows: pl.DataFrame) -> None:
    """Refuse rows that have a column with another type than it is stored with.

    Raises:
        DataError: There are such columns; all are named with both types.
    """
    changed = changed_types(stored, columns_of(dict(rows.schema)))
    if changed:
        raise DataError(_SUBJECT, [Problem(f"{table}.{item.column}", item.what) for item in changed])


def build_appended(
    old: Published, fresh: Mapping[str, pl.DataFrame], building: Path, vocabularies: VocabularyFolder
) -> GenerationManifest:
    """Build a generation of an old one and new canonical rows, sharing every file that stays; vocabularies grow."""
    files, rows = dict(old.manifest.files), dict(old.manifest.rows)
    for relative in files:
        if relative.removesuffix(".parquet") not in fresh:
            link_file(old.folder / relative, building / relative)
    for table in SMALL_TABLES:
        if table in fresh:
            _write_small(table, old, fresh[table], building)
            files[f"{table}.parquet"] = file_digest(building / f"{table}.parquet")
            rows[table] += fresh[table].height
    events = fresh.get(INTERACTIONS, old.log_schema.to_frame())
    columns = columns_of({**old.log_schema, **events.schema})
    schema = log_schema(INTERACTIONS, columns, building)
    summary, added = append_log(old.folder, old.manifest, events, building, schema)
    files |= {path.as_posix(): file_digest(building / path) for path in added}
    for table, frame in fresh.items():
        for kind, values in vocabulary_values(table, frame).items():
            vocabularies.grow(kind, values)
    return manifest_of(files, rows, summary, columns, bucket_digests(building, old.folder, old.manifest.buckets))


def _write_small(table: str, old: Published, rows: pl.DataFrame, building: Path) -> None:
    stored = old.table(table).collect()
    schema = pl.Schema({**stored.schema, **rows.schema})
    together = pl.concat([aligned(stored, schema), aligned(rows, schema)])
    together.sort(TABLES[table].key).write_parquet(building / f"{table}.parquet")
