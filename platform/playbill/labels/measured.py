"""The extractor `measured`: a number that the log has of an event, such as how far a title was watched."""

from __future__ import annotations

import polars as pl

from playbill.labels.extractors import LabelContext


def measured(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the events of some actions with one of their columns; where the column is null they are unlabelled.

    For heads whose label is a number (`loss: huber`): `progress` is the share of the title, 0 to 1, and `duration_s`
    the seconds watched. The head's options say in which unit they are learnt and what counts as the most.

    Args:
        events: n events of whole members.
        context: Its options name the actions and the column.

    Returns:
        [n] float32, null where an event has no value.
    """
    wanted = pl.col("action").is_in(context.options.actions)
    value = pl.col(context.options.column).cast(pl.Float32)
    found = pl.when(wanted & value.is_finite()).then(value).alias("value")
    return events.select(found).to_series()
