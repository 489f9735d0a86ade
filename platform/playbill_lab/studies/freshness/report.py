"""A freshness study as tables for the terminal, as JSON, as pictures, and as a run in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from playbill.evaluation.rendering.plots import figure_with_axes
from playbill.metrics import Interval
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.results import BLACK, BLUE, RED, draw_intervals, numbers_table, record_results, with_interval
from playbill_lab.studies.freshness.replay import METRIC, GroupComparison, K
from playbill_lab.studies.freshness.study import Freshness, Retrained
from playbill_lab.studies.freshness.surge import SHOWN

COLOURS = {"all": BLUE, "launch_week": RED, "new": BLACK}


def freshness_tables(found: Freshness) -> list[Table]:
    """Return every part as a table for the terminal."""
    tables = []
    if found.cadences:
        tables.append(_cadence_table(found))
    if found.staleness:
        title = "Weights of some age in days, on the same requests: minus the youngest"
        tables.append(_arms_table(title, found.staleness))
    if found.retrained is not None:
        again = found.retrained
        title = (
            f"After {again.days} days, on {again.tested_days} more: updated against trained anew, quality "
            f"{again.quality_ratio:.3f} for {again.cost_ratio:.1%} of the cost a day"
        )
        tables.append(_arms_table(title, again.comparisons))
    for one in found.forgotten:
        title = f"After {found.options.updates} daily updates with a replay share of {one.replay:g}"
        tables.append(_arms_table(title, one.comparisons))
    for canvas, launched in found.launches.items():
        title = f"{canvas} on the eve of launches, against what members played within a week of them"
        tables.append(_arms_table(title, [launched]))
    if found.surge:
        title = "A title of the long tail surges: hours until half of the lists have it, and the last version"
        table = numbers_table(
            title, "cadence", ("hours", "share", "median place before", "median place"), no_wrap=False
        )
        for course in found.surge:
            hours = "-" if course.shown_after is None else f"{course.shown_after:.0f}"
            places = (f"{course.places[place]:.0f}" for place in (0, -1))
            table.add_row(course.cadence, hours, f"{course.shares[-1]:.0%}", *places)
        tables.append(table)
    return tables


def _cadence_table(found: Freshness) -> Table:
    columns = ("updates", "CPU s a day", *(_counted(one) for one in found.cadences))
    title = (
        f"{found.model} by how often it is updated, {METRIC} over {found.options.days} days from {found.start:%Y-%m-%d}"
    )
    table = numbers_table(title, "cadence", columns)
    for cost in found.costs:
        cells = [_with_ends(one.quality[cost.cadence]) for one in found.cadences]
        table.add_row(cost.cadence, str(cost.updates), f"{cost.cpu_seconds_a_day:.1f}", *cells)
    return table


def _arms_table(title: str, comparisons: Sequence[GroupComparison]) -> Table:
    table = numbers_table(title, "", tuple(_counted(one) for one in comparisons))
    for place, arm in enumerate(comparisons[0].quality):
        shown = [one.difference[arm] if place else one.quality[arm] for one in comparisons]
        table.add_row(arm, *(_with_ends(interval, signed=place > 0) for interval in shown))
    return table


def _counted(one: GroupComparison) -> str:
    return f"{one.group.replace('_', ' ')} ({one.requests:,})"


def _with_ends(interval: Interval, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def freshness_json(found: Freshness) -> dict[str, Any]:
    """Return all of it, JSON-ready; verdicts at the top level."""
    return {
        "model": found.model,
        "metric": METRIC,
        "start": found.start.isoformat(),
        "requests": found.requests,
        "members": found.members,
        "titles": found.catalogue,
        "in_order": found.in_order,
        "monotone": found.monotone,
        "trained_cpu_seconds": round(found.trained_cpu_seconds, 2),
        "cadences": [_comparison_json(one) for one in found.cadences],
        "costs": [asdict(one) for one in found.costs],
        "by_day": found.by_day.to_dicts(),
        "staleness": [_comparison_json(one) for one in found.staleness],
        "retrained": None if found.retrained is None else _retrained_json(found.retrained),
        "forgotten": [
            {"replay": one.replay, "groups": [_comparison_json(part) for part in one.comparisons]}
            for one in found.forgotten
        ],
        "launches": {canvas: _comparison_json(one) for canvas, one in found.launches.items()},
        "surge": [asdict(one) | {"shown_after_hours": one.shown_after} for one in found.surge],
        "skipped": list(found.skipped),
        "options": asdict(found.options),
    }


def _comparison_json(one: GroupComparison) -> dict[str, Any]:
    parts = {"quality": one.quality, "difference": one.difference, "step": one.step}
    arms = {name: _intervals_json(intervals) for name, intervals in parts.items()}
    return {"group": one.group, "requests": one.requests, "members": one.members, **arms}


def _intervals_json(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {arm: with_interval("value", interval) for arm, interval in intervals.items()}


def _retrained_json(found: Retrained) -> dict[str, Any]:
    return {
        "days": found.days,
        "tested_days": found.tested_days,
        "quality_ratio": found.quality_ratio,
        "cost_ratio": found.cost_ratio,
        "groups": [_comparison_json(one) for one in found.comparisons],
    }


def plot_freshness(found: Freshness, folder: Path, suffix: str = ".png") -> list[Path]:
    """Draw every part that was run into a folder, and return the files."""
    drawn: dict[str, Any] = {}
    if found.staleness:
        drawn["staleness"] = staleness_figure(found)
    if found.cadences:
        drawn["cadences"] = cadence_figure(found)
    if found.forgotten:
        drawn["forgetting"] = forgetting_figure(found)
    if found.surge:
        drawn["surge"] = surge_figure(found)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"freshness_{name}{suffix}")
        figure.savefig(paths[-1])
    return paths


def staleness_figure(found: Freshness) -> Any:
    """Return the metric against the age of the weights, relative to the youngest, by group, with intervals."""
    figure, axes = figure_with_axes(7.0, 4.0)
    shift = np.linspace(-0.15, 0.15, len(found.staleness))
    for offset, one in zip(shift, found.staleness, strict=True):
        ages, base = np.array([float(age) for age in one.difference]), one.quality["0"].value
        if not base:
            continue
        relative = [Interval(*(value / base for value in interval)) for interval in one.difference.values()]
        label, colour = _counted(one), COLOURS[one.group]
        draw_intervals(axes, relative, ages + offset, along="y", color=colour, label=label)
        axes.plot(ages + offset, [interval.value for interval in relative], color=colour, linewidth=1)
    axes.axhline(0.0, color=BLACK, linewidth=0.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axes.set_xlabel("days since the weights had learnt everything")
    axes.set_ylabel(f"{METRIC} relative to fresh weights")
    axes.legend(fontsize=8)
    return figure


def cadence_figure(found: Freshness) -> Any:
    """Return each cadence's gain over the slowest one by group, and beside it what a day of it costs."""
    figure, (gains, costs) = figure_with_axes(9.0, 3.5, 1, 2)
    names = [cost.cadence for cost in found.costs]
    place = np.arange(len(names))
    shift = np.linspace(-0.15, 0.15, len(found.cadences))
    for offset, one in zip(shift, found.cadences, strict=True):
        intervals = [one.difference[name] for name in names]
        style = {"color": COLOURS[one.group], "label": _counted(one)}
        draw_intervals(gains, intervals, place + offset, along="y", **style)
    gains.axhline(0.0, color=BLACK, linewidth=0.5)
    gains.set_xticks(place, names)
    gains.set_ylabel(f"{METRIC} minus {names[0]}, 95 % by member")
    gains.legend(fontsize=8)
    costs.bar(place, [cost.cpu_seconds_a_day for cost in found.costs], color=BLUE)
    costs.axhline(found.trained_cpu_seconds, color=RED, linewidth=1, label="training anew every day")
    costs.set_xticks(place, names)
    costs.set_ylabel("CPU seconds a day")
    costs.legend(fontsize=8)
    return figure


def forgetting_figure(found: Freshness) -> Any:
    """Return what the updates changed for titles of the long tail, by share of replayed examples."""
    figure, axes = figure_with_axes(6.0, 3.5)
    colours = dict(zip(("all", "tail", "untouched"), (BLUE, RED, BLACK), strict=True))
    for offset, (group, colour) in zip((-0.01, 0.0, 0.01), colours.items(), strict=True):
        shown = [(one.replay, part) for one in found.forgotten for part in one.comparisons if part.group == group]
        if shown:
            intervals = [list(part.difference.values())[1] for _, part in shown]
            at = np.array([share for share, _ in shown]) + offset
            draw_intervals(axes, intervals, at, along="y", color=colour, label=_counted(shown[0][1]))
    axes.axhline(0.0, color=BLACK, linewidth=0.5)
    axes.set_xlabel("share of examples that are older ones")
    axes.set_ylabel(f"{METRIC}: after {found.options.updates} daily updates minus before")
    axes.legend(fontsize=8)
    return figure


def surge_figure(found: Freshness) -> Any:
    """Return the share of lists that have a surging title, against the hours since, by cadence."""
    figure, axes = figure_with_axes(6.0, 3.5)
    for course in found.surge:
        end = 24.0 * found.options.days
        axes.step((*course.hours, end), (*course.shares, course.shares[-1]), where="post", label=course.cadence)
    axes.axhline(SHOWN, color=BLACK, linewidth=0.5)
    axes.set_xlabel("hours since the surge began")
    axes.set_ylabel(f"share of lists of {K} that have the title")
    axes.legend(fontsize=8)
    return figure


def record_freshness(tracking: Tracking, found: Freshness) -> str:
    """Record a study in MLflow, and return the run's id."""
    metrics = {"trained_cpu_seconds": found.trained_cpu_seconds}
    metrics |= {f"cpu_seconds_a_day/{cost.cadence}": cost.cpu_seconds_a_day for cost in found.costs}
    for one in found.cadences:
        metrics |= {f"{one.group}/{cadence}": interval.value for cadence, interval in one.quality.items()}
    if found.retrained is not None:
        metrics |= {"quality_ratio": found.retrained.quality_ratio, "cost_ratio": found.retrained.cost_ratio}
    return record_results(
        tracking,
        f"freshness: {found.model}",
        tags={PREFIX + "freshness": found.model, PREFIX + "parts": ", ".join(found.options.parts)},
        params=asdict(found.options),
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)},
        tables={} if found.by_day.is_empty() else {"freshness_by_day": _plain(found.by_day)},
        texts={"freshness/report.json": json.dumps(freshness_json(found), indent=1)},
        draw=lambda folder: plot_freshness(found, folder),
    )


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("day").cast(pl.Int64))
