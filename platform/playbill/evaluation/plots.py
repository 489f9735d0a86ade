"""A report as pictures. matplotlib comes with the `tracking` extra and is imported on use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from playbill.errors import ConfigError
from playbill.evaluation.report import EvaluationReport
from playbill.metrics import Interval

BARS_PER_SLICE = 20


def plots(report: EvaluationReport, folder: Path) -> list[Path]:
    """Draw the model beside its baselines, and each slice, as PNG files.

    Args:
        report: What to draw.
        folder: Where to; made when missing.

    Returns:
        The files: `CANVAS_baselines.png` and `CANVAS_SLICE.png` for each slice with a group large enough.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metric = report.main_metric
    rows = [(row.name, row.metrics[metric]) for row in report.rows]
    title = f"{report.canvas}, {report.protocol}, {report.n} requests"
    files = [_bars(folder / f"{report.canvas}_baselines.png", title, metric, rows)]
    for name in dict.fromkeys(row.slice for row in report.slices):
        groups = [
            (f"{row.group} ({row.members})", row.metrics[metric])
            for row in report.slices
            if row.slice == name and not row.small
        ]
        if groups:
            path = folder / f"{report.canvas}_{name}.png"
            label = f"{report.canvas} by {name}, worst first (members)"
            files.append(_bars(path, label, metric, groups[:BARS_PER_SLICE], line=report.result.metrics[metric].value))
    return files


def _bars(path: Path, title: str, metric: str, rows: Sequence[tuple[str, Interval]], line: float | None = None) -> Path:
    """Draw one bar per row with its interval; `line` marks the mean over everything."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    # Figure without pyplot: no global state, no display, safe in threads.
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names, intervals = [name for name, _ in rows], [interval for _, interval in rows]
    values = [interval.value for interval in intervals]
    errors = [
        [max(0.0, interval.value - interval.low) for interval in intervals],
        [max(0.0, interval.high - interval.value) for interval in intervals],
    ]
    axes.barh(range(len(rows)), values, xerr=errors, color="#4477aa", ecolor="#222222", capsize=3)
    if line is not None:
        axes.axvline(line, color="#aa3377", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{metric} with 95 % interval by member")
    axes.set_title(title)
    figure.savefig(path, dpi=110)
    return path
