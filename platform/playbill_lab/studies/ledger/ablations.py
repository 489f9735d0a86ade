"""What the consolidated model owes its quality to: other models beside it, canvas by canvas.

Each part has arms that differ from the consolidated model in one thing and are trained and asked like it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.metrics import Interval, relative_interval
from playbill_lab.studies.ledger.arms import rows_by_canvas
from playbill_lab.studies.ledger.data import METRICS
from playbill_lab.studies.ledger.ladder import RUNGS, rung
from playbill_lab.studies.ledger.run import LedgerCell, LedgerRun, members_of, renamed, values_of
from playbill_lab.studies.ledger.table import quality

SWITCHES = {
    "no_task": "task",
    "no_imputation": "imputation",
    "no_crossing": "crossing",
    "no_title_crossing": "title_crossing",
}
"""Ablation -> switch of `contexts` that it turns off."""
NO_SHARING = "no_sharing"  # The ablation that is the separate models themselves
IMPROVEMENT = "titles.svd_start"
"""The one change that is measured on every canvas: title vectors that start from a factorisation of the log."""


@dataclass(frozen=True)
class PartComparison:
    """Arms beside a base, by canvas."""

    part: str
    base: str
    quality: Mapping[str, Mapping[str, Interval]]  # Arm, the base among them -> canvas -> quality
    relative: Mapping[str, Mapping[str, Interval]]  # Arm -> canvas -> (arm - base) / base. An arm may lack a canvas


def compare_part(run: LedgerRun, part: str) -> PartComparison:
    """Train and compare the arms of one part; see `PARTS`."""
    compare = {"ablations": ablations, "transfer": transfer, "ladder": ladder, "improvement": improvement}
    return compare[part](run)


def ablations(run: LedgerRun) -> PartComparison:
    """Turn off the task, the imputation and the crossing, each alone; and share nothing."""
    arms: dict[str, Sequence[LedgerCell]] = {"consolidated": run.consolidated()}
    for name, switch in SWITCHES.items():
        contexts = run.resolved.model.contexts.model_copy(update={switch: False})
        arms[name] = run.arm(name, _changed(run.resolved, name, contexts=contexts), run.rebuilt)
    found = compared(run, "ablations", "consolidated", arms)
    in_process = {canvas: _alone(run, canvas) for canvas in run.canvases()}
    return _with(run, found, NO_SHARING, {canvas: cells for canvas, cells in in_process.items() if cells})


def transfer(run: LedgerRun) -> PartComparison:
    """Leave the rows of one canvas out at a time: what do the others gain or lose by them?

    Of the two affordable matrices this is the one whose arms are each as large as the consolidated model; adding one
    canvas to another pairwise would say what two do to each other without the rest, in N (N - 1) / 2 models.
    """
    arms: dict[str, Sequence[LedgerCell]] = {"consolidated": run.consolidated()}
    logged = [name for name, rows in rows_by_canvas(run.service.data, run.heads()).items() if rows]
    for canvas in (name for name in run.canvases() if name in logged):
        others = [name for name in logged if name != canvas]
        name = f"without/{canvas}"
        arms[name] = run.arm(name, run.resolved, partial(run.part, canvases=others))
    return compared(run, "transfer", "consolidated", arms)


def ladder(run: LedgerRun) -> PartComparison:
    """Climb from a model that knows nothing of its member to the consolidated one."""
    arms = {name: rung(run, name) for name in RUNGS}
    return compared(run, "ladder", RUNGS[0], arms, fold="test")


def improvement(run: LedgerRun) -> PartComparison:
    """Measure one change on every canvas in one run: see `IMPROVEMENT`."""
    titles = run.resolved.model.titles
    name = "without_improvement" if titles.svd_start else "with_improvement"
    other = _changed(run.resolved, name, titles=titles.model_copy(update={"svd_start": not titles.svd_start}))
    arms = {"consolidated": run.consolidated(), name: run.arm(name, other, lambda _: run.service.data)}
    base, better = ("consolidated", name) if not titles.svd_start else (name, "consolidated")
    return compared(run, "improvement", base, {base: arms[base], better: arms[better]})


def compared(
    run: LedgerRun, part: str, base: str, arms: Mapping[str, Sequence[LedgerCell]], fold: str | None = None
) -> PartComparison:
    """Compare arms (arm -> its cell for each seed) with one of them on every canvas, on one fold or on all requests."""
    found: dict[str, dict[str, Interval]] = {name: {} for name in arms}
    relative: dict[str, dict[str, Interval]] = {name: {} for name in arms if name != base}
    for canvas, cases in run.canvases().items():
        members, resamples = members_of(cases, fold), run.options.resamples
        theirs = values_of(arms[base], canvas, METRICS[0], fold)
        for name, cells in arms.items():
            ours = values_of(cells, canvas, METRICS[0], fold)
            found[name][canvas] = quality(members, ours, resamples)
            if name != base:
                relative[name][canvas] = relative_interval(members, ours, theirs, resamples=resamples)
    return PartComparison(part, base, found, relative)


def _with(
    run: LedgerRun, found: PartComparison, name: str, cells: Mapping[str, Sequence[LedgerCell]]
) -> PartComparison:
    """Add an arm whose canvases are answered by models of their own."""
    own: dict[str, Interval] = {}
    relative: dict[str, Interval] = {}
    whole = run.consolidated()
    for canvas, in_process in cells.items():
        members = members_of(run.canvases()[canvas])
        ours, theirs = values_of(in_process, canvas), values_of(whole, canvas)
        own[canvas] = quality(members, ours, run.options.resamples)
        relative[canvas] = relative_interval(members, ours, theirs, resamples=run.options.resamples)
    return PartComparison(found.part, found.base, {**found.quality, name: own}, {**found.relative, name: relative})


def _alone(run: LedgerRun, canvas: str) -> Sequence[LedgerCell]:
    """Return the separate model's cells, none where the canvas has no rows."""
    try:
        return run.separate(canvas)
    except StateError:
        return ()


def _changed(resolved: ResolvedModel, name: str, **changes: object) -> ResolvedModel:
    model = resolved.model.model_copy(update=changes)
    return renamed(resolved.model_copy(update={"model": model}), name)
