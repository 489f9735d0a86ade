"""`playbill evaluate`: measure registered versions under a named protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection, earlier_option
from playbill.cli.protocols import protocol_list, protocol_option

if TYPE_CHECKING:
    from playbill.evaluation import ArmsReport, EvaluationReport
    from playbill.evaluation.compare import ArmDifference
    from playbill.evaluation.report import SliceRow
    from playbill.project.evaluation import EvaluationResult, MeasuredVersion


@click.command("evaluate", epilog=protocol_list(auto=False))
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@protocol_option("the one it was trained under")
@click.option("--canvas", help="Canvas to ask (default: home, or the model's first one).")
@click.option("--row", help="One row: everybody ranks its candidates. Such as top_picks or genre_rows:Drama.")
@click.option("--label", help="What calls a play from the row a hit (default: the label of its blend's main head).")
@click.option("--baselines", help="Some of the baselines above, with commas (default: the model's).")
@click.option("--slices", help="Some of the slices above, with commas (default: the model's).")
@click.option("--minimum-members", type=click.IntRange(1), help="Members a slice's group needs (default: the model's).")
@click.option("--window", help="Window of the protocol replay, such as 7d (default: 1d).")
@click.option("--leakage-checks", is_flag=True, help="Try whether anything reads the future or the targets.")
@earlier_option("--canaries", "--leakage-checks", is_flag=True)
@click.option("--plots", "plot_folder", type=click.Path(file_okay=False), help="Folder for pictures.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False), help="File for the whole report as JSON.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False), help="File for a page with tables and pictures.")
@click.option("--log/--no-log", default=True, show_default=True, help="Record the evaluation in MLflow.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def evaluate(
    selection: Selection,
    /,
    references: tuple[str, ...],
    plot_folder: str | None,
    report_file: str | None,
    html_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure model versions under a named protocol.

    REFERENCE is model@champion, model:3, or model for its newest version. The whole catalogue is ranked.

    \b
    Baselines: popular, popular_7d, item_knn, ease, ials, sasrec (minutes)
    Slices:    country, tenure, title_age, popularity, device, language, canvas

    Several versions are compared. Those that differ only in their training seed are seeds of one arm, and an arm of
    one seed has no test of significance. Figures of one row are printed and not recorded: gates are about canvases.

    Example: playbill -w ml_100k evaluate everycanvas@champion --protocol leave_one_out
    Of a row: playbill -w ml_100k evaluate everycanvas@champion --row gems_for_you
    """  # noqa: D301
    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.project.evaluation import write_files

    project = selection.project
    options |= {name: _names(options[name]) for name in ("baselines", "slices")}
    with Stages() as stages:
        result = project.evaluate(*references, **options, progress=stages)
    console = Console(stderr=as_json)
    _show(console, result)
    for line in write_files(result, plots=plot_folder, report=report_file, html=html_file):
        console.print(line)
    if as_json:
        content = summary(result.versions[0]) | ({"arms": _arms(result.arms)} if result.arms is not None else {})
        click.echo(json.dumps(content))
    result.require_no_leaks()


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _show(console: Any, result: EvaluationResult) -> None:
    from playbill.evaluation import arm_tables, tables

    for one in result.versions:
        for table in tables(one.report):
            console.print(table)
        for check in one.leakage_checks:
            verdict = "passed" if check.passed else "not passed"
            console.print(f"{check.check} of {check.subject}: {verdict}, {check.message}", highlight=False)
    for table in arm_tables(result.arms) if result.arms is not None else ():
        console.print(table)


def summary(measured: MeasuredVersion) -> dict[str, Any]:
    """Return what a script reads: metrics at the top level, baselines by name, slices worst first."""
    report = measured.report
    return {
        "model": measured.version.model,
        "version": measured.version.version,
        "protocol": report.protocol,
        "canvas": report.canvas,
        "row": report.row,
        "label": report.label,
        "fold": report.fold,
        "split_digest": report.split_digest,
        "n": report.n,
        "members": report.members,
        "left_out": report.left_out,
        **{name: interval.value for name, interval in report.result.metrics.items()},
        **report.result.coverage,
        "main_metric": report.main_metric,
        "intervals": {name: [one.low, one.high] for name, one in report.result.metrics.items()},
        "baselines": _baselines(report),
        "not_ahead_of": list(report.not_ahead_of),
        "ceiling": None if report.ceiling is None else report.ceiling.metrics[report.main_metric].value,
        "share_of_ceiling": report.share_of_ceiling,
        "worst_slice": _group(report.worst_slice, report) if report.worst_slice is not None else None,
        "slices": [_group(row, report) for row in report.slices],
        "heads": {row.head: {name: one.value for name, one in row.metrics.items()} for row in report.heads},
        "windows": [_window(row, report) for row in report.windows],
        "leakage_checks": [
            {"check": one.check, "of": one.subject, "passed": one.passed} for one in measured.leakage_checks
        ],
        "reward": report.reward,
        "notes": list(report.notes),
        "run_id": measured.run_id,
    }


def _baselines(report: EvaluationReport) -> dict[str, Any]:
    differences = {row.baseline: row for row in report.differences}
    metric = report.main_metric
    return {
        row.name: {
            **{name: interval.value for name, interval in row.metrics.items()},
            **row.coverage,
            "difference": differences[row.name].metrics[metric].value,
            "interval": list(differences[row.name].metrics[metric][1:]),
            "includes_zero": differences[row.name].metrics[metric].includes_zero,
            "adjusted_p": differences[row.name].adjusted_p[metric],
        }
        for row in report.baselines
    }


def _group(row: SliceRow, report: EvaluationReport) -> dict[str, Any]:
    """Return a group of a slice; one with too few members has its size and no number."""
    found = row.metrics.get(report.main_metric)
    return {
        "slice": row.slice,
        "group": row.group,
        "n": row.requests,
        "members": row.members,
        "too_few_members": row.small,
        report.main_metric: found.value if found else None,
        "interval": [found.low, found.high] if found else None,
    }


def _window(row: Any, report: EvaluationReport) -> dict[str, Any]:
    values = {name: interval.value for name, interval in row.metrics.items()}
    return {"from": row.start, "until": row.end, "n": row.requests, report.main_metric: values}


def _arms(compared: ArmsReport) -> list[dict[str, Any]]:
    against = {row.other: row for row in compared.differences}
    return [
        {
            "arm": row.name,
            "seeds": row.seeds,
            **{name: interval.value for name, interval in row.metrics.items()},
            "intervals": {name: [interval.low, interval.high] for name, interval in row.metrics.items()},
            "spread": row.spread,
            "first_minus_it": _difference(against[row.name]) if row.name in against else None,
        }
        for row in compared.rows
    ]


def _difference(row: ArmDifference) -> dict[str, Any]:
    return {
        **{name: interval.value for name, interval in row.metrics.items()},
        "intervals": {name: [interval.low, interval.high] for name, interval in row.metrics.items()},
        "adjusted_p": row.adjusted_p,
        "claims": list(row.claims),
        "why_not": row.why_not or None,
    }
