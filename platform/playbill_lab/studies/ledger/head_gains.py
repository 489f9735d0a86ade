"""What sharing does to each head: the head of the consolidated model beside the same network with that head alone.

Both are asked about the same held-out labelled events, whatever their canvas, in the state before each. And canvas by
canvas: the head of the consolidated model beside that of the canvas's own, on the events that the log has there.
Axis letters: S seeds, R rows, T titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import stdtrit

from playbill import metrics
from playbill.arrays import Floats64, Indices
from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec, ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.head_probabilities import held_out_labels
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import logged_frame
from playbill.evaluation.cases.case import REQUEST_FIELDS
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder
from playbill.metrics import Interval
from playbill.ranking.blend import COMPETING
from playbill_lab.studies.ledger.arms import ModelAnswerer, rows_by_canvas
from playbill_lab.studies.ledger.data import FOLDS
from playbill_lab.studies.ledger.models import only_head, with_recipe
from playbill_lab.studies.ledger.run import LedgerCell, LedgerRun, renamed

MOST_POSITIVES = 1500
"""Of a head, drawn at random; a threefold of negatives is drawn beside them. An area under a curve does not mind."""
NEGATIVES = 3
LEAST = 10  # Positives and negatives that a head needs
_AT_ONCE = 512


@dataclass(frozen=True)
class HeadGain:
    """One head, joint and alone."""

    head: str
    joint: float  # Area under the curve in the consolidated model
    single: float  # With the head alone
    gain: Interval  # joint - single, over members and seeds
    rows: int
    positives: int
    trained: int  # Labelled rows of training
    canvas: str | None = None  # Whose own model the other one is; None = the head alone, on all canvases


def head_gains(run: LedgerRun) -> tuple[HeadGain, ...]:
    """Compare every labelled head of titles; heads with too few held-out rows are left out.

    Returns each head joint and alone, then each canvas's heads in the one model and in its own.
    """
    cases = labelled_rows(run)
    joint = _cells(run, "heads/joint", run.resolved, cases, run.heads())
    found = [_alone(run, joint, head, rows) for head, rows in cases.items()]
    for canvas in run.canvases():
        found += _of_canvas(run, joint, canvas, cases)
    return tuple(found)


def _alone(run: LedgerRun, joint: Sequence[LedgerCell], head: str, rows: pl.DataFrame) -> HeadGain:
    in_process = renamed(only_head(run.resolved, head), f"{head}_alone")
    single = _cells(run, f"heads/{head}", in_process, {head: rows}, (head,))
    trained = sum(rows_by_canvas(run.service.data, [head]).values())
    return _gain(run, head, rows, _logits(joint, head), _logits(single, head), trained)


def _of_canvas(
    run: LedgerRun, joint: Sequence[LedgerCell], canvas: str, cases: Mapping[str, pl.DataFrame]
) -> list[HeadGain]:
    """Compare a canvas's heads in the one model and in its own, none where the canvas has no rows to learn from."""
    try:
        in_process = run.in_process(canvas)
    except StateError:
        return []
    here = {
        head: (rows["canvas"] == canvas).to_numpy() for head, rows in cases.items() if head in in_process.model.heads
    }
    wanted = {head: cases[head].filter(pl.Series(mask)) for head, mask in here.items()}
    wanted = {head: rows for head, rows in wanted.items() if _enough(rows)}
    heads = [head for head in in_process.model.heads if head in run.heads()]
    counts = {head: rows_by_canvas(run.service.data, [head]).get(canvas, 0) for head in heads}
    if not wanted:
        return []
    own = _cells(run, f"heads-of/{canvas}", in_process, wanted, heads, (canvas,))
    found = []
    for head, rows in wanted.items():
        ours = [logits[here[head]] for logits in _logits(joint, head)]
        gain = _gain(run, head, rows, ours, _logits(own, head), counts[head])
        found.append(replace(gain, canvas=canvas))
    return found


def _gain(
    run: LedgerRun, head: str, rows: pl.DataFrame, ours: Sequence[Floats64], theirs: Sequence[Floats64], trained: int
) -> HeadGain:
    label = (rows["value"] > 0).to_numpy().astype(np.float64)
    members = rows["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    gain = auc_gain(ours, theirs, label, members, run.options.resamples)
    joint, single = (float(np.mean([metrics.auc(one, label) for one in side])) for side in (ours, theirs))
    return HeadGain(head, joint, single, gain, rows.height, int(label.sum()), trained)


def _enough(rows: pl.DataFrame) -> bool:
    positives = int((rows["value"] > 0).sum())
    return min(positives, rows.height - positives) >= LEAST


def labelled_rows(run: LedgerRun) -> dict[str, pl.DataFrame]:
    """Return head -> held-out labelled events: member_id, title_id, canvas, state, value, and the fold's number."""
    known = TitleOrder.of(run.service.frames.titles["title_id"].to_list())
    parts: dict[str, list[pl.DataFrame]] = {}
    for fold in FOLDS:
        for head, rows in held_out_labels(run.service.split, run.service.frames, run.resolved, fold).rows.items():
            served = pl.col("canvas").is_in(list(run.resolved.canvases))
            here = rows.filter(served & pl.Series(known.codes(rows["title_id"]) != UNKNOWN))
            parts.setdefault(head, []).append(here.select("member_id", "title_id", "canvas", "state", "value"))
    found = {}
    for head, frames in parts.items():
        rows = _sample(pl.concat(frames))
        if head in run.heads() and _enough(rows):
            found[head] = rows
    return found


def _sample(rows: pl.DataFrame) -> pl.DataFrame:
    positive = rows.filter(pl.col("value") > 0)
    negative = rows.filter(pl.col("value") <= 0)
    most = min(positive.height, MOST_POSITIVES)
    drawn = [positive.sample(most, seed=0), negative.sample(min(negative.height, NEGATIVES * most), seed=0)]
    return pl.concat(drawn).sort("state", "title_id", "value")


def _cells(
    run: LedgerRun,
    name: str,
    resolved: ResolvedModel,
    cases: Mapping[str, pl.DataFrame],
    heads: Sequence[str],
    canvases: Sequence[str] = (),
) -> list[LedgerCell]:
    whose = {head: rows.hash_rows(seed=0).sum() for head, rows in cases.items()}
    canvases = canvases or [canvas for canvas, rows in rows_by_canvas(run.service.data, heads).items() if rows]
    found = []
    for seed in run.options.seeds:
        seeded = with_recipe(resolved, seed)
        key = run.digest(f"{name} {sorted(whose.items())}", seeded, {})
        found.append(run.cells.get(f"{name}-{seed}", key, lambda: _made(run, seeded, cases, canvases)))  # noqa: B023
    return found


def _made(
    run: LedgerRun, resolved: ResolvedModel, cases: Mapping[str, pl.DataFrame], canvases: Sequence[str]
) -> LedgerCell:
    whole = set(resolved.model.heads) >= set(run.heads())
    data = run.service.data if whole else run.part(resolved, canvases)
    trained, costs = run.trained(resolved, data)
    parts = [own_logits(run, trained, head, rows) for head, rows in cases.items()]
    return LedgerCell(pl.concat(parts), costs)


def own_logits(run: LedgerRun, trained: ModelAnswerer, head: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return head, place and the logit of each row's own title."""
    scorer, resolved = trained.scorer, trained.resolved
    places = TitleOrder(tuple(scorer.title_ids))
    columns, found = places.codes(rows["title_id"]), np.zeros(rows.height)
    for canvas in rows["canvas"].unique().sort().to_list():
        function = CanvasScorer(scorer, resolved, canvas, run.service.features)
        here = np.nonzero((rows["canvas"] == canvas).to_numpy())[0]
        for start in range(0, len(here), _AT_ONCE):
            part = here[start : start + _AT_ONCE]
            logits = function.heads(_requests(run, resolved.canvas(canvas), rows["state"].to_numpy()[part]))[head]
            found[part] = _own(logits, columns[part], resolved.model.heads[head].loss in COMPETING)
    return pl.DataFrame({"head": [head] * rows.height, "place": np.arange(rows.height), "logit": found})


def _own(logits: Any, columns: Indices, competing: bool) -> Floats64:
    values = logits.astype(np.float64)
    if competing:
        top = values.max(axis=1, keepdims=True)
        values = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
    own: Floats64 = np.where(columns == UNKNOWN, values.min(axis=1), values[np.arange(len(columns)), columns])
    return own


def _requests(run: LedgerRun, canvas: CanvasSpec, states: npt.NDArray[Any]) -> list[Request]:
    log = run.service.log
    rows = logged_frame(log.frame[states], canvas).select(REQUEST_FIELDS).iter_rows(named=True)
    return [
        Request(canvas=canvas.name, history=log.past(state), features={}, **row)
        for state, row in zip(states.tolist(), rows, strict=True)
    ]


def _logits(cells: Sequence[LedgerCell], head: str) -> list[Floats64]:
    return [cell.values.filter(pl.col("head") == head).sort("place")["logit"].to_numpy() for cell in cells]


def auc_gain(
    ours: Sequence[Floats64], theirs: Sequence[Floats64], label: Floats64, members: Indices, resamples: int
) -> Interval:
    """Return the mean difference of areas under the curve, paired by member and seed.

    The variance is that over draws of members of the difference averaged over seeds, plus the seeds' own over their
    number; see `playbill.metrics.seed_interval`, whose degrees of freedom are used. Each draw sorts the rows anew, so
    two hundred at most are made.

    `ours` and `theirs` are [S][R] scores, `label` [R] 0 or 1, `members` [R] dense codes.
    """
    pairs = list(zip(ours, theirs, strict=True))
    by_seed = np.array([metrics.auc(one, label) - metrics.auc(other, label) for one, other in pairs])
    size, generator, drawn = int(members.max()) + 1, np.random.default_rng(0), []
    for _ in range(min(resamples, 200)):
        weight = np.bincount(generator.integers(0, size, size), minlength=size)[members].astype(np.float64)
        gaps = [metrics.auc(one, label, weight) - metrics.auc(other, label, weight) for one, other in pairs]
        drawn.append(float(np.mean(gaps)))
    value, from_members = float(by_seed.mean()), float(np.nanvar(drawn, ddof=1))
    if len(pairs) == 1:
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        return Interval(value, float(low), float(high))
    from_seeds = float(by_seed.var(ddof=1)) / len(pairs)
    total = from_members + from_seeds
    parts = from_seeds**2 / (len(pairs) - 1) + from_members**2 / max(size - 1, 1)
    half = float(stdtrit(total**2 / parts if parts else 1e9, 0.975)) * total**0.5
    return Interval(value, value - half, value + half)
