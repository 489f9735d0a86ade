"""What a run leaves in MLflow: parameters, curves, tables, plots and lineage."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from playbill.datasets import Split
from playbill.evaluation.html import html_report
from playbill.evaluation.model import ModelEvaluation
from playbill.evaluation.plots import plots
from playbill.evaluation.report import EvaluationReport
from playbill.metrics import Interval
from playbill.specs import ResolvedModel
from playbill.tracking import RunHandle
from playbill.training.settings import LoopSettings


def run_params(resolved: ResolvedModel, settings: LoopSettings, workers: int) -> dict[str, Any]:
    """Return the parameters of a run; nested names become dotted in MLflow."""
    return {
        "model": resolved.model.model_dump(mode="json"),
        "loop": settings.model_dump(mode="json"),
        "workers": workers,
    }


def log_evaluation(run: RunHandle, evaluation: ModelEvaluation, split: Split) -> None:
    """Store every canvas's report, tables and plots, and the split they were measured on as row ids."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        split.save(scratch / "split.parquet")
        run.log_artifact(scratch / "split.parquet", "evaluation")
        for canvas, report in evaluation.reports.items():
            log_report(run, report, scratch / canvas)
    reports = list(evaluation.reports.values())
    page = html_report(run_title(reports), reports, skipped=evaluation.skipped)
    run.log_text(page, "evaluation/report.html")
    for canvas, reason in evaluation.skipped.items():
        run.log_text(reason, f"evaluation/{canvas}/not_measured.txt")


def run_title(reports: Sequence[EvaluationReport]) -> str:
    """Return the heading of a page of reports."""
    return f"{reports[0].model}: {', '.join(dict.fromkeys(report.protocol for report in reports))}"


def log_report(run: RunHandle, report: EvaluationReport, folder: Path) -> None:
    """Store one canvas's report, tables and plots.

    Args:
        run: Where to.
        report: What to store.
        folder: For the plots on the way; must not be there yet.
    """
    folder.mkdir()
    run.log_table(models_table(report), f"{report.canvas}_models")
    if report.slices:
        run.log_table(slices_table(report), f"{report.canvas}_slices")
    run.log_text(report.to_json(), f"evaluation/{report.canvas}/report.json")
    for plot in plots(report, folder):
        run.log_artifact(plot, f"evaluation/{report.canvas}")


def models_table(report: EvaluationReport) -> pl.DataFrame:
    """Return a row per model and baseline: every metric with the ends of its interval, and coverage."""
    rows = [{"name": row.name, **_flat(row.metrics), **row.coverage} for row in report.rows]
    return pl.DataFrame(rows, infer_schema_length=None)


def slices_table(report: EvaluationReport) -> pl.DataFrame:
    """Return a row per group, worst first."""
    rows = [
        {"slice": row.slice, "group": row.group, "members": row.members, "small": row.small, **_flat(row.metrics)}
        for row in report.slices
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _flat(metrics: dict[str, Interval]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, interval in metrics.items():
        flat |= {name: interval.value, f"{name} low": interval.low, f"{name} high": interval.high}
    return flat
