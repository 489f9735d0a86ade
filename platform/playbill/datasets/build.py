"""From tables, labels and features to a training set.

Inputs and targets come from the train fold alone. A target's request is known only by `CONTEXT_COLUMNS` of its own
event and by features as of its moment: nothing that is known after the request can reach the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl

from playbill.clock import Clock
from playbill.datasets.arrays import Float, Int
from playbill.datasets.batches import Task
from playbill.datasets.buckets import floor_moments, moment_of
from playbill.datasets.encoder import CONTEXT_COLUMNS, ContextColumns, Encoder
from playbill.datasets.learn import Schema, learn_state, with_categories
from playbill.datasets.splits import Split
from playbill.datasets.titles import display_names, snapshot_values, title_arrays
from playbill.datasets.tokens import Tokens
from playbill.datasets.training_set import BatchSettings, TrainingSet
from playbill.datasets.windows import Windows, cut_windows
from playbill.errors import IntegrityError, StateError
from playbill.labels import extract
from playbill.schema import INTERACTIONS
from playbill.specs import ResolvedModel
from playbill.tables import Vocabulary

SNAPSHOT_BYTES = 256 * 2**20
"""Memory for title snapshots; beyond it training reads every second, third, ... one, never a later one."""


class TrainingTables(Protocol):
    """What is read of `playbill.tables.Tables`."""

    def interactions(self) -> pl.DataFrame:
        """Return the log, sorted by member_id and seq."""
        ...

    def titles(self) -> pl.DataFrame:
        """Return one row per title."""
        ...

    def availability(self) -> pl.DataFrame:
        """Return every span of availability."""
        ...

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return a vocabulary."""
        ...


class FeatureSource(Protocol):
    """What is read of `playbill.features.FeatureDoor`."""

    def schema(self, service: str) -> Any:
        """Return the columns of a feature service, see `learn.Schema`."""
        ...

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with member and request features as of each row's `event_at`, strictly before it."""
        ...

    def title_snapshots(self, service: str, moments: Sequence[datetime], title_ids: Sequence[str]) -> Any:
        """Return `.values` [S, T, F] and `.categorical` of title features, strictly before each moment."""
        ...


def build_training_set(
    tables: TrainingTables,
    resolved: ResolvedModel,
    split: Split,
    features: FeatureSource,
    clock: Clock,
) -> TrainingSet:
    """Build what a model is trained on.

    Args:
        tables: The canonical tables.
        resolved: The model.
        split: Its train fold is used, nothing else.
        features: Feature values.
        clock: Labels are those matured by now, or by the end of the train fold where that is earlier.

    Raises:
        StateError: The train fold is empty.
        DataError: A head's label has no positive row in it.
        IntegrityError: The split lets a held-out event precede a training event.
    """
    events = _train_events(tables, split)
    watermark = _watermark(split, clock, events)
    titles, availability = tables.titles(), tables.availability()
    schema: Schema = features.schema(resolved.model.features)
    state = learn_state(resolved, schema, events, titles, tables.vocabulary("title").entries)
    tokens = Encoder(state).tokens(events)
    values = _label_values(resolved, events, availability, watermark)
    labelled = _labelled(tokens, values, resolved)
    rows = features.member_features(schema.service, request_rows(events[labelled.events]))
    snapshots, snapshot = _snapshots(features, state.snapshot_hours, schema, rows["event_at"], state.titles)
    encoder = Encoder(with_categories(state, rows, snapshots.categorical))
    arrays = title_arrays(
        encoder,
        titles,
        availability,
        plays=_plays(encoder, events),
        as_of=watermark,
        snapshots=snapshot_values(snapshots, state.title_snapshot),
        categorical=snapshots.categorical,
    )
    return TrainingSet(
        encoder=encoder,
        titles=arrays,
        names=display_names(encoder, titles),
        tokens=tokens.values.astype(np.int32),
        token_member=tokens.member,
        token_row=labelled.token_row,
        context=_compact(encoder.contexts(rows)),
        snapshot=snapshot,
        labels=labelled.labels,
        windows=_windows(tokens, resolved),
        settings=_settings(resolved, encoder),
        watermark=watermark,
    )


def request_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return what a prediction may know of its own event: who, and the columns known at request time."""
    late = set(CONTEXT_COLUMNS).difference(INTERACTIONS.names("request"))
    if late:
        raise IntegrityError(f"columns {sorted(late)} are known only after a request, so no context may read them")
    return events.select("member_id", *CONTEXT_COLUMNS)


def assert_held_out_later(interactions: pl.DataFrame, split: Split) -> None:
    """Check that what is held out lies after what is trained on: by seq of each member, or by time.

    Raises:
        IntegrityError: It does not.
    """
    folded = interactions.select("event_id", "member_id", "seq", "event_at").join(split.frame, on="event_id")
    train = pl.col("fold") == "train"
    if split.validation_cutoff is not None:
        early = folded.filter(train & (pl.col("event_at") >= split.validation_cutoff))
    else:
        ends = folded.group_by("member_id").agg(
            last=pl.col("seq").filter(train).max(), held=pl.col("seq").filter(~train).min()
        )
        early = ends.filter(pl.col("last") >= pl.col("held"))
    if early.height:
        member = early["member_id"][0]
        raise IntegrityError(
            f"split '{split.protocol}' trains on events after held-out ones, first for member '{member}'"
        )


@dataclass(frozen=True, slots=True)
class _Labelled:
    events: Int
    """[m] row of the frame of each target event."""
    token_row: Int
    """[n] -1 or number of the target."""
    labels: dict[str, Float]
    """Head -> [m]."""


def _train_events(tables: TrainingTables, split: Split) -> pl.DataFrame:
    everything = tables.interactions()
    events = split.events(everything, "train").sort("member_id", "seq", maintain_order=True)
    if events.is_empty():
        raise StateError(f"protocol '{split.protocol}' leaves no event to train on; ingest more data")
    assert_held_out_later(everything, split)
    return events


def _windows(tokens: Tokens, resolved: ResolvedModel) -> Windows:
    counts = np.bincount(tokens.member)
    return cut_windows(counts[counts > 0], resolved.model.history.length, resolved.model.training.stride)


def _watermark(split: Split, clock: Clock, events: pl.DataFrame) -> datetime:
    now = split.validation_cutoff or clock.now()
    last = events["event_at"].max()
    return max(now, last + timedelta(microseconds=1)) if isinstance(last, datetime) else now


def _label_values(
    resolved: ResolvedModel, events: pl.DataFrame, availability: pl.DataFrame, as_of: datetime
) -> dict[str, Float]:
    """Return the value of every head's label for every event, nan where it has none."""
    found: dict[str, Float] = {}
    for name, head in resolved.model.heads.items():
        if head.label is None:
            continue
        labels = extract(resolved.labels[head.label], events, as_of, availability, require_rows=True)
        joined = events.select("event_id").join(
            labels.select("event_id", pl.col("value").cast(pl.Float32)),
            on="event_id",
            how="left",
            maintain_order="left",
        )
        found[name] = joined["value"].fill_null(float("nan")).to_numpy().astype(np.float32)
    return found


def _labelled(tokens: Tokens, values: dict[str, Float], resolved: ResolvedModel) -> _Labelled:
    """Find the tokens to learn from. The first labelled event of a token is its moment of request."""
    by_event = {name: value[tokens.event_rows] for name, value in values.items()}
    known = ~np.isnan(np.stack(list(by_event.values()))).all(axis=0)
    at = np.nonzero(known)[0]
    if not len(at):
        raise StateError("no labelled event of the training part is about a known title, so there is nothing to learn")
    targets, firsts = np.unique(tokens.event_token[at], return_index=True)
    token_row = np.full(len(tokens), -1, np.int64)
    token_row[targets] = np.arange(len(targets))
    labels = {}
    for name, value in by_event.items():
        ranking = resolved.model.heads[name].loss == "softmax"
        labels[name] = _by_token(value, token_row[tokens.event_token], len(targets), largest=ranking)
    return _Labelled(tokens.event_rows[at[firsts]], token_row, labels)


def _by_token(values: Float, rows: Int, count: int, *, largest: bool) -> Float:
    """Reduce labels of events to their token: the largest one, or the last one said."""
    said = np.nonzero(~np.isnan(values))[0]
    result = np.full(count, np.nan, np.float32)
    if largest:
        np.fmax.at(result, rows[said], values[said])
    else:
        result[rows[said]] = values[said]
    return result


def _snapshots(
    features: FeatureSource, hours: int, schema: Schema, event_at: pl.Series, title_ids: tuple[str, ...]
) -> tuple[Any, Int]:
    """Return title features at every moment the rows need, and which one each row reads."""
    columns = sum(column.entity == "title" and column.kind == "numeric" for column in schema.columns)
    at = event_at.dt.epoch("us").to_numpy().astype(np.int64)
    moments = np.unique(floor_moments(at, hours))
    most = max(1, SNAPSHOT_BYTES // max(1, 4 * columns * (len(title_ids) + 1)))
    kept = moments[:: -(-len(moments) // most)]
    place = np.searchsorted(kept, at, side="right") - 1
    found = features.title_snapshots(schema.service, [moment_of(int(moment)) for moment in kept], title_ids)
    return found, place.astype(np.int32)


def _plays(encoder: Encoder, events: pl.DataFrame) -> Int:
    played = events.filter(pl.col("action") == "play")["title_id"]
    counts = np.bincount(encoder.title_rows.encode(played), minlength=encoder.title_rows.size)
    counts[0] = 0
    return counts.astype(np.int64)


def _compact(context: ContextColumns) -> ContextColumns:
    """Store indices in four bytes: a batch widens them."""
    small = {
        name: getattr(context, name).astype(np.int32)
        for name in ("canvas", "country", "device", "language", "hour_of_week", "source_title", "categorical")
    }
    return ContextColumns(
        **small,
        query_grams=context.query_grams.astype(np.int32),
        query_offsets=context.query_offsets,
        numeric=context.numeric,
        moment=context.moment,
    )


def _settings(resolved: ResolvedModel, encoder: Encoder) -> BatchSettings:
    model = resolved.model
    canvases = encoder.vocabulary("canvas")
    tasks = []
    for name, task in model.tasks.items():
        carried = encoder.state.canvas_fields[name]
        lacking = tuple(field for field in ("country", "device", "language", "hour_of_week") if field not in carried)
        tasks.append(Task(task.source, int(canvases.encode([name])[0]), task.share, lacking))
    softmax = tuple(name for name, head in model.heads.items() if head.loss == "softmax")
    return BatchSettings(model.training.batch_slots, model.training.seed, softmax, tuple(tasks))
