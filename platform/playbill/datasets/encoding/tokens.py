"""Events to tokens: the one path from rows of `interactions` to what the network reads of a member's past.

Adjacent events of one member on one title merge into one token, which keeps every action done and the total time.
Impressions are no tokens, nor are events without a known title. Training, evaluation and serving all come here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.datasets.arrays import AnyInt, HistoryArrays, Int
from playbill.datasets.encoding.buckets import MICROSECONDS, duration_buckets, gap_buckets
from playbill.tables import Vocabulary

IGNORED_ACTIONS = ("impression",)
FIELDS = ("title", "actions", "canvas", "device", "language", "gap", "duration")
"""Token fields, in the order of `Tokens.values`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of many members, member after member, oldest first. Letter n counts tokens, E events."""

    values: Int
    """[n, 7] the columns `FIELDS`."""
    member: NDArray[np.int64]
    """[n] number of the member, in order of first appearance in the frame."""
    event_rows: Int
    """[E] row of the frame each kept event came from."""
    event_token: Int
    """[E] token each kept event went into."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Codes:
    """The vocabularies that tokens need."""

    titles: Vocabulary
    actions: Vocabulary
    canvases: Vocabulary
    devices: Vocabulary
    languages: Vocabulary
    merge: bool = True
    """Whether adjacent events on one title become one token."""


def tokens_of(events: pl.DataFrame, codes: Codes) -> Tokens:
    """Turn events into tokens.

    Args:
        events: Rows of `interactions`, members one after the other, each sorted by seq. Columns member_id,
            event_at, action, title_id, canvas; device, language and duration_s where known.
        codes: Vocabularies; a title beyond them gives no token.
    """
    titles = codes.titles.encode(events["title_id"])
    shown = events["action"].is_in(IGNORED_ACTIONS).to_numpy()
    rows = np.nonzero((titles > 0) & ~shown)[0]
    title = titles[rows].astype(np.int64)
    member = events["member_id"].rle_id().to_numpy().astype(np.int64)[rows]
    starts = _starts(member, title, codes.merge)
    firsts = np.nonzero(starts)[0]
    first_rows = rows[firsts]
    values = np.empty((len(firsts), len(FIELDS)), np.int64)
    values[:, 0] = title[firsts]
    values[:, 1] = _actions(events["action"], rows, firsts, codes.actions)
    for place, vocabulary in ((2, codes.canvases), (3, codes.devices), (4, codes.languages)):
        values[:, place] = _codes(events, FIELDS[place], first_rows, vocabulary)
    values[:, 5] = _gaps(events["event_at"], rows, member, firsts)
    values[:, 6] = _durations(events, rows, firsts)
    return Tokens(values, member[firsts], rows, np.cumsum(starts) - 1)


def _starts(member: Int, title: Int, merge: bool) -> NDArray[np.bool_]:
    if not merge or not len(title):
        return np.ones(len(title), np.bool_)
    changed = (member[1:] != member[:-1]) | (title[1:] != title[:-1])
    return np.concatenate([[True], changed])


def _actions(actions: pl.Series, rows: Int, firsts: Int, vocabulary: Vocabulary) -> Int:
    codes = vocabulary.encode(actions)[rows].astype(np.int64)
    bits = np.where(codes > 0, np.int64(1) << np.maximum(codes - 1, 0), 0)
    return np.bitwise_or.reduceat(bits, firsts) if len(firsts) else bits


def _codes(events: pl.DataFrame, name: str, rows: Int, vocabulary: Vocabulary) -> Int:
    if name not in events.columns:
        return np.zeros(len(rows), np.int64)
    return vocabulary.encode(events[name])[rows].astype(np.int64)


def _gaps(event_at: pl.Series, rows: Int, member: Int, firsts: Int) -> Int:
    """Bucket the time from the last event of the token before to the first event of this one."""
    moments = event_at.dt.epoch("us").to_numpy()[rows]
    before = np.maximum(firsts - 1, 0)
    seconds = (moments[firsts] - moments[before]) / MICROSECONDS
    own = (firsts > 0) & (member[firsts] == member[before])
    return gap_buckets(np.where(own, np.maximum(seconds, 0.0), np.nan))


def _durations(events: pl.DataFrame, rows: Int, firsts: Int) -> Int:
    """Bucket the total time; unknown where no event of the token says any."""
    if "duration_s" not in events.columns or not len(firsts):
        return np.zeros(len(firsts), np.int64)
    seconds = events["duration_s"].cast(pl.Float64).fill_null(np.nan).to_numpy()[rows]
    known = np.add.reduceat((~np.isnan(seconds)).astype(np.int64), firsts) > 0
    total = np.add.reduceat(np.nan_to_num(seconds), firsts)
    return duration_buckets(np.where(known, total, np.nan))


def pad(values: AnyInt, starts: Int, lengths: Int, width: int) -> HistoryArrays:
    """Lay windows of tokens side by side, right-padded with zeros.

    Args:
        values: [n, 7] tokens.
        starts: [B] first token of each window.
        lengths: [B] tokens in each window, at most `width`.
        width: L.
    """
    places = np.arange(width)
    inside = places < lengths[:, None]
    if not len(values):
        block: AnyInt = np.zeros((len(starts), width, len(FIELDS)), np.int64)
    else:
        block = values[np.where(inside, starts[:, None] + places, 0)] * inside[:, :, None]
    columns = np.ascontiguousarray(np.moveaxis(block, -1, 0).astype(np.int64, copy=False))
    return HistoryArrays(**dict(zip(FIELDS, columns, strict=True)), length=lengths.astype(np.int64))
