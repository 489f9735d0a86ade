"""Objective before capacity: what a larger network does to members, by what it is told to seek.

One simulated log; from it the same network in several sizes learns several objectives, by the code of `playbill
train`. Each model is then measured twice: offline on the log's held-out end, and online on the same members, whose
value is known exactly. The question: does capacity help, and does a misaligned objective cost more when there is more
of it?

Source of the question: "Recommending for long-term member satisfaction at Netflix", TechBlog 2024: better offline fit
can come with flat or negative online metrics where the proxy is misaligned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from playbill.zoo import Zoo
from playbill_lab.ab.contrasts import Contrast, contrasts
from playbill_lab.ab.report import AbReport, compare
from playbill_lab.studies.agreement import Agreement, agreements
from playbill_lab.studies.cells import Cell, Cells, Offline
from playbill_lab.studies.objective.arms import StudyOptions
from playbill_lab.studies.objective.study import Run

OFFLINE = ("ndcg@10", "reward_ndcg@10")
"""Offline metrics that are set against the test: which plays came, and which came that were worth something."""

ONLINE = ("value", "retained", "satisfaction", "plays_per_day")
"""Measures of the test that a good model raises."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """What came out.

    Args:
        options: What was asked.
        offline: Every model on every log.
        online: Every arm over all seeds.
        contrasts: What capacity does by objective, and what a misaligned objective costs by capacity.
        agreements: Whether offline metrics rank the models as the test does.
    """

    options: StudyOptions
    offline: tuple[Offline, ...]
    online: AbReport
    contrasts: tuple[Contrast, ...]
    agreements: tuple[Agreement, ...]


def run_study(zoo: Zoo, options: StudyOptions, folder: Path, progress: Progress | None = None) -> Study:
    """Run the study, or what is left of it.

    Args:
        zoo: Where the rewards are defined.
        options: Sizes.
        folder: Where bundles and finished cells go. Cells that are there already are not made again.
        progress: Told of every step.

    Raises:
        UnknownNameError: There is no such reward or capacity.
        ProblemsError: It cannot be run in these sizes.
    """
    options.check()
    tell, cells = progress or (lambda _text: None), Cells(folder)
    runs = [Run.of(zoo, options, seed, folder) for seed in options.seeds]
    found = [_of_seed(cells, run, tell) for run in runs]
    offline = tuple(cell.offline for row in found for cell in row if cell.offline is not None)
    values = {
        arm: pl.concat(_of_run(row[place].members, number, options) for number, row in enumerate(found))
        for place, arm in enumerate(options.arms)
    }
    about = {"log_days": options.log_days, "log_members": options.members, "titles": options.titles}
    return Study(
        options=options,
        offline=offline,
        online=compare(values, days=options.test_days, seeds=options.seeds, about=about),
        contrasts=contrasts(values, options.objectives, options.capacities),
        agreements=agreements(offline, values, OFFLINE, ONLINE),
    )


def _of_run(members: pl.DataFrame, number: int, options: StudyOptions) -> pl.DataFrame:
    """Number the run and its members: those of another world are other people."""
    first = number * options.test_members
    return members.with_columns(pl.col("member") + first, run=pl.lit(number, dtype=pl.Int64))


def _of_seed(cells: Cells, run: Run, tell: Progress) -> list[Cell]:
    """Return every cell of a seed, and let go of its log."""
    found = [_cell(cells, run, arm, tell) for arm in run.options.arms]
    run.forget()
    return found


def _cell(cells: Cells, run: Run, arm: str, tell: Progress) -> Cell:
    asked = run.digest(arm)
    if (known := cells.read(arm, run.seed, asked)) is not None:
        return known
    made = run.cell(arm)
    cells.write(made, asked)
    tell(f"seed {run.seed}: {arm}: {_shown(made)}")
    return made


def _shown(cell: Cell) -> str:
    value = f"value {float(cell.members['value'].to_numpy().mean()):.2f} days"
    if (row := cell.offline) is None:
        return value
    numbers = ", ".join(f"{name} {row.metrics[name].value:.4f}" for name in OFFLINE if name in row.metrics)
    return f"{value}, {numbers} ({row.parameters:,} weights, {row.examples:,} examples, {row.train_seconds:.0f} s)"
