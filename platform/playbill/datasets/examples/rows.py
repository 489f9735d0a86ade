"""Rows of training: a member's state, a title, a request, and what came of it. Many rows may share a state.

A row's state has read the tokens that were over before its request began. For a title that the member then played
that is every token before the title's own; for one that was shown and not played it may be any number, and the
tokens of its own request are never among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Bools, Floats32, Floats64, Ints64
from playbill.datasets.encoding.tokens import IGNORED_ACTIONS, Tokens
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.head import ShownOptions, ranks


@dataclass(frozen=True)
class TrainingRows:
    """R rows, in the order of their slots; in one slot the row of the next token comes first.

    A member of number `m` whose first token is `f` has a slot for each of its states: `f + m` has read nothing,
    `f + m + 1` one token, and so on.
    """

    slot: AnyInts  # [R] slot of the state
    title: AnyInts  # [R] title row
    request: AnyInts  # [R] row of the encoded requests
    next: Bools  # [R] whether the title is that of the next token, and so the row may be made into others
    labels: dict[str, Floats32]  # head -> [R]; nan = unlabelled
    weights: dict[str, Floats32]  # head -> [R] weights of its own: by reward, or for what was left out of a request
    copies: AnyInts  # [R] how often an epoch reads the row, each time with one over that as its weight; empty = once
    slate: AnyInts  # titles shown in the requests of rows and not played, flat
    slate_offsets: AnyInts  # [R + 1] where each row's begin; empty where no head asks for them
    silent: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[R] whether a row teaches nothing itself, and is there for what is made from it; empty = none is."""

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class ShownRows:
    """U impressions to learn from. Letter E counts events of the frame they came from."""

    events: Ints64  # [U] row of the frame of each impression
    requests: Ints64  # [U] row of the frame of the first event of its request
    labels: dict[str, Floats32]  # head -> [U]; nan = unlabelled, or left out of the request's sample
    weights: dict[str, Floats32]  # head -> [U], for heads that take a sample of each request


@dataclass(frozen=True, slots=True)
class RowDraws:
    """What is drawn at random for rows. Parts of a log, one after the other, draw what the whole would."""

    chance: np.random.Generator  # which impressions a head reads
    order: np.random.Generator  # of the titles of a slate

    @classmethod
    def of(cls, seed: int) -> RowDraws:
        """Begin at the first row of a log."""
        return cls(np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2)))


def shown_rows(
    events: pl.DataFrame,
    titles: AnyInts,
    values: dict[str, Floats32],
    resolved: ResolvedModel,
    draw: np.random.Generator,
) -> ShownRows:
    """Find the impressions that train some head, by head -> [E] labels of events sorted by member_id and seq.

    A `bce` head may take a sample of what each request showed.
    """
    shown = events["action"].is_in(IGNORED_ACTIONS).to_numpy() & (titles > 0)
    rows = np.nonzero(shown & _useful(values, resolved))[0]
    if not len(rows):
        return ShownRows(rows, rows, {head: np.zeros(0, np.float32) for head in values}, {})
    requests = request_starts(events)[rows]
    labels = {head: value[rows] for head, value in values.items()}
    chance = draw.random(len(rows))
    weights: dict[str, Floats32] = {}
    for head, most in sampled_heads(resolved).items():
        if head in labels:
            labels[head], weights[head] = sample_of_requests(labels[head], requests, chance, most)
    kept = _useful(labels, resolved)
    return ShownRows(
        rows[kept],
        requests[kept],
        {head: value[kept] for head, value in labels.items()},
        {head: value[kept] for head, value in weights.items()},
    )


def _useful(labels: dict[str, Floats32], resolved: ResolvedModel) -> Bools:
    """Return [E] which events train some head: a ranking head by a label above 0, any other by any label."""
    found: list[Bools] = []
    for head, value in labels.items():
        found.append(value > 0 if ranks(resolved.model.heads[head].loss) else ~np.isnan(value))
    useful: Bools = np.logical_or.reduce(found)
    return useful


def sampled_heads(resolved: ResolvedModel) -> dict[str, int]:
    """Return head -> zeros of each request that it reads, for those that do not read all."""
    return {
        name: head.negatives.count
        for name, head in resolved.model.heads.items()
        if head.loss == "bce" and isinstance(head.negatives, ShownOptions) and head.negatives.count is not None
    }


def sample_of_requests(labels: Floats32, requests: Ints64, chance: Floats64, most: int) -> tuple[Floats32, Floats32]:
    """Keep at most `most` zeros of each request, those of the lowest chance, weighted up to all of them.

    Returns:
        Labels, nan where left out, and weights: of the zeros kept, how many each stands for.
    """
    zeros = np.nonzero(labels == 0)[0]
    order = zeros[np.lexsort((chance[zeros], requests[zeros]))]
    _, start, size = np.unique(requests[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(start, size)
    kept, weights = labels.copy(), np.ones(len(labels), np.float32)
    kept[order[place >= most]] = np.nan
    weights[order] = np.repeat(np.maximum(size / most, 1.0), size).astype(np.float32)
    return kept, weights


def request_starts(events: pl.DataFrame) -> Ints64:
    """Return [E] the row of the first event of each event's request; an event without one is its own."""
    numbered = events.select("member_id", "request_id", row=pl.int_range(pl.len(), dtype=pl.Int64))
    first = pl.col("row").min().over("member_id", "request_id")
    known = pl.col("request_id").is_not_null()
    return numbered.select(pl.when(known).then(first).otherwise("row"))["row"].to_numpy().astype(np.int64)


def slots_of(tokens: Tokens, members: Ints64, before: Ints64) -> Ints64:
    """Return [U] the slot of the state that was over before row `before` of the frame, for [U] numbers of members."""
    last = np.zeros(len(tokens), np.int64)
    last[tokens.event_token] = tokens.event_rows
    return np.searchsorted(last, before, side="left").astype(np.int64) + members


def next_slots(tokens: Tokens) -> Ints64:
    """Return [n] the slot of the state just before each token."""
    return np.arange(len(tokens), dtype=np.int64) + tokens.member


def slates(events: pl.DataFrame, titles: AnyInts, targets: Ints64, draw: np.random.Generator) -> tuple[Ints64, Ints64]:
    """Return what the requests of target events ([R] rows of the frame, -1 = no slate) showed and did not play.

    Titles are flat, in an order drawn at random, and [R + 1] are where each row's begin.
    """
    keys = ["member_id", "request_id"]
    own = events.select(*keys, "action", title=pl.Series(titles, dtype=pl.Int64)).filter(
        pl.col("request_id").is_not_null(), pl.col("title") > 0
    )
    played = own.filter(pl.col("action") == "play").select(*keys, "title").unique()
    shown = own.filter(pl.col("action").is_in(IGNORED_ACTIONS)).unique([*keys, "title"], maintain_order=True)
    unplayed = shown.join(played, on=[*keys, "title"], how="anti", maintain_order="left")
    requested = np.nonzero(targets >= 0)[0]
    rows = events[targets[requested]].select(keys).with_columns(row=pl.Series(requested, dtype=pl.Int64))
    found = rows.join(unplayed, on=keys, maintain_order="left_right").select("row", "title")
    row, title = found["row"].to_numpy(), found["title"].to_numpy().astype(np.int64)
    order = np.lexsort((draw.random(len(row)), row))
    offsets = np.zeros(len(targets) + 1, np.int64)
    offsets[1:] = np.cumsum(np.bincount(row, minlength=len(targets)))
    return title[order], offsets
