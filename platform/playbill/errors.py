"""The drawn tree of everything Playbill raises on purpose.

```
PlaybillError
├── ConfigError            playbill.toml, workspaces, missing optional packages
├── UnknownNameError       a name that is not registered (nearest name suggested)
├── DuplicateNameError     a name that is claimed twice
├── ProblemsError          many mistakes of one stage, reported together
│   ├── DefinitionError    model_zoo/ and feature_repo/
│   └── DataError          canonical tables and outside data
├── StateError             something has to be done first (ingest, apply, train ...)
├── ServiceError           an outside system (MLflow, Feast store, database) cannot be reached
│   └── StorageError       the disk is full or read-only, or there is no permission
├── IntegrityError         a checkpoint or artifact is not what its record says
├── RequestError           a request that cannot be answered, even by a fallback
├── ComparisonError        two results that must not be compared
├── EffectiveSampleError   an off-policy estimate that too few logged rows support
└── OverlapError           an off-policy estimate of a policy that mostly shows what the log never tried
```

Errors keep their arguments in `args`, so they survive pickling between processes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass


class PlaybillError(Exception):
    """Base of every error a user can act on. Its text says where, what, and the nearest right thing."""


class ConfigError(PlaybillError):
    """The project's configuration, workspace or installation is not usable as it is."""


class StateError(PlaybillError):
    """A step was asked for before the one it needs. The text names the command to run first."""


class ServiceError(PlaybillError):
    """An outside system did not answer. Nothing of ours was changed."""


class StorageError(ServiceError):
    """The disk did not take what was written: it is full or read-only, there is no permission, or it fails."""


class IntegrityError(PlaybillError):
    """A checkpoint, bundle or artifact does not match its record. It was not loaded."""


class RequestError(PlaybillError):
    """A request names something that does not exist, such as an unknown canvas."""


class ComparisonError(PlaybillError):
    """Two results come from different protocols or data and must not be compared."""


class EffectiveSampleError(PlaybillError):
    """An off-policy estimate would rest on a handful of rows with huge weights; it is not given."""

    def __init__(
        self, estimator: str, effective: float, floor: float, rows: int, weight_max: float, unit: str = "row"
    ) -> None:
        self.estimator, self.effective, self.floor = estimator, effective, floor
        self.rows, self.weight_max, self.unit = rows, weight_max, unit
        super().__init__(estimator, effective, floor, rows, weight_max, unit)

    @property
    def rows_needed(self) -> int | None:
        """Rows (or slates) of the same kind that would reach the floor; None when no row supports the policy at all."""
        return math.ceil(self.rows * self.floor / self.effective) if self.effective > 0.0 else None

    def __str__(self) -> str:
        needed = self.rows_needed
        missing = (
            f"no logged {self.unit} is what the target policy would show, so more of the same log will not help"
            if needed is None
            else f"about {needed - self.rows:,} more {self.unit}s of this kind are missing ({needed:,} in all)"
        )
        return (
            f"'{self.estimator}' is refused: {self.rows:,} logged {self.unit}s are worth {self.effective:.1f} "
            f"(largest weight {self.weight_max:.4g}), and the floor is {self.floor:g}; {missing}. Judge a policy "
            "closer to the logging policy (a higher temperature, a smaller change, fewer places), or log with more "
            "exploration."
        )


class OverlapError(PlaybillError):
    """An off-policy estimate of a policy that mostly shows what the log never tried; it is not given."""

    def __init__(self, estimator: str, coverage: float, highest: float, least: float, effective: float) -> None:
        self.estimator, self.coverage, self.highest = estimator, coverage, highest
        self.least, self.effective = least, effective
        super().__init__(estimator, coverage, highest, least, effective)

    def __str__(self) -> str:
        return (
            f"'{self.estimator}' is refused: the log tried {self.coverage:.1%} of what the target policy shows (at "
            f"most {self.highest:.1%}), and the least is {self.least:.0%}; what the rest would have earned is not in "
            "it. Log with exploration (a ranking without chance has propensity 1 everywhere, and tries nothing else), "
            "or judge a policy that shows what was tried."
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None when nothing is close."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "Did you mean 'X'?" for the known name closest to `name`, or `otherwise` when nothing is close."""
    close = nearest(name, known)
    return f"Did you mean '{close}'?" if close else otherwise


class UnknownNameError(PlaybillError):
    """A name that is not among the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(kind, name, self.known)

    def __str__(self) -> str:
        hint = f"{did_you_mean(self.name, self.known)} ".lstrip()
        return f"unknown {self.kind} '{self.name}'. {hint}Known: {', '.join(self.known) or 'none'}."


class DuplicateNameError(PlaybillError):
    """Two things claim one name."""

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        self.kind, self.name, self.first, self.second = kind, name, first, second
        super().__init__(kind, name, first, second)

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' is claimed by both {self.first} and {self.second}."


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what it is, and where known the nearest right thing."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.hint}" if self.hint else "")


class ProblemsError(PlaybillError):
    """Every mistake of one stage, reported together."""

    def __init__(self, subject: str, problems: Iterable[Problem]) -> None:
        self.subject, self.problems = subject, tuple(problems)
        super().__init__(subject, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{self.subject}: {count} problem{'s' if count != 1 else ''}"]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems)])


class DefinitionError(ProblemsError):
    """Mistakes in YAML definitions or in their references."""


class DataError(ProblemsError):
    """Mistakes in data offered to the canonical tables. Nothing of it was written."""
