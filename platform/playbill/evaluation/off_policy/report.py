"""What an off-policy evaluation found, in a form that is written, read back and held by gates."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from playbill.definitions.specs.measures import LOGGED
from playbill.errors import IntegrityError
from playbill.evaluation.off_policy.estimate import Estimate
from playbill.evaluation.report import flat_interval
from playbill.metrics import Interval

FORMAT = 1


@dataclass(frozen=True)
class Estimated:
    """One estimator on one group of rows: an estimate with its difference to the log, or why it was refused."""

    estimator: str
    estimate: Estimate | None  # what the model's policy would have earned; None = refused
    difference: Interval | None  # that minus what was earned, paired
    effective_sample_size: float  # what the weighted log is worth, also where that is too little
    refused: str = ""  # why there is no estimate; empty = there is one


@dataclass(frozen=True)
class GroupEstimate:
    """The report's main estimator in one group."""

    slice: str
    group: str
    members: int
    logged: Interval  # what was earned there
    estimated: Estimated  # the estimate, or why not


@dataclass(frozen=True)
class OffPolicyReport:
    """What a model's policy would have earned, estimated from another policy's log."""

    model: str
    policy: str  # how the model's scores become what is shown
    canvases: tuple[str, ...]  # canvases of the log
    outcome: str  # name of the reward
    version: str  # version id of the reward
    unit: str  # `slate`, or `title shown`: what a value is a mean over
    main: str  # the estimator that slices are read by
    slates: int  # slates weighed, with their `rows` (titles shown) and the `members` behind them
    rows: int
    members: int
    immature: int  # rows dropped because their reward was not mature
    without_propensity: int  # slates dropped because a propensity was missing
    outside: int  # rows whose title the model's canvas could not have shown
    direct_fit: float | None  # R squared of the direct model on held-out members; None = none was fitted
    floor: float  # effective sample size under which nothing is estimated
    logged: Interval  # what the logging policy earned, with its interval
    estimates: tuple[Estimated, ...]
    groups: tuple[GroupEstimate, ...]  # lowest difference first; refused ones last

    def of(self, estimator: str) -> Estimated:
        """Return one estimator's result.

        Raises:
            KeyError: It was not asked for.
        """
        return {found.estimator: found for found in self.estimates}[estimator]

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

    def gate_metrics(self) -> dict[str, float]:
        """Return every number a gate or MLflow may ask for, under flat names.

        `home/snips/reward=played` with `/low` and `/high`, `home/snips/reward=played/minus=logged` with the same, and
        `home/snips/reward=played/effective_sample_size`. Canvases that were put together are joined by `+`. What was
        refused has an effective sample size only, so no gate passes on it.
        """
        found: dict[str, float] = {}
        for one in self.estimates:
            name = f"{'+'.join(self.canvases)}/{one.estimator}/reward={self.outcome}"
            found[f"{name}/effective_sample_size"] = one.effective_sample_size
            if one.estimate is not None and one.difference is not None:
                found |= flat_interval(name, one.estimate.interval)
                found |= flat_interval(f"{name}/minus={LOGGED}", one.difference)
        return found


def _estimated(content: dict[str, Any]) -> Estimated:
    estimate = None if content["estimate"] is None else Estimate(**content["estimate"])
    difference = None if content["difference"] is None else Interval(*content["difference"])
    return Estimated(content["estimator"], estimate, difference, content["effective_sample_size"], content["refused"])


def _group(content: dict[str, Any]) -> GroupEstimate:
    content["logged"], content["estimated"] = Interval(*content["logged"]), _estimated(content["estimated"])
    return GroupEstimate(**content)
