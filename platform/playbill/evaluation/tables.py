"""A report as rich tables."""

from __future__ import annotations

from rich.table import Table

from playbill.evaluation.report import EvaluationReport
from playbill.metrics import Interval

SLICE_ROWS = 12


def tables(report: EvaluationReport, slice_rows: int = SLICE_ROWS) -> list[Table]:
    """Return the model with its baselines, the differences, and the slices, worst first.

    Args:
        report: What to show.
        slice_rows: Slices at most; the small ones are only counted.
    """
    shown = [_main(report)]
    if report.differences:
        shown.append(_differences(report))
    if report.slices:
        shown.append(_slices(report, slice_rows))
    return shown


def _main(report: EvaluationReport) -> Table:
    left_out = f", {report.left_out} targets it could not show left out" if report.left_out else ""
    table = Table(
        title=f"{report.canvas}: {report.protocol}, {report.fold} fold, {report.n} requests of {report.members} "
        f"members over {report.catalogue} titles{left_out}"
    )
    table.add_column("")
    names = [*report.result.metrics, *report.result.coverage]
    for name in names:
        table.add_column(name, justify="right")
    for row in report.rows:
        cells = [
            *(_with_interval(row.metrics[name]) for name in row.metrics),
            *(f"{v:.4f}" for v in row.coverage.values()),
        ]
        table.add_row(row.name, *cells, style="bold" if row is report.result else "")
    return table


def _differences(report: EvaluationReport) -> Table:
    level = f"{100 * report.level:.0f} %"
    table = Table(title=f"{report.model} minus each baseline, paired {level} intervals by member")
    table.add_column("")
    for name in report.result.metrics:
        table.add_column(name, justify="right")
    table.add_column("intervals with zero")
    for row in report.differences:
        unsure = [name for name, interval in row.metrics.items() if interval.includes_zero]
        cells = [
            f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]" for interval in row.metrics.values()
        ]
        table.add_row(row.baseline, *cells, ", ".join(unsure) or "none")
    return table


def _slices(report: EvaluationReport, limit: int) -> Table:
    large = [row for row in report.slices if not row.small]
    small = len(report.slices) - len(large)
    table = Table(
        title=f"slices by {report.main_metric}, worst first; "
        f"{small} with fewer than {report.minimum_members} members not shown"
    )
    for name in ("slice", "group", "members"):
        table.add_column(name, justify="right" if name == "members" else "left")
    table.add_column(report.main_metric, justify="right")
    for row in report.differences:
        table.add_column(f"minus {row.baseline}", justify="right")
    for group in large[:limit]:
        cells = [
            f"{interval.value:+.4f}" + (" (?)" if interval.includes_zero else "")
            for interval in group.differences.values()
        ]
        table.add_row(
            group.slice, group.group, str(group.members), _with_interval(group.metrics[report.main_metric]), *cells
        )
    if report.differences:
        table.caption = "(?) the interval of the difference includes zero"
    return table


def _with_interval(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
