"""What an off-policy evaluation found, in a form that is written, read back and drawn."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from playbill.errors import ConfigError, IntegrityError
from playbill.metrics import Estimate, Interval

FORMAT = 1


@dataclass(frozen=True)
class Estimated:
    """One estimator on one group of rows: an estimate with its difference to the log, or why it was refused.

    Args:
        estimator: Its name.
        estimate: What the model's policy would have earned; None = refused.
        difference: That minus what was earned, paired.
        effective_sample_size: What the weighted log is worth, also where that is too little.
        refused: Why there is no estimate; empty = there is one.
    """

    estimator: str
    estimate: Estimate | None
    difference: Interval | None
    effective_sample_size: float
    refused: str = ""


@dataclass(frozen=True)
class GroupEstimate:
    """The report's main estimator in one group.

    Args:
        slice: Such as `country`.
        group: Such as `DE`.
        members: Members in it.
        logged: What was earned there.
        estimated: The estimate, or why not.
    """

    slice: str
    group: str
    members: int
    logged: Interval
    estimated: Estimated


@dataclass(frozen=True)
class OffPolicyReport:
    """What a model's policy would have earned, estimated from another policy's log.

    Args:
        model: Name of the model.
        policy: How its scores become what is shown.
        canvases: Canvases of the log.
        outcome: Name of the reward.
        version: Version id of the reward.
        unit: `slate`, or `title shown`: what a value is a mean over.
        main: The estimator that slices are read by.
        slates: Slates weighed.
        rows: Titles shown in them.
        members: Members behind them.
        immature: Rows dropped because their reward was not mature.
        without_propensity: Slates dropped because a propensity was missing.
        outside: Rows whose title the model's canvas could not have shown.
        direct_fit: R squared of the direct model on held-out members; None = none was fitted.
        floor: Effective sample size under which nothing is estimated.
        logged: What the logging policy earned, with its interval.
        estimates: Every estimator asked for.
        groups: Lowest difference first; refused ones last.
    """

    model: str
    policy: str
    canvases: tuple[str, ...]
    outcome: str
    version: str
    unit: str
    main: str
    slates: int
    rows: int
    members: int
    immature: int
    without_propensity: int
    outside: int
    direct_fit: float | None
    floor: float
    logged: Interval
    estimates: tuple[Estimated, ...]
    groups: tuple[GroupEstimate, ...]

    def of(self, estimator: str) -> Estimated:
        """Return one estimator's result.

        Raises:
            KeyError: It was not asked for.
        """
        for found in self.estimates:
            if found.estimator == estimator:
                return found
        raise KeyError(estimator)

    def to_json(self) -> str:
        """Return everything as JSON that `from_json` reads back."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> OffPolicyReport:
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: It is no such report, or one of another format.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if content.pop("format") != FORMAT:
                raise IntegrityError("an off-policy report of another format; evaluate again")
            content["canvases"] = tuple(content["canvases"])
            content["logged"] = Interval(*content["logged"])
            content["estimates"] = tuple(_estimated(one) for one in content["estimates"])
            content["groups"] = tuple(_group(one) for one in content["groups"])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"not an off-policy report: {error!r}") from error

    def summary(self) -> dict[str, Any]:
        """Return what a script reads: the main estimate at the top level, the others by name."""
        main = self.of(self.main)
        plain = {name: value for name, value in asdict(self).items() if name not in ("estimates", "groups", "logged")}
        return {
            **plain,
            "estimator": self.main,
            "logged": self.logged._asdict(),
            **({} if main.estimate is None else main.estimate.to_dict()),
            "difference": None if main.difference is None else main.difference._asdict(),
            "refused": main.refused,
            "estimates": {one.estimator: asdict(one) for one in self.estimates},
            "slices": [asdict(one) for one in self.groups],
        }

    def tables(self) -> list[Table]:
        """Return the estimators and the slices as rich tables."""
        return [_main(self), *([_slices(self)] if self.groups else [])]

    def plot(self, path: Path) -> Path:
        """Draw every estimate with its interval beside what was earned, as a PNG file.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
        shown = [(one.estimator, one.estimate) for one in self.estimates if one.estimate is not None]
        rows = [("logged", self.logged), *((name, Interval(e.value, e.low, e.high)) for name, e in shown)]
        figure = Figure(figsize=(7, 1.2 + 0.35 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for place, (_, ends) in enumerate(rows):
            axes.plot([ends.low, ends.high], [place, place], color="#4477aa", linewidth=2)
            axes.plot([ends.value], [place], "o", color="#4477aa")
        axes.axvline(self.logged.value, color="#aa3377", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel(f"{self.outcome} per {self.unit}, 95 % interval by member")
        axes.set_title(f"{self.model}, {self.policy}, {', '.join(self.canvases)}")
        figure.savefig(path, dpi=110)
        return path


def _main(report: OffPolicyReport) -> Table:
    dropped = f", {report.immature} rows not mature" if report.immature else ""
    if report.without_propensity:
        dropped += f", {report.without_propensity} slates without propensities"
    table = Table(
        title=f"{report.model} as {report.policy} on {', '.join(report.canvases)}: {report.outcome} per {report.unit}, "
        f"{report.slates} slates of {report.members} members{dropped}",
        caption=f"logged {_ends(report.logged)}; {report.outside} of {report.rows} rows show what the model's canvas "
        f"could not; reward {report.version}",
    )
    for name in ("estimator", "value", "minus logged", "effective n", "largest weight", "coverage"):
        table.add_column(name, justify="left" if name == "estimator" else "right")
    for one in report.estimates:
        table.add_row(*_cells(one), style="bold" if one.estimator == report.main else "")
    return table


def _slices(report: OffPolicyReport) -> Table:
    table = Table(title=f"slices by {report.main} minus logged, lowest first")
    for name in ("slice", "group", "members", "logged", "value", "minus logged", "effective n"):
        table.add_column(name, justify="left" if name in ("slice", "group") else "right")
    for row in report.groups:
        cells = _cells(row.estimated)
        table.add_row(row.slice, row.group, str(row.members), f"{row.logged.value:.4f}", *cells[1:4])
    return table


def _cells(one: Estimated) -> list[str]:
    found = one.estimate
    if found is None or one.difference is None:
        return [one.estimator, "refused", "", f"{one.effective_sample_size:.0f}", "", ""]
    return [
        one.estimator,
        _ends(Interval(found.value, found.low, found.high)),
        _ends(one.difference, "+"),
        f"{found.effective_sample_size:.0f} of {found.n}",
        f"{found.weight_max:.3g}",
        f"{found.coverage:.3f}",
    ]


def _ends(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _estimated(content: dict[str, Any]) -> Estimated:
    estimate = None if content["estimate"] is None else Estimate(**content["estimate"])
    difference = None if content["difference"] is None else Interval(*content["difference"])
    return Estimated(content["estimator"], estimate, difference, content["effective_sample_size"], content["refused"])


def _group(content: dict[str, Any]) -> GroupEstimate:
    made = {"logged": Interval(*content["logged"]), "estimated": _estimated(content["estimated"])}
    return GroupEstimate(**{**content, **made})
