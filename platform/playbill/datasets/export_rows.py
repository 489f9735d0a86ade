"""The rows of a training set on disk: labelled requests of every fold, then their features, slice by slice.

A row's labels may look at the events of its own fold and of the folds before it, as known when its fold ended; its
context is what `schema.py` says is known at request time; its features are those of its moment, strictly before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import polars as pl

from playbill.datasets.buckets import floor_moments
from playbill.datasets.build import FeatureSource, TrainingTables
from playbill.datasets.encoder import Encoder
from playbill.datasets.export_manifest import ColumnRecord, FoldRecord, Role
from playbill.datasets.labelled import label_values, labelled, request_rows, train_events, watermark
from playbill.datasets.learn import Schema, learn_state
from playbill.datasets.splits import FOLDS, Fold, Split
from playbill.errors import IntegrityError, StateError
from playbill.features.reports import FeatureProvenance
from playbill.schema import INTERACTIONS
from playbill.specs import ResolvedModel

KEYS = ("event_id", "member_id", "title_id", "event_at")
"""Columns of the entity frame."""
CONTEXT = tuple(name for name in INTERACTIONS.names("request") if name not in KEYS)
SNAPSHOT_AT = "snapshot_at"
LABEL, TITLE = "label__", "title__"
"""Prefixes of label columns and of title features; member and request features are `view__feature`."""

_FOLD, _DAY = "fold", "day"
_FOLDS: tuple[Fold, ...] = ("train", "validation", "test")


class ExportTables(TrainingTables, Protocol):
    """What is read of `playbill.tables.Tables`."""

    def snapshot_id(self) -> str:
        """Return a hash of the content of the tables."""
        ...

    def data_end(self) -> datetime:
        """Return the moment after the last event."""
        ...


class ExportFeatures(FeatureSource, Protocol):
    """What is read of `playbill.features.FeatureDoor`."""

    def title_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with title features as of each row's `event_at`."""
        ...

    def provenance(self, service: str) -> FeatureProvenance:
        """Return which definitions and values the service reads."""
        ...


@dataclass(frozen=True, slots=True)
class Log:
    """What labels look at, as known at one moment."""

    interactions: pl.DataFrame
    availability: pl.DataFrame


def known_at(tables: ExportTables, moment: datetime) -> Log:
    """Return events that had happened before a moment and were recorded by then; all of them at the data's end."""
    interactions, availability = tables.interactions(), tables.availability()
    if moment >= tables.data_end():
        return Log(interactions, availability)
    at = pl.lit(moment).cast(pl.Datetime("us", "UTC"))
    recorded = pl.col("recorded_at") <= at
    return Log(interactions.filter((pl.col("event_at") < at) & recorded), availability.filter(recorded))


def labelled_rows(
    tables: TrainingTables,
    resolved: ResolvedModel,
    schema: Schema,
    log: Log,
    split: Split,
    moment: datetime,
) -> tuple[pl.DataFrame, dict[Fold, datetime]]:
    """Return the labelled requests of every fold, without features, and what each fold's labels could know.

    Args:
        tables: Titles and the title vocabulary.
        resolved: The model.
        schema: Columns of its feature service.
        log: As known at `moment`.
        split: Of its interactions.
        moment: What is known.

    Returns:
        `KEYS`, `CONTEXT`, fold, day, snapshot_at and a `label__HEAD` column per head, ordered by fold, moment,
        member and seq; and fold -> as of when it was labelled.

    Raises:
        StateError: The train fold is empty, or nothing in it is labelled.
        DataError: A head's label has no positive row in the train fold.
        IntegrityError: A held-out row is not later than what is trained on.
    """
    trained = train_events(log.interactions, split)
    encoder = Encoder(learn_state(resolved, schema, trained, tables.titles(), tables.vocabulary("title").entries))
    frames, as_of = [], {}
    for place, fold in enumerate(_FOLDS):
        known = split.events(log.interactions, *_FOLDS[: place + 1]).sort("member_id", "seq", maintain_order=True)
        events = known if place == 0 else split.events(known, fold)
        as_of[fold] = watermark(_end_of(split, fold) or moment, known)
        values = label_values(resolved, known, events, log.availability, as_of[fold], require_rows=place == 0)
        frames.append(_fold_rows(fold, events, encoder, values, resolved))
    rows = pl.concat(frames)
    if frames[0].is_empty():
        raise StateError("no labelled event of the training part is about a known title, so there is nothing to learn")
    assert_in_order(rows, split)
    return rows.sort(_FOLD, "event_at", "member_id", "seq", "event_id"), as_of


def _end_of(split: Split, fold: Fold) -> datetime | None:
    ends: dict[Fold, datetime | None] = {"train": split.validation_cutoff, "validation": split.cutoff}
    return ends.get(fold)


def _fold_rows(
    fold: Fold, events: pl.DataFrame, encoder: Encoder, values: dict[str, Any], resolved: ResolvedModel
) -> pl.DataFrame:
    tokens = encoder.tokens(events)
    found = labelled(tokens, values, resolved)
    labels = [pl.Series(f"{LABEL}{head}", column, dtype=pl.Float32) for head, column in found.labels.items()]
    rows = events[found.events]
    hours = encoder.state.snapshot_hours
    floors = floor_moments(rows["event_at"].dt.epoch("us").to_numpy().astype(np.int64), hours)
    return rows.select(
        *KEYS,
        *CONTEXT,
        pl.lit(fold, dtype=pl.Enum(FOLDS)).alias(_FOLD),
        pl.col("event_at").dt.date().alias(_DAY),
        pl.Series(SNAPSHOT_AT, floors, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
    ).with_columns(column.fill_nan(None) for column in labels)


def assert_in_order(rows: pl.DataFrame, split: Split) -> None:
    """Check that every fold lies after the one before: in time, or in seq of each member.

    Raises:
        IntegrityError: It does not.
    """
    by_time = split.validation_cutoff is not None
    order, within = ("event_at", []) if by_time else ("seq", ["member_id"])
    ends = rows.group_by(*within, _FOLD).agg(pl.col(order).min().alias("first"), pl.col(order).max().alias("last"))
    for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
        before = ends.filter(pl.col(_FOLD) == earlier)
        after = ends.filter(pl.col(_FOLD) == later)
        pairs = (
            before.join(after, on=within, suffix="_later")
            if within
            else before.join(after, how="cross", suffix="_later")
        )
        if (wrong := pairs.filter(pl.col("last") >= pl.col("first_later"))).height:
            who = f" of member '{wrong['member_id'][0]}'" if within else ""
            raise IntegrityError(f"protocol '{split.protocol}': a {earlier} row{who} is not before the {later} rows")


def slices(rows: pl.DataFrame, limit: int) -> Iterator[pl.DataFrame]:
    """Cut ordered rows into pieces of at most `limit`, at the ends of days where a day fits."""
    counts = rows.group_by(_FOLD, _DAY, maintain_order=True).len()["len"].to_list()
    start = taken = 0
    for count in counts:
        if taken and taken + count > limit:
            yield rows.slice(start, taken)
            start, taken = start + taken, 0
        taken += count
        while taken > limit:
            yield rows.slice(start, limit)
            start, taken = start + limit, taken - limit
    if taken:
        yield rows.slice(start, taken)


def with_features(rows: pl.DataFrame, features: ExportFeatures, service: str) -> pl.DataFrame:
    """Add member and request features of each row's moment, and its title's at `snapshot_at`."""
    asked = request_rows(rows)
    known = features.member_features(service, asked).drop(asked.columns)
    titles = rows.select("title_id", pl.col(SNAPSHOT_AT).alias("event_at"))
    own = features.title_features(service, titles).drop(titles.columns)
    _assert_rows(rows, known, own)
    return rows.hstack(known).hstack(own.rename(lambda name: f"{TITLE}{name}"))


def _assert_rows(rows: pl.DataFrame, *found: pl.DataFrame) -> None:
    for frame in found:
        if frame.width and frame.height != rows.height:
            raise IntegrityError(f"{rows.height} rows were asked for features and {frame.height} came back")


def columns_of(rows: pl.DataFrame) -> tuple[ColumnRecord, ...]:
    """Return the record of each column of the parts; fold and day are in their paths."""
    return tuple(
        ColumnRecord(name=name, type=str(kind), role=_role(name))
        for name, kind in rows.schema.items()
        if name not in (_FOLD, _DAY)
    )


def _role(name: str) -> Role:
    if name in KEYS:
        return "key"
    if name == SNAPSHOT_AT:
        return "moment"
    if name in CONTEXT:
        return "context"
    if name.startswith(LABEL):
        return "label"
    return "title_feature" if name.startswith(TITLE) else "request_feature"


def fold_records(rows: pl.DataFrame, as_of: dict[Fold, datetime], heads: Sequence[str]) -> dict[Fold, FoldRecord]:
    """Return what there is in each fold."""
    return {fold: _fold_record(rows.filter(pl.col(_FOLD) == fold), as_of[fold], heads) for fold in _FOLDS}


def _fold_record(rows: pl.DataFrame, as_of: datetime, heads: Sequence[str]) -> FoldRecord:
    first, last = rows["event_at"].min(), rows["event_at"].max()
    labels = {head: rows[f"{LABEL}{head}"].drop_nulls() for head in heads}
    return FoldRecord(
        rows=rows.height,
        members=rows["member_id"].n_unique(),
        titles=rows["title_id"].n_unique(),
        first=first if isinstance(first, datetime) else None,
        last=last if isinstance(last, datetime) else None,
        labels_as_of=as_of,
        labelled={head: len(values) for head, values in labels.items()},
        positive={head: int((values > 0).sum()) for head, values in labels.items()},
    )
