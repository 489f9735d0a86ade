"""The picture of the study `objective_before_capacity`: fit, members, and whether the two agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import ConfigError
from playbill_lab.studies.objective.arms import BASE
from playbill_lab.studies.objective.capacity import Study

COLOURS = ("#cc3311", "#ee7733", "#0077bb", "#009988", "#aa3377", "#555555")
"""One for each objective, in their order."""
MARKERS = "osDv^*"
"""One for each capacity, in their order."""
FITS = {"ndcg@10": "offline: ndcg@10 of plays", "reward_ndcg@10": "offline: ndcg@10 by worth"}
LIVES = {
    "value": "long-term value, days",
    "retained": "share of members who stay",
    "satisfaction": "satisfaction",
    "false_starts_per_day": "false starts a day",
}


def plot_study(study: Study, path: Path) -> None:
    """Draw offline fit and online measures by capacity, a line for each objective, and fit against value.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 4)
    for axes, (metric, title) in zip(above[:2], FITS.items(), strict=True):
        _fit_by_capacity(axes, study, metric)
        axes.set_title(title, fontsize=10)
    for axes, (metric, title) in zip(above[2:], FITS.items(), strict=True):
        _value_by_fit(axes, study, metric)
        axes.set_xlabel(title, fontsize=9)
        axes.set_title(f"value, days beside {BASE}", fontsize=10)
    for axes, (measure, title) in zip(below, LIVES.items(), strict=True):
        _life_by_capacity(axes, study, measure)
        axes.set_title(f"online: {title}", fontsize=10)
    for axes in (*above[:2], *below):
        axes.set_xlabel("capacity", fontsize=9)
        axes.margins(x=0.2)
    above[0].legend(title="objective")
    for axes in below:
        axes.set_ylabel(f"beside {BASE}", fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _fit(study: Study, arm: str, metric: str) -> float:
    found = [row.metrics[metric].value for row in study.offline if row.arm == arm and metric in row.metrics]
    return float(np.mean(found)) if found else float("nan")


def _fit_by_capacity(axes: Any, study: Study, metric: str) -> None:
    sizes = study.options.capacities
    for objective, colour in zip(study.options.objectives, COLOURS, strict=False):
        fits = [_fit(study, f"{objective}_{size}", metric) for size in sizes]
        axes.plot(sizes, fits, marker="o", color=colour, label=objective)


def _life_by_capacity(axes: Any, study: Study, measure: str) -> None:
    sizes = study.options.capacities
    for shift, (objective, colour) in enumerate(zip(study.options.objectives, COLOURS, strict=False)):
        gaps = [study.online.of(f"{objective}_{size}", measure).difference for size in sizes]
        known = [gap for gap in gaps if gap is not None]
        centres = [gap.value for gap in known]
        reach = [[gap.value - gap.low for gap in known], [gap.high - gap.value for gap in known]]
        places = np.arange(len(sizes)) + 0.06 * (shift - 1)
        axes.errorbar(places, centres, yerr=reach, marker="o", capsize=3, color=colour)
    axes.set_xticks(range(len(sizes)), sizes)
    axes.axhline(0.0, color="#888888", linewidth=1)


def _value_by_fit(axes: Any, study: Study, metric: str) -> None:
    for objective, colour in zip(study.options.objectives, COLOURS, strict=False):
        for size, marker in zip(study.options.capacities, MARKERS, strict=False):
            gap = study.online.of(f"{objective}_{size}").difference
            if gap is not None:
                axes.plot(_fit(study, f"{objective}_{size}", metric), gap.value, marker, color=colour, label=size)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes.legend(named.values(), named.keys(), title="capacity", fontsize=8)
    axes.axhline(0.0, color="#888888", linewidth=1)
