"""Compares reports, and refuses what must not be compared.

Versions whose definitions differ in nothing but the training seed are seeds of one *arm*. A difference between arms
is a claim only when its interval, over members **and** seeds, leaves zero out after the correction for the number of
arms. An arm of one seed makes no claim: how far another seed would land is not known.
Axis letters: S seeds, N requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from playbill import metrics
from playbill.arrays import Floats64
from playbill.datasets import Split
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.resolved import content_hash
from playbill.errors import ComparisonError, ConfigError
from playbill.evaluation.cases.event_log import TRAIN
from playbill.evaluation.report import EvaluationReport
from playbill.features.vectors import SPLIT as VECTORS_SPLIT
from playbill.features.vectors import Pins, vectors_folder
from playbill.metrics import Interval, MemberBootstrap, seed_interval
from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES

GLOBAL_TIME = "global_time"  # what a model is trained under to be measured under any protocol that cuts by time
MUST_AGREE = {
    "protocol": "protocols",
    "canvas": "canvases",
    "row": "rows",
    "label": "labels of rows",
    "fold": "folds",
    "split_digest": "splits",
    "case_digest": "requests, titles or candidate rules",
}


@dataclass(frozen=True)
class Comparison:
    """What changes from one report to another, paired by request, intervals by member."""

    before: str
    after: str
    canvas: str
    differences: dict[str, Interval]  # metric -> second minus first
    relative: dict[str, float]  # metric -> the same over the first's mean; absent where that is zero


def compare(
    before: EvaluationReport, after: EvaluationReport, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> Comparison:
    """Give the second report's models minus the first's.

    Raises:
        ComparisonError: Protocol, canvas, fold, split or case differ, or they share no metric.
    """
    assert_comparable(before, after)
    shared = [name for name in before.result.metrics if name in after.result.metrics]
    if not shared:
        raise ComparisonError(
            f"the reports share no metric: {sorted(before.result.metrics)} and {sorted(after.result.metrics)}"
        )
    names = [f"{before.model}/{name}" for name in shared]
    paired = before.requests.select("request_id", "member_id", *names).join(
        after.requests.select("request_id", *(f"{after.model}/{name}" for name in shared)),
        on="request_id",
        how="left",
        maintain_order="left",
        suffix="/after",
    )
    columns = [column for column in paired.columns if column not in ("request_id", "member_id")]
    values = paired.select(columns).to_numpy().astype(np.float64)
    members = paired["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    weights = np.stack([_weights(before, name) for name in shared], axis=1)
    change = values[:, len(names) :] - values[:, : len(names)]
    found = MemberBootstrap(members, resamples, seed).intervals(change, weights)
    differences = dict(zip(shared, found, strict=True))
    relative = {
        name: interval.value / before.result.metrics[name].value
        for name, interval in differences.items()
        if before.result.metrics[name].value
    }
    return Comparison(before.model, after.model, before.canvas, differences, relative)


def _weights(report: EvaluationReport, metric: str) -> Floats64:
    column = f"weight/{metric}"
    if column in report.requests.columns:
        return report.requests[column].to_numpy().astype(np.float64)
    return np.ones(report.requests.height)


def assert_comparable(before: EvaluationReport, after: EvaluationReport) -> None:
    """Make sure that two reports answer the same question.

    Raises:
        ComparisonError: They do not; every difference is named.
    """
    reasons = [
        f"{plural} differ ({_short(getattr(before, name))} and {_short(getattr(after, name))})"
        for name, plural in MUST_AGREE.items()
        if getattr(before, name) != getattr(after, name)
    ]
    if None not in (before.reward, after.reward) and before.reward != after.reward:
        reasons.append(f"rewards differ ({before.reward} and {after.reward})")
    if reasons:
        raise ComparisonError(
            f"'{before.model}' and '{after.model}' must not be compared: {'; '.join(reasons)}. "
            "Evaluate both on one protocol and split"
        )


def assert_one_split(splits: Mapping[str, Split]) -> None:
    """Make sure that several models are going to be asked the same, before any of them is measured.

    Raises:
        ComparisonError: They differ in protocol or in what is held out.
    """
    requested = {name: (split.protocol, split.digest) for name, split in splits.items()}
    if len(set(requested.values())) > 1:
        each = ", ".join(
            f"'{name}' under {protocol} on split {digest[:12]}" for name, (protocol, digest) in requested.items()
        )
        raise ComparisonError(
            f"these would not be asked the same: {each}. Evaluate them apart, or train them under one protocol on one "
            "state of the data"
        )


def assert_not_trained_on(split: Split, trained_split: Split, *, model: str = "this model") -> None:
    """Make sure that a model never saw what it is about to be measured on.

    Raises:
        ComparisonError: Test events of `split` are in the train fold of `trained_split`.
    """
    tested = split.frame.filter(split.frame["fold"].cast(str) == "test").select("event_id")
    trained = trained_split.frame.filter(trained_split.frame["fold"].cast(str) == TRAIN).select("event_id")
    seen = tested.join(trained, on="event_id", how="semi").height
    if seen:
        trained_for = GLOBAL_TIME if split.protocol in TIME_PROTOCOLS else split.protocol
        raise ComparisonError(
            f"{model} was trained under protocol '{trained_split.protocol}', whose train fold holds {seen} of the "
            f"{tested.height} test events of protocol '{split.protocol}': the result would be of its memory. "
            f"Train it for that protocol: playbill train {model} --protocol {trained_for}"
        )


def assert_vectors_not_trained_on(split: Split, features: Path, pins: Pins) -> None:
    """Make sure that published vectors which a model reads were not learnt from what it would be measured on.

    `pins` are the vectors by view, `features` the workspace's folder.

    Raises:
        ComparisonError: Test events of `split` are in the train fold of a version whose vectors are read.
    """
    for reference in sorted({pin["version"] for pin in pins.values()}):
        model, _, version = reference.partition(":")
        trained = Split.load(vectors_folder(features, model, int(version)) / VECTORS_SPLIT)
        assert_not_trained_on(split, trained, model=model)


def _short(value: str | None) -> str:
    text = value or "none"
    return text if len(text) < 40 else text[:12]


ACCURACY = ("hr", "ndcg", "mrr", "map", "recall")
"""Metrics that arms are compared on: one value for every request, all of equal weight."""


@dataclass(frozen=True)
class ArmRow:
    """One arm."""

    name: str
    seeds: int  # versions in it; 0 for a baseline, which is the same however often it is fitted
    metrics: dict[str, Interval]  # metric -> mean over seeds and requests, with an interval over both
    spread: dict[str, float]  # metric -> standard deviation of the seeds' means; empty with fewer than two


@dataclass(frozen=True)
class ArmDifference:
    """The first arm minus another."""

    other: str
    metrics: dict[str, Interval]  # metric -> difference with its interval over members and seeds
    adjusted_p: dict[str, float]  # metric -> p-value after Holm's correction for all the other arms
    claims: tuple[str, ...]  # metrics in which the difference stands out of the noise
    why_not: str = ""  # what else keeps it from being a claim, such as an arm of one seed; empty without any


@dataclass(frozen=True)
class ArmsReport:
    """Arms on one canvas of one protocol, over the same requests: the first arm, the other arms, then baselines.

    `differences` are the first arm minus each of the others.
    """

    protocol: str
    canvas: str
    n: int
    members: int
    rows: tuple[ArmRow, ...]
    differences: tuple[ArmDifference, ...]


@dataclass(frozen=True)
class _Arm:
    name: str
    seeds: int
    values: dict[str, Floats64]


def arm_hash(resolved: ResolvedModel) -> str:
    """Return a hash of a definition without its training seed: equal for seeds of one arm."""
    content = resolved.model_dump(mode="json", by_alias=True)
    content["model"]["training"].pop("seed")
    return content_hash(content)


def compare_arms(
    arms: Mapping[str, Sequence[EvaluationReport]], *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> ArmsReport:
    """Compare the first arm with every other one and with the baselines of its first report.

    Raises:
        ComparisonError: Two reports must not be compared; every difference is named.
        ConfigError: There is nothing to compare.
    """
    first = next((report for reports in arms.values() for report in reports), None)
    if first is None or not all(arms.values()):
        raise ConfigError("every arm needs the report of at least one version")
    for report in (report for reports in arms.values() for report in reports):
        assert_comparable(first, report)
    names = [name for name in first.result.metrics if name.partition("@")[0] in ACCURACY]
    made = [
        *(_Arm(name, len(reports), {m: _values(reports, m) for m in names}) for name, reports in arms.items()),
        *(_Arm(row.name, 0, {m: _column(first, row.name, m)[None] for m in names}) for row in first.baselines),
    ]
    members = first.requests["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    bootstrap = MemberBootstrap(members, resamples, seed)
    differences = [_difference(bootstrap, made[0], other, names) for other in made[1:]]
    return ArmsReport(
        protocol=first.protocol,
        canvas=first.subject,
        n=first.n,
        members=first.members,
        rows=tuple(_row(bootstrap, arm) for arm in made),
        differences=_adjusted(differences, names),
    )


def _values(reports: Sequence[EvaluationReport], metric: str) -> Floats64:
    return np.stack([_column(report, report.model, metric) for report in reports])


def _column(report: EvaluationReport, name: str, metric: str) -> Floats64:
    return report.requests[f"{name}/{metric}"].to_numpy().astype(np.float64)


def _row(bootstrap: MemberBootstrap, arm: _Arm) -> ArmRow:
    if arm.seeds < 2:
        found = {name: bootstrap.intervals(values.T)[0] for name, values in arm.values.items()}
        return ArmRow(arm.name, arm.seeds, found, {})
    options = {"resamples": bootstrap.resamples, "seed": bootstrap.seed}
    several = {name: seed_interval(bootstrap.members, values, **options) for name, values in arm.values.items()}
    return ArmRow(
        arm.name,
        arm.seeds,
        {name: one.interval for name, one in several.items()},
        {name: one.spread for name, one in several.items()},
    )


def _difference(bootstrap: MemberBootstrap, ours: _Arm, theirs: _Arm, names: Sequence[str]) -> ArmDifference:
    """Compare two arms. Here `adjusted_p` is still the p-value of this comparison alone."""
    found: dict[str, Interval] = {}
    p: dict[str, float] = {}
    for name in names:
        found[name], p[name] = _welch(bootstrap, ours.values[name], theirs.values[name])
    single = [arm.name for arm in (ours, theirs) if arm.seeds == 1]
    why_not = f"one seed of {' and of '.join(single)}" if single else ""
    return ArmDifference(theirs.name, found, p, (), why_not)


def _welch(bootstrap: MemberBootstrap, ours: Floats64, theirs: Floats64) -> tuple[Interval, float]:
    """Return the difference with its interval and p-value: variance of members plus that of each side's seeds.

    Degrees of freedom after Satterthwaite, as in `metrics.seed_interval`; a side of one seed adds no variance.
    """
    change = ours.mean(axis=0) - theirs.mean(axis=0)
    people = max(int(bootstrap.members.max()), 1)
    parts = [(bootstrap.variance(change), people)]
    parts += [
        (float(side.mean(axis=1).var(ddof=1)) / len(side), len(side) - 1) for side in (ours, theirs) if len(side) > 1
    ]
    total = sum(variance for variance, _ in parts)
    value = float(change.mean())
    if total <= 0.0:
        return Interval(value, value, value), 1.0 if value == 0.0 else 0.0
    from scipy.special import stdtr, stdtrit  # takes a third of a second, and updates need another part of this module

    freedom = min(total**2 / sum(variance**2 / degrees for variance, degrees in parts), 1e9)
    half = float(stdtrit(freedom, 0.5 + DEFAULT_LEVEL / 2.0)) * total**0.5
    return Interval(value, value - half, value + half), float(2.0 * stdtr(freedom, -abs(value) / total**0.5))


def _adjusted(differences: Sequence[ArmDifference], names: Sequence[str]) -> tuple[ArmDifference, ...]:
    p = {name: metrics.adjust_p([row.adjusted_p[name] for row in differences]).tolist() for name in names}
    found = []
    for place, row in enumerate(differences):
        own = {name: float(p[name][place]) for name in names}
        sure = tuple(name for name in names if own[name] <= 1.0 - DEFAULT_LEVEL + 1e-12)
        found.append(ArmDifference(row.other, row.metrics, own, () if row.why_not else sure, row.why_not))
    return tuple(found)
