"""What one evaluation found, in a form that is written, read back, compared and gated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from playbill.errors import IntegrityError
from playbill.metrics import Interval

FORMAT = 3
CEILING = "ceiling"  # what the truth is called beside a model and its baselines
POPULARITY = ("popular", "popular_7d")
FIGURES = {name: pl.String for name in ("canvas", "row", "name", "metric")} | {
    name: pl.Float64 for name in ("value", "low", "high")
}
"""Columns of `to_polars`: `name` is the model or a baseline, `low` and `high` are the ends of the interval."""


@dataclass(frozen=True)
class ScoredRow:
    """One model or baseline on the whole case."""

    name: str
    metrics: dict[str, Interval]  # metric such as `ndcg@10` -> mean over requests with its interval by member
    coverage: dict[str, float]  # `coverage@10` -> share of the catalogue in anybody's list


@dataclass(frozen=True)
class Difference:
    """The model minus one baseline, paired by request, with its interval by member."""

    baseline: str
    metrics: dict[str, Interval]  # metric -> the difference
    # metric -> its two-sided p-value after Holm's correction for all baselines of the report
    adjusted_p: dict[str, float] = field(default_factory=dict)

    def is_claim(self, metric: str, level: float = 0.95) -> bool:
        """Say whether a difference stands out of the noise: its interval and its adjusted p-value leave zero out."""
        return not self.metrics[metric].includes_zero and self.adjusted_p.get(metric, 1.0) <= 1.0 - level + 1e-12


@dataclass(frozen=True)
class SliceRow:
    """The model in one group of requests."""

    slice: str
    group: str
    requests: int
    members: int
    small: bool  # fewer members than the report's minimum: it has a size and no numbers
    metrics: dict[str, Interval]  # as in `ScoredRow`, for the model; none of a small group
    # baseline -> model minus baseline on the report's main metric; none of a small group
    differences: dict[str, Interval]
    # baseline -> the difference's p-value, corrected for all groups and baselines of the report (Benjamini and
    # Hochberg): of the groups below 0.05 about one in twenty stands out by chance
    adjusted_p: dict[str, float] = field(default_factory=dict)

    def is_claim(self, baseline: str, level: float = 0.95) -> bool:
        """Say whether the difference to a baseline stands out among all groups that were looked at."""
        noise = self.differences[baseline].includes_zero
        return not noise and self.adjusted_p.get(baseline, 1.0) <= 1.0 - level + 1e-12


@dataclass(frozen=True)
class HeadRow:
    """One head's own probabilities on labelled events of the held-out fold."""

    head: str
    rows: int
    positives: int  # rows of them that are positive
    members: int  # members behind them
    # `auc`, `ece` and `mae` with their intervals by member; what cannot be told of these rows is absent
    metrics: dict[str, Interval]
    # bins of predicted against observed, for drawing; none where there is no `ece`
    reliability: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class WindowRow:
    """One window of a replay: the main metric of the model and of every baseline."""

    start: str  # its first moment, ISO 8601
    end: str  # the moment after its last
    requests: int
    members: int
    metrics: dict[str, Interval]  # model or baseline -> the report's main metric


@dataclass(frozen=True)
class EvaluationReport:
    """One canvas of one model under one protocol."""

    model: str
    protocol: str
    split_digest: str
    case_digest: str  # digest of requests, targets and candidate rule
    canvas: str
    fold: str
    main_metric: str  # metric by which slices are ordered and baselines judged
    n: int  # requests
    members: int
    catalogue: int  # titles
    left_out: int  # held-out targets that the canvas could not have shown
    minimum_members: int  # size under which a slice is small
    resamples: int  # bootstrap draws behind each interval
    seed: int
    level: float  # share of draws inside an interval
    reward: str | None  # version id of the reward behind `reward_ndcg`; None without one
    rows: tuple[ScoredRow, ...]  # the model first, then its baselines
    differences: tuple[Difference, ...]
    slices: tuple[SliceRow, ...]  # worst first; small ones last
    # [N] per-request frame: request_id, member_id, slice columns, and `NAME/METRIC` of each row
    requests: pl.DataFrame = field(compare=False, repr=False)
    windows: tuple[WindowRow, ...] = ()  # of a replay, in time order
    heads: tuple[HeadRow, ...] = ()  # heads measured on labelled events of this canvas
    notes: tuple[str, ...] = ()  # what could not be measured, and why
    # what a ranking by the truth reaches on the same requests; None where the truth is not known
    ceiling: ScoredRow | None = None
    row: str | None = None  # the row whose candidates were ranked; None = the whole canvas
    label: str | None = None  # what was called positive of that row; None = the canvas's metric

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
        rows = {name: [asdict(row) for row in getattr(self, name)] for name in _ROWS}
        content = {
            "format": FORMAT,
            **plain,
            **rows,
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
                "rows": tuple(ScoredRow(**_read(row, "metrics")) for row in content.pop("rows")),
                "differences": tuple(Difference(**_read(row, "metrics")) for row in content.pop("differences")),
                "slices": tuple(SliceRow(**_read(row, "metrics", "differences")) for row in content.pop("slices")),
                "windows": tuple(WindowRow(**_read(row, "metrics")) for row in content.pop("windows")),
                "heads": tuple(HeadRow(**_read(row, "metrics")) for row in content.pop("heads")),
                "notes": tuple(content.pop("notes")),
                "ceiling": None if (row := content.pop("ceiling")) is None else ScoredRow(**_read(row, "metrics")),
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
            found |= flat_interval(f"{self.canvas}/{name}", interval)
        found |= {f"{self.canvas}/{name}": value for name, value in self.result.coverage.items()}
        for difference in self.differences:
            for name, interval in difference.metrics.items():
                found |= flat_interval(f"{self.canvas}/{name}/minus={difference.baseline}", interval)
        for row in self.slices:
            if not row.small:
                for name, interval in row.metrics.items():
                    found[f"{self.canvas}/{name}/{row.slice}={row.group}"] = interval.value
        if self.reward is not None:
            found[f"{self.canvas}/reward_fingerprint"] = float(int(self.reward.rpartition(":")[2], 16))
        for head in self.heads:
            for name, interval in head.metrics.items():
                found |= flat_interval(f"{self.canvas}/{name}/head={head.head}", interval)
        return found


_ROWS = ("rows", "differences", "slices", "windows", "heads")
_PARTS = (*_ROWS, "notes", "ceiling", "requests")


def flat_interval(name: str, interval: Interval) -> dict[str, float]:
    """Return an interval as three flat metrics: its value, `/low` and `/high`."""
    return {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}


def _read(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return content | {name: {metric: Interval(*ends) for metric, ends in content[name].items()} for name in names}
