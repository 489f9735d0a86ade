"""Where a model fails: each slice of its held-out requests beside what is expected at its size, and why.

Requests, slices and metric are those of `playbill evaluate`. What is expected and how a gap is taken apart stands in
`size_matched`, the facts of slices in `slice_facts`.
Axis letters: N requests, G slices.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64, Indices
from playbill.config import Workspace
from playbill.continual.diagnosis.diagnosis import Diagnosis, SliceDiagnosis, Verdict, reasons_of, suggestion_of
from playbill.continual.diagnosis.size_matched import GroupGap, group_gaps
from playbill.continual.diagnosis.slice_facts import SliceLog, distances
from playbill.datasets.examples.sampling import UNKNOWN_BAND
from playbill.datasets.splits import PROTOCOLS, TIME_PROTOCOLS
from playbill.definitions.specs.head import loss_plugin
from playbill.errors import ConfigError, StateError, UnknownNameError
from playbill.evaluation import (
    Beside,
    CanvasScorer,
    EvaluationTables,
    build_case,
    canvas_function,
    open_model,
)
from playbill.evaluation.canvases.head_probabilities import held_out_labels, labelled_on, scored_rows
from playbill.evaluation.cases.build import TARGETS
from playbill.evaluation.evaluate import REPLAY
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor
from playbill.metrics import MemberBootstrap
from playbill.tables import Tables
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import SPLIT_DIGEST

if TYPE_CHECKING:
    from playbill.evaluation import OpenModel

DIAGNOSED = ("country", "tenure", "language", "device", "canvas")
"""Slices of who asks and from where. Those of what was played are facts of a diagnosis, no slices of it."""
POPULARITY = "popular"  # baseline that says whether a slice is hard for everything
LEVEL = 0.05  # of adjusted p-values, up to which a gap is more than noise
CELLS = 40_000_000  # requests times draws that are solved: of many requests fewer draws are made
FEWEST_DRAWS = 200


@dataclass(frozen=True)
class DiagnoseOptions:
    """What is diagnosed.

    Args:
        by: One of `DIAGNOSED`.
        canvas: Canvas to ask; None = home, or the model's first one.
        protocol: Named protocol; None = the one that the version was trained under.
        minimum_members: Members that a slice needs for a conclusion; None = as the model says.
        draws: Of members, for intervals.
        seed: Of all draws.
    """

    by: str = "country"
    canvas: str | None = None
    protocol: str | None = None
    minimum_members: int | None = None
    draws: int = metrics.bootstrap.DEFAULT_RESAMPLES // 2
    seed: int = 0


def diagnose(
    workspace: Workspace,
    reference: str,
    options: DiagnoseOptions | None = None,
    progress: ProgressListener | None = None,
) -> Diagnosis:
    """Measure a registered version slice by slice, and find out why it fails where it does.

    Args:
        workspace: Whose.
        reference: `model@champion`, `model:3`, or `model` for its newest version.
        options: What is diagnosed.
        progress: Hears of progress.

    Raises:
        UnknownNameError: No such version, protocol, canvas or slice.
        ConfigError: The canvas ranks rows, or the protocol has no single list of requests.
        ComparisonError: The version was trained on what the protocol holds out.
        StateError: The log does not know the slice, has one slice only, or nothing held out for the canvas.
    """
    options, progress = options or DiagnoseOptions(), progress or Silent()
    _check_names(options)
    progress.stage("read tables")
    frames = EvaluationTables.read(Tables(workspace))
    tracking, door = Tracking(workspace), FeatureDoor(workspace)
    version = tracking.resolve(reference)
    progress.stage(f"fetch {version.reference}")
    folder = tracking.download(version.model, version.version)
    known = version.tags.get(SPLIT_DIGEST)
    model = open_model(folder, frames, door, digest=version.digest, split_digest=known)
    canvas = options.canvas or model.resolved.main_canvas
    function = canvas_function(model.scorer, model.resolved, canvas, door)
    if not isinstance(function, CanvasScorer):
        raise ConfigError(
            f"canvas '{canvas}' ranks rows; a diagnosis is about lists of titles: choose another --canvas"
        )
    return diagnose_model(model, function, frames, version.reference, options, progress)


def diagnose_model(
    model: OpenModel,
    function: CanvasScorer,
    frames: EvaluationTables,
    name: str,
    options: DiagnoseOptions,
    progress: ProgressListener | None = None,
) -> Diagnosis:
    """Diagnose an open model on one canvas; see `diagnose`."""
    progress, resolved, canvas = progress or Silent(), model.resolved, function.canvas.name
    split = model.split(options.protocol, frames)
    case = build_case(frames, split, resolved, canvas)
    if not case.logged and {"query", "source_title"} & set(function.canvas.context):
        raise StateError(f"the log has no held-out request on canvas '{canvas}', and its requests cannot be made up")
    _require_slices(case.frame, options.by)
    log = SliceLog.of(case, options.by)
    progress.stage(f"measure {name} on {canvas} by {options.by}")
    k = resolved.model.evaluate.k
    baseline = Beside().of((POPULARITY,), case, resolved)
    measured = measure(case, {name: function, **baseline}, k, progress.advance)
    metric = f"ndcg@{k[0]}"
    values = measured[name].values[metric]
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    draws = min(options.draws, max(FEWEST_DRAWS, CELLS // len(case)))
    progress.stage("compare slices")
    parts = log.request_facts()
    gaps = group_gaps(values, log.requests, members, log.history, parts, draws=draws, seed=options.seed)
    labels = held_out_labels(split, frames, resolved, case.fold)
    rows = labelled_on(function, labels, resolved, canvas)
    heads = {head: of for head, of in rows.items() if of.height and _is_probability(resolved.model.heads[head].loss)}
    scored = scored_rows(function, labels.log, canvas, heads, resolved, options.seed) if heads else {}
    facts = log.facts(values - measured[POPULARITY].values[metric], _calibration(log, scored), options.seed)
    minimum = options.minimum_members or resolved.model.evaluate.minimum_members
    overall = MemberBootstrap(members, draws, options.seed).intervals(values[:, None])[0]
    diagnosis = Diagnosis(
        name,
        options.by,
        canvas,
        case.protocol,
        case.fold,
        metric,
        len(case),
        int(members.max()) + 1,
        minimum,
        overall,
        (),
    )
    found = _slices(log, members, minimum, gaps, facts)
    return replace(diagnosis, slices=_explained(found, diagnosis), notes=_notes(found, parts, scored, diagnosis))


def _check_names(options: DiagnoseOptions) -> None:
    """Look names up before anything is read or fetched."""
    if options.by not in DIAGNOSED:
        raise UnknownNameError("slice", options.by, DIAGNOSED)
    if options.protocol == REPLAY:
        raise ConfigError(f"protocol '{REPLAY}' is a series of requests and updates; diagnose another one")
    if options.protocol is not None and options.protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", options.protocol, PROTOCOLS)


def _require_slices(frame: pl.DataFrame, by: str) -> None:
    """Refuse a slice of which the log knows nothing, or one value only; the message names those that it knows."""
    groups = {name: _groups(frame, name) for name in DIAGNOSED}
    if len(groups[by]) > 1:
        return
    several = [name for name in DIAGNOSED if len(groups[name]) > 1]
    near = difflib.get_close_matches(by, several, n=1, cutoff=0.0)
    better = f"; the log divides requests by {', '.join(several)}: try --by {near[0]}" if near else ""
    if groups[by] <= {UNKNOWN_BAND, "ZZ"}:
        raise StateError(f"the log does not say the {by} of any held-out request{better}")
    raise StateError(f"every held-out request is of one {by}, '{groups[by].pop()}': nothing to compare it with{better}")


def _groups(frame: pl.DataFrame, name: str) -> set[str]:
    return set(frame[name].cast(pl.String).fill_null(UNKNOWN_BAND).unique())


def _is_probability(loss: str | None) -> bool:
    return loss is not None and loss_plugin(loss).meaning == "probability"


def _calibration(log: SliceLog, scored: dict[str, pl.DataFrame]) -> Floats64:
    """Return [G] ln(predicted / observed) positives of the heads that say yes or no; nan where there are none."""
    size = len(log.names)
    predicted, observed = np.zeros(size), np.zeros(size)
    for rows in scored.values():
        group = log.events[rows["place"].to_numpy()]
        known = group >= 0
        probability = 1.0 / (1.0 + np.exp(-rows["logit"].to_numpy().astype(np.float64)))
        predicted += np.bincount(group[known], probability[known], minlength=size)
        observed += np.bincount(group[known], rows["positive"].to_numpy()[known].astype(np.float64), minlength=size)
    return np.where(
        (predicted > 0) & (observed > 0), np.log(np.maximum(predicted, 1e-12) / np.maximum(observed, 1.0)), np.nan
    )


def _slices(
    log: SliceLog, members: Indices, minimum: int, gaps: list[GroupGap], facts: dict[str, Floats64]
) -> list[SliceDiagnosis]:
    sizes = [np.unique(members[log.requests == place]).size for place in range(len(log.names))]
    large = np.array(sizes) >= minimum
    adjusted = metrics.adjust_p(np.where(large, [one.p for one in gaps], np.nan), "benjamini_hochberg")
    far = distances(facts, large)
    return [
        SliceDiagnosis(
            slice=name,
            requests=int((log.requests == place).sum()),
            members=sizes[place],
            verdict=_verdict(one, float(adjusted[place]), bool(large[place])),
            metric=one.metric,
            expected=one.expected,
            size_effect=one.size_effect,
            gap=one.gap,
            adjusted_p=float(adjusted[place]) if large[place] else None,
            parts=one.parts,
            unexplained=one.unexplained,
            facts={fact: _number(values[place]) for fact, values in facts.items()},
            distances={fact: _number(values[place]) for fact, values in far.items()},
        )
        for place, (name, one) in enumerate(zip(log.names, gaps, strict=True))
    ]


def _verdict(one: GroupGap, adjusted: float, large: bool) -> Verdict:
    if not large:
        return "not concluded"
    if adjusted > LEVEL or one.gap.includes_zero:
        return "no gap shown"
    return "below" if one.gap.value < 0.0 else "above"


def _explained(found: list[SliceDiagnosis], diagnosis: Diagnosis) -> tuple[SliceDiagnosis, ...]:
    """Add reasons and suggestions; the largest gap first, slices with too few members last."""
    ordered = sorted(found, key=lambda one: (one.verdict == "not concluded", one.gap.value, one.slice))
    explained = []
    for one in ordered:
        reasons = reasons_of(one)
        suggestion = suggestion_of(one, tuple(cause for cause, _ in reasons), diagnosis)
        explained.append(replace(one, reasons=tuple(text for _, text in reasons), suggestion=suggestion))
    return tuple(explained)


def _notes(
    found: list[SliceDiagnosis], parts: dict[str, Floats64], scored: dict[str, pl.DataFrame], diagnosis: Diagnosis
) -> tuple[str, ...]:
    minimum = diagnosis.minimum_members
    notes = (
        [f"gaps are taken apart over {', '.join(parts)}"]
        if parts
        else ["no fact of requests is known: gaps stay whole"]
    )
    large = sum(one.verdict != "not concluded" for one in found)
    if not any(one.verdict == "below" for one in found):
        notes.append("no slice does worse than its lengths of history let one expect, beyond noise")
    if large < 3:
        notes.append(
            f"slices with at least {minimum} members: {large}, too few to tell in which facts one is far from others"
        )
    if large < len(found) and TARGETS[diagnosis.protocol] == "last" and diagnosis.protocol in TIME_PROTOCOLS:
        notes.append("one request for each member: --protocol global_time_successive asks at every held-out play")
    if scored:
        notes.append(f"calibration is of the heads {', '.join(scored)}")
    return tuple(notes)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
