"""The picture of `delayed_feedback.py`: what each way costs, and how well young terms are told by age."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = {"completion": "#0077bb", "returned_within_7d": "#009988", "quick_abandon": "#ee7733"}
OTHERS = ("waiting", "ignoring", "at_once")
GAINS = (
    ("long-term value, days", "predicted_minus_{}"),
    ("satisfaction by new titles", "satisfaction_predicted_minus_{}"),
)


def draw(result, path):
    """Draw a result of `delayed_feedback.py`."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    for axes, (title, name) in zip(panels, GAINS, strict=False):
        found = [(result | result["new_titles"])[name.format(other)] for other in OTHERS]
        _gains(axes, OTHERS, found)
        axes.set_title(f"predicted minus ...: {title}", fontsize=9)
    for axes, measure in zip(panels[2:], ("auc", "ece"), strict=True):
        for term, ages in result[f"{measure}_by_age"].items():
            axes.plot([float(age) for age in ages], list(ages.values()), marker="o", color=COLOURS[term], label=term)
        axes.set_xscale("log")
        axes.set_xlabel("age of the play, hours")
        axes.set_title({"auc": "AUC by age", "ece": "calibration error by age"}[measure], fontsize=9)
    panels[2].legend(fontsize=8)
    panels[3].set_ylim(bottom=0)
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)


def _gains(axes, names, found):
    values = [one["value"] for one in found]
    reach = [[one["value"] - one["low"] for one in found], [one["high"] - one["value"] for one in found]]
    axes.bar(names, values, yerr=reach, capsize=5, color="#99c2e0", width=0.5)
    for place, one in enumerate(found):
        axes.plot([place] * len(one["by_seed"]), one["by_seed"], "k.", markersize=4)
    axes.axhline(0.0, color="#888888", linewidth=1)
