"""What one evaluation found, in a form that is written, read back, compared and gated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from playbill.errors import IntegrityError
from playbill.metrics import Interval

FORMAT = 3
CEILING = "ceiling"
"""What the truth is called beside a model and its baselines."""
POPULARITY = ("popular", "popular_7d")
FIGURES = {name: pl.String for name in ("canvas", "row", "name", "metric")} | {
    name: pl.Float64 for name in ("value", "low", "high")
}
"""Columns of `to_polars`: `name` is the model or a baseline, `low` and `high` are the ends of the interval."""


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
    """The model minus one baseline, paired by request, with its interval by member.

    Args:
        baseline: Its name.
        metrics: Metric -> the difference.
        adjusted_p: Metric -> its two-sided p-value after Holm's correction for all baselines of the report.
    """

    baseline: str
    metrics: dict[str, Interval]
    adjusted_p: dict[str, float] = field(default_factory=dict)

    def is_claim(self, metric: str, level: float = 0.95) -> bool:
        """Say whether a difference stands out of the noise: its interval and its adjusted p-value leave zero out."""
        return not self.metrics[metric].includes_zero and self.adjusted_p.get(metric, 1.0) <= 1.0 - level + 1e-12


@dataclass(frozen=True)
class SliceRow:
    """The model in one group of requests.

    Args:
        slice: Such as `country`.
        group: Such as `US-MN`.
        requests: Requests in it.
        members: Members in it.
        small: Fewer members than the report's minimum: it has a size and no numbers.
        metrics: As in `ScoredRow`, for the model; none of a small group.
        differences: Baseline -> model minus baseline on the report's main metric; none of a small group.
        adjusted_p: Baseline -> the difference's p-value, corrected for all groups and baselines of the report
            (Benjamini and Hochberg): of the groups below 0.05 about one in twenty stands out by chance.
    """

    slice: str
    group: str
    requests: int
    members: int
    small: bool
    metrics: dict[str, Interval]
    differences: dict[str, Interval]
    adjusted_p: dict[str, float] = field(default_factory=dict)

    def is_claim(self, baseline: str, level: float = 0.95) -> bool:
        """Say whether the difference to a baseline stands out among all groups that were looked at."""
        noise = self.differences[baseline].includes_zero
        return not noise and self.adjusted_p.get(baseline, 1.0) <= 1.0 - level + 1e-12


@dataclass(frozen=True)
class HeadRow:
    """One head's own probabilities on labelled events of the held-out fold.

    Args:
        head: Its name.
        rows: Labelled rows.
        positives: Rows of them that are positive.
        members: Members behind them.
        metrics: `auc`, `ece` and `mae` with their intervals by member; what cannot be told of these rows is absent.
        reliability: Bins of predicted against observed, for drawing; none where there is no `ece`.
    """

    head: str
    rows: int
    positives: int
    members: int
    metrics: dict[str, Interval]
    reliability: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class WindowRow:
    """One window of a replay: the main metric of the model and of every baseline.

    Args:
        start: Its first moment, ISO 8601.
        end: The moment after its last.
        requests: Requests in it.
        members: Members in it.
        metrics: Model or baseline -> the report's main metric.
    """

    start: str
    end: str
    requests: int
    members: int
    metrics: dict[str, Interval]


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
        main_metric: Metric by which slices are ordered and baselines judged.
        n: Requests.
        members: Members behind them.
        catalogue: Titles.
        left_out: Held-out targets that the canvas could not have shown.
        minimum_members: Size under which a slice is small.
        resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.
        level: Share of draws inside an interval.
        reward: Version id of the reward behind `reward_ndcg`; None without one.
        rows: The model first, then its baselines.
        differences: The model against each baseline.
        slices: Worst first; small ones last.
        windows: Of a replay, in time order.
        heads: Heads measured on labelled events of this canvas.
        notes: What could not be measured, and why.
        ceiling: What a ranking by the truth reaches on the same requests; None where the truth is not known.
        row: The row whose candidates were ranked; None = the whole canvas.
        label: What was called positive of that row; None = the canvas's metric.
        requests: [N] per-request frame: request_id, member_id, slice columns, and `NAME/METRIC` of each row.
    """

    model: str
    protocol: str
    split_digest: str
    case_digest: str
    canvas: str
    fold: str
    main_metric: str
    n: int
    members: int
    catalogue: int
    left_out: int
    minimum_members: int
    resamples: int
    seed: int
    level: float
    reward: str | None
    rows: tuple[ScoredRow, ...]
    differences: tuple[Difference, ...]
    slices: tuple[SliceRow, ...]
    requests: pl.DataFrame = field(compare=False, repr=False)
    windows: tuple[WindowRow, ...] = ()
    heads: tuple[HeadRow, ...] = ()
    notes: tuple[str, ...] = ()
    ceiling: ScoredRow | None = None
    row: str | None = None
    label: str | None = None

    @property
    def subject(self) -> str:
        """What was asked: the canvas, or one of its rows."""
        return self.canvas if self.row is None else f"{self.canvas}, row {self.row}"

    @property
    def result(self) -> ScoredRow:
        """The model's own row."""
        return self.rows[0]

    @property
    def baselines(self) -> tuple[ScoredRow, ...]:
        """The rows the model is compared with."""
        return self.rows[1:]

    @property
    def not_ahead_of(self) -> tuple[str, ...]:
        """Baselines that the model is not ahead of: the paired interval on the main metric is not above zero."""
        return tuple(row.baseline for row in self.differences if row.metrics[self.main_metric].low <= 0.0)

    @property
    def share_of_ceiling(self) -> float | None:
        """How far the model has come from the better popularity list (0) to the ceiling (1), on the main metric."""
        popular = [row.metrics[self.main_metric].value for row in self.baselines if row.name in POPULARITY]
        if self.ceiling is None or not popular:
            return None
        way = self.ceiling.metrics[self.main_metric].value - max(popular)
        return (self.result.metrics[self.main_metric].value - max(popular)) / way if way > 0 else None

    @property
    def worst_slice(self) -> SliceRow | None:
        """The slice with the lowest main metric among those that are large enough."""
        return next((row for row in self.slices if not row.small), None)

    @property
    def per_member(self) -> pl.DataFrame:
        """One row per member: the mean of each of its requests' metrics, and `requests`, their number."""
        columns = [name for name in self.requests.columns if "/" in name and not name.startswith("weight/")]
        means = self.requests.group_by("member_id", maintain_order=True).agg(
            pl.len().alias("requests"), pl.col(columns).mean()
        )
        return means.sort("member_id")

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each metric of the model and of its baselines: `value`, with the interval's ends."""
        rows = [
            (self.canvas, self.row, row.name, metric, *interval)
            for row in self.rows
            for metric, interval in row.metrics.items()
        ]
        return pl.DataFrame(rows, schema=FIGURES, orient="row")

    def to_json(self) -> str:
        """Return everything, the per-request frame included, as JSON that `from_json` reads back."""
        plain = {name: value for name, value in vars(self).items() if name not in _PARTS}
        content = {
            "format": FORMAT,
            **plain,
            "rows": [asdict(row) for row in self.rows],
            "differences": [asdict(row) for row in self.differences],
            "slices": [asdict(row) for row in self.slices],
            "windows": [asdict(row) for row in self.windows],
            "heads": [asdict(row) for row in self.heads],
            "notes": list(self.notes),
            "ceiling": None if self.ceiling is None else asdict(self.ceiling),
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
                "windows": tuple(WindowRow(**_read(row, "metrics")) for row in content.pop("windows")),
                "heads": tuple(HeadRow(**_read(row, "metrics")) for row in content.pop("heads")),
                "notes": tuple(content.pop("notes")),
                "ceiling": None if (row := content.pop("ceiling")) is None else _scored(row),
                "requests": pl.DataFrame(content.pop("requests"), infer_schema_length=None),
            }
            return cls(**content, **parts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"not an evaluation report: {error!r}") from error

    def gate_metrics(self) -> dict[str, float]:
        """Return every number a gate or MLflow may ask for, under flat names.

        `home/ndcg@10`; with an interval's ends `home/ndcg@10/low` and `/high`; against a baseline
        `home/ndcg@10/minus=popular` (and `/low`, `/high`); a group `home/ndcg@10/country=US-MN`; a head
        `home/auc/head=thumbs_up`. With a reward, `home/reward_fingerprint` is its id's hash as a number. Groups that
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
        if self.reward is not None:
            found[f"{self.canvas}/reward_fingerprint"] = float(int(self.reward.rpartition(":")[2], 16))
        for head in self.heads:
            for name, interval in head.metrics.items():
                found |= _flat(f"{self.canvas}/{name}/head={head.head}", interval)
        return found


_PARTS = ("rows", "differences", "slices", "windows", "heads", "notes", "ceiling", "requests")


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}


def _intervals(content: dict[str, Any]) -> dict[str, Interval]:
    return {name: Interval(*ends) for name, ends in content.items()}


def _scored(content: dict[str, Any]) -> ScoredRow:
    return ScoredRow(content["name"], _intervals(content["metrics"]), content["coverage"])


def _difference(content: dict[str, Any]) -> Difference:
    return Difference(**_read(content, "metrics"))


def _slice(content: dict[str, Any]) -> SliceRow:
    return SliceRow(**_read(content, "metrics", "differences"))


def _read(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the content with intervals under some names."""
    return content | {name: _intervals(content[name]) for name in names}
