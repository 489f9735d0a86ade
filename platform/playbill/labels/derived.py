"""Columns a label may ask for beyond those of `interactions`, added to a frame: for looking at a log by hand."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.clock import to_microseconds
from playbill.errors import DataError, Problem
from playbill.labels.blocks import Block
from playbill.labels.future_columns import outcome_column
from playbill.labels.history_columns import PLAYS, POPULARITY, before_column, daily_plays
from playbill.schema import BEFORE_COLUMNS, OUTCOME_COLUMNS


def add_derived(
    events: pl.DataFrame,
    wanted: Collection[str],
    availability: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
    *,
    window: timedelta | None = None,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """Add the derived columns among `wanted`.

    Args:
        events: Rows of the log, sorted by member_id and seq. A member's events must be complete from the start,
            or what came before is not known.
        wanted: Column names; those of `interactions` are left to the frame.
        availability: The canonical table, needed for `title_age_days` and `popularity_percentile_of_title` only.
        titles: The canonical table, needed for `prior_plays_of_rarest_genre` only.
        window: How long after an event its outcome counts; needed for the `later_...` columns.
        as_of: What is known, likewise.

    Raises:
        DataError: An outcome is wanted without a window and a moment.
        StateError: A column needs a table that was not given.
    """
    outcomes = [name for name in OUTCOME_COLUMNS if name in wanted]
    if outcomes and (window is None or as_of is None):
        what = "looks at what comes after an event, so it needs a window and what is known as of when"
        raise DataError("derived columns", [Problem(name, what) for name in outcomes])
    block = Block(events, to_microseconds(as_of) if as_of else 0)
    requested = np.ones(len(block), np.bool_)
    tables = {"availability": availability, "titles": titles}
    if POPULARITY in wanted:
        tables[PLAYS] = daily_plays(events, pl.lit(True))
    columns = [before_column(name, block, requested, tables) for name in BEFORE_COLUMNS if name in wanted]
    if window is not None:
        columns += [outcome_column(name, block, window, requested).alias(name) for name in outcomes]
    return events.with_columns(columns)
