"""A report as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from playbill.evaluation.arms import ArmsReport
from playbill.evaluation.rendering.grids import SLICE_ROWS, Grid, arm_grids, grids, summary_grid
from playbill.evaluation.report import EvaluationReport


def tables(report: EvaluationReport, slice_rows: int = SLICE_ROWS) -> list[Table]:
    """Return the model with its baselines, the differences, the slices, worst first, and what else was measured.

    Args:
        report: What to show.
        slice_rows: Slices at most; the small ones are only counted.
    """
    return [grid_table(grid) for grid in grids(report, slice_rows)]


def summary_table(reports: Sequence[EvaluationReport]) -> Table:
    """Return one line for each canvas: the model beside its baselines and the ceiling."""
    return grid_table(summary_grid(reports))


def arm_tables(report: ArmsReport) -> list[Table]:
    """Return arms with their seeds, and the first arm against each other one."""
    return [grid_table(grid) for grid in arm_grids(report)]


def grid_table(grid: Grid) -> Table:
    """Return a table of text as a rich table; nothing in it is read as markup, whatever prints it."""
    table = Table(title=Text(grid.title), caption=Text(grid.caption) if grid.caption else None)
    for place, name in enumerate(grid.columns):
        table.add_column(Text(name), justify="right" if place else "left")
    for place, row in enumerate(grid.rows):
        table.add_row(*(Text(cell) for cell in row), style="bold" if place == grid.strong else "")
    return table
