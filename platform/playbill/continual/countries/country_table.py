"""What adapting countries came to: a row for each country, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from playbill.arrays import Floats64
from playbill.continual.countries.country_scores import LEAST_MEMBERS, Choice, interval_of
from playbill.evaluation.canvases.model import ModelEvaluation
from playbill.metrics import Interval
from playbill.training.country_adapters import AdapterSettings

ARMS = ("low_rank", "fine_tune")
"""`low_rank` learns a matrix of low rank beside the projection of the state; `fine_tune` all of that projection."""
RANK = 4


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """What is adapted, and how."""

    countries: tuple[str, ...] | None = None  # None = all that the version knows
    arm: str = "low_rank"  # of `ARMS`
    rank: int = RANK  # of `low_rank`
    workers: int | None = None  # tasks side by side; 0 = in this process; None = the project's
    settings: AdapterSettings = field(default_factory=AdapterSettings)


@dataclass(frozen=True, slots=True)
class AlreadyAdapted:
    """A version that another run would register again: of the same version, data and options."""

    model: str
    parent: str
    version: int

    @property
    def reason(self) -> str:
        """Why there is nothing to do, in words."""
        return f"{self.model}:{self.version} was adapted from {self.parent} with the same data and options"


@dataclass(frozen=True, slots=True)
class CountryRow:
    """One country, before and after."""

    country: str
    members: int  # with something to learn from
    rows: int  # learnt from, in a pass
    chosen: int  # passes after which its weights were taken; 0 = it has none of its own
    reason: str  # why, in words
    validation: float | None  # gain of what was chosen, or of the best, in NDCG@10, drawn towards that of all
    requests: int  # of the test fold
    before: float | None = None  # NDCG@10 of the version there, None without requests
    after: float | None = None  # of the new one
    change: Interval | None = None  # paired, by members

    def as_dict(self) -> dict[str, Any]:
        """Return a row for a table or JSON."""
        low, high = (None, None) if self.change is None else (self.change.low, self.change.high)
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("change",)}
        return found | {"kept": self.chosen > 0, "low": low, "high": high}


@dataclass(frozen=True)
class AdaptOutcome:
    """What came of it."""

    model: str
    parent: str  # reference of the version that stood still
    arm: str
    version: int | None  # None where no country is ahead, so that nothing was registered
    canvas: str
    countries: tuple[CountryRow, ...]  # the smallest first
    before: float  # NDCG@10 of all test requests
    after: float
    change: Interval
    learn_seconds: float  # of all countries together, from the first to the last
    seconds: float
    evaluation: ModelEvaluation | None = None

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each country."""
        return pl.DataFrame([row.as_dict() for row in self.countries], infer_schema_length=None)


@dataclass(frozen=True)
class BeforeAndAfter:
    """NDCG@10 of test requests, before and after."""

    canvas: str
    frame: pl.DataFrame  # [N]
    values: Floats64  # [2, N]


def country_row(
    code: str, members: int, rows: int, choice: Choice, measured: BeforeAndAfter, options: AdaptOptions
) -> CountryRow:
    """Return the row of a country with so many members, and rows that it has learnt from."""
    place, gain = choice.taken.get(code, (-1, choice.best.get(code)))
    own = (measured.frame["country"] == code).fill_null(False)
    here = own.to_numpy()
    shown: dict[str, Any] = {}
    if here.any():
        values = measured.values[:, here]
        change = interval_of(measured.frame.filter(own), values[1] - values[0])
        shown = {"before": float(values[0].mean()), "after": float(values[1].mean()), "change": change}
    return CountryRow(
        country=code,
        members=members,
        rows=rows,
        chosen=options.settings.passes[place] if place >= 0 else 0,
        reason=_reason(code, members, choice, options.countries),
        validation=gain,
        requests=int(here.sum()),
        **shown,
    )


def _reason(code: str, members: int, choice: Choice, named: tuple[str, ...] | None) -> str:
    if code in choice.taken:
        return "ahead on the validation fold"
    if named is not None and code not in named:
        return "not asked for"
    if members < LEAST_MEMBERS:
        return f"{_count(members)} to learn from, {LEAST_MEMBERS} are needed"
    if code not in choice.best:
        return f"{_count(choice.members.get(code, 0))} on the validation fold, {LEAST_MEMBERS} are needed"
    return "no gain to expect by the validation fold"


def _count(members: int) -> str:
    return f"{members} member{'' if members == 1 else 's'}"
