"""The groups in which an evaluation is read: country, tenure, title age, and those of made queries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.errors import UnknownNameError
from playbill.evaluation.candidates import NEVER, launches
from playbill.evaluation.data import EvaluationTables
from playbill.evaluation.order import microseconds
from playbill.metrics.topk import Indices
from playbill.ranking.candidates import Catalogue

SLICES = ("country", "tenure", "title_age")
MADE_SLICES = ("query_length",)
"""Slices that only made queries have."""

DAY_US = 86_400_000_000
TENURE_BANDS = ((1, "under_1d"), (7, "1-7d"), (30, "7-30d"), (90, "30-90d"), (365, "90-365d"))
TENURE_ABOVE = "over_365d"
TITLE_AGE_BANDS = (
    (0, "before_launch"),
    (30, "under_30d"),
    (365, "30-365d"),
    (5 * 365, "1-5y"),
    (20 * 365, "5-20y"),
)
TITLE_AGE_ABOVE = "over_20y"
UNKNOWN_BAND = "unknown"


def add_slices(frame: pl.DataFrame, tables: EvaluationTables, catalogue: Catalogue, columns: Indices) -> pl.DataFrame:
    """Add the slice columns `tenure` and `title_age` to requests that have member, moment and country.

    Tenure counts days since `joined_at`, else since the member's first event. Title age counts days since the
    launch of the request's first target in the request's country.

    Args:
        frame: [N] requests with member_id, at and country.
        tables: The canonical tables.
        catalogue: Titles with their launches.
        columns: [N] title column of each request's first target.
    """
    at = microseconds(frame["at"])
    launch = launches(catalogue, frame["country"].to_list(), columns)
    age = np.where(launch == NEVER, np.nan, at - np.where(launch == NEVER, at, launch)) / DAY_US
    tenure = (at - _joined(frame, tables)) / DAY_US
    return frame.with_columns(
        pl.Series("tenure", _bands(tenure, TENURE_BANDS, TENURE_ABOVE), dtype=pl.String),
        pl.Series("title_age", _bands(age, TITLE_AGE_BANDS, TITLE_AGE_ABOVE), dtype=pl.String),
    )


def check_slices(frame: pl.DataFrame, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the slices that can be read off a case's requests; `canvas` is the case itself and left out.

    Raises:
        UnknownNameError: A name is no slice.
    """
    known = [name for name in (*SLICES, *MADE_SLICES) if name in frame.columns]
    for name in names:
        if name not in (*SLICES, *MADE_SLICES, "canvas"):
            raise UnknownNameError("slice", name, (*known, "canvas"))
    return tuple(name for name in names if name in known)


def _joined(frame: pl.DataFrame, tables: EvaluationTables) -> npt.NDArray[np.float64]:
    first = tables.interactions.group_by("member_id").agg(pl.col("event_at").min().alias("first"))
    joined = (
        frame.select("member_id")
        .join(tables.members.select("member_id", "joined_at"), on="member_id", how="left", maintain_order="left")
        .join(first, on="member_id", how="left", maintain_order="left")
        .select(pl.coalesce("joined_at", "first").dt.epoch("us").cast(pl.Float64).fill_null(float("nan")))
    )
    return joined.to_series().to_numpy()


def _bands(days: npt.NDArray[np.float64], bands: tuple[tuple[int, str], ...], above: str) -> npt.NDArray[np.object_]:
    names = np.array([name for _, name in bands] + [above], dtype=object)
    found = names[np.searchsorted([limit for limit, _ in bands], days, side="right").clip(max=len(bands))]
    return np.where(np.isnan(days), UNKNOWN_BAND, found)
