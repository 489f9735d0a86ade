"""Compares two reports, and refuses what must not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from playbill.datasets import Split
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.errors import ComparisonError
from playbill.evaluation.cases.event_log import TRAIN
from playbill.evaluation.report import EvaluationReport
from playbill.metrics import Interval, MemberBootstrap
from playbill.metrics.bootstrap import DEFAULT_RESAMPLES

GLOBAL_TIME = "global_time"
"""What a model is trained under to be measured under any protocol that cuts by time."""
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
    """What changes from one report to another, paired by request, intervals by member.

    Args:
        before: Model of the first report.
        after: Model of the second report.
        canvas: The canvas of both.
        differences: Metric -> second minus first.
        relative: Metric -> the same over the first's mean; absent where that is zero.
    """

    before: str
    after: str
    canvas: str
    differences: dict[str, Interval]
    relative: dict[str, float]


def compare(
    before: EvaluationReport, after: EvaluationReport, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> Comparison:
    """Give the second report's models minus the first's.

    Args:
        before: What is there now, such as the champion's report.
        after: What would replace it.
        resamples: Bootstrap draws.
        seed: Same seed, same draws.

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


def _weights(report: EvaluationReport, metric: str) -> npt.NDArray[np.float64]:
    """Return [N] how much each request counts in a metric."""
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

    Args:
        splits: Model -> the split it would be measured on.

    Raises:
        ComparisonError: They differ in protocol or in what is held out.
    """
    asked = {name: (split.protocol, split.digest) for name, split in splits.items()}
    if len(set(asked.values())) > 1:
        each = ", ".join(
            f"'{name}' under {protocol} on split {digest[:12]}" for name, (protocol, digest) in asked.items()
        )
        raise ComparisonError(
            f"these would not be asked the same: {each}. Evaluate them apart, or train them under one protocol on one "
            "state of the data"
        )


def assert_not_trained_on(split: Split, trained_split: Split, *, model: str = "this model") -> None:
    """Make sure that a model never saw what it is about to be measured on.

    Args:
        split: Split whose test fold is going to be measured.
        trained_split: Split under which the model was trained.
        model: Its name, for the message's remedy.

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


def _short(value: str | None) -> str:
    text = value or "none"
    return text if len(text) < 40 else text[:12]
