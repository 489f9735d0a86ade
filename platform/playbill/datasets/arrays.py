"""What a network reads, as numpy arrays with the field names of `playbill.models`' tensors.

Axis letters: B members, L history, T titles, N prediction rows, F features, S snapshots, C categorical fields.
Bags (genres, grams) are flat: `ids[offsets[i]:offsets[i + 1]]` belong to row i, `offsets` has one entry per row
and the last bag ends where `ids` ends. Index 0 is always unknown or padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
AnyInt = NDArray[np.integer[Any]]
"""Indices of any width, as they are stored."""


@dataclass(frozen=True, slots=True)
class HistoryArrays:
    """Tokens of B members, oldest first, right-padded to L. All of it was known before the request."""

    title: Int
    """[B, L] title row."""
    actions: Int
    """[B, L] bit set: bit i = action i of the encoder."""
    canvas: Int
    """[B, L] index."""
    device: Int
    """[B, L] index."""
    language: Int
    """[B, L] index."""
    gap: Int
    """[B, L] bucket of the time since the token before; 0 = first or unknown."""
    duration: Int
    """[B, L] bucket of the time watched; 0 = unknown."""
    length: Int
    """[B] number of tokens that are not padding."""


@dataclass(frozen=True, slots=True)
class ContextArrays:
    """N requests. Row n reads state `state[n]`, which has seen only tokens before that request."""

    state: Int
    """[N] flat index into the [B, L + 1] states: `b * (L + 1) + number of tokens seen`."""
    canvas: Int
    """[N] index; 0 = a canvas without training rows."""
    country: Int
    """[N] index."""
    device: Int
    """[N] index."""
    language: Int
    """[N] index."""
    hour_of_week: Int
    """[N] 0 = imputed, else 1 + hour of the week (1 to 168)."""
    source_title: Int
    """[N] title row; 0 = none."""
    query_grams: Int
    """[G] gram ids of all queries, flat."""
    query_offsets: Int
    """[N] start of each row's grams; an empty bag = no query."""
    numeric: Float
    """[N, Fm] member and request features, raw; nan = missing."""
    categorical: Int
    """[N, Cm] indices of categorical member and request features."""
    snapshot: Int
    """[N] index into `TitleArrays.snapshots`."""
    row: Int
    """[N] name of the row; 0 = none, or unknown."""
    row_position: Int
    """[N] bucket of the row's place on the page; 0 = unknown."""
    by_name: Int
    """[N] 1 where the name of the source title stands for the query."""


@dataclass(frozen=True, slots=True)
class TargetArrays:
    """What happened in N requests."""

    title: Int
    """[N] title row the labels are about."""
    labels: dict[str, Float]
    """Head -> [N]; nan = unlabelled."""
    weight: Float
    """[N] weight of the row in every head."""
    weights: dict[str, Float] = field(default_factory=dict)
    """Head -> [N] weight of the row in that head alone; heads without an entry weigh all alike."""
    available: Bool = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    """[G, T] titles that could be seen in G (country, stretch of time); no rows = every title, everywhere."""
    group: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    """[N] row of `available`; empty where that is."""
    negatives: dict[str, NegativeArrays] = field(default_factory=dict)
    """Head -> what its positive rows are told apart from, for heads that do not rank against every title."""
    rows: dict[str, Int] = field(default_factory=dict)
    """Field -> [N, 1 + A] the row of a page that each title begins, and those above it; empty without heads about rows.
    See `row_entries.PageRows.around`."""


@dataclass(frozen=True, slots=True)
class NegativeArrays:
    """Negatives of N rows. Letters: S titles drawn for the batch, C titles shown in a row's own request."""

    title: Int
    """[S] drawn titles, with repeats."""
    expected: Float
    """[S] how often each was to be expected in the draw."""
    usable: Bool
    """[N, S] whether the row's member could have seen it, and it is neither the target nor among `shown`."""
    shown: Int
    """[N, C] titles shown and not played; 0 = none."""


@dataclass(frozen=True, slots=True)
class TitleArrays:
    """T titles, row 0 = padding."""

    index: Int
    """[T] row of the network's id table; 0 = a title that came after training."""
    genres: Int
    """[G] genre indices of all titles, flat."""
    genre_offsets: Int
    """[T] start of each title's genres."""
    kind: Int
    """[T] index."""
    language: Int
    """[T] index of the original language."""
    release_year: Int
    """[T] bucket."""
    name_grams: Int
    """[G] gram ids of all names, flat."""
    name_offsets: Int
    """[T] start of each title's name grams."""
    synopsis_grams: Int
    """[G] gram ids of all synopses, flat."""
    synopsis_offsets: Int
    """[T] start of each title's synopsis grams."""
    age_days: Float
    """[T] days since launch at the moment of training or scoring; nan = unknown, negative = to come."""
    plays: Float
    """[T] plays in the training data; of a title without any, how often a ranking head had it as its target."""
    has_id: Bool
    """[T] whether the id vector may be used: training has learnt something of the title."""
    numeric: Float
    """[T, Fs] static numeric features; nan = missing."""
    categorical: Int
    """[T, Cs] indices of static categorical features."""
    snapshots: Float
    """[S, T, F] features of titles at S moments, raw; nan = missing."""


def gather_bags(ids: AnyInt, offsets: AnyInt, rows: AnyInt) -> tuple[Int, Int]:
    """Pick bags by row number.

    Args:
        ids: [G] all entries, flat.
        offsets: [R + 1] start of each bag and, last, the end of the final one.
        rows: [N] bags wanted, repeats allowed.

    Returns:
        Entries, flat, and [N] their starts.
    """
    sizes = (offsets[rows + 1] - offsets[rows]).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    within = np.arange(int(sizes.sum()), dtype=np.int64) - np.repeat(starts, sizes)
    return ids[np.repeat(offsets[rows].astype(np.int64), sizes) + within].astype(np.int64), starts


def with_end(ids: AnyInt, offsets: AnyInt) -> Int:
    """Append the end of the last bag to [N] starts, which gives [N + 1]."""
    return np.append(offsets, len(ids)).astype(np.int64)
