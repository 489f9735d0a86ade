"""Events to tokens: the one path from rows of `interactions` to what the network reads of a member's past.

Adjacent events of one member on one title merge into one token, which keeps every action done and the total time; at
the level `session` only those of one session, so that a series watched for weeks is a token an evening.
Impressions are no tokens, nor are events without a known title. Training, evaluation and serving all come here.

Whatever is appended to a log changes its last token at most: `tokens_of` of a beginning of it gives the tokens of the
whole, but that the last may go on. So a state of training, which reads whole tokens that were over before its request,
has read what the same request reads when its history is made into tokens again, in evaluation and serving, and nothing
later. Events of a title that are not adjacent stay apart for that reason: a token of both would tell the states between
them of the second, and to tokenise anew for every request would cost a pass of the network for each.

Facts of an event are of two kinds. Those of its request (`REQUEST_FACTS`) are known before it happens: of the event
that is predicted they reach the score through the request's context (`CONTEXT_COLUMNS`), never through its token. Those
of its outcome (`OUTCOME_FACTS`) are read by the states after it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Bools, Floats64, Ints64
from playbill.clock import from_microseconds, to_microseconds
from playbill.datasets.arrays import HistoryArrays
from playbill.schema import SESSION_PAUSE
from playbill.tables import Vocabulary
from playbill.tables.frames import epoch_us

IGNORED_ACTIONS = ("impression",)
FIELDS = ("title", "actions", "canvas", "device", "language", "gap", "duration")
"""Token fields, in the order of `Tokens.values`."""
REQUEST_FACTS = ("canvas", "device", "language")
"""Fields that are known when a request is made."""
OUTCOME_FACTS = ("title", "actions", "gap", "duration")
"""Fields that are known once the event has happened; `gap` too, which is measured to the moment of the action."""

Merge = bool | Literal["session"]
"""Which adjacent events on one title become one token: all, none, or those of one session."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of many members, member after member, oldest first. Letter n counts tokens, E events."""

    values: Ints64  # [n, 7] the columns `FIELDS`
    member: Ints64  # [n] number of the member, in order of first appearance in the frame
    event_rows: Ints64  # [E] row of the frame each kept event came from
    event_token: Ints64  # [E] token each kept event went into
    seconds: Floats64  # [n] time of all events of the token together, of which `values` has the bucket; nan = unknown

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
    merge: Merge = True


def tokens_of(events: pl.DataFrame, codes: Codes) -> Tokens:
    """Turn events into tokens; a title beyond the vocabularies gives none.

    Rows are members one after the other, each sorted by seq, with member_id, event_at, action, title_id, canvas; and
    device, language and duration_s where known.
    """
    titles = codes.titles.encode(events["title_id"])
    shown = np.logical_or.reduce([(events["action"] == action).to_numpy() for action in IGNORED_ACTIONS])
    rows = np.nonzero((titles > 0) & ~shown)[0]
    title = titles[rows].astype(np.int64)
    member = _runs(events["member_id"])[rows]
    moments = epoch_us(events["event_at"])[rows]
    starts = _starts(member, title, moments, codes.merge)
    firsts = np.nonzero(starts)[0]
    first_rows = rows[firsts]
    values = np.empty((len(firsts), len(FIELDS)), np.int64)
    values[:, 0] = title[firsts]
    values[:, 1] = _actions(events["action"], rows, firsts, codes.actions)
    for place, vocabulary in ((2, codes.canvases), (3, codes.devices), (4, codes.languages)):
        values[:, place] = _codes(events, FIELDS[place], first_rows, vocabulary)
    values[:, 5] = _gaps(moments, member, firsts)
    seconds = _seconds(events, rows, firsts)
    values[:, 6] = duration_buckets(seconds)
    return Tokens(values, member[firsts], rows, np.cumsum(starts) - 1, seconds)


def _runs(members: pl.Series) -> Ints64:
    """Number rows of one member after the other."""
    if not members.dtype.is_integer():
        return members.rle_id().to_numpy().astype(np.int64)
    numbers = members.to_numpy()
    return np.cumsum(np.diff(numbers, prepend=numbers[:1]) != 0)


def _starts(member: Ints64, title: Ints64, moments: Ints64, merge: Merge) -> Bools:
    if not merge or not len(title):
        return np.ones(len(title), np.bool_)
    changed = (member[1:] != member[:-1]) | (title[1:] != title[:-1])
    if merge == "session":
        changed |= moments[1:] - moments[:-1] > _PAUSE_US
    return np.concatenate([[True], changed])


def _actions(actions: pl.Series, rows: Ints64, firsts: Ints64, vocabulary: Vocabulary) -> Ints64:
    codes = vocabulary.encode(actions)[rows].astype(np.int64)
    bits = np.where(codes > 0, np.int64(1) << np.maximum(codes - 1, 0), 0)
    return np.bitwise_or.reduceat(bits, firsts) if len(firsts) else bits


def _codes(events: pl.DataFrame, name: str, rows: Ints64, vocabulary: Vocabulary) -> Ints64:
    if name not in events.columns:
        return np.zeros(len(rows), np.int64)
    return vocabulary.encode(events[name])[rows].astype(np.int64)


def _gaps(moments: Ints64, member: Ints64, firsts: Ints64) -> Ints64:
    """Bucket the time from the last event of the token before to the first event of this one."""
    before = np.maximum(firsts - 1, 0)
    seconds = (moments[firsts] - moments[before]) / MICROSECONDS
    own = (firsts > 0) & (member[firsts] == member[before])
    return gap_buckets(np.where(own, np.maximum(seconds, 0.0), np.nan))


def _seconds(events: pl.DataFrame, rows: Ints64, firsts: Ints64) -> Floats64:
    if "duration_s" not in events.columns or not len(firsts):
        return np.full(len(firsts), np.nan)
    seconds = events["duration_s"].cast(pl.Float64).to_numpy()[rows]  # null is nan
    known = np.add.reduceat((~np.isnan(seconds)).astype(np.int64), firsts) > 0
    total = np.add.reduceat(np.nan_to_num(seconds), firsts)
    return np.where(known, total, np.nan)


def pad(values: AnyInts, starts: Ints64, lengths: Ints64, width: int) -> HistoryArrays:
    """Lay windows of tokens ([n, 7]) side by side, right-padded with zeros to a width of L."""
    places = np.arange(width)
    inside = places < lengths[:, None]
    if not len(values):
        block: AnyInts = np.zeros((len(starts), width, len(FIELDS)), np.int64)
    else:
        block = values[np.where(inside, starts[:, None] + places, 0)] * inside[:, :, None]
    columns = np.ascontiguousarray(np.moveaxis(block, -1, 0).astype(np.int64, copy=False))
    return HistoryArrays(**dict(zip(FIELDS, columns, strict=True)), length=lengths.astype(np.int64))


MICROSECONDS = 1_000_000
_PAUSE_US = SESSION_PAUSE // timedelta(microseconds=1) + 1  # see there: age begins a microsecond after an event
_HOUR = 3_600 * MICROSECONDS
_WEEK_HOURS = 168
_MONDAY_OFFSET_HOURS = 72  # 1970-01-01 was a Thursday, three days after a Monday

GAP_EDGES_S = (60, 300, 1_800, 3_600, 10_800, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000, 7_776_000)
"""Edges of the time between tokens: a minute to three months."""
DURATION_EDGES_S = (30, 120, 300, 600, 1_200, 1_800, 2_700, 3_600, 5_400, 7_200, 10_800)
"""Edges of the time watched: half a minute to three hours."""
ROW_EDGES = (1, 2, 3, 4, 5, 7, 10, 15)  # edges of the place of a row on its page, counted from 0
GAPS, DURATIONS, HOURS_OF_WEEK = len(GAP_EDGES_S) + 2, len(DURATION_EDGES_S) + 2, _WEEK_HOURS + 1
ROW_POSITIONS = len(ROW_EDGES) + 2  # Sizes, index 0 counted


def gap_buckets(seconds: Floats64) -> Ints64:
    """Return 1 to 13 for a gap; 0 for nan, which is no token before."""
    return _bucket(seconds, GAP_EDGES_S)


def duration_buckets(seconds: Floats64) -> Ints64:
    """Return 1 to 12 for a time watched; 0 for nan, which is unknown."""
    return _bucket(seconds, DURATION_EDGES_S)


def row_position_buckets(places: Floats64) -> Ints64:
    """Return 1 to 9 for a row's place on its page; 0 for nan, which is unknown."""
    return _bucket(places, ROW_EDGES)


def _bucket(values: Floats64, edges: Sequence[float]) -> Ints64:
    found = np.searchsorted(np.asarray(edges, np.float64), np.nan_to_num(values), side="right") + 1
    return np.where(np.isnan(values), 0, found).astype(np.int64)


def hour_of_week(moments: Ints64) -> Ints64:
    """Return 1 (Monday 00:00 to 01:00 UTC) to 168 for moments in microseconds since 1970."""
    return (moments // _HOUR + _MONDAY_OFFSET_HOURS) % _WEEK_HOURS + 1


def year_edges(years: Sequence[int], count: int = 24) -> tuple[int, ...]:
    """Return edges that split release years into about equally many titles.

    A year later than all of training falls into the newest bucket, which is trained.
    """
    if not years:
        return ()
    cuts = np.quantile(np.asarray(years), np.linspace(0, 1, count + 1)[1:-1], method="nearest")
    return tuple(int(year) for year in np.unique(cuts))


def year_buckets(years: Floats64, edges: Sequence[int]) -> Ints64:
    """Return 1 + the number of edges at or below each year; 0 for nan."""
    return _bucket(years, edges)


def floor_moments(moments: Ints64, hours: int) -> Ints64:
    """Return the last multiple of `hours` since 1970 at or before each moment, in microseconds."""
    step = hours * _HOUR
    return moments // step * step


def situations(floors: Ints64, countries: Ints64) -> Ints64:
    """Return one number for a moment of title snapshots and a country's index, which title features may depend on.

    Such moments are full hours, so the index has room in their microseconds, and numbers still go by time: all that
    counts, sorts and keeps moments takes situations alike.
    """
    return floors + countries


def taken_apart(situation: Ints64) -> tuple[Ints64, Ints64]:
    """Return the moments, microseconds since 1970, and the indices of countries that situations were made of."""
    floors = floor_moments(situation, 1)
    return floors, situation - floors


def floor_moment(moment: datetime, hours: int) -> datetime:
    """Return the last multiple of `hours` since 1970 at or before a moment."""
    return from_microseconds(int(floor_moments(np.asarray([to_microseconds(moment)]), hours)[0]))
