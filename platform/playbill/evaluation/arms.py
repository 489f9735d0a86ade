"""Several versions beside each other: training seeds of one arm, arms against each other, and what is only noise.

Versions whose definitions differ in nothing but the training seed are seeds of one *arm*. A difference between arms
is a claim only when its interval, over members **and** seeds, leaves zero out after the correction for the number of
arms. An arm of one seed makes no claim: how far another seed would land is not known.
Axis letters: S seeds, N requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from playbill import metrics
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.resolved import content_hash
from playbill.errors import ConfigError
from playbill.evaluation.compare import assert_comparable
from playbill.evaluation.report import EvaluationReport
from playbill.metrics import Interval, MemberBootstrap, seed_interval
from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES

ACCURACY = ("hr", "ndcg", "mrr", "map", "recall")
"""Metrics that arms are compared on: one value for every request, all of equal weight."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ArmRow:
    """One arm.

    Args:
        name: Of the arm.
        seeds: Versions in it; 0 for a baseline, which is the same however often it is fitted.
        metrics: Metric -> mean over seeds and requests, with an interval over both.
        spread: Metric -> standard deviation of the seeds' means; empty with fewer than two.
    """

    name: str
    seeds: int
    metrics: dict[str, Interval]
    spread: dict[str, float]


@dataclass(frozen=True)
class ArmDifference:
    """The first arm minus another.

    Args:
        other: The other arm.
        metrics: Metric -> difference with its interval over members and seeds.
        adjusted_p: Metric -> p-value after Holm's correction for all the other arms.
        claims: Metrics in which the difference stands out of the noise.
        why_not: What else keeps it from being a claim, such as an arm of one seed; empty without any.
    """

    other: str
    metrics: dict[str, Interval]
    adjusted_p: dict[str, float]
    claims: tuple[str, ...]
    why_not: str = ""


@dataclass(frozen=True)
class ArmsReport:
    """Arms on one canvas of one protocol, over the same requests.

    Args:
        protocol: Of all of them.
        canvas: The canvas asked, and the row where one is.
        n: Requests.
        members: Members behind them.
        rows: The first arm, the other arms, then baselines.
        differences: The first arm minus each of the others.
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
    values: dict[str, Values]


def arm_hash(resolved: ResolvedModel) -> str:
    """Return a hash of a definition without its training seed: equal for seeds of one arm."""
    content = resolved.model_dump(mode="json", by_alias=True)
    content["model"]["training"].pop("seed")
    return content_hash(content)


def compare_arms(
    arms: Mapping[str, Sequence[EvaluationReport]], *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> ArmsReport:
    """Compare the first arm with every other one and with the baselines of its first report.

    Args:
        arms: Arm -> the report of each of its seeds, all on one canvas of one protocol and split.
        resamples: Bootstrap draws.
        seed: Same seed, same draws.

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


def _values(reports: Sequence[EvaluationReport], metric: str) -> Values:
    return np.stack([_column(report, report.model, metric) for report in reports])


def _column(report: EvaluationReport, name: str, metric: str) -> Values:
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


def _welch(bootstrap: MemberBootstrap, ours: Values, theirs: Values) -> tuple[Interval, float]:
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
