"""What a network reads, as numpy arrays with the field names of `playbill.models`' tensors.

Axis letters: B members, L history, T titles, N prediction rows, F features, S snapshots, C categorical fields.
Bags (genres, grams) are flat: `ids[offsets[i]:offsets[i + 1]]` belong to row i, `offsets` has one entry per row
and the last bag ends where `ids` ends. Index 0 is always unknown or padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Ints64


@dataclass(frozen=True, slots=True)
class HistoryArrays:
    """Tokens of B members, oldest first, right-padded to L. All of it was known before the request."""

    title: Ints64  # [B, L] title row
    actions: Ints64  # [B, L] bit set: bit i = action i of the encoder
    canvas: Ints64  # [B, L] index
    device: Ints64  # [B, L] index
    language: Ints64  # [B, L] index
    gap: Ints64  # [B, L] bucket of the time since the token before; 0 = first or unknown
    duration: Ints64  # [B, L] bucket of the time watched; 0 = unknown
    length: Ints64  # [B] number of tokens that are not padding


@dataclass(frozen=True, slots=True)
class ContextArrays:
    """N requests. Row n reads state `state[n]`, which has seen only tokens before that request."""

    state: Ints64  # [N] flat index into the [B, L + 1] states: `b * (L + 1) + number of tokens seen`
    canvas: Ints64  # [N] index; 0 = a canvas without training rows
    country: Ints64  # [N] index
    device: Ints64  # [N] index
    language: Ints64  # [N] index
    hour_of_week: Ints64  # [N] 0 = imputed, else 1 + hour of the week (1 to 168)
    source_title: Ints64  # [N] title row; 0 = none
    query_grams: Ints64  # [G] gram ids of all queries, flat
    query_offsets: Ints64  # [N] start of each row's grams; an empty bag = no query
    numeric: Floats32  # [N, Fm] member and request features, raw; nan = missing
    categorical: Ints64  # [N, Cm] indices of categorical member and request features
    snapshot: Ints64  # [N] index into `TitleArrays.snapshots`
    row: Ints64  # [N] name of the row; 0 = none, or unknown
    row_position: Ints64  # [N] bucket of the row's place on the page; 0 = unknown
    by_name: Ints64  # [N] 1 where the name of the source title stands for the query


@dataclass(frozen=True, slots=True)
class TargetArrays:
    """What happened in N requests."""

    title: Ints64  # [N] title row the labels are about
    labels: dict[str, Floats32]  # head -> [N]; nan = unlabelled
    weight: Floats32  # [N] weight of the row in every head
    weights: dict[str, Floats32] = field(default_factory=dict)
    """Head -> [N] weight of the row in that head alone; heads without an entry weigh all alike."""
    available: Bools = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """[G, T] titles that could be seen in G (country, stretch of time); no rows = every title, everywhere."""
    group: Ints64 = field(default_factory=lambda: np.zeros(0, np.int64))  # [N] row of `available`; empty where that is
    negatives: dict[str, NegativeArrays] = field(default_factory=dict)
    """Head -> what its positive rows are told apart from, for heads that do not rank against every title."""
    rows: dict[str, Ints64] = field(default_factory=dict)
    """Field -> [N, 1 + A] the row of a page that each title begins, and those above it; empty without heads about rows.
    See `row_entries.PageRows.around`."""
    attributes: dict[str, Ints64] = field(default_factory=dict)
    """Auxiliary head -> [N, W] attributes of each row's title, such as its genres; 0 = none."""
    further: dict[str, FurtherArrays] = field(default_factory=dict)
    """Head -> what else its rows have as their targets, for heads with a horizon."""


@dataclass(frozen=True, slots=True)
class FurtherArrays:
    """Targets of N rows beside their own titles. Letter: F further titles of a row."""

    title: Ints64  # [N, F] title rows, 0 = none
    share: Floats32  # [N, F] of the row's weight; its own title has what is left


@dataclass(frozen=True, slots=True)
class NegativeArrays:
    """Negatives of N rows. Letters: S titles drawn for the batch, C titles shown in a row's own request."""

    title: Ints64  # [S] drawn titles, with repeats
    expected: Floats32  # [S] how often each was to be expected in the draw
    usable: Bools  # [N, S] whether the row's member could have seen it, and it is neither the target nor among `shown`
    shown: Ints64  # [N, C] titles shown and not played; 0 = none


@dataclass(frozen=True, slots=True)
class TitleArrays:
    """T titles, row 0 = padding."""

    index: Ints64  # [T] row of the network's id table; 0 = a title that came after training
    genres: Ints64  # [G] genre indices of all titles, flat
    genre_offsets: Ints64  # [T] start of each title's genres
    kind: Ints64  # [T] index
    language: Ints64  # [T] index of the original language
    release_year: Ints64  # [T] bucket
    name_grams: Ints64  # [G] gram ids of all names, flat
    name_offsets: Ints64  # [T] start of each title's name grams
    synopsis_grams: Ints64  # [G] gram ids of all synopses, flat
    synopsis_offsets: Ints64  # [T] start of each title's synopsis grams
    age_days: Floats32  # [T] days since launch at the moment of training or scoring; nan = unknown, negative = to come
    plays: Floats32
    """[T] plays in the training data; of a title without any, how often a ranking head had it as its target."""
    has_id: Bools  # [T] whether the id vector may be used: training has learnt something of the title
    numeric: Floats32  # [T, Fs] static numeric features; nan = missing
    categorical: Ints64  # [T, Cs] indices of static categorical features
    snapshots: Floats32  # [S, T, F] features of titles at S moments, raw; nan = missing


def gather_bags(ids: AnyInts, offsets: AnyInts, rows: AnyInts) -> tuple[Ints64, Ints64]:
    """Pick bags by row number, repeats allowed: entries, flat, and [N] their starts.

    `offsets` [R] are the starts of all bags; the last one ends where `ids` do.
    """
    last = np.asarray(rows) + 1 == len(offsets)
    ends = np.where(last, len(ids), offsets[np.where(last, 0, rows + 1)])
    sizes = (ends - offsets[rows]).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    within = np.arange(int(sizes.sum()), dtype=np.int64) - np.repeat(starts, sizes)
    return ids[np.repeat(offsets[rows].astype(np.int64), sizes) + within].astype(np.int64), starts
