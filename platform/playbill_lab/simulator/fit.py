"""How close a simulated log comes to MovieLens-1M: popularity of titles and activity of members.

MovieLens has one rating of a title by a member, so distinct pairs of member and title are counted here, not plays: the
tenth episode of a series is no tenth rating.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.table import Table

from playbill.errors import ConfigError, StateError
from playbill_lab.simulator.world.members import (
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
    """Return distinct titles played by each member, and distinct members of each title, of canonical interactions."""
    plays = interactions.lazy().filter(pl.col("action") == "play").drop_nulls("title_id")
    pairs = plays.select("member_id", "title_id").unique().collect()
    by_member, by_title = (pairs.group_by(key).len().sort(key)["len"].to_numpy() for key in ("member_id", "title_id"))
    return by_member, by_title


def fit_report(titles_per_member: npt.NDArray[Any], members_per_title: npt.NDArray[Any]) -> dict[str, Any]:
    """Compare distinct titles per member and members per title with MovieLens-1M; zeros are left out.

    Returns JSON-ready `gini`, `activity_quantiles` (`p01` to `p99`, as multiples of the median), `popularity_shares`
    (of each tenth of the titles), and the same with `_movielens`.

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


_OURS, _REAL = "#4477aa", "#aa3377"


def plot_fit(report: dict[str, Any], path: Path) -> None:
    """Draw a report's Lorenz curves of popularity and quantiles of activity, as SVG or PNG by the file's ending.

    Raises:
        ConfigError: matplotlib is not installed, or draws no such file.
    """
    # Not `figure_with_axes` of the product's reports: that loads torch, which `playbill simulate` does without.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    popularity, activity = figure.subplots(1, 2)
    _draw_popularity(popularity, report)
    _draw_activity(activity, report)
    try:
        figure.savefig(path, dpi=110)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be drawn: {error}") from None


def _draw_popularity(axes: Any, report: dict[str, Any]) -> None:
    parts = np.linspace(0.0, 1.0, len(report["popularity_shares"]) + 1)
    for name, gini, shares, colour in (
        ("simulated", report["gini"], report["popularity_shares"], _OURS),
        ("MovieLens-1M", report["gini_movielens"], report["popularity_shares_movielens"], _REAL),
    ):
        least_first = np.concatenate([[0.0], np.cumsum(np.asarray(shares)[::-1])])
        axes.plot(parts, least_first, marker="o", markersize=3, color=colour, label=f"{name}, Gini {gini:.3f}")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.set_title("popularity of titles (Lorenz)", fontsize=10)
    axes.set_xlabel("share of titles, the least played first", fontsize=8)
    axes.set_ylabel("share of plays", fontsize=8)
    axes.legend(fontsize=8)


def _draw_activity(axes: Any, report: dict[str, Any]) -> None:
    names = list(report["activity_quantiles"])
    places = [int(name[1:]) / 100 for name in names]
    for name, key, colour in (
        ("simulated", "activity_quantiles", _OURS),
        ("MovieLens-1M", "activity_quantiles_movielens", _REAL),
    ):
        axes.plot(places, [report[key][at] for at in names], marker="o", markersize=3, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_title("activity of members (quantiles)", fontsize=10)
    axes.set_xlabel("share of members", fontsize=8)
    axes.set_ylabel("titles played / median", fontsize=8)
    axes.legend(fontsize=8)
