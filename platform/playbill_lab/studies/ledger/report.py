"""A ledger as tables for the terminal, as JSON, and as frames and a page for MLflow.

The consolidation ledger: does one model serve every canvas as well as the separate models it replaces, at what cost?

The one model and each of the separate ones learn from the same log and the same histories, with the same network and
recipe, and answer the same held-out requests. Parity is claimed for a canvas only where the interval of its relative
difference, over members and training seeds, ends at or above -1 %.

Sources: "Lessons learnt from consolidating ML models in a large scale recommendation system", Netflix TechBlog 2023;
Bhattacharya, Ostuni and Lamkhede, "Joint modeling of search and recommendations", RecSys 2024 (arXiv 2408.10394).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from playbill.metrics import Interval
from playbill_lab.ab.results import numbers_table, with_interval
from playbill_lab.studies.ledger.ablations import PartComparison, compare_part
from playbill_lab.studies.ledger.data import LedgerOptions, LedgerService
from playbill_lab.studies.ledger.head_gains import HeadGain, head_gains
from playbill_lab.studies.ledger.run import LedgerCells, LedgerRun
from playbill_lab.studies.ledger.table import PARITY, CanvasRow, LedgerTable, ledger_table, table_json

MIB = 2**20
COSTS = {
    "cpu_seconds": "train, CPU minutes",
    "parameters": "parameters",
    "serving_bytes": "serving memory, MiB",
    "feature_reads": "feature values read by a visit to every canvas",
    "definition_files": "definitions, files",
    "definition_lines": "definitions, lines",
}
"""Costs of the whole, in the order of the table."""


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """Return all of it, JSON-ready; what the main table says is at the top level."""
    found: dict[str, Any] = {"model": ledger.model}
    if ledger.table is not None:
        found |= table_json(ledger.table)
    found["skipped"] = ledger.skipped
    found |= {part: _comparison_json(one) for part, one in ledger.comparisons.items()}
    if ledger.heads:
        found["heads"] = {row.head: _head_json(row) for row in ledger.heads if row.canvas is None}
        by_canvas: dict[str, Any] = {}
        for row in ledger.heads:
            if row.canvas is not None:
                by_canvas.setdefault(row.canvas, {})[row.head] = _head_json(row)
        found["heads_by_canvas"] = by_canvas
    return found | {"options": asdict(ledger.options)}


def ledger_tables(ledger: Ledger) -> list[Table]:
    """Return every part as a table for the terminal."""
    found = []
    if ledger.table is not None:
        found += [canvases_table(ledger), costs_table(ledger.table)]
    found += [comparison_table(one) for one in ledger.comparisons.values()]
    if ledger.heads:
        found.append(heads_table(ledger.heads))
    return found


def canvases_table(ledger: Ledger) -> Table:
    """Return quality by canvas: both models, and the relative difference with its interval."""
    assert ledger.table is not None
    seeds = len(ledger.options.seeds)
    title = (
        f"{ledger.model}: one model against one for each canvas, {seeds} {'seed' if seeds == 1 else 'seeds'}\n"
        f"+ better, = parity (lower end at {PARITY:.0%} or above), ? neither is shown\n"
        "! not ahead of a baseline: the interval of the one model's lead is not above 0"
    )
    columns = ("requests", "one", "own", "relative", "95 %", "", "best baseline", "lead of one", "not ahead of")
    table = numbers_table(title, "canvas", columns)
    for row in ledger.table.rows:
        table.add_row(*canvas_cells(row))
    return table


def canvas_cells(row: CanvasRow) -> tuple[str, ...]:
    """Return one canvas's line of the main table."""
    mark = "+" if row.better else "=" if row.parity else "?"
    return (
        row.canvas if row.logged else f"{row.canvas} *",
        f"{row.requests:,}",
        f"{row.consolidated.value:.4f}",
        f"{row.separate.value:.4f}",
        f"{row.relative.value:+.1%}",
        f"{row.relative.low:+.1%} to {row.relative.high:+.1%}",
        mark,
        *_beside(row),
    )


def _beside(row: CanvasRow) -> tuple[str, str, str]:
    """Return the best baseline, the one model's lead over it, and all baselines that it is not ahead of."""
    best = row.best_baseline
    if best is None:
        return "", "", ""
    found = row.baselines[best]
    lead = f"{found.lead.value:+.4f} [{found.lead.low:+.4f}, {found.lead.high:+.4f}]"
    behind = f"! {', '.join(row.not_ahead_of)}" if row.not_ahead_of else ""
    return f"{best} {found.quality.value:.4f}", lead, behind


def costs_table(table: LedgerTable) -> Table:
    """Return what the one model and the separate ones cost in all."""
    tasks = f", of which {', '.join(table.tasks)} are tasks that no canvas blends" if table.tasks else ""
    models = f"{len(table.rows) + len(table.tasks)} models"
    found = numbers_table(f"What it takes{tasks}", "", ("one model", models, "ratio"))
    for cost, name in COSTS.items():
        one, many = table.consolidated[cost], table.separate[cost]
        found.add_row(name, _cost(cost, one), _cost(cost, many), f"{one / many:.2f}" if many else "")
    return found


def comparison_table(found: PartComparison) -> Table:
    """Return the arms of a part by canvas: the base's quality, and each arm's relative difference."""
    title = f"{found.part}: relative to {found.base}; a star where the interval leaves zero out"
    table = numbers_table(title, "canvas", (found.base, *found.relative), no_wrap=False)
    for canvas, base in found.quality[found.base].items():
        cells = [_gap(arms.get(canvas)) for arms in found.relative.values()]
        table.add_row(canvas, f"{base.value:.4f}", *cells)
    return table


def heads_table(heads: tuple[HeadGain, ...]) -> Table:
    """Return each head's area under the curve, joint and alone."""
    title = "Heads: area under the curve, in the one model and alone, or in the canvas's own model"
    table = numbers_table(title, "head", ("rows learnt", "joint", "alone", "gain", "95 %"))
    for row in heads:
        low, high = row.gain.low, row.gain.high
        cells = (f"{row.trained:,}", f"{row.joint:.4f}", f"{row.single:.4f}")
        table.add_row(head_name(row), *cells, f"{row.gain.value:+.4f}", f"{low:+.4f} to {high:+.4f}")
    return table


def head_name(row: HeadGain) -> str:
    """Return what a head is called in a table: with its canvas where it is about one."""
    return row.head if row.canvas is None else f"{row.head} on {row.canvas}"


def ledger_frames(ledger: Ledger) -> dict[str, pl.DataFrame]:
    """Return every part as a frame, for MLflow."""
    found: dict[str, pl.DataFrame] = {}
    if ledger.table is not None:
        rows = table_json(ledger.table)["canvases"]
        plain = [{"canvas": canvas, **_flat(row)} for canvas, row in rows.items()]
        found["ledger_canvases"] = pl.DataFrame(plain)
    for part, one in ledger.comparisons.items():
        found[f"ledger_{part}"] = pl.DataFrame(_long(one))
    if ledger.heads:
        found["ledger_heads"] = pl.DataFrame(
            [{"head": head_name(row), **_flat(_head_json(row))} for row in ledger.heads]
        )
    return found


def ledger_metrics(ledger: Ledger) -> dict[str, float]:
    """Return the flat numbers of a ledger, for MLflow."""
    found: dict[str, float] = {}
    if ledger.table is not None:
        whole = table_json(ledger.table)
        found |= {name: whole[name] for name in ("train_ratio", "parameter_ratio", "memory_ratio", "worst_relative")}
        for row in ledger.table.rows:
            found |= {
                f"{row.canvas}/consolidated": row.consolidated.value,
                f"{row.canvas}/separate": row.separate.value,
            }
            found[f"{row.canvas}/relative"] = row.relative.value
    for part, one in ledger.comparisons.items():
        for arm, canvases in one.relative.items():
            found |= {f"{part}/{arm}/{canvas}": gap.value for canvas, gap in canvases.items()}
    found |= {f"heads/{head_name(row)}/gain": row.gain.value for row in ledger.heads}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _cost(cost: str, value: float) -> str:
    if cost == "cpu_seconds":
        return f"{value / 60:.1f}"
    return f"{value / MIB:.1f}" if cost == "serving_bytes" else f"{value:,.0f}"


def _gap(gap: Interval | None) -> str:
    if gap is None:
        return ""
    return f"{gap.value:+.1%}{'*' if not gap.includes_zero else ' '}"


def _comparison_json(found: PartComparison) -> dict[str, Any]:
    arms = {
        arm: {
            canvas: {"quality": found.quality[arm][canvas].value, **with_interval("relative", gap)}
            for canvas, gap in canvases.items()
        }
        for arm, canvases in found.relative.items()
    }
    base = {canvas: quality.value for canvas, quality in found.quality[found.base].items()}
    return {"base": found.base, "quality": base, "arms": arms}


def _head_json(row: HeadGain) -> dict[str, Any]:
    counts = {"rows": row.rows, "positives": row.positives, "trained": row.trained}
    return {"joint": row.joint, "single": row.single, **with_interval("gain", row.gain), **counts}


def _long(found: PartComparison) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "canvas": canvas, "quality": found.quality[arm][canvas].value}
        | {"relative": gap.value, "low": gap.low, "high": gap.high}
        for arm, canvases in found.relative.items()
        for canvas, gap in canvases.items()
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list) and len(value) == 2:
            found |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        elif isinstance(value, Mapping):
            plain = {inner: number for inner, number in value.items() if not isinstance(number, list)}
            found |= {f"{name}_{inner}": number for inner, number in _flat(plain).items()}
        else:
            found[name] = value
    return found


@dataclass(frozen=True)
class Ledger:
    """What came out."""

    model: str
    options: LedgerOptions
    canvases: tuple[str, ...]
    skipped: dict[str, str]  # Canvas -> why it was not
    table: LedgerTable | None = None  # The main table; None where it was not asked for
    comparisons: dict[str, PartComparison] = field(
        default_factory=dict
    )  # Part -> its arms beside the consolidated model
    heads: tuple[HeadGain, ...] = ()  # Each head joint and alone; empty where that was not asked for


def run_ledger(service: LedgerService, folder: Path, progress: Callable[[str], None] | None = None) -> Ledger:
    """Run the parts that were asked for, or what is left of them: finished cells in `folder` are not made again.

    `progress` is called with the name of every model that was trained and measured.

    Raises:
        StateError: No canvas can be measured, or none has rows to learn from.
        ProblemsError: It cannot be run as asked.
    """
    service.options.check()
    run = LedgerRun(service, LedgerCells(folder, progress))
    cases, parts = run.canvases(), service.options.parts
    table = ledger_table(run) if "canvases" in parts else None
    others = [part for part in parts if part not in ("canvases", "heads")]
    comparisons = {part: compare_part(run, part) for part in others}
    heads = head_gains(run) if "heads" in parts else ()
    return Ledger(
        model=service.resolved.model.name,
        options=service.options,
        canvases=tuple(cases),
        skipped=dict(run.skipped),
        table=table,
        comparisons=comparisons,
        heads=heads,
    )
