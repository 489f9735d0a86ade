"""The pictures of a ledger: canvases with their intervals, costs, arms by canvas, and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import ConfigError
from playbill_lab.studies.ledger.ablations import Comparison
from playbill_lab.studies.ledger.head_gains import HeadGain
from playbill_lab.studies.ledger.report import COSTS, Ledger, head_name
from playbill_lab.studies.ledger.table import PARITY, LedgerTable

BLUE, GREY, RED = "#4477aa", "#222222", "#aa3377"
LEAST_COLOUR = 0.02
"""Relative difference at which a heat map's colours end, at least."""


def plot_ledger(ledger: Ledger, folder: Path, ending: str = "png") -> list[Path]:
    """Draw every part that was run into a folder, and return the files.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    drawn: list[tuple[str, Any]] = []
    if ledger.table is not None:
        drawn += [("canvases", plot_canvases(ledger.table)), ("costs", plot_costs(ledger.table))]
    drawn += [(part, plot_comparison(one)) for part, one in ledger.comparisons.items()]
    if ledger.heads:
        drawn.append(("heads", plot_heads(ledger.heads)))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn:
        paths.append(folder / f"ledger_{name}.{ending}")
        figure.savefig(paths[-1], metadata={"Date": None} if ending == "svg" else None)
    return paths


def plot_canvases(table: LedgerTable) -> Any:
    """Return each canvas's relative difference with its interval, beside the bound of parity."""
    figure, axes = _figure(8.0, 1.2 + 0.35 * len(table.rows))
    values = [row.relative.value for row in table.rows]
    ends = [[row.relative.value - row.relative.low for row in table.rows]]
    ends.append([row.relative.high - row.relative.value for row in table.rows])
    place = np.arange(len(table.rows))
    axes.errorbar(values, place, xerr=np.maximum(ends, 0), fmt="o", color=BLUE, ecolor=GREY, capsize=3)
    axes.axvline(PARITY, color=RED, linewidth=1, label=f"parity, {PARITY:.0%}")
    axes.axvline(0.0, color=GREY, linewidth=0.5)
    axes.set_yticks(place, [f"{row.canvas} ({row.requests:,})" for row in table.rows])
    axes.set_xlabel("one model relative to the canvas's own, 95 % over members and seeds")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    return figure


def plot_costs(table: LedgerTable) -> Any:
    """Return what the one model costs as a share of what the separate ones cost together."""
    figure, axes = _figure(7.0, 3.0)
    ratios = [table.ratio(cost) if table.separate[cost] else np.nan for cost in COSTS]
    axes.barh(np.arange(len(COSTS)), ratios, color=BLUE)
    axes.axvline(1.0, color=RED, linewidth=1)
    axes.set_yticks(np.arange(len(COSTS)), list(COSTS.values()), fontsize=8)
    axes.set_xlabel(f"one model / {len(table.rows)} models")
    axes.invert_yaxis()
    return figure


def plot_comparison(found: Comparison) -> Any:
    """Return a heat map: canvases by arms, relative to the base; dots where the interval leaves zero out."""
    canvases, arms = list(found.quality[found.base]), list(found.relative)
    gaps = np.full((len(canvases), len(arms)), np.nan)
    figure, axes = _figure(2.5 + 0.9 * len(arms), 2.0 + 0.35 * len(canvases))
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
    figure, axes = _figure(7.0, 1.2 + 0.35 * len(heads))
    place = np.arange(len(heads))
    ends = [[row.gain.value - row.gain.low for row in heads], [row.gain.high - row.gain.value for row in heads]]
    gains = [row.gain.value for row in heads]
    axes.errorbar(gains, place, xerr=np.maximum(ends, 0), fmt="o", color=BLUE, ecolor=GREY, capsize=3)
    axes.axvline(0.0, color=RED, linewidth=1)
    axes.set_yticks(place, [f"{head_name(row)} ({row.trained:,} rows)" for row in heads])
    axes.set_xlabel("area under the curve: in the one model minus alone")
    axes.invert_yaxis()
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    # Figure without pyplot: no global state, no display, safe in threads.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()
