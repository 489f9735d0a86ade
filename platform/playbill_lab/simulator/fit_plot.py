"""How close a simulated log comes to MovieLens-1M, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import ConfigError

_OURS, _REAL = "#4477aa", "#aa3377"


def plot_fit(report: dict[str, Any], path: Path) -> None:
    """Draw the Lorenz curves of popularity and the quantiles of activity, as SVG or PNG by the file's ending.

    Args:
        report: Of `fit.fit_report`.
        path: Where to.

    Raises:
        ConfigError: matplotlib is not installed, or draws no such file.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    # Figure without pyplot: no global state, no display, safe in threads.
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
