"""From the train fold to rows of training: what was known, which events teach, from which state, with what weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Floats32, Ints64
from playbill.clock import Clock
from playbill.datasets.checks import Boundary, assert_heads_fit, unfit_heads
from playbill.datasets.encoding.encoder import Encoder
from playbill.datasets.encoding.tokens import Tokens
from playbill.datasets.examples.labelled import (
    PLACE_COLUMNS,
    Labelled,
    empty_auxiliaries,
    empty_heads,
    label_ranges,
    label_values,
    labelled,
    request_context,
    request_rows,
    train_events,
    watermark,
)
from playbill.datasets.examples.negatives import make_policy
from playbill.datasets.examples.rows import RowDraws, ShownRows, TrainingRows, next_slots, shown_rows, slates, slots_of
from playbill.datasets.examples.sampling import (
    ExampleWeights,
    Stratum,
    draw_copies,
    event_rewards,
    first_moments,
    stratum_names,
)
from playbill.datasets.splits import Split
from playbill.definitions.specs import ResolvedModel, SamplingSpec, prune_heads
from playbill.definitions.specs.head import ranks
from playbill.errors import StateError
from playbill.tables import Vocabulary


class LogTables(Protocol):
    """What is read of `playbill.tables.Tables`."""

    def interactions(self) -> pl.DataFrame:
        """Return the log, sorted by member_id and seq."""

    def titles(self) -> pl.DataFrame:
        """Return one row per title."""

    def availability(self) -> pl.DataFrame:
        """Return every span of availability."""

    def members(self) -> pl.DataFrame:
        """Return the newest row of every member."""

    def member_versions(self) -> pl.DataFrame:
        """Return every row of every member."""

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return a vocabulary."""


@dataclass(frozen=True)
class Known:
    """What training may look at. Letter E counts events."""

    events: pl.DataFrame
    """[E] the train fold, sorted by member_id and seq, with what their requests had said: see `request_context`."""
    titles: pl.DataFrame  # titles as they were known when the held-out part began
    availability: pl.DataFrame
    as_of: datetime  # labels are told as of it
    labels: dict[str, Floats32]  # head -> [E]
    rewards: dict[str, Floats32]  # head -> [E], for heads that have one
    weights: ExampleWeights | None
    left_out: dict[str, str] = field(default_factory=dict)
    """Optional heads that nothing teaches, and why; they are in none of the above."""


@dataclass(frozen=True)
class Examples:
    """Rows of training before their requests are encoded. Letters: m requests, R rows."""

    tokens: Tokens
    rows: TrainingRows
    requests: pl.DataFrame  # [m] `request_rows`
    members: int  # members in the frame, with tokens or without
    events: Ints64  # [R] row of the frame of each row's event
    moments: Ints64  # [R] row of the frame its request is known by


def learn(
    tables: LogTables, resolved: ResolvedModel, split: Split, clock: Clock, weights: ExampleWeights | None
) -> tuple[Known, Boundary]:
    """Read what training may look at, and label it; also return where the held-out part begins.

    Raises:
        StateError: The train fold is empty, or a head has a reward and there are no `weights`.
        DataError: The label of a head that is not optional teaches it nothing, or its window reaches into what is held
            out.
        IntegrityError: Something of the held-out part would be read.
    """
    interactions = tables.interactions()
    events = train_events(interactions, split, resolved)
    boundary = Boundary.of(split, interactions)
    as_of = watermark(split.validation_cutoff or clock.now(), events)
    boundary.as_of("labels", as_of)
    titles, availability = known_titles(tables, boundary), tables.availability()
    unfit = unfit_heads(resolved, [(interactions, split)])
    assert_heads_fit(prune_heads(resolved, unfit), [(interactions, split)])
    values = label_values(resolved, events, events, availability, as_of, titles=titles)
    left_out = empty_heads(resolved, label_ranges(values), events, as_of) | unfit | empty_auxiliaries(resolved, titles)
    resolved = prune_heads(resolved, left_out)
    labels = {head: value for head, value in values.items() if head not in left_out}
    rewards = event_rewards(weights, resolved, events, availability, titles, as_of)
    filled = request_context(events, events)
    return Known(filled, titles, availability, as_of, labels, rewards, weights, left_out), boundary


def known_titles(tables: LogTables, boundary: Boundary) -> pl.DataFrame:
    """Return titles as they were known before the held-out part began.

    A title whose row has changed since then is read as it was; one that came since has no metadata yet.
    """
    titles = tables.titles()
    known = boundary.known(titles, "valid_from", "recorded_at")
    if boundary.end is None or known.height == titles.height:
        return titles
    before: pl.DataFrame = tables.titles(boundary.end)  # type: ignore[call-arg]
    return boundary.known(before, "valid_from", "recorded_at")


def find_examples(encoder: Encoder, known: Known, resolved: ResolvedModel, draws: RowDraws | None = None) -> Examples:
    """Find the rows of training in what is known; none where nothing in it is labelled.

    `draws` go on from the parts of the log before (None = this is the first, or all of it).
    """
    events, draws = known.events, draws or RowDraws.of(resolved.model.training.seed)
    tokens = encoder.tokens(events)
    own = labelled(tokens, known.labels, resolved, known.rewards)
    titles = encoder.title_rows.encode(events["title_id"])
    shown = shown_rows(events, titles, known.labels, resolved, draws.chance)
    requested, request = _requests_of(events, shown, encoder.state.own_fields)
    numbers = events["member_id"].rle_id().to_numpy().astype(np.int64)
    targets = np.nonzero(own.token_row >= 0)[0]
    slot = np.concatenate([next_slots(tokens)[targets], slots_of(tokens, numbers[shown.events], shown.requests)])
    next_one = np.arange(len(slot)) < len(own.events)
    order = np.lexsort((~next_one, slot))
    event = np.concatenate([own.events, shown.events])[order]
    labels, weights = head_arrays(own, shown, known, resolved)
    slate, offsets = _slates(events, titles, np.where(next_one[order], event, -1), resolved, draws.order)
    rows = TrainingRows(
        slot=slot[order],
        title=titles[event].astype(np.int32),
        request=np.concatenate([np.arange(len(own.events)), len(own.events) + request])[order].astype(np.int32),
        next=next_one[order],
        labels={head: values[order] for head, values in labels.items()},
        weights={head: values[order] for head, values in weights.items()},
        copies=np.zeros(0, np.int64),
        slate=slate,
        slate_offsets=offsets,
    )
    moment = np.concatenate([own.events, shown.requests])[order]
    requests = pl.concat([request_rows(events[own.events], encoder.state.own_fields), requested])
    return Examples(tokens, rows, requests, int(numbers.max(initial=-1)) + 1, event, moment)


def _requests_of(events: pl.DataFrame, shown: ShownRows, own_fields: Mapping[str, str]) -> tuple[pl.DataFrame, Ints64]:
    """Return the requests of impressions, and [U] which one each is of.

    They are asked when their request began; the impressions of a row are a request of their own.
    """
    own = request_rows(events[shown.events]).select("canvas", "query", "source_title_id", *PLACE_COLUMNS)
    own = own.with_columns(start=pl.Series(shown.requests, dtype=pl.Int64)).with_row_index("at")
    keys = ["start", *own.columns[1:-1]]
    ordered = own.sort(keys, maintain_order=True).with_columns(number=pl.struct(keys).rle_id())
    number = np.zeros(ordered.height, np.int64)
    number[ordered["at"].to_numpy()] = ordered["number"].to_numpy()
    firsts = ordered.unique("number", keep="first", maintain_order=True)
    requested = request_rows(events[firsts["start"].to_numpy()], own_fields)
    return requested.with_columns(firsts.select(keys[1:]).get_columns()), number


def head_arrays(
    own: Labelled, shown: ShownRows, known: Known, resolved: ResolvedModel
) -> tuple[dict[str, Floats32], dict[str, Floats32]]:
    """Return head -> [R] labels, and weights for the heads that have some: of the tokens first, then of impressions."""
    labels = {head: np.concatenate([values, shown.labels[head]]) for head, values in own.labels.items()}
    ones = np.ones(len(own.events), np.float32)
    weights = {head: np.concatenate([ones, values]) for head, values in shown.weights.items()}
    for head, values in own.rewards.items():
        assert known.weights is not None
        rewards = np.concatenate([values, known.rewards[head][shown.events]])
        loss = resolved.model.heads[head].loss or ""
        labels[head], worth = known.weights.weigh(rewards, labels[head], loss)
        if ranks(loss):
            # The weight has the label in it already.
            labels[head] = np.where(labels[head] > 0, np.float32(1), labels[head])
        weights[head] = (worth * weights.get(head, np.float32(1))).astype(np.float32)
    return labels, weights


def _slates(
    events: pl.DataFrame, titles: AnyInts, targets: Ints64, resolved: ResolvedModel, draw: np.random.Generator
) -> tuple[AnyInts, Ints64]:
    heads = resolved.model.heads.values()
    requested = [head for head in heads if head.negatives is not None and make_policy(head.negatives).shown != 0]
    if not requested:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    flat, offsets = slates(events, titles, targets, draw)
    return flat.astype(np.int32), offsets


def require_some(rows: int) -> None:
    """Check that there is something to learn from.

    Raises:
        StateError: There is not.
    """
    if not rows:
        raise StateError("no labelled event of the training part is about a known title, so there is nothing to learn")


def draw_strata(
    examples: Examples, known: Known, tables: LogTables, resolved: ResolvedModel
) -> tuple[pl.Series, Ints64, tuple[Stratum, ...]]:
    """Return [R] strata, [R] how often an epoch reads each row, and the record; all empty without `sampling`.

    Raises:
        ConfigError: There are too many strata for their floor.
    """
    spec = resolved.model.sampling
    if spec is None:
        return pl.Series([], dtype=pl.String), np.zeros(0, np.int64), ()
    names = row_strata(examples, known, tables.members(), spec)
    return names, *draw_copies(names, spec.floor)


def row_strata(examples: Examples, known: Known, members: pl.DataFrame, spec: SamplingSpec) -> pl.Series:
    """Return [R] the stratum of each row."""
    rows = known.events.select("member_id", "event_at", "country")[examples.moments]
    rows = rows.join(first_moments(known.events), on="member_id", how="left", maintain_order="left")
    return stratum_names(rows, members, spec)
