"""Gates: may this version be champion? Read from numbers that evaluations left on the versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from playbill.specs import GateSpec
from playbill.specs.measures import HEAD_METRICS, PLAYED, lower_is_better
from playbill.specs.plugins import ESTIMATORS
from playbill.tracking import Evaluation

CHAMPION = "champion"
ALL = "all"
REWARD_METRIC = "reward_ndcg"
_ROUNDING = 1e-9

Key = tuple[str, str]
"""Protocol and split digest: evaluations with equal keys may be compared."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """One number held against one limit.

    Args:
        gate: The gate as it is written, such as `ndcg@10 on home against champion, -1%`.
        metric: Flat name of the number, such as `home/ndcg@10`.
        value: The candidate's, None when it has none.
        reference: The champion's or baseline's, None when there is nothing to compare with.
        limit: Least value that passes; the highest for a metric that is better lower.
        passed: Whether it holds.
        reason: Why it does not, or why it was not measured.
    """

    gate: str
    metric: str
    value: float | None
    reference: float | None
    limit: float | None
    passed: bool
    reason: str = ""


def judge(
    gates: Iterable[GateSpec], candidate: Sequence[Evaluation], champion: Sequence[Evaluation] | None
) -> tuple[GateResult, ...]:
    """Hold every gate.

    Args:
        gates: Of the candidate's definition.
        candidate: Its evaluations, newest first.
        champion: The approved version's, newest first; None at the first promotion, when gates against
            the champion have nothing to compare with and pass.
    """
    ours = _by_key(candidate)
    theirs = None if champion is None else _by_key(champion)
    return tuple(result for gate in gates for result in _judge_one(gate, ours, theirs))


def _judge_one(
    gate: GateSpec, ours: Mapping[Key, Mapping[str, float]], theirs: Mapping[Key, Mapping[str, float]] | None
) -> Iterator[GateResult]:
    if gate.against != CHAMPION:
        yield from _against_baseline(gate, ours)
    elif theirs is None:
        yield _unmeasured(gate, True, "first promotion, there is no champion to compare with")
    else:
        key = _comparable(gate, ours, theirs)
        if key is None:
            reason = f"not comparable: measured under {_spell(ours)}, the champion under {_spell(theirs)}"
            yield _unmeasured(gate, False, reason)
        else:
            yield from _against_champion(gate, ours[key], theirs[key])


def _comparable(gate: GateSpec, ours: Mapping[Key, Mapping[str, float]], theirs: Mapping[Key, object]) -> Key | None:
    """Newest evaluation of both that holds the gate's number, else the newest of both."""
    common = [key for key in ours if key in theirs and any(key)]
    holding = (key for key in common if any(_asks_for(gate, name) for name in ours[key]))
    return next(holding, next(iter(common), None))


def _against_champion(gate: GateSpec, ours: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[GateResult]:
    wanted = {name for name in theirs if _asks_for(gate, name)}
    if gate.slice is not None or (gate.metric in HEAD_METRICS and gate.head is None):
        # A group without requests, or a head, on one side only has nothing to compare.
        wanted &= ours.keys()
    if not any(_asks_for(gate, name) for name in ours):
        yield _unmeasured(gate, False, "the candidate has no such number")
    elif not wanted:
        yield _unmeasured(gate, True, "the champion has no such number to compare with")
    for name in sorted(wanted):
        if gate.metric.startswith(REWARD_METRIC) and not _same_reward(name, ours, theirs):
            reason = f"not comparable: measured by {_reward_id(name, ours)}, the champion by {_reward_id(name, theirs)}"
            yield _unmeasured(gate, False, f"{reason}, another version of the reward")
        else:
            yield _hold(gate, name, ours.get(name), theirs[name])


def _same_reward(name: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    return _fingerprint(name, ours) == _fingerprint(name, theirs)


def _reward_id(name: str, metrics: Mapping[str, float]) -> str:
    found = _fingerprint(name, metrics)
    return "no reward" if found is None else f"reward ...:{int(found):012x}"


def _fingerprint(name: str, metrics: Mapping[str, float]) -> float | None:
    return metrics.get(f"{name.partition('/')[0]}/reward_fingerprint")


def _against_baseline(gate: GateSpec, evaluations: Mapping[Key, Mapping[str, float]]) -> Iterator[GateResult]:
    ending = f"/minus={gate.against}"
    for metrics in evaluations.values():
        found = [name for name in metrics if _asks_for(gate, name) and name + ending in metrics]
        if found:
            for name in sorted(found):
                yield _hold(gate, name, metrics[name], metrics[name] - metrics[name + ending])
            return
    reason = f"the candidate was not measured against '{gate.against}'"
    if gate.metric in ESTIMATORS:
        reason += f", or the estimate was refused: playbill offpolicy MODEL:VERSION --estimator {gate.metric}"
    yield _unmeasured(gate, False, reason)


def _asks_for(gate: GateSpec, name: str) -> bool:
    canvas, _, rest = name.partition("/")
    metric, _, group = rest.partition("/")
    if metric != gate.metric or (gate.canvas not in (ALL, canvas)):
        return False
    if gate.metric in ESTIMATORS:
        return group == f"reward={gate.reward or PLAYED}"
    if gate.metric in HEAD_METRICS:
        return group.startswith("head=") if gate.head is None else group == f"head={gate.head}"
    return group == "" if gate.slice is None else group.startswith(f"{gate.slice}=")


def _hold(gate: GateSpec, name: str, value: float | None, reference: float) -> GateResult:
    lower = lower_is_better(gate.metric)
    limit = reference - abs(reference) * _allowed(gate) if lower else reference + abs(reference) * _allowed(gate)
    if value is None:
        return GateResult(_written(gate), name, None, reference, limit, False, "the candidate has no such number")
    passed = value <= limit + _ROUNDING if lower else value >= limit - _ROUNDING
    reason = "" if passed else f"{value:.4f} is {'above' if lower else 'below'} {limit:.4f}"
    return GateResult(_written(gate), name, value, reference, limit, passed, reason)


def _unmeasured(gate: GateSpec, passed: bool, reason: str) -> GateResult:
    name = f"{gate.canvas}/{gate.metric}" + (f"/{gate.slice}" if gate.slice else "")
    name += f"/head={gate.head}" if gate.head else ""
    name += f"/reward={gate.reward or PLAYED}" if gate.metric in ESTIMATORS else ""
    return GateResult(_written(gate), name, None, None, None, passed, reason)


def _allowed(gate: GateSpec) -> float:
    allowed = gate.tolerance if gate.slice is None else gate.worst
    return allowed or 0.0


def _written(gate: GateSpec) -> str:
    where = f"{gate.canvas} by {gate.slice}" if gate.slice else gate.canvas
    where = f"head {gate.head} of {where}" if gate.head else where
    metric = f"{gate.metric} of {gate.reward or PLAYED}" if gate.metric in ESTIMATORS else gate.metric
    return f"{metric} on {where} against {gate.against}, {_allowed(gate) * 100:+g}%"


def _by_key(evaluations: Sequence[Evaluation]) -> dict[Key, dict[str, float]]:
    """Merge evaluations that may be compared; of numbers measured twice the newest counts."""
    merged: dict[Key, dict[str, float]] = {}
    for evaluation in evaluations:
        metrics = merged.setdefault((evaluation.protocol, evaluation.split_digest), {})
        for name, value in evaluation.metrics.items():
            metrics.setdefault(name, value)
    return merged


def _spell(evaluations: Mapping[Key, Mapping[str, float]]) -> str:
    named = [f"{protocol} on split {split[:12]}" for protocol, split in evaluations if protocol or split]
    return ", ".join(named) or "no protocol"
