"""Results of an A/B test: each arm's measures, its differences to the first arm, and contrasts between arms.

All intervals are by member; differences are taken member by member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from playbill.arrays import Floats64
from playbill.errors import ComparisonError, Problem, ProblemsError
from playbill.metrics import Interval, MemberBootstrap, adjust_p
from playbill_lab.ab.results import (
    BLACK,
    BLUE,
    RED,
    draw_intervals,
    numbers_table,
    repeated,
    with_interval,
    write_report,
)

MEASURES = {
    "value": "days with the service from the first test day on, the exact expectation beyond the test included",
    "retained": "share of members who are still there after the last test day",
    "satisfaction": "satisfaction after the last test day, or when the member left (-3 to 3)",
    "plays_per_day": "plays on a test day; members who have left count with none",
    "hours_per_day": "hours watched on a test day",
    "false_starts_per_day": "plays on a test day that were left within the first tenth",
}
"""Measure -> what it means. The first one decides."""


@dataclass(frozen=True)
class Arm:
    """One arm of a test on one measure."""

    arm: str
    measure: str  # One of `MEASURES`
    mean: Interval
    difference: Interval | None = None  # To the first arm, member by member; None for the first arm itself
    p: float | None = None  # Two-sided, of the difference being zero
    p_adjusted: float | None = None  # Holm, over the arms of the measure

    @property
    def significant(self) -> bool:
        """Whether the difference stands at 5 % after the correction."""
        return self.p_adjusted is not None and self.p_adjusted <= 0.05


@dataclass(frozen=True)
class AbReport:
    """Every arm on every measure."""

    arms: tuple[Arm, ...]  # By measure, then arm, the first arm first
    members: int  # Members in each arm; they are the same ones
    days: int
    seeds: tuple[int, ...]
    about: Mapping[str, Any]  # What else a reader needs to know, JSON-ready

    @property
    def names(self) -> tuple[str, ...]:
        """The arms, the first one first."""
        return tuple(dict.fromkeys(row.arm for row in self.arms))

    def of(self, arm: str, measure: str = "value") -> Arm:
        """Return one arm on one measure."""
        return next(row for row in self.arms if (row.arm, row.measure) == (arm, measure))

    def as_json(self) -> dict[str, Any]:
        """Return `arms` (name -> measure -> numbers), `members`, `days`, `seeds` and what is in `about`."""
        arms: dict[str, dict[str, Any]] = {name: {} for name in self.names}
        for row in self.arms:
            arms[row.arm][row.measure] = _numbers(row)
        return {"arms": arms, "members": self.members, "days": self.days, "seeds": list(self.seeds), **self.about}

    def save(self, path: Path) -> None:
        """Write the JSON."""
        write_report(path, self.as_json())

    def frame(self) -> pl.DataFrame:
        """Return a row per arm and measure."""
        return pl.DataFrame([{"arm": row.arm, "measure": row.measure, **_numbers(row)} for row in self.arms])

    def metrics(self, named: Mapping[str, str]) -> dict[str, float]:
        """Return every mean and difference by `arm/measure`, arms under other names where `named` has one."""
        numbers = {}
        for row in self.arms:
            name = f"{named.get(row.arm, row.arm)}/{row.measure}"
            numbers[name] = row.mean.value
            if row.difference is not None:
                numbers[f"{name}/difference"] = row.difference.value
        return numbers

    def table(self) -> Table:
        """Return measures by arms for the terminal; a star marks differences that stand after the correction."""
        sizes = (
            f"{self.members} members, {self.days} days, {len(self.seeds)} {'run' if len(self.seeds) == 1 else 'runs'}"
        )
        title = f"Simulated A/B: {sizes}\nDifferences to {self.names[0]}, 95 % by member, p after Holm"
        table = numbers_table(title, "measure, arm", ("mean", "difference", "95 %", "p"))
        for measure in MEASURES:
            table.add_row(measure, style="bold")
            for place, name in enumerate(self.names):
                row, last = self.of(name, measure), place + 1 == len(self.names)
                table.add_row(f"  {name}", *_cells(row), end_section=last)
        return table


def compare(
    values: Mapping[str, pl.DataFrame], *, days: int, seeds: Sequence[int], about: Mapping[str, Any]
) -> AbReport:
    """Compare arms member by member; the first arm is the one to beat.

    `values`: arm -> member (dense number), run, and a column per measure. Arms have the same rows in the same order.

    Raises:
        ComparisonError: The arms do not have the same members.
    """
    (first, base), *_ = values.items()
    for name, frame in values.items():
        if not frame.select("member", "run").equals(base.select("member", "run")):
            raise ComparisonError(f"'{name}' and '{first}' were not seen by the same members")
    members = base["member"].to_numpy().astype(np.int64)
    bootstrap = MemberBootstrap(members, seed=0)
    rows = [row for measure in MEASURES for row in _measured(values, measure, bootstrap)]
    return AbReport(tuple(rows), int(base["member"].n_unique()), days, tuple(seeds), dict(about))


def _measured(values: Mapping[str, pl.DataFrame], measure: str, bootstrap: MemberBootstrap) -> list[Arm]:
    matrix = np.stack([frame[measure].to_numpy().astype(np.float64) for frame in values.values()], axis=1)
    differences = matrix[:, 1:] - matrix[:, :1]
    means, gaps = bootstrap.intervals(matrix), bootstrap.intervals(differences)
    p = bootstrap.p_values(differences)
    adjusted = adjust_p(p)
    first, *others = values
    rows = [Arm(first, measure, means[0])]
    for place, name in enumerate(others):
        rows.append(Arm(name, measure, means[place + 1], gaps[place], float(p[place]), float(adjusted[place])))
    return rows


def check_arms(names: Sequence[str]) -> None:
    """Refuse a test without two arms of different names.

    Raises:
        ProblemsError: There are fewer, or a name comes twice; every mistake is named.
    """
    problems = []
    if len(names) < 2:
        problems.append(Problem("arms", f"an A/B test compares two policies at least, got {len(names)}."))
    problems += repeated("arms", names)
    if problems:
        raise ProblemsError("the A/B test", problems)


def plot(report: AbReport, path: Path) -> None:
    """Draw every arm's difference to the first one, a panel per measure, as SVG or PNG by the file's ending."""
    from playbill.evaluation.rendering.plots import figure_with_axes

    first, *others = report.names
    figure, panels = figure_with_axes(3.0 * len(MEASURES), 1.4 + 0.4 * len(others), 1, len(MEASURES), sharey=True)
    for axes, measure in zip(panels, MEASURES, strict=True):
        gaps = [gap for name in others if (gap := report.of(name, measure).difference) is not None]
        draw_intervals(axes, gaps, range(len(gaps)), color=BLUE, ecolor=BLACK)
        axes.axvline(0.0, color=RED, linewidth=1)
        axes.set_yticks(range(len(others)), others)
        axes.set_title(measure, fontsize=10)
        axes.set_xlabel(f"difference to {first}", fontsize=8)
    panels[0].invert_yaxis()
    figure.savefig(path)


def _numbers(row: Arm) -> dict[str, Any]:
    numbers = with_interval("mean", row.mean)
    if row.difference is not None:
        numbers |= with_interval("difference", row.difference, "difference_interval")
        numbers |= {"p": row.p, "p_adjusted": row.p_adjusted}
    return numbers


def _cells(row: Arm) -> tuple[str, str, str, str]:
    digits = 2 if row.measure == "value" else 3
    mean = f"{row.mean.value:.{digits}f}"
    if row.difference is None:
        return mean, "", "", ""
    gap, star = row.difference, "*" if row.significant else " "
    between = f"{gap.low:+.{digits}f} to {gap.high:+.{digits}f}"
    return mean, f"{gap.value:+.{digits}f}", between, f"{row.p_adjusted:.4f} {star}"


@dataclass(frozen=True)
class Contrast:
    """One difference of arms on one measure."""

    name: str
    measure: str  # One of `ab_report.MEASURES`
    value: Interval
    p: float  # Two-sided, of it being zero
    p_adjusted: float  # Holm, over the contrasts of the measure

    @property
    def significant(self) -> bool:
        """Whether it stands at 5 % after the correction."""
        return self.p_adjusted <= 0.05


def contrasts(
    values: Mapping[str, pl.DataFrame], objectives: Sequence[str], capacities: Sequence[str]
) -> tuple[Contrast, ...]:
    """Work out what capacity does under each objective, what objectives differ by at each capacity, and how both meet.

    How they meet compares the smallest and the largest capacity: what the better objective is worth with the smaller
    network against the worse one with the larger, and whether an objective matters more to the larger.

    `values`: arm `OBJECTIVE_CAPACITY` -> member, run and a column per measure. Objectives are ordered from the least to
    the most aligned, capacities from the smallest to the largest.
    """
    found: list[Contrast] = []
    for measure in MEASURES:
        columns = {name: frame[measure].to_numpy().astype(np.float64) for name, frame in values.items()}
        named = dict(_differences(columns, objectives, capacities))
        if not named:
            return ()
        matrix = np.stack(list(named.values()), axis=1)
        members = next(iter(values.values()))["member"].to_numpy().astype(np.int64)
        bootstrap = MemberBootstrap(members, seed=0)
        intervals, p = bootstrap.intervals(matrix), bootstrap.p_values(matrix)
        rows = zip(named, intervals, p.tolist(), adjust_p(p).tolist(), strict=True)
        found += [Contrast(name, measure, *row) for name, *row in rows]
    return tuple(found)


def _differences(
    columns: Mapping[str, Floats64], objectives: Sequence[str], capacities: Sequence[str]
) -> list[tuple[str, Floats64]]:
    found = []
    for objective in objectives:
        for less, more in combinations(capacities, 2):
            gap = columns[f"{objective}_{more}"] - columns[f"{objective}_{less}"]
            found.append((f"{objective}: {more} - {less}", gap))
    for capacity in capacities:
        for worse, better in combinations(objectives, 2):
            gap = columns[f"{better}_{capacity}"] - columns[f"{worse}_{capacity}"]
            found.append((f"{capacity}: {better} - {worse}", gap))
    known = dict(found)
    less, more = capacities[0], capacities[-1]
    for worse, better in combinations(objectives, 2) if less != more else ():
        gap = columns[f"{better}_{less}"] - columns[f"{worse}_{more}"]
        found.append((f"{better} {less} - {worse} {more}", gap))
        pair = f"{better} - {worse}"
        found.append((f"({pair}) at {more} - at {less}", known[f"{more}: {pair}"] - known[f"{less}: {pair}"]))
    return found
