"""How close a simulated log comes to MovieLens-1M: popularity of titles and activity of members.

MovieLens has one rating of a title by a member, so what is counted here are distinct pairs of member and title, not
plays: the tenth episode of a series is no tenth rating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.table import Table

from playbill.errors import StateError
from playbill_lab.simulator.world.reference import (
    ACTIVITY_PROBABILITIES,
    ACTIVITY_RELATIVE,
    POPULARITY_GINI,
    POPULARITY_SHARES,
    activity_relative,
    popularity_gini,
    popularity_shares,
)

REPORTED = tuple((f"p{round(at * 100):02d}", at) for at in ACTIVITY_PROBABILITIES if 0 < at < 1)
"""Name and probability of each quantile in a report. The ends are left out: one member makes them."""


def pair_counts(interactions: pl.DataFrame | pl.LazyFrame) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return distinct titles played by each member, and distinct members of each title.

    Args:
        interactions: Canonical; rows that are no plays are left out.
    """
    plays = interactions.lazy().filter(pl.col("action") == "play").drop_nulls("title_id")
    pairs = plays.select("member_id", "title_id").unique().collect()
    by_member, by_title = (pairs.group_by(key).len().sort(key)["len"].to_numpy() for key in ("member_id", "title_id"))
    return by_member, by_title


def fit_report(titles_per_member: npt.NDArray[Any], members_per_title: npt.NDArray[Any]) -> dict[str, Any]:
    """Compare a log with MovieLens-1M.

    Args:
        titles_per_member: Distinct titles that each member played; members without one are left out.
        members_per_title: Distinct members that played each title; titles without one are left out.

    Returns:
        JSON-ready: `gini`, `gini_movielens`; `activity_quantiles`, `activity_quantiles_movielens` (`p01` to `p99`, as
        multiples of the median); `popularity_shares`, `popularity_shares_movielens` (of each tenth of the titles).

    Raises:
        StateError: Nobody played anything.
    """
    if not np.any(titles_per_member) or not np.any(members_per_title):
        raise StateError("the log has no plays, so there is nothing to compare with MovieLens.")
    relative = activity_relative(titles_per_member)
    quantiles = {at: round(float(value), 4) for at, value in zip(ACTIVITY_PROBABILITIES, relative, strict=True)}
    real = dict(zip(ACTIVITY_PROBABILITIES, ACTIVITY_RELATIVE, strict=True))
    return {
        "gini": round(popularity_gini(members_per_title), 4),
        "gini_movielens": POPULARITY_GINI,
        "activity_quantiles": {name: quantiles[at] for name, at in REPORTED},
        "activity_quantiles_movielens": {name: real[at] for name, at in REPORTED},
        "popularity_shares": [round(float(share), 4) for share in popularity_shares(members_per_title)],
        "popularity_shares_movielens": list(POPULARITY_SHARES),
    }


def fit_table(report: dict[str, Any]) -> Table:
    """Return a report of `fit_report` as a table for the terminal."""
    table = Table("", "simulated", "MovieLens-1M", title="Fit of the simulated log")
    table.add_row("popularity, Gini", f"{report['gini']:.3f}", f"{report['gini_movielens']:.3f}")
    shares = zip(report["popularity_shares"], report["popularity_shares_movielens"], strict=True)
    for place, (ours, real) in enumerate(shares, start=1):
        if place in (1, 2, 5):
            table.add_row(f"plays of the {place}. tenth of titles", f"{ours:.1%}", f"{real:.1%}")
    for name, ours in report["activity_quantiles"].items():
        real = report["activity_quantiles_movielens"][name]
        table.add_row(f"activity {name} / median", f"{ours:.2f}", f"{real:.2f}")
    return table
