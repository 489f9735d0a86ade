"""The groups in which an evaluation is read: who asks, from where, on what, and for how old or popular a title."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Floats64, Indices
from playbill.datasets.examples.sampling import TENURE_ABOVE, TENURE_BANDS, UNKNOWN_BAND, named_bands
from playbill.errors import StateError, UnknownNameError
from playbill.evaluation.cases.case import launches
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, TitleOrder, microseconds
from playbill.ranking.candidates import NEVER, Catalogue

SLICES = ("country", "tenure", "title_age", "popularity", "device", "language", "canvas")
"""`canvas` is the surface on which the held-out event was logged, whichever canvas is asked."""
MADE_SLICES = ("query_length",)  # slices that only made queries have

DAY_US = 86_400_000_000
TITLE_AGE_BANDS = ((0, "before_launch"), (30, "under_30d"), (365, "30-365d"), (5 * 365, "1-5y"), (20 * 365, "5-20y"))
TITLE_AGE_ABOVE = "over_20y"
HEAD_SHARE, MID_SHARE = 0.5, 0.8
"""Popularity bands by share of plays: the titles that hold the first half, up to four fifths, and the rest."""


def add_slices(
    frame: pl.DataFrame, tables: EvaluationTables, catalogue: Catalogue, columns: Indices, plays: pl.DataFrame
) -> pl.DataFrame:
    """Add the slice columns `tenure`, `title_age` and `popularity` to [N] requests with member, moment and country.

    Tenure is that of `add_tenure`. Title age counts days since the launch of the request's first target ([N] `columns`)
    in the request's country. Popularity is the band of that target by `plays`, those that fitting may use.
    """
    at = microseconds(frame["at"])
    launch = launches(catalogue, frame["country"].to_list(), columns)
    age = np.where(launch == NEVER, np.nan, at - np.where(launch == NEVER, at, launch)) / DAY_US
    played = TitleOrder(catalogue.title_ids).codes(plays["title_id"])
    counts = np.bincount(played[played != UNKNOWN], minlength=len(catalogue))
    return add_tenure(frame, tables).with_columns(
        pl.Series("title_age", named_bands(age, TITLE_AGE_BANDS, TITLE_AGE_ABOVE), dtype=pl.String),
        pl.Series("popularity", popularity_bands(counts)[columns], dtype=pl.String),
    )


def add_tenure(frame: pl.DataFrame, tables: EvaluationTables) -> pl.DataFrame:
    """Add the slice column `tenure` to [N] requests: days since `joined_at`, else since the member's first event."""
    days = (microseconds(frame["at"]) - _joined(frame, tables)) / DAY_US
    return frame.with_columns(pl.Series("tenure", named_bands(days, TENURE_BANDS, TENURE_ABOVE), dtype=pl.String))


def popularity_bands(plays: Indices) -> npt.NDArray[np.object_]:
    """Return each title's band by its plays ([T]): `head` has the first half of all, `mid` up to 4/5, `tail` the rest.

    A title nobody has played is `new`. Titles with equal plays share a band.
    """
    order = np.argsort(-plays, kind="stable")
    before = np.cumsum(plays[order]) - plays[order]
    share = np.empty(plays.size)
    share[order] = before / max(1, int(plays.sum()))
    first = np.searchsorted(-plays[order], -plays, side="left")  # equal plays begin where the first of them does
    share = share[order][first]
    bands = np.where(share < HEAD_SHARE, "head", np.where(share < MID_SHARE, "mid", "tail")).astype(object)
    bands[plays == 0] = "new"
    return bands


def check_slices(frame: pl.DataFrame, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the slices that can be read off a case's requests.

    Raises:
        UnknownNameError: A name is no slice.
    """
    for name in names:
        if name not in (*SLICES, *MADE_SLICES):
            raise UnknownNameError("slice", name, SLICES)
    return tuple(name for name in names if name in frame.columns)


def unread_slices(frame: pl.DataFrame, names: tuple[str, ...], minimum: int) -> dict[str, str]:
    """Say of each slice without any group of at least `minimum` members why it is not read.

    A slice in which every request is of one unknown group tells nothing either.
    """
    found: dict[str, str] = {}
    for name in names:
        sizes = frame.group_by(pl.col(name).fill_null(UNKNOWN_BAND)).agg(
            pl.col("member_id").n_unique().alias("members")
        )
        group, members = sizes.sort("members", name, descending=[True, False]).row(0)
        if sizes.height == 1 and group == UNKNOWN_BAND:
            found[name] = f"slice '{name}': it is not known of any request"
        elif members < minimum:
            found[name] = (
                f"slice '{name}' has no group of at least {minimum} members; its largest is '{group}' with {members}"
            )
    return found


def readable_slices(
    frame: pl.DataFrame, names: tuple[str, ...], minimum: int, *, strict: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the slices to read, and notes about those that cannot be.

    Raises:
        UnknownNameError: A name is no slice.
        StateError: `strict`, and a slice has too few members everywhere; names the minimum and every such slice.
    """
    known = check_slices(frame, names)
    unread = unread_slices(frame, known, minimum)
    if strict and unread:
        remedy = f"leave them out, or ask for fewer members (now {minimum})"
        raise StateError("\n  ".join(["some slices cannot be read", *unread.values(), remedy]))
    return tuple(name for name in known if name not in unread), tuple(unread.values())


def _joined(frame: pl.DataFrame, tables: EvaluationTables) -> Floats64:
    first = tables.interactions.group_by("member_id").agg(pl.col("event_at").min().alias("first"))
    joined = (
        frame.select("member_id")
        .join(tables.members.select("member_id", "joined_at"), on="member_id", how="left", maintain_order="left")
        .join(first, on="member_id", how="left", maintain_order="left")
        .select(pl.coalesce("joined_at", "first").dt.epoch("us").cast(pl.Float64).fill_null(float("nan")))
    )
    return joined.to_series().to_numpy()
