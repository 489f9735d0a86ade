"""How well delayed outcomes are told, as a picture by age. matplotlib is imported on use."""

from __future__ import annotations

from pathlib import Path

from playbill.errors import ConfigError
from playbill.rewards.reports import DelayedReport

PANELS = {"auc": "AUC", "log_loss": "log loss", "ece": "calibration error"}
"""Measure -> title of its panel."""


def plot_delayed(report: DelayedReport, path: Path) -> None:
    """Draw AUC, log loss and calibration error by age, a line per term; dotted, the log loss of telling all the same.

    Args:
        report: What to draw.
        path: Where to, as .svg or .png.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (measure, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for term in report.rows["term"].unique(maintain_order=True):
            found = report.by_age(term, measure)
            (line,) = axes.plot(list(found), list(found.values()), marker="o", label=term)
            if measure == "log_loss":
                base = report.by_age(term, "base_log_loss")
                axes.plot(list(base), list(base.values()), linestyle=":", color=line.get_color())
        axes.set_xscale("log")
        axes.set_xlabel("age of the play, hours")
        axes.set_title(title, fontsize=10)
    figure.axes[0].legend(fontsize=8)
    figure.axes[-1].set_ylim(bottom=0)
    figure.savefig(path)
