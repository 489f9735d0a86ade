"""The rows of a training set on disk: labelled requests of every fold, then their features, slice by slice.

A row's labels may look at the events of its own fold and of the folds before it, as known when its fold ended; its
context is what `schema.py` says is known at request time; its features are those of its moment, strictly before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill.datasets.checks import Boundary, assert_heads_fit, check_context_coverage, filled_requests, unfit_heads
from playbill.datasets.encoding.encoder import CONTEXT_COLUMNS, Encoder
from playbill.datasets.encoding.fit import fit_encoder
from playbill.datasets.encoding.tokens import floor_moments
from playbill.datasets.examples.labelled import (
    PLACE_COLUMNS,
    empty_heads,
    label_ranges,
    label_values,
    request_context,
    request_rows,
    train_events,
    wanted_events,
    watermark,
)
from playbill.datasets.examples.sampling import ExampleWeights, Stratum, event_rewards
from playbill.datasets.examples.selection import (
    Examples,
    Known,
    LogTables,
    draw_strata,
    find_examples,
    known_titles,
    require_some,
)
from playbill.datasets.export.manifest import ColumnRecord, FoldRecord, Role
from playbill.datasets.splits import FOLDS, Fold, Split
from playbill.definitions.specs import ResolvedModel
from playbill.errors import IntegrityError
from playbill.schema import INTERACTIONS, UNKNOWN_COUNTRY
from playbill.tables.frames import utc_literal

if TYPE_CHECKING:
    from playbill.features import FeatureDoor, ServiceSchema
    from playbill.tables import Tables

_FOLD, _DAY = "fold", "day"
_FOLDS: tuple[Fold, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Log:
    """What labels look at, as known at one moment."""

    interactions: pl.DataFrame
    availability: pl.DataFrame


def known_at(tables: Tables, moment: datetime) -> Log:
    """Return events that had happened before a moment and were recorded by then; all of them at the data's end."""
    interactions, availability = tables.interactions(), tables.availability()
    if moment >= tables.data_end():
        return Log(interactions, availability)
    at = utc_literal(moment)
    recorded = pl.col("recorded_at") <= at
    return Log(interactions.filter((pl.col("event_at") < at) & recorded), availability.filter(recorded))


def untaught_heads(
    tables: LogTables, resolved: ResolvedModel, log: Log, split: Split, moment: datetime
) -> dict[str, str]:
    """Return optional heads that the train fold teaches nothing, and why; a training run leaves out the same ones."""
    if not any(head.optional for head in resolved.model.heads.values()):
        return {}
    events = train_events(log.interactions, split, resolved)
    as_of = watermark(_end_of(split, "train") or moment, events)
    titles = known_titles(tables, Boundary.of(split, log.interactions))
    values = label_values(resolved, events, events, log.availability, as_of, titles=titles)
    return empty_heads(resolved, label_ranges(values), events, as_of) | unfit_heads(
        resolved, [(log.interactions, split)]
    )


def labelled_rows(
    tables: LogTables,
    resolved: ResolvedModel,
    schema: ServiceSchema,
    log: Log,
    split: Split,
    moment: datetime,
    weights: ExampleWeights | None = None,
) -> tuple[pl.DataFrame, dict[Fold, datetime], tuple[Stratum, ...]]:
    """Return the labelled requests of every fold, without features, and what each fold's labels could know.

    Returns:
        `KEYS`, `CONTEXT`, row, row_position, fold, day, snapshot_at, a `label__HEAD` column per head, a `weight__HEAD`
        column per head whose rows weigh differently, and with `sampling` the stratum and the draws of the rows of the
        train fold, ordered by fold, moment, member and seq; fold -> as of when it was labelled; and the strata.

    Raises:
        StateError: The train fold is empty, nothing in it is labelled, or a head has a reward without `weights`.
        ConfigError: There are too many strata for their floor.
        DataError: A head's label has no positive row in the train fold.
        IntegrityError: A held-out row is not later than what is trained on.
    """
    trained = train_events(log.interactions, split, resolved)
    assert_heads_fit(resolved, [(log.interactions, split)])
    boundary = Boundary.of(split, log.interactions)
    titles = known_titles(tables, boundary)
    encoder = Encoder(fit_encoder(resolved, schema, trained, titles, tables.vocabulary("title").entries))
    frames: list[pl.DataFrame] = []
    as_of: dict[Fold, datetime] = {}
    strata: tuple[Stratum, ...] = ()
    for place, fold in enumerate(_FOLDS):
        known = split.events(log.interactions, *_FOLDS[: place + 1]).sort("member_id", "seq", maintain_order=True)
        known = wanted_events(known, resolved) if fold == "train" else known
        as_of[fold] = watermark(_end_of(split, fold) or moment, known)
        learnt = _known(fold, known, split, log, titles, as_of[fold], resolved, weights)
        examples = find_examples(encoder, learnt, resolved)
        frame = _fold_rows(fold, learnt.events, examples, encoder.state.snapshot_hours)
        if fold == "train":
            require_some(frame.height)
            rowed, filled = learnt.events["row"].is_not_null().any(), filled_requests(examples.requests)
            check_context_coverage(resolved, filled, learnt.events.columns, rowed, encoder.state.own_fields)
            boundary.as_of("labels", as_of[fold])
            boundary.events("training rows", frame.select("member_id", "seq", "event_at"))
            names, copies, strata = draw_strata(examples, learnt, tables, resolved)
            if strata:
                frame = frame.with_columns(names.alias(STRATUM), pl.Series(DRAWS, copies, dtype=pl.Int32))
        frames.append(frame)
    rows = pl.concat(frames, how="diagonal")
    assert_in_order(rows, split)
    return rows.sort(_FOLD, "event_at", "member_id", "seq", "event_id"), as_of, strata


def _known(
    fold: Fold,
    known: pl.DataFrame,
    split: Split,
    log: Log,
    titles: pl.DataFrame,
    as_of: datetime,
    resolved: ResolvedModel,
    weights: ExampleWeights | None,
) -> Known:
    first = fold == "train"
    events = known if first else split.events(known, fold)
    tables = (log.availability, as_of)
    values = label_values(resolved, known, events, *tables, titles=titles, require_rows=first)
    rewards = event_rewards(weights, resolved, known, log.availability, titles, as_of)
    if rewards and not first:
        place = known.select("event_id", place=pl.int_range(pl.len()))
        own = events.select("event_id").join(place, on="event_id", how="left", maintain_order="left")["place"]
        rewards = {head: value[own.to_numpy()] for head, value in rewards.items()}
    return Known(request_context(events, known), titles, log.availability, as_of, values, rewards, weights)


def _end_of(split: Split, fold: Fold) -> datetime | None:
    ends: dict[Fold, datetime | None] = {"train": split.validation_cutoff, "validation": split.cutoff}
    return ends.get(fold)


def _fold_rows(fold: Fold, events: pl.DataFrame, examples: Examples, snapshot_hours: int) -> pl.DataFrame:
    """Return the examples of a fold: who and what by their own events, the rest as their requests were known."""
    found = examples.rows
    labels = [pl.Series(f"{LABEL}{head}", column, dtype=pl.Float32) for head, column in found.labels.items()]
    weights = [pl.Series(f"{WEIGHT}{head}", column, dtype=pl.Float32) for head, column in found.weights.items()]
    requested = examples.requests.select(*CONTEXT_COLUMNS, *PLACE_COLUMNS)[found.request]
    rows = events[examples.events].with_columns(requested.get_columns())
    floors = floor_moments(rows["event_at"].dt.epoch("us").to_numpy().astype(np.int64), snapshot_hours)
    return rows.select(
        *KEYS,
        *CONTEXT,
        *PLACE_COLUMNS,
        pl.lit(fold, dtype=pl.Enum(FOLDS)).alias(_FOLD),
        pl.col("event_at").dt.date().alias(_DAY),
        pl.Series(SNAPSHOT_AT, floors, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
    ).with_columns(column.fill_nan(None) for column in [*labels, *weights])


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


def with_features(rows: pl.DataFrame, features: FeatureDoor, service: str) -> pl.DataFrame:
    """Add member and request features of each row's moment, and its title's at `snapshot_at`."""
    requested = request_rows(rows)
    known = features.member_features(service, requested).drop(requested.columns)
    known_country = pl.when(pl.col("country") != UNKNOWN_COUNTRY).then("country")
    titles = rows.select("title_id", pl.col(SNAPSHOT_AT).alias("event_at"), known_country.alias("country"))
    own = features.title_features(service, titles).drop(titles.columns)
    _assert_rows(rows, known, own)
    return rows.hstack(known).hstack(own.rename(lambda name: f"{TITLE}{name}"))


def _assert_rows(rows: pl.DataFrame, *found: pl.DataFrame) -> None:
    for frame in found:
        if frame.width and frame.height != rows.height:
            raise IntegrityError(f"{rows.height} rows were asked for features and {frame.height} came back")


KEYS = ("event_id", "member_id", "title_id", "event_at")  # columns of the entity frame
CONTEXT = tuple(name for name in INTERACTIONS.names("request") if name not in KEYS)
SNAPSHOT_AT = "snapshot_at"
LABEL, WEIGHT, TITLE = "label__", "weight__", "title__"
"""Prefixes of label and weight columns and of title features; member and request features are `view__feature`."""
STRATUM, DRAWS = "stratum", "draws"  # which group a row of the train fold is drawn by, and how often an epoch reads it


def columns_of(rows: pl.DataFrame) -> tuple[ColumnRecord, ...]:
    """Return the record of each column of the parts; fold and day are in their paths."""
    return tuple(
        ColumnRecord(name=name, type=str(kind), role=_role(name))
        for name, kind in rows.schema.items()
        if name not in ("fold", "day")
    )


def _role(name: str) -> Role:
    if name in KEYS:
        return "key"
    if name == SNAPSHOT_AT:
        return "moment"
    if name in (*CONTEXT, *PLACE_COLUMNS):
        return "context"
    own: dict[str, Role] = {LABEL: "label", WEIGHT: "weight", STRATUM: "sampling", DRAWS: "sampling"}
    for start, role in own.items():
        if name.startswith(start):
            return role
    return "title_feature" if name.startswith(TITLE) else "request_feature"


def fold_records(rows: pl.DataFrame, as_of: dict[Fold, datetime], heads: Sequence[str]) -> dict[Fold, FoldRecord]:
    """Return what there is in each fold."""
    return {fold: _fold_record(rows.filter(pl.col("fold") == fold), as_of[fold], heads) for fold in _FOLDS}


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
