"""Gates: may this version be champion? Read from numbers that evaluations left on the versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from playbill.datasets.splits import PROTOCOLS, REQUESTS, TIME_PROTOCOLS
from playbill.definitions.specs import GateSpec
from playbill.definitions.specs.measures import ESTIMATORS, HEAD_METRICS, PLAYED, lower_is_better
from playbill.versions.promotion.pairing import PairedChange, paired_change, spelled_change
from playbill.versions.tracking import Evaluation
from playbill.versions.tracking.registry import MEASURED_ON_OTHERS

CHAMPION = "champion"
ALL = "all"
REWARD_METRIC = "reward_ndcg"
_ROUNDING = 1e-9
_ANEW = "MODEL:VERSION --canvas CANVAS of the version without them"

Key = tuple[str, str, str]
"""Protocol, split digest and version of the requests: evaluations with equal keys may be compared."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """One number held against one limit."""

    gate: str  # the gate as it is written, such as `ndcg@10 on home against champion, -1%`
    metric: str  # flat name of the number, such as `home/ndcg@10`
    value: float | None  # the candidate's, None when it has none
    reference: float | None  # the champion's or baseline's, None when there is nothing to compare with
    limit: float | None  # least value that passes; the highest for a metric that is better lower
    passed: bool  # whether it holds
    reason: str = ""  # why it does not, why it was not measured, or that it holds inside the noise
    # relative change with the ends of its 95 % interval, where both answered the same requests
    change: tuple[float, float, float] | None = None
    members: int | None = None  # members behind that interval
    noise: bool = False  # whether the other decision lies in the interval too


class _Merged(NamedTuple):
    """Evaluations that may be compared with others of their key: each number, and the evaluation it is from."""

    metrics: dict[str, float]
    origins: dict[str, Evaluation]


def judge(
    gates: Iterable[GateSpec], candidate: Sequence[Evaluation], champion: Sequence[Evaluation] | None
) -> tuple[GateResult, ...]:
    """Hold every gate.

    Evaluations come newest first. `champion` is None at the first promotion, when gates against the champion have
    nothing to compare with and pass.

    Raises:
        IntegrityError: Values by request that were kept are missing or were changed.
    """
    unreadable = [one.problem for one in (*candidate, *(champion or ())) if one.problem]
    if unreadable:
        # What is absent from a table that cannot be read may be what would have refused the version.
        return tuple(_unmeasured(gate, False, f"integrity: {'; '.join(unreadable)}") for gate in gates)
    ours = _by_key(candidate)
    theirs = None if champion is None else _by_key(champion)
    return tuple(result for gate in gates for result in _judge_one(gate, ours, theirs))


def judge_against(
    gate: GateSpec, candidate: Sequence[Evaluation], other: Sequence[Evaluation], name: str
) -> tuple[GateResult, ...]:
    """Hold a gate against another version, such as a member of an ensemble, that a message calls `name`.

    Raises:
        IntegrityError: Values by request that were kept are missing or were changed.
    """
    unreadable = [one.problem for one in (*candidate, *other) if one.problem]
    if unreadable:
        return (_unmeasured(gate, False, f"integrity: {'; '.join(unreadable)}"),)
    ours, theirs = _by_key(candidate), _by_key(other)
    key = _comparable(gate, ours, theirs)
    if key is None:
        reason = f"not comparable: measured under {_spell(ours)}, {name} under {_spell(theirs)}"
        return (_unmeasured(gate, False, reason),)
    return tuple(_against_version(gate, ours[key], theirs[key], name))


def _judge_one(
    gate: GateSpec, ours: Mapping[Key, _Merged], theirs: Mapping[Key, _Merged] | None
) -> Iterator[GateResult]:
    if gate.against != CHAMPION:
        yield from _against_baseline(gate, ours)
    elif theirs is None:
        yield _unmeasured(gate, True, "first promotion, there is no champion to compare with")
    else:
        key = _comparable(gate, ours, theirs)
        if key is None:
            reason = f"not comparable: measured under {_spell(ours)}, the champion under {_spell(theirs)}"
            if other := _other_protocol(ours, theirs):
                reason += f"; held out otherwise than the champion: train it with --protocol {other} to compare them"
            if any(requests != REQUESTS for _, _, requests in theirs):
                reason += "; measure the champion again with `playbill evaluate MODEL@champion`"
            yield _unmeasured(gate, False, reason)
        else:
            yield from _against_version(gate, ours[key], theirs[key], "the champion")


def _comparable(gate: GateSpec, ours: Mapping[Key, _Merged], theirs: Mapping[Key, object]) -> Key | None:
    """Newest evaluation of both that holds the gate's number, else the newest of both."""
    common = [key for key in ours if key in theirs and any(key[:2])]
    holding = (key for key in common if any(_asks_for(gate, name) for name in ours[key].metrics))
    return next(holding, next(iter(common), None))


def _against_version(gate: GateSpec, ours: _Merged, theirs: _Merged, other: str) -> Iterator[GateResult]:
    wanted = {name for name in theirs.metrics if _asks_for(gate, name)}
    if gate.slice is not None or (gate.metric in HEAD_METRICS and gate.head is None):
        # A group without requests, or a head, on one side only has nothing to compare.
        wanted &= ours.metrics.keys()
    if not any(_asks_for(gate, name) for name in ours.metrics):
        yield _unmeasured(gate, False, "the candidate has no such number")
    elif not wanted:
        yield _unmeasured(gate, True, f"{other} has no such number to compare with")
    for name in sorted(wanted):
        if gate.metric.startswith(REWARD_METRIC) and _fingerprint(name, ours.metrics) != _fingerprint(
            name, theirs.metrics
        ):
            own, theirs_by = _reward_id(name, ours.metrics), _reward_id(name, theirs.metrics)
            reason = f"not comparable: measured by {own}, {other} by {theirs_by}"
            yield _unmeasured(gate, False, f"{reason}, another version of the reward")
        else:
            change = _paired(gate, name, ours, theirs)
            held = _hold(gate, name, ours.metrics.get(name), theirs.metrics[name], change)
            yield _with_files(held, {"": ours.origins.get(name), f"{other} was ": theirs.origins.get(name)})


def _paired(
    gate: GateSpec, name: str, ours: _Merged, theirs: _Merged, baseline: str | None = None
) -> PairedChange | None:
    if name not in ours.origins:
        return None
    canvas, metric, group = (*name.split("/", 2), "")[:3]
    number, allowed, lower = (canvas, metric, group), _allowed(gate), lower_is_better(gate.metric)
    return paired_change(number, ours.origins[name], theirs.origins[name], allowed, lower=lower, baseline=baseline)


def _reward_id(name: str, metrics: Mapping[str, float]) -> str:
    found = _fingerprint(name, metrics)
    return "no reward" if found is None else f"reward ...:{int(found):012x}"


def _fingerprint(name: str, metrics: Mapping[str, float]) -> float | None:
    return metrics.get(f"{name.partition('/')[0]}/reward_fingerprint")


def _against_baseline(gate: GateSpec, evaluations: Mapping[Key, _Merged]) -> Iterator[GateResult]:
    ending = f"/minus={gate.against}"
    for merged in evaluations.values():
        metrics = merged.metrics
        found = [name for name in metrics if _asks_for(gate, name) and name + ending in metrics]
        if found:
            for name in sorted(found):
                change = _paired(gate, name, merged, merged, gate.against)
                held = _hold(gate, name, metrics[name], metrics[name] - metrics[name + ending], change)
                yield _with_files(held, {"": merged.origins.get(name)})
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


def _hold(gate: GateSpec, name: str, value: float | None, reference: float, change: PairedChange | None) -> GateResult:
    lower = lower_is_better(gate.metric)
    limit = reference - abs(reference) * _allowed(gate) if lower else reference + abs(reference) * _allowed(gate)
    plain = GateResult(_written(gate), name, value, reference, limit, False)
    if value is None:
        return replace(plain, reason="the candidate has no such number")
    passed = value <= limit + _ROUNDING if lower else value >= limit - _ROUNDING
    if change is not None:
        ends = (change.relative.value, change.relative.low, change.relative.high)
        noise = change.beyond.includes_zero
        decided = _by_interval(gate, plain, change) if gate.significant else _by_value(plain, passed, lower, change)
        return replace(decided, change=ends, members=change.members, noise=noise)
    if gate.significant:
        return replace(plain, reason=f"'significant' needs values by request of both: playbill evaluate {_ANEW}")
    worse = "above" if lower else "below"
    reason = "" if passed else f"{value:.4f} is {worse} {limit:.4f}{_relative(value, reference)}"
    return replace(plain, passed=passed, reason=reason)


def _with_files(result: GateResult, origins: Mapping[str, Evaluation | None]) -> GateResult:
    """Return a result that says which of its numbers were measured on other feature files than trained on."""
    notes = [f"{who}{MEASURED_ON_OTHERS}: {one.other_files}" for who, one in origins.items() if one and one.other_files]
    return replace(result, reason="; ".join(filter(None, [result.reason, *notes]))) if notes else result


def _by_value(plain: GateResult, passed: bool, lower: bool, change: PairedChange) -> GateResult:
    """Decide by the number alone, and say where the members measured could as well have decided otherwise."""
    noise = change.beyond.includes_zero
    text = spelled_change(change.relative, change.members) + (", inside the noise" if noise else "")
    if passed:
        return replace(plain, passed=True, reason=text if noise else "")
    side = "above" if lower else "below"
    return replace(plain, reason=f"{plain.value:.4f} is {side} {plain.limit:.4f}: {text}")


def _by_interval(gate: GateSpec, plain: GateResult, change: PairedChange) -> GateResult:
    """Decide by the whole interval: a gain has to be shown, while a loss is refused only where it is shown."""
    better, worse = ("below", "above") if lower_is_better(gate.metric) else ("above", "below")
    gain = _allowed(gate) > 0
    shown = change.beyond.low > 0.0 if gain else change.beyond.high < 0.0
    text = f"{'' if shown else 'not '}significantly {better if gain else worse} {plain.limit:.4f}"
    return replace(
        plain,
        passed=shown is gain,
        reason=f"{plain.value:.4f} is {text}: {spelled_change(change.relative, change.members)}",
    )


def _relative(value: float, reference: float) -> str:
    return f": {100.0 * (value - reference) / abs(reference):+.1f} % against {reference:.4f}" if reference else ""


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
    ending = ", significant" if gate.significant else ""
    return f"{metric} on {where} against {gate.against}, {_allowed(gate) * 100:+g}%{ending}"


def key_of(evaluation: Evaluation) -> Key:
    """Return what two evaluations must share to be compared."""
    return evaluation.protocol, evaluation.split_digest, evaluation.requests_version


def _by_key(evaluations: Sequence[Evaluation]) -> dict[Key, _Merged]:
    """Merge evaluations that may be compared; of numbers measured twice the newest counts."""
    merged: dict[Key, _Merged] = {}
    for evaluation in evaluations:
        own = merged.setdefault(key_of(evaluation), _Merged({}, {}))
        for name, value in evaluation.metrics.items():
            own.metrics.setdefault(name, value)
            own.origins.setdefault(name, evaluation)
    return merged


def _other_protocol(ours: Iterable[Key], theirs: Iterable[Key]) -> str | None:
    """Return the champion's newest protocol where the candidate is held out in the other way, by time or by member."""
    named = [protocol for protocol, _, _ in theirs if protocol in PROTOCOLS]
    ways = {protocol in TIME_PROTOCOLS for protocol, _, _ in ours if protocol in PROTOCOLS}
    return named[0] if named and ways and (named[0] in TIME_PROTOCOLS) not in ways else None


def _spell(evaluations: Iterable[Key]) -> str:
    named = [
        f"{protocol} on split {split[:12]}" + ("" if requests == REQUESTS else f" with requests of version {requests}")
        for protocol, split, requests in evaluations
        if protocol or split
    ]
    return ", ".join(named) or "no protocol"
