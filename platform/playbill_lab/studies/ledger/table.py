"""The main table of a ledger: each canvas under the consolidated model and under the one that it replaces.

Axis letters: S seeds, N requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.arrays import Floats64, Indices
from playbill.errors import StateError
from playbill.metrics import Interval, relative_interval, seed_interval
from playbill.metrics.bootstrap import member_bootstrap
from playbill_lab.ab.results import with_interval
from playbill_lab.studies.ledger.data import METRICS
from playbill_lab.studies.ledger.models import definition_size, separate_model, shared_size
from playbill_lab.studies.ledger.run import LedgerCell, LedgerRun, members_of, values_of

PARITY = -0.01  # A canvas is at parity where the lower end of the interval of its relative difference is at or above it


@dataclass(frozen=True)
class BaselineRow:
    """A baseline on one canvas."""

    quality: Interval
    lead: Interval  # Quality of the consolidated model minus its own, paired by request


@dataclass(frozen=True)
class CanvasRow:
    """One canvas of the main table; `others`: other measures -> (consolidated, separate, relative)."""

    canvas: str
    metric: str  # Label and quality measure, such as `discovery_play ndcg@10`
    consolidated: Interval  # Quality under the model of all canvases
    separate: Interval  # Under its own
    relative: Interval  # (consolidated - separate) / separate
    requests: int
    members: int
    logged: bool  # Whether they are the log's own of this canvas
    rows: int  # Labelled rows that the separate model learns from in an epoch
    reads: int  # Feature values that are looked up for a request
    costs: Mapping[str, float]  # What the separate model costs, means over seeds
    others: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    baselines: Mapping[str, BaselineRow] = field(default_factory=dict)

    @property
    def not_ahead_of(self) -> tuple[str, ...]:
        """Baselines that the consolidated model is not ahead of: the interval of its lead is not above 0."""
        return tuple(name for name, row in self.baselines.items() if row.lead.low <= 0.0)

    @property
    def best_baseline(self) -> str | None:
        """The baseline of the highest quality."""
        return max(self.baselines, key=lambda name: self.baselines[name].quality.value, default=None)

    @property
    def parity(self) -> bool:
        """Whether the consolidated model is at parity or better."""
        return self.relative.low >= PARITY

    @property
    def better(self) -> bool:
        """Whether it is better beyond the noise."""
        return self.relative.low > 0.0


@dataclass(frozen=True)
class LedgerTable:
    """Every canvas, and what both ways cost in all; `tasks`: heads that no canvas blends -> cost of a model of each."""

    rows: tuple[CanvasRow, ...]
    skipped: Mapping[str, str]  # Canvas -> why it is not in the table
    consolidated: Mapping[str, float]  # Cost -> of the one model
    separate: Mapping[str, float]  # Cost -> of all the separate models together, tasks included
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def ratio(self, cost: str) -> float:
        """Return what the one model costs over what the separate ones cost together."""
        return self.consolidated[cost] / self.separate[cost]

    @property
    def worst(self) -> CanvasRow:
        """The canvas on which the consolidated model does worst."""
        return min(self.rows, key=lambda row: row.relative.value)


def ledger_table(run: LedgerRun) -> LedgerTable:
    """Train what is not there yet, and compare.

    Raises:
        StateError: No canvas can be measured, or none has rows to learn from.
    """
    cases, whole = run.canvases(), run.consolidated()
    rows, in_process = [], {}
    for canvas in cases:
        try:
            in_process[canvas] = run.separate(canvas)
        except StateError as error:
            run.skipped[canvas] = str(error)
            continue
        rows.append(_row(run, canvas, whole, in_process[canvas]))
    if not rows:
        raise StateError("\n  ".join(["no canvas has a model of its own", *run.skipped.values()]))
    together = _costs(whole) | {f"definition_{name}": float(n) for name, n in definition_size(run.resolved).items()}
    together["feature_reads"] = max(row.reads for row in rows)
    tasks = run.tasks()
    costs = {head: _costs(cells) for head, cells in tasks.items()}
    return LedgerTable(tuple(rows), dict(run.skipped), together, _sum(run, in_process | tasks, rows), costs)


def _sum(run: LedgerRun, in_process: Mapping[str, Sequence[LedgerCell]], rows: Sequence[CanvasRow]) -> dict[str, float]:
    costs = [_costs(cells) for cells in in_process.values()]
    total = {name: sum(cost[name] for cost in costs) for name in costs[0]}
    # Of every canvas: a definition is there to maintain whether or not the log can measure it.
    models = {canvas: separate_model(run.resolved, canvas) for canvas in run.resolved.canvases}
    total |= {f"definition_{name}": float(number) for name, number in shared_size(models).items()}
    total["feature_reads"] = sum(row.reads for row in rows)
    return total


def _row(run: LedgerRun, canvas: str, whole: Sequence[LedgerCell], in_process: Sequence[LedgerCell]) -> CanvasRow:
    cases = run.canvases()[canvas]
    members, resamples = members_of(cases), run.options.resamples
    ours, theirs = values_of(whole, canvas), values_of(in_process, canvas)
    others = {}
    for metric in METRICS[1:]:
        one, other = (float(values_of(cells, canvas, metric).mean()) for cells in (whole, in_process))
        others[f"{metric}@{run.options.k}"] = (one, other, one / other - 1.0 if other else float("nan"))
    spec = run.resolved.canvas(canvas)
    return CanvasRow(
        canvas=canvas,
        metric=f"{spec.metric} {METRICS[0]}@{run.options.k}",
        consolidated=quality(members, ours, resamples),
        separate=quality(members, theirs, resamples),
        relative=relative_interval(members, ours, theirs, resamples=resamples),
        requests=members.size,
        members=int(members.max()) + 1,
        logged=all(one.case.logged for one in cases),
        rows=int(_costs(in_process)["rows"]),
        reads=feature_reads(run, canvas),
        costs=_costs(in_process) | {f"definition_{n}": float(v) for n, v in _own_size(run, canvas).items()},
        others=others,
        baselines={
            name: BaselineRow(
                quality(members, values[:, 0][None], resamples), quality(members, ours - values[:, 0][None], resamples)
            )
            for name, values in run.baselines(canvas).items()
        },
    )


def _own_size(run: LedgerRun, canvas: str) -> dict[str, int]:
    return definition_size(separate_model(run.resolved, canvas))


def quality(members: Indices, values: Floats64, resamples: int) -> Interval:
    """Return the mean of values [S, N] over seeds and requests, with its interval by members [N]."""
    if len(values) > 1:
        return seed_interval(members, values, resamples=resamples).interval
    return member_bootstrap(members, values[0], resamples=resamples)


def feature_reads(run: LedgerRun, canvas: str) -> int:
    """Return the feature values that are looked up for one request: of its member, where the canvas knows who asks."""
    columns = run.service.features.schema(run.resolved.model.features).columns
    known = "member" in run.resolved.canvas(canvas).context
    return sum(column.entity == "member" for column in columns) if known else 0


def _costs(cells: Sequence[LedgerCell]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for cell in cells:
        assert cell.costs is not None
        for name, value in vars(cell.costs).items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def table_json(table: LedgerTable) -> dict[str, Any]:
    """Return `train_ratio`, `parameter_ratio`, `worst_relative`, `canvases` and what the ways cost."""
    return {
        "train_ratio": table.ratio("cpu_seconds"),
        "parameter_ratio": table.ratio("parameters"),
        "memory_ratio": table.ratio("serving_bytes"),
        "worst_relative": table.worst.relative.value,
        "worst_canvas": table.worst.canvas,
        "parity": [row.canvas for row in table.rows if row.parity],
        "better": [row.canvas for row in table.rows if row.better],
        "not_at_parity": [row.canvas for row in table.rows if not row.parity],
        "not_ahead": {row.canvas: list(row.not_ahead_of) for row in table.rows if row.not_ahead_of},
        "canvases": {row.canvas: _row_json(row) for row in table.rows},
        "skipped": dict(table.skipped),
        "tasks": {head: dict(costs) for head, costs in table.tasks.items()},
        "costs": {"consolidated": dict(table.consolidated), "separate": dict(table.separate)},
    }


def _row_json(row: CanvasRow) -> dict[str, Any]:
    return {
        "metric": row.metric,
        **with_interval("consolidated", row.consolidated, "consolidated_interval"),
        **with_interval("separate", row.separate, "separate_interval"),
        **with_interval("relative", row.relative),
        "parity": row.parity,
        "better": row.better,
        "requests": row.requests,
        "members": row.members,
        "logged": row.logged,
        "rows": row.rows,
        "feature_reads": row.reads,
        "costs": dict(row.costs),
        "others": {name: list(values) for name, values in row.others.items()},
        "baselines": {
            name: {"quality": baseline.quality.value, **with_interval("lead", baseline.lead)}
            for name, baseline in row.baselines.items()
        },
    }
