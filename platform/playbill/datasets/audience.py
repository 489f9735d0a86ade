"""Whom a request was for: a kids' profile sees titles for kids and no others, whatever the canvas.

Letters: m requests, T titles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.datasets.arrays import Bool
from playbill.tables import Vocabulary


@dataclass(frozen=True, slots=True)
class Audience:
    """Which titles are for kids, and which requests came from a kids' profile."""

    titles: Bool
    """[T] titles marked for kids; not knowing counts as no."""
    profile: Bool
    """[m]."""

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, titles: pl.DataFrame, members: pl.DataFrame, requests: pl.DataFrame
    ) -> Audience:
        """Read both from the canonical tables.

        Args:
            vocabulary: Rows of titles; T counts the padding row.
            titles: One row per title; without a column `kids` none is for kids.
            members: Every row of every member, see `kids_profiles`.
            requests: [m] rows with member_id and event_at.
        """
        marked = np.zeros(vocabulary.size, np.bool_)
        if "kids" in titles.columns:
            marked[vocabulary.encode(titles.filter(pl.col("kids"))["title_id"])] = True
        marked[0] = False
        return cls(marked, kids_profiles(members, requests))


def kids_profiles(members: pl.DataFrame, requests: pl.DataFrame) -> Bool:
    """Return [m] whether each request's profile was for kids at its moment, null and unknown members no.

    A member who is first described later is taken as described then.

    Args:
        members: Rows of `members`; without a column `kids_profile` nobody is.
        requests: [m] rows with member_id and event_at.
    """
    if "kids_profile" not in members.columns or not members["kids_profile"].any():
        return np.zeros(requests.height, np.bool_)
    dated = [name for name in ("valid_from", "recorded_at") if name in members.columns]
    known = pl.max_horizontal(dated) if dated else pl.lit(0)
    rows = members.select("member_id", "kids_profile", known.cast(pl.Int64).alias("at")).sort("at", maintain_order=True)
    first = pl.int_range(pl.len()).over("member_id") == 0
    rows = rows.with_columns(pl.when(first).then(pl.lit(_ALWAYS)).otherwise("at").alias("at")).sort(
        "at", maintain_order=True
    )
    asked = requests.select("member_id", pl.col("event_at").cast(pl.Int64).alias("at")).with_row_index("row").sort("at")
    found = asked.join_asof(rows, on="at", by="member_id", strategy="backward", check_sortedness=False).sort("row")
    profile: Bool = found["kids_profile"].fill_null(False).to_numpy().astype(np.bool_)
    return profile


_ALWAYS = np.iinfo(np.int64).min
