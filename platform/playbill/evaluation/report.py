"""What one evaluation found, in a form that is written, read back, compared and gated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from playbill.errors import IntegrityError
from playbill.metrics import Interval

FORMAT = 1


@dataclass(frozen=True)
class ScoredRow:
    """One model or baseline on the whole case.

    Args:
        name: Model or baseline.
        metrics: Metric such as `ndcg@10` -> mean over requests with its interval by member.
        coverage: `coverage@10` -> share of the catalogue in anybody's list.
    """

    name: str
    metrics: dict[str, Interval]
    coverage: dict[str, float]


@dataclass(frozen=True)
class Difference:
    """The model minus one baseline, paired by request, with its interval by member."""

    baseline: str
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class SliceRow:
    """The model in one group of requests.

    Args:
        slice: Such as `country`.
        group: Such as `US-MN`.
        requests: Requests in it.
        members: Members in it.
        small: Fewer members than the report's minimum: shown, never judged.
        metrics: As in `ScoredRow`, for the model.
        differences: Baseline -> model minus baseline on the report's main metric.
    """

    slice: str
    group: str
    requests: int
    members: int
    small: bool
    metrics: dict[str, Interval]
    differences: dict[str, Interval]


@dataclass(frozen=True)
class EvaluationReport:
    """One canvas of one model under one protocol.

    Args:
        model: Name of the model's row.
        protocol: Such as `leave_one_out`.
        split_digest: Digest of the frozen split.
        case_digest: Digest of requests, targets and candidate rule.
        canvas: Canvas that was asked.
        fold: Fold that was held out.
        target_rule: How held-out events became requests.
        main_metric: Metric by which slices are ordered and baselines judged.
        n: Requests.
        members: Members behind them.
        catalogue: Titles.
        left_out: Held-out targets that the canvas could not have shown.
        minimum_members: Size under which a slice is small.
        resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.
        level: Share of draws inside an interval.
        rows: The model first, then its baselines.
        differences: The model against each baseline.
        slices: Worst first; small ones last.
        requests: [N] per-request frame: request_id, member_id, slice columns, and `NAME/METRIC` of each row.
    """

    model: str
    protocol: str
    split_digest: str
    case_digest: str
    canvas: str
    fold: str
    target_rule: str
    main_metric: str
    n: int
    members: int
    catalogue: int
    left_out: int
    minimum_members: int
    resamples: int
    seed: int
    level: float
    rows: tuple[ScoredRow, ...]
    differences: tuple[Difference, ...]
    slices: tuple[SliceRow, ...]
    requests: pl.DataFrame = field(compare=False, repr=False)

    @property
    def result(self) -> ScoredRow:
        """The model's own row."""
        return self.rows[0]

    @property
    def baselines(self) -> tuple[ScoredRow, ...]:
        """The rows the model is compared with."""
        return self.rows[1:]

    @property
    def worst_slice(self) -> SliceRow | None:
        """The slice with the lowest main metric among those that are large enough."""
        return next((row for row in self.slices if not row.small), None)

    @property
    def per_member(self) -> pl.DataFrame:
        """One row per member: the mean of each of its requests' metrics, and `requests`, their number."""
        columns = [name for name in self.requests.columns if "/" in name]
        means = self.requests.group_by("member_id", maintain_order=True).agg(
            pl.len().alias("requests"), pl.col(columns).mean()
        )
        return means.sort("member_id")

    def to_json(self) -> str:
        """Return everything, the per-request frame included, as JSON that `from_json` reads back."""
        plain = {name: value for name, value in vars(self).items() if name not in _PARTS}
        content = {
            "format": FORMAT,
            **plain,
            "rows": [asdict(row) for row in self.rows],
            "differences": [asdict(row) for row in self.differences],
            "slices": [asdict(row) for row in self.slices],
            "requests": self.requests.to_dict(as_series=False),
        }
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> EvaluationReport:
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: It is no report, or one of another format.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise IntegrityError("an evaluation report of another format; evaluate again")
            parts: dict[str, Any] = {
                "rows": tuple(_scored(row) for row in content.pop("rows")),
                "differences": tuple(_difference(row) for row in content.pop("differences")),
                "slices": tuple(_slice(row) for row in content.pop("slices")),
                "requests": pl.DataFrame(content.pop("requests"), infer_schema_length=None),
            }
            return cls(**content, **parts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"not an evaluation report: {error!r}") from error

    def gate_metrics(self) -> dict[str, float]:
        """Return every number a gate or MLflow may ask for, under flat names.

        `home/ndcg@10`; with an interval's ends `home/ndcg@10/low` and `/high`; against a baseline
        `home/ndcg@10/minus=popular` (and `/low`, `/high`); a group `home/ndcg@10/country=US-MN`. Groups that
        are too small are left out, so no gate can hang on them.
        """
        found: dict[str, float] = {}
        for name, interval in self.result.metrics.items():
            found |= _flat(f"{self.canvas}/{name}", interval)
        found |= {f"{self.canvas}/{name}": value for name, value in self.result.coverage.items()}
        for difference in self.differences:
            for name, interval in difference.metrics.items():
                found |= _flat(f"{self.canvas}/{name}/minus={difference.baseline}", interval)
        for row in self.slices:
            if not row.small:
                for name, interval in row.metrics.items():
                    found[f"{self.canvas}/{name}/{row.slice}={row.group}"] = interval.value
        return found


_PARTS = ("rows", "differences", "slices", "requests")


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}


def _intervals(content: dict[str, Any]) -> dict[str, Interval]:
    return {name: Interval(*ends) for name, ends in content.items()}


def _scored(content: dict[str, Any]) -> ScoredRow:
    return ScoredRow(content["name"], _intervals(content["metrics"]), content["coverage"])


def _difference(content: dict[str, Any]) -> Difference:
    return Difference(content["baseline"], _intervals(content["metrics"]))


def _slice(content: dict[str, Any]) -> SliceRow:
    made = {name: _intervals(content[name]) for name in ("metrics", "differences")}
    return SliceRow(**{**content, **made})
