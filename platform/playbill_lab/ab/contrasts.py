"""Differences between arms that a study is about, member by member.

Axis letters: R rows (one member in one run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.metrics import Interval, MemberBootstrap, adjust_p
from playbill_lab.ab.report import MEASURES


@dataclass(frozen=True)
class Contrast:
    """One difference of arms on one measure.

    Args:
        name: What is compared with what.
        measure: One of `ab_report.MEASURES`.
        value: Mean over members, with its interval.
        p: Two-sided, of it being zero.
        p_adjusted: Holm, over the contrasts of the measure.
    """

    name: str
    measure: str
    value: Interval
    p: float
    p_adjusted: float

    @property
    def significant(self) -> bool:
        """Whether it stands at 5 % after the correction."""
        return self.p_adjusted <= 0.05


def contrasts(
    values: Mapping[str, pl.DataFrame], objectives: Sequence[str], capacities: Sequence[str]
) -> tuple[Contrast, ...]:
    """Work out what capacity does under each objective, what objectives differ by at each capacity, and how both meet.

    How they meet is asked of the smallest and the largest capacity: what the better objective is worth with the
    smaller network against the worse one with the larger, and whether an objective matters more to the larger.

    Args:
        values: Arm `OBJECTIVE_CAPACITY` -> member, run and a column per measure; see `ab_report.compare`.
        objectives: Ordered from the least to the most aligned.
        capacities: Ordered from the smallest to the largest.
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
    columns: Mapping[str, npt.NDArray[np.float64]], objectives: Sequence[str], capacities: Sequence[str]
) -> list[tuple[str, npt.NDArray[np.float64]]]:
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
