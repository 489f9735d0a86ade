"""Times and lengths as small integers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from playbill.datasets.arrays import Int

MICROSECONDS = 1_000_000
_HOUR = 3_600 * MICROSECONDS
_WEEK_HOURS = 168
_MONDAY_OFFSET_HOURS = 72
"""1970-01-01 was a Thursday, three days after a Monday."""

GAP_EDGES_S = (60, 300, 1_800, 3_600, 10_800, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000, 7_776_000)
"""Edges of the time between tokens: a minute to three months."""
DURATION_EDGES_S = (30, 120, 300, 600, 1_200, 1_800, 2_700, 3_600, 5_400, 7_200, 10_800)
"""Edges of the time watched: half a minute to three hours."""
ROW_EDGES = (1, 2, 3, 4, 5, 7, 10, 15)
"""Edges of the place of a row on its page, counted from 0."""
GAPS, DURATIONS, HOURS_OF_WEEK = len(GAP_EDGES_S) + 2, len(DURATION_EDGES_S) + 2, _WEEK_HOURS + 1
ROW_POSITIONS = len(ROW_EDGES) + 2
"""Sizes, index 0 counted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def gap_buckets(seconds: NDArray[np.float64]) -> Int:
    """Return 1 to 13 for a gap; 0 for nan, which is no token before."""
    return _bucket(seconds, GAP_EDGES_S)


def duration_buckets(seconds: NDArray[np.float64]) -> Int:
    """Return 1 to 12 for a time watched; 0 for nan, which is unknown."""
    return _bucket(seconds, DURATION_EDGES_S)


def row_position_buckets(places: NDArray[np.float64]) -> Int:
    """Return 1 to 9 for a row's place on its page; 0 for nan, which is unknown."""
    return _bucket(places, ROW_EDGES)


def _bucket(values: NDArray[np.float64], edges: Sequence[float]) -> Int:
    found = np.searchsorted(np.asarray(edges, np.float64), np.nan_to_num(values), side="right") + 1
    return np.where(np.isnan(values), 0, found).astype(np.int64)


def hour_of_week(moments: Int) -> Int:
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


def year_buckets(years: NDArray[np.float64], edges: Sequence[int]) -> Int:
    """Return 1 + the number of edges at or below each year; 0 for nan."""
    return _bucket(years, edges)


def floor_moments(moments: Int, hours: int) -> Int:
    """Return the last multiple of `hours` since 1970 at or before each moment, in microseconds."""
    step = hours * _HOUR
    return moments // step * step


def floor_moment(moment: datetime, hours: int) -> datetime:
    """Return the last multiple of `hours` since 1970 at or before a moment."""
    return moment_of(int(floor_moments(np.asarray([microseconds_of(moment)]), hours)[0]))


def microseconds_of(moment: datetime) -> int:
    """Return a moment as whole microseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """Return whole microseconds since 1970 as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)
