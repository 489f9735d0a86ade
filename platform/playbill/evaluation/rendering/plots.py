"""A report as pictures. matplotlib comes with the `tracking` extra and is imported on use."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from playbill.errors import ConfigError
from playbill.evaluation.feature_report import FeatureReport
from playbill.evaluation.report import EvaluationReport, HeadRow
from playbill.metrics import Interval

BARS_PER_SLICE = 20
MOST_FEATURES = 40
_BLUE, _RED, _BLACK, _GREY = "#4477aa", "#aa3377", "#222222", "#bbbbbb"
_OTHERS = ("#ee7733", "#228833", "#999999", "#ccbb44", "#66ccee", "#aa3377")
"""Colours of baselines, none like the model's."""


def plots(report: EvaluationReport, folder: Path) -> list[Path]:
    """Draw a report as PNG files in a folder, which is made when missing.

    Returns:
        The files: `CANVAS_baselines.png`, `CANVAS_SLICE.png` for each slice with a group large enough,
        `CANVAS_head_NAME.png` for each calibrated head, and `CANVAS_replay.png` for a replay.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, subject = [], re.sub(r"[^\w.-]+", "_", report.subject)
    for name, figure in figures(report):
        files.append(folder / f"{subject}_{name}.png")
        figure.savefig(files[-1], dpi=110)
    return files


def figures(report: EvaluationReport) -> Iterator[tuple[str, Any]]:
    """Yield (name, matplotlib figure) of everything that can be drawn of a report.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    metric = report.main_metric
    rows = [(row.name, row.metrics[metric]) for row in report.rows]
    yield "baselines", _bars(f"{report.subject}, {report.protocol}, {report.n} requests", metric, rows)
    for name in dict.fromkeys(row.slice for row in report.slices):
        groups = [
            (f"{row.group} ({row.members})", row.metrics[metric])
            for row in report.slices
            if row.slice == name and not row.small
        ]
        if groups:
            label = f"{report.subject} by {name}, worst first (members); line: all requests"
            yield name, _bars(label, metric, groups[:BARS_PER_SLICE], line=report.result.metrics[metric].value)
    for head in report.heads:
        if head.reliability:
            yield f"head_{head.head}", _reliability(report.canvas, head)
    if report.windows:
        yield "replay", _curve(report)


def figure_with_axes(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Any, Any]:
    """Return an empty matplotlib figure of some inches, and its axes: an array of them unless it is one.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    # Figure without pyplot: no global state, no display, safe in threads.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **shared)


def _bars(title: str, metric: str, rows: Sequence[tuple[str, Interval]], line: float | None = None) -> Any:
    figure, axes = figure_with_axes(7, 1.2 + 0.35 * len(rows))
    names, intervals = [name for name, _ in rows], [interval for _, interval in rows]
    values = [interval.value for interval in intervals]
    axes.barh(range(len(rows)), values, xerr=_errors(intervals), color=_BLUE, ecolor=_BLACK, capsize=3)
    if line is not None:
        axes.axvline(line, color=_RED, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{metric} with 95 % interval by member")
    axes.set_title(title)
    return figure


def bars_with_intervals(
    title: str,
    label: str,
    rows: Sequence[tuple[str, Interval]],
    *,
    marked: Collection[int] = (),
    pale: Collection[int] = (),
) -> Any:
    """Draw a bar per named interval around zero, those at `marked` places in red and those at `pale` ones in grey.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure, axes = figure_with_axes(8, 1.4 + 0.35 * len(rows))
    intervals = [interval for _, interval in rows]
    colours = [_RED if place in marked else _GREY if place in pale else _BLUE for place in range(len(rows))]
    values = [interval.value for interval in intervals]
    axes.barh(range(len(rows)), values, xerr=_errors(intervals), color=colours, ecolor=_BLACK, capsize=3)
    axes.axvline(0.0, color=_BLACK, linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.set_title(title)
    return figure


def importance_figure(report: FeatureReport) -> Any:
    """Draw what ranks depend on: a bar per feature with its standard error, and how often it has a value.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    shown = report.features[:MOST_FEATURES]
    figure, axes = figure_with_axes(8, 1.2 + 0.3 * len(shown))
    values, errors = [one.importance or 0.0 for one in shown], [one.error or 0.0 for one in shown]
    axes.barh(range(len(shown)), values, xerr=errors, color=_BLUE, ecolor=_BLACK, capsize=3)
    axes.set_yticks(range(len(shown)), [f"{one.feature} ({one.coverage:.0%})" for one in shown])
    axes.invert_yaxis()
    axes.set_xlabel("rise of ln(rank) of held-out titles, and its standard error")
    axes.set_title(f"Features by permutation, {report.canvas}, {report.requests} validation requests (coverage)")
    return figure


def _reliability(canvas: str, head: HeadRow) -> Any:
    """Draw predicted against observed shares; the diagonal is a calibrated head."""
    figure, axes = figure_with_axes(4.5, 4.2)
    predicted, observed = ([bin_[name] for bin_ in head.reliability] for name in ("predicted", "observed"))
    axes.plot([0.0, 1.0], [0.0, 1.0], color=_BLACK, linestyle="--", linewidth=1)
    axes.plot(predicted, observed, color=_BLUE, marker="o")
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    axes.set_title(f"{canvas}: head {head.head}, {head.rows} rows")
    return figure


def _curve(report: EvaluationReport) -> Any:
    figure, axes = figure_with_axes(8, 3.8)
    for place, row in enumerate(report.rows):
        values = [window.metrics[row.name].value for window in report.windows]
        colour = _OTHERS[(place - 1) % len(_OTHERS)] if place else _BLUE
        axes.plot(range(len(values)), values, label=row.name, color=colour, linewidth=1 if place else 2)
    intervals = [window.metrics[report.model] for window in report.windows]
    axes.fill_between(
        range(len(intervals)),
        [one.low for one in intervals],
        [one.high for one in intervals],
        color=_BLUE,
        alpha=0.15,
        linewidth=0,
    )
    every = max(1, len(report.windows) // 8)
    places = range(0, len(report.windows), every)
    axes.set_xticks(list(places), [report.windows[place].start[:10] for place in places], rotation=20)
    axes.set_ylabel(report.main_metric)
    axes.set_title(f"{report.canvas}: {report.protocol}, window by window")
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    return figure


def _errors(intervals: Sequence[Interval]) -> list[list[float]]:
    return [
        [max(0.0, interval.value - interval.low) for interval in intervals],
        [max(0.0, interval.high - interval.value) for interval in intervals],
    ]
