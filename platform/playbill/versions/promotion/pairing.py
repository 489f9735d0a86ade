"""Two versions, or a version and a baseline, compared on the very same requests: how sure is their difference?

The interval is a bootstrap over members, see `playbill.metrics.bootstrap`: requests of one member come and go together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices
from playbill.metrics import Interval, MemberBootstrap
from playbill.versions.tracking import Evaluation
from playbill.versions.tracking.numbers import MEMBER, REQUEST

Number = tuple[str, str, str]  # Canvas, metric, and the group of a slice such as `country=US`, or nothing


@dataclass(frozen=True, slots=True)
class PairedChange:
    """What changes from a reference to a candidate on the requests that both answered."""

    relative: Interval  # the change over the reference's mean, with its interval
    beyond: Interval  # by how much the candidate is better than the limit, with its interval: above zero it passes
    members: int  # members behind the requests


def paired_change(
    number: Number,
    candidate: Evaluation,
    reference: Evaluation,
    allowed: float,
    *,
    lower: bool = False,
    baseline: str | None = None,
) -> PairedChange | None:
    """Pair a number by request.

    `reference` is the champion's evaluation, or the candidate's own where a `baseline` stands in. The limit stands at
    the relative change `allowed`, such as -0.01; `lower` metrics are better when they are lower.

    Returns:
        The change; None when values by request were not kept on both sides, or no request is in both.

    Raises:
        IntegrityError: Kept values are missing or were changed.
    """
    canvas, metric, group = number
    ours, theirs = candidate.requests(canvas), reference.requests(canvas)
    column = metric if baseline is None else f"{baseline}/{metric}"
    if ours is None or theirs is None or metric not in ours.columns or column not in theirs.columns:
        return None
    pairs = _pairs(ours, theirs, metric, column, group)
    if pairs.is_empty():
        return None
    values = pairs.select("ours", "theirs").to_numpy().astype(np.float64)
    weights = pairs["weight"].to_numpy().astype(np.float64)
    members = pairs[MEMBER].rank("dense").to_numpy().astype(np.int64) - 1
    return _change(values, weights, members, allowed, -1.0 if lower else 1.0)


def spelled_change(relative: Interval, members: int) -> str:
    """Write a relative change as `-1.3 % [-4.1, +1.5] on 166 members`."""
    value, low, high = (100.0 * end for end in relative)
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}] on {members:,} members"


def _pairs(ours: pl.DataFrame, theirs: pl.DataFrame, metric: str, column: str, group: str) -> pl.DataFrame:
    """Return the requests of both: member, weight, and the two values. A value that is null on a side is none."""
    weight = f"weight/{metric}"
    if group:
        name, _, wanted = group.partition("=")
        if name not in ours.columns:
            return ours.clear()
        ours = ours.filter(pl.col(name).fill_null("unknown") == wanted)
    own = ours.select(
        REQUEST,
        MEMBER,
        pl.col(metric).alias("ours"),
        (pl.col(weight) if weight in ours.columns else pl.lit(1.0)).alias("weight"),
    )
    other = theirs.select(REQUEST, pl.col(column).alias("theirs"))
    return own.join(other, on=REQUEST, how="inner", maintain_order="left").drop_nulls()


def _change(values: Floats64, weights: Floats64, members: Indices, allowed: float, sign: float) -> PairedChange | None:
    ours, theirs = values.T
    mean = abs(float(np.average(theirs, weights=weights))) if weights.sum() > 0 else 0.0
    if mean == 0.0:
        return None
    columns = np.stack([ours - theirs, sign * (ours - theirs) - np.abs(theirs) * allowed], axis=1)
    difference, beyond = MemberBootstrap(members).intervals(columns, np.stack([weights, weights], axis=1))
    return PairedChange(Interval(*(end / mean for end in difference)), beyond, int(members.max()) + 1)
