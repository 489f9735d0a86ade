"""Derived columns of what came of each event within a window after it; null until the window has passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats64
from playbill.clock import MICROSECOND
from playbill.labels.blocks import Block, Spans, span_max, spans
from playbill.labels.history_columns import masked

IDLE = timedelta(hours=4)
"""After so long without an event the member has left, and the next event is a visit: longer than nearly any film."""

SEARCH = "search"


def outcome_column(name: str, block: Block, window: timedelta, requested: Bools) -> pl.Series:
    """Return one column of `schema.OUTCOME_COLUMNS` for n events; null where not `requested` [n] or not yet known."""
    outcome = _OUTCOMES[name]
    mine = requested & block.passed(window)
    if outcome.of_title:
        mine = mine & block.known("title_id")
    rows = np.nonzero(mine)[0]
    groups = block.groups("title_id") if outcome.of_title else block.groups()
    found = spans(block, groups, outcome.counted(block), window, rows)
    values = np.zeros(len(block))
    values[rows] = outcome.value(block, found)
    return masked(values, mine).cast(outcome.dtype).alias(f"{name}:{window}")


def needed_columns(name: str) -> tuple[str, ...]:
    """Return the columns of `interactions` an outcome reads beside those every label reads."""
    return _OUTCOMES[name].reads


def _count(block: Block, found: Spans) -> Floats64:
    counts: Floats64 = np.maximum(found.end - found.first, 0).astype(np.float64)
    return counts


def _best_progress(block: Block, found: Spans) -> Floats64:
    progress = block.frame["progress"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return span_max(progress[found.counted], found.first, found.end)


def _of(action: str) -> Callable[[Block], Bools]:
    return lambda block: block.is_action(action)


def _from_search(block: Block) -> Bools:
    searched: Bools = (block.frame["canvas"] == SEARCH).fill_null(False).to_numpy()
    return block.is_action("play") & searched


def _visits(block: Block) -> Bools:
    """Say which events begin a visit. A member's first one does: it is after no other."""
    began = np.ones(len(block), np.bool_)
    same = block.member[1:] == block.member[:-1]
    began[1:] = ~same | (block.time[1:] - block.time[:-1] > IDLE // MICROSECOND)
    return began


@dataclass(frozen=True, slots=True)
class _Outcome:
    counted: Callable[[Block], Bools]
    of_title: bool = True
    value: Callable[[Block, Spans], Floats64] = _count
    reads: tuple[str, ...] = ()
    dtype: type[pl.DataType] = pl.Int64


_OUTCOMES = {
    "later_plays": _Outcome(_of("play"), of_title=False),
    "later_plays_of_title": _Outcome(_of("play")),
    "later_best_progress_of_title": _Outcome(
        # As `progress` is stored: wider, a progress of 0.9 would be below 0.9.
        _of("play"),
        value=_best_progress,
        reads=("progress",),
        dtype=pl.Float32,
    ),
    "later_plays_from_search": _Outcome(_from_search, of_title=False, reads=("canvas",)),
    "later_visits": _Outcome(_visits, of_title=False),
    "later_thumbs_up_of_title": _Outcome(_of("thumbs_up")),
    "later_thumbs_down_of_title": _Outcome(_of("thumbs_down")),
    "later_my_list_adds_of_title": _Outcome(_of("my_list_add")),
    "later_reminders_of_title": _Outcome(_of("remind_me")),
    "later_abandons_of_title": _Outcome(_of("abandon")),
}
