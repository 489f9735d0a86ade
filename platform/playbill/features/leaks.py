"""Whether values know the event they are joined to: checks on the values of a view beside the event log.

Nothing is known of how the values of a plain file came about, so they are judged by what they do. At every moment `t`
of an entity's events an as-of join gives a value `v(t)`, which may hold what came strictly before `t` only.

**Totals.** `v(t)` that is a count, sum or mean over the entity's events up to and including `t`, or over the whole log,
and not over those before `t`, is a leak without doubt.

**Own event or next event.** What no total explains is tried with ranks. From `v(t)` is taken what the value and the
events before explain (least squares), and what is left is correlated with what the event at `t` was: its action,
progress, title. An honest value may well say something about that event, as taste does, but then it says about as much
about the event after it. A value that was computed with the event at `t` follows that one alone, and a value of a later
event only that.

Axis letters: M moments, P outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Floats64
from playbill.features.outcomes import AT, Outcomes
from playbill_feast.asof_join import ViewValues, as_of_join

FEWEST = 200
"""Moments below which no statistic is tried."""
EXACT = 0.9
"""Share of moments at which a value must be a total of the events up to them."""
OTHERWISE = 0.5
"""Largest share at which it may be the same total of the events before them as well."""
NAMED = 0.3
"""Share of moments at which a value is the event's own name, such as its title."""
MOST_ALIKE = 0.8
"""Largest share of one value among totals that say something."""
GAP = 0.15
"""Difference of two rank correlations, with one event and with its neighbour, that counts."""
DEVIATIONS = 8.0
"""How many standard deviations it must be away from none: thousands of pairs are tried."""

_STAMP = "__stamp"
_CATEGORIES = 4
_HOUR = 3_600.0
_GAPS_S = (60.0, 0.5 * _HOUR, _HOUR, 24 * _HOUR, 7 * 24 * _HOUR, 30 * 24 * _HOUR)


@dataclass(frozen=True, slots=True)
class Leak:
    """A column whose values know the event they are joined to, with an example."""

    view: str
    feature: str
    entity: Mapping[str, str]
    """Key column -> value."""
    at: datetime
    """Moment of the event."""
    stamp: datetime | None
    """Moment that the value is stamped with."""
    value: float | str | None
    what: str
    """What was found, in words."""
    code: bool = False
    """Whether the view's code was found out, not its stamps."""

    def __str__(self) -> str:
        who = ", ".join(f"{name} {value}" for name, value in self.entity.items())
        shown = f"{self.value:.6g}" if isinstance(self.value, float) else repr(self.value)
        stamped = "unknown" if self.stamp is None else f"{self.stamp:%Y-%m-%dT%H:%M:%S.%fZ}"
        return f"{self.what}. Example: {who}, event at {self.at:%Y-%m-%dT%H:%M:%S.%fZ}, value {shown} stamped {stamped}"


@dataclass(frozen=True)
class ViewLeaks:
    """What was found out about one view: at most one leak per column."""

    view: str
    leaks: tuple[Leak, ...]
    on_events: float
    """Share of the values found that are stamped at exactly the event's moment."""
    moments: int


def leaks_of(view: ViewValues, outcomes: Outcomes) -> ViewLeaks:
    """Check every column of a view, numbers and strings."""
    frame = outcomes.frame
    wanted = replace(view, features={**view.features, _STAMP: view.at})
    values = as_of_join(frame, AT, wanted)
    stamps = values[_STAMP].cast(pl.Datetime("us", "UTC"))
    found = stamps.drop_nulls().len()
    exact = int((stamps == frame[AT]).sum())
    columns = [
        _LeakColumn(view.name, feature, values[name], stamps, outcomes) for name, feature in view.features.items()
    ]
    leaks = [leak for column in columns if (leak := next(column.leaks(), None))]
    return ViewLeaks(view.name, tuple(leaks), exact / found if found else 0.0, frame.height)


@dataclass(frozen=True)
class _LeakColumn:
    """One column at every moment."""

    view: str
    feature: str
    values: pl.Series
    stamps: pl.Series
    outcomes: Outcomes

    def leaks(self) -> Iterator[Leak]:
        if self.values.dtype.is_numeric() or self.values.dtype == pl.Boolean:
            numbers = self.values.cast(pl.Float64).fill_nan(None)
            yield from self._totals(numbers)
            yield from self._own_or_next(numbers, "")
        elif self.values.dtype == pl.String:
            yield from self._names()
            frequent = self.values.drop_nulls().value_counts(sort=True).head(_CATEGORIES).get_column(self.values.name)
            for category in frequent:
                yield from self._own_or_next((self.values == category).cast(pl.Float64), f"being '{category}' ")

    def _totals(self, values: pl.Series) -> Iterator[Leak]:
        """Find a total over the events up to and including each moment, or over all, that the values are."""
        known = values.is_not_null()
        if int(known.sum()) < FEWEST:
            return
        numbers = values.fill_null(np.nan).to_numpy()
        for name, totals in self.outcomes.totals():
            for seen_as in (numbers, np.expm1(np.minimum(numbers, 50.0))):
                before = _same(seen_as, totals.before)
                for when, total in (("up to and including the event", totals.upto), ("of the whole log", totals.whole)):
                    # Where both totals are the same nothing can be told.
                    telling = known.to_numpy() & ~_same(total, totals.before)
                    same = _same(seen_as, total) & telling
                    if telling.sum() < FEWEST or same.sum() < EXACT * telling.sum():
                        continue
                    if (before & telling).sum() <= OTHERWISE * telling.sum() and _varied(total[same]):
                        place = int(np.argmax(same))
                        instead = totals.before[place]
                        what = f"is the {name} {when}"
                        rest = "" if np.isnan(instead) else f" (strictly before it: {instead:.6g})"
                        yield self._leak(place, f"{what}{rest}")

    def _own_or_next(self, values: pl.Series, suffix: str) -> Iterator[Leak]:
        """Find an outcome that the values follow at the event itself, and not at the next one."""
        rows = self.outcomes.chains(values.is_not_null())
        if len(rows) < FEWEST:
            return
        numbers = values.fill_null(np.nan).to_numpy()
        rest = self._unexplained(numbers, rows)
        if rest is None:
            return
        ranks = _ranks(rest)
        strongest: tuple[float, str, float, float] | None = None
        for name, outcome in self.outcomes.numbers.items():
            own, after = _correlation(ranks, outcome[rows]), _correlation(ranks, outcome[rows + 1])
            gap = abs(abs(own) - abs(after))
            if gap >= GAP and gap * np.sqrt(len(rows) / 2) >= DEVIATIONS and (not strongest or gap > strongest[0]):
                strongest = gap, name, own, after
        if strongest is not None:
            _, name, own, after = strongest
            place, which = int(rows[np.argmax(np.abs(rest))]), "event at" if abs(own) > abs(after) else "event after"
            yield self._leak(
                place,
                f"{suffix}follows the {which} the moment it is joined to: rank correlation {own:+.2f} with the {name} "
                f"of the event at it, {after:+.2f} with that of the next",
            )

    def _unexplained(self, numbers: Floats64, rows: npt.NDArray[np.int64]) -> Floats64 | None:
        """Return what value and events before a moment leave of its value, None where they leave nothing."""
        value, last = numbers[rows], numbers[rows - 1]
        past = [np.ones(len(rows)), last]
        for outcome in self.outcomes.numbers.values():
            past += [outcome[rows - 1], outcome[rows - 2]]
        # Windows empty with time, so what is left of a value depends on how long ago the last event was.
        waited = self.outcomes.seconds[rows] - self.outcomes.seconds[rows - 1]
        for edge in _GAPS_S:
            past += [(waited > edge).astype(np.float64), (waited > edge) * last]
        design = np.column_stack(past)
        design = (design - design.mean(axis=0)) / np.maximum(design.std(axis=0), 1e-12)
        design[:, 0] = 1.0
        coefficients = np.linalg.lstsq(design, value, rcond=1e-9)[0]
        rest: Floats64 = value - design @ coefficients
        scale = float(np.std(value))
        rest[np.abs(rest) <= 1e-6 * scale] = 0.0
        return rest if scale > 0 and np.any(rest) else None

    def _names(self) -> Iterator[Leak]:
        """Find a name of the event itself, such as its title, that the values are."""
        rows = self.outcomes.chains(self.values.is_not_null())
        if len(rows) < FEWEST:
            return
        values = self.values.to_numpy()
        for name, texts in self.outcomes.names.items():
            own, last, after = (float(np.mean(values[rows] == texts[rows + step])) for step in (0, -1, 1))
            if own >= NAMED and own - max(last, after) >= GAP:
                place = int(rows[np.argmax((values[rows] == texts[rows]) & (values[rows] != texts[rows - 1]))])
                yield self._leak(place, f"is the {name} of the event at the same moment ({own:.0%} of moments)")

    def _leak(self, place: int, what: str) -> Leak:
        row = self.outcomes.frame.row(place, named=True)
        value = self.values[place]
        return Leak(
            self.view,
            self.feature,
            {key: str(row[key]) for key in self.outcomes.keys},
            row[AT],
            self.stamps[place],
            float(value) if isinstance(value, bool | int | float) else value,
            what,
        )


def _same(values: Floats64, totals: Floats64) -> npt.NDArray[np.bool_]:
    """Say where two columns are the same number, as float32 has it; nan is nothing's equal."""
    same: npt.NDArray[np.bool_] = np.abs(values - totals) <= 1e-5 * np.maximum(1.0, np.abs(totals))
    return same


def _varied(totals: Floats64) -> bool:
    """Say whether totals are more than a constant that many columns have."""
    counts = np.unique(totals, return_counts=True)[1]
    return len(counts) > 2 and counts.max() <= MOST_ALIKE * counts.sum()


def _ranks(values: Floats64) -> Floats64:
    ranked: Floats64 = pl.Series(values).rank("average").to_numpy().astype(np.float64)
    return ranked


def _correlation(ranks: Floats64, outcome: Floats64) -> float:
    """Return Spearman's correlation, 0 where one side does not vary."""
    other = _ranks(outcome)
    spread = float(ranks.std() * other.std())
    return 0.0 if spread == 0.0 else float(np.mean((ranks - ranks.mean()) * (other - other.mean())) / spread)
