"""The pictures of a ledger (canvases with their intervals, costs, arms by canvas, heads), and a ledger in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from playbill.evaluation.rendering.plots import figure_with_axes
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.results import BLACK, BLUE, RED, draw_intervals, record_results
from playbill_lab.studies.ledger.ablations import PartComparison
from playbill_lab.studies.ledger.head_gains import HeadGain
from playbill_lab.studies.ledger.report import COSTS, Ledger, head_name, ledger_frames, ledger_json, ledger_metrics
from playbill_lab.studies.ledger.table import PARITY, LedgerTable

LEAST_COLOUR = 0.02  # Relative difference at which a heat map's colours end, at least


def plot_ledger(ledger: Ledger, folder: Path) -> list[Path]:
    """Draw every part that was run into a folder, and return the files."""
    drawn: list[tuple[str, Any]] = []
    if ledger.table is not None:
        drawn += [("canvases", plot_canvases(ledger.table)), ("costs", plot_costs(ledger.table))]
    drawn += [(part, plot_comparison(one)) for part, one in ledger.comparisons.items()]
    if ledger.heads:
        drawn.append(("heads", plot_heads(ledger.heads)))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn:
        paths.append(folder / f"ledger_{name}.png")
        figure.savefig(paths[-1])
    return paths


def plot_canvases(table: LedgerTable) -> Any:
    """Return each canvas's relative difference with its interval, beside the bound of parity."""
    figure, axes = figure_with_axes(8.0, 1.2 + 0.35 * len(table.rows))
    place = np.arange(len(table.rows))
    draw_intervals(axes, [row.relative for row in table.rows], place, color=BLUE, ecolor=BLACK)
    axes.axvline(PARITY, color=RED, linewidth=1, label=f"parity, {PARITY:.0%}")
    axes.axvline(0.0, color=BLACK, linewidth=0.5)
    axes.set_yticks(place, [f"{row.canvas} ({row.requests:,})" for row in table.rows])
    axes.set_xlabel("one model relative to the canvas's own, 95 % over members and seeds")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    return figure


def plot_costs(table: LedgerTable) -> Any:
    """Return what the one model costs as a share of what the separate ones cost together."""
    figure, axes = figure_with_axes(7.0, 3.0)
    ratios = [table.ratio(cost) if table.separate[cost] else np.nan for cost in COSTS]
    axes.barh(np.arange(len(COSTS)), ratios, color=BLUE)
    axes.axvline(1.0, color=RED, linewidth=1)
    axes.set_yticks(np.arange(len(COSTS)), list(COSTS.values()), fontsize=8)
    axes.set_xlabel(f"one model / {len(table.rows)} models")
    axes.invert_yaxis()
    return figure


def plot_comparison(found: PartComparison) -> Any:
    """Return a heat map: canvases by arms, relative to the base; dots where the interval leaves zero out."""
    canvases, arms = list(found.quality[found.base]), list(found.relative)
    gaps = np.full((len(canvases), len(arms)), np.nan)
    figure, axes = figure_with_axes(2.5 + 0.9 * len(arms), 2.0 + 0.35 * len(canvases))
    for column, arm in enumerate(arms):
        for row, canvas in enumerate(canvases):
            gap = found.relative[arm].get(canvas)
            if gap is None:
                continue
            gaps[row, column] = gap.value
            mark = "" if gap.includes_zero else " •"
            axes.text(column, row, f"{gap.value:+.0%}{mark}", ha="center", va="center", fontsize=8)
    known = np.abs(gaps[np.isfinite(gaps)])
    reach = max(LEAST_COLOUR, float(np.quantile(known, 0.9))) if known.size else LEAST_COLOUR
    axes.imshow(gaps, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(np.arange(len(arms)), arms, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(np.arange(len(canvases)), canvases, fontsize=8)
    axes.set_title(f"{found.part}: relative to {found.base}", fontsize=10)
    return figure


def plot_heads(heads: tuple[HeadGain, ...]) -> Any:
    """Return what each head gains by sharing, with its interval."""
    figure, axes = figure_with_axes(7.0, 1.2 + 0.35 * len(heads))
    place = np.arange(len(heads))
    draw_intervals(axes, [row.gain for row in heads], place, color=BLUE, ecolor=BLACK)
    axes.axvline(0.0, color=RED, linewidth=1)
    axes.set_yticks(place, [f"{head_name(row)} ({row.trained:,} rows)" for row in heads])
    axes.set_xlabel("area under the curve: in the one model minus alone")
    axes.invert_yaxis()
    return figure


def record_ledger(tracking: Tracking, ledger: Ledger) -> str:
    """Record a ledger in MLflow, and return the run's id."""
    options = asdict(ledger.options)
    return record_results(
        tracking,
        f"ledger: {ledger.model}",
        tags={PREFIX + "ledger": ledger.model, PREFIX + "parts": ", ".join(ledger.options.parts)},
        params={name: value for name, value in options.items() if not isinstance(value, Mapping)},
        metrics=ledger_metrics(ledger),
        tables=ledger_frames(ledger),
        texts={"ledger/report.json": json.dumps(ledger_json(ledger), indent=1)},
        draw=lambda folder: plot_ledger(ledger, folder),
    )
