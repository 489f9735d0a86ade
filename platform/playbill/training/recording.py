"""What a run leaves in MLflow: parameters, curves, tables, plots, lineage, and the examples that it learns from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from playbill.clock import WallClock
from playbill.datasets import Split, TrainingSet
from playbill.datasets.examples.sampling import strata_frame
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.measures import lower_is_better
from playbill.evaluation.canvases.model import ModelEvaluation
from playbill.evaluation.cases.slices import SLICES
from playbill.evaluation.feature_report import FeatureReport
from playbill.evaluation.rendering.html import html_report
from playbill.evaluation.rendering.plots import importance_figure, plots
from playbill.evaluation.report import EvaluationReport, ScoredRow
from playbill.metrics import Interval
from playbill.training.contract import LoopSettings
from playbill.training.term_weights import LearntTerms
from playbill.versions.promotion.descriptions import CanvasQuality
from playbill.versions.tracking import Lineage, RunHandle
from playbill.versions.tracking.numbers import MEMBER, REQUEST

PICTURES = (".svg", ".png")


def run_params(resolved: ResolvedModel, settings: LoopSettings, workers: int) -> dict[str, Any]:
    """Return the parameters of a run; nested names become dotted in MLflow."""
    return {
        "model": resolved.model.model_dump(mode="json"),
        "loop": settings.model_dump(mode="json"),
        "workers": workers,
    }


def run_name(model: str, split: Split, folder: str) -> str:
    """Return a name a person can tell apart: model, protocol, local time, and the run's own digest in short."""
    now = WallClock().now().astimezone()
    return f"{model} {split.protocol} {now:%d %b %H:%M} {folder.rpartition('-')[2][:6]}"


def quality(evaluation: ModelEvaluation, main_canvas: str) -> list[CanvasQuality]:
    """Return what a version reaches on every canvas, the main one first."""
    ordered = sorted(evaluation.reports.values(), key=lambda report: report.canvas != main_canvas)
    rows = []
    for report in ordered:
        if value := report.result.metrics.get(report.main_metric):
            best = best_baseline(report)
            other = (best.name, best.metrics[report.main_metric].value) if best else (None, None)
            rows.append(CanvasQuality(report.canvas, report.main_metric, value, *other))
    return rows


def about_version(resolved: ResolvedModel, lineage: Lineage, workspace: str, run: RunHandle) -> list[str]:
    """Return the paragraphs under a version's numbers: its data, what it does without, and links inside MLflow."""
    here = f"#/experiments/{run.experiment_id}/runs/{run.run_id}"
    until = f"{lineage.watermark:%Y-%m-%d %H:%M} UTC"
    data = f"Data: workspace {workspace}, snapshot {lineage.data_snapshot}, learnt until {until}"
    chosen = f", since {lineage.protocol_reason}" if lineage.protocol_reason else ""
    paragraphs = [f"{data}; held out by {lineage.protocol}{chosen}."]
    if lineage.parent_version:
        start = resolved.model.init_from
        frozen = start is not None and start.trunk == "frozen"
        tuned = "title vectors, event tokens and trunk as they were" if frozen else "all of it trained on"
        paragraphs.append(f"Started from {lineage.parent_version}, {tuned}.")
    if without := left_out_words(resolved):
        paragraphs.append(f"Left out, as the log has nothing to learn it from: {without}.")
    links = {"run": here, "report": f"{here}/artifacts/evaluation/report.html", "lineage": f"{here}/artifacts/tables"}
    return [*paragraphs, " · ".join(f"[{name}]({place})" for name, place in links.items())]


def left_out_words(resolved: ResolvedModel) -> str:
    """Return the heads, canvases and rows that a log left out, by name; `notes.txt` of the run says why."""
    gone = resolved.left_out
    rows = sorted({row for own in gone.rows.values() for row in own})
    kinds = {"heads": sorted(gone.heads), "canvases": sorted(gone.canvases), "rows": rows}
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)


def log_lineage(run: RunHandle, lineage: Lineage) -> None:
    """Store what a version was made from as a table; its tags hold the short part."""
    run.log_table(pl.DataFrame(lineage.rows()), "lineage")


def log_card(run: RunHandle, folder: Path) -> None:
    """Store a model's card and the pictures beside its definition under `card/`; a model without a card has none."""
    card = folder / "card.md"
    if card.is_file():
        for file in (card, *sorted(path for path in folder.iterdir() if path.suffix in PICTURES)):
            run.log_artifact(file, "card")


def learnt_labels(resolved: ResolvedModel) -> dict[str, int]:
    """Return the labels that the heads learn, with their versions; those of measures and rewards are not among them."""
    names = sorted({head.label for head in resolved.model.heads.values() if head.label is not None})
    return {name: resolved.labels[name].version for name in names}


def log_evaluation(run: RunHandle, evaluation: ModelEvaluation, split: Split) -> None:
    """Store every canvas's headlines as metrics, all numbers as tables, plots, and the split as row ids."""
    log_numbers(run, list(evaluation.reports.values()))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        split.save(scratch / "split.parquet")
        run.log_artifact(scratch / "split.parquet", "evaluation")
        drawn = {canvas: log_report(run, report, scratch / canvas) for canvas, report in evaluation.reports.items()}
        reports = list(evaluation.reports.values())
        page = html_report(run_title(reports), reports, skipped=evaluation.skipped, drawn=drawn)
    run.log_text(page, "evaluation/report.html")
    for canvas, reason in evaluation.skipped.items():
        run.log_text(reason, f"evaluation/{canvas}/not_measured.txt")


def log_terms(run: RunHandle, learnt: Sequence[LearntTerms]) -> None:
    """Store what terms of histories weigh, what blends weigh, and what that adds out of sample, as a table each."""
    weights = [one.weights.select(pl.lit(one.head).alias("head"), pl.all()) for one in learnt]
    gains = [
        {"head": one.head, "canvas": gain.canvas, "requests": gain.requests, "kept": gain.kept}
        | {"ndcg@10 as written": gain.written, "gain": gain.gain.value, "low": gain.gain.low, "high": gain.gain.high}
        | {"log likelihood": gain.likelihood.value, "its low": gain.likelihood.low, "its high": gain.likelihood.high}
        for one in learnt
        for gain in one.gains
    ]
    if gains:
        run.log_table(pl.concat(weights), "term_weights")
        run.log_table(pl.DataFrame(gains), "term_gains")
    blends = [
        {"canvas": canvas, "term": term, "weight": weight}
        for one in learnt
        for canvas, blend in one.blends.items()
        for term, weight in blend.items()
    ]
    if blends:
        run.log_table(pl.DataFrame(blends), "learnt_blends")


def log_features(run: RunHandle, report: FeatureReport) -> None:
    """Store what of the feature service reached the model, as a table and a picture."""
    if report.features:
        run.log_table(report.table(), "features")
        run.log_figure(importance_figure(report), "features")


def log_numbers(run: RunHandle, reports: Sequence[EvaluationReport]) -> None:
    """Store the headlines of some canvases as metrics, and as a table for gates all of their numbers."""
    for report in reports:
        run.log_metrics(headlines(report))
    numbers = {name: value for report in reports for name, value in report.gate_metrics().items()}
    run.log_numbers(numbers, {report.canvas: request_values(report) for report in reports})


def headlines(report: EvaluationReport) -> dict[str, float]:
    """Return the few numbers of a canvas that stand in MLflow's charts.

    The main metric, the ends of its interval, and the best baseline. More would not be read there: MLflow draws a
    chart for each metric, and its page needs half a minute for 1,400 of them.
    """
    name, own = f"{report.canvas}/{report.main_metric}", report.result.metrics.get(report.main_metric)
    if own is None:
        return {}
    found = {name: own.value, f"{name}/low": own.low, f"{name}/high": own.high}
    if best := best_baseline(report):
        found[f"{name}/best_baseline"] = best.metrics[report.main_metric].value
    return found


def best_baseline(report: EvaluationReport) -> ScoredRow | None:
    """Return the baseline with the best main metric, None without any."""
    sign = -1.0 if lower_is_better(report.main_metric) else 1.0
    known = [row for row in report.baselines if report.main_metric in row.metrics]
    return max(known, key=lambda row: sign * row.metrics[report.main_metric].value, default=None)


def request_values(report: EvaluationReport) -> pl.DataFrame:
    """Return what gates pair two versions by: a row per request, its member's code, its groups, and float32 values.

    The model's own metrics are named plainly (`ndcg@10`), those of baselines `popular/ndcg@10`, weights
    `weight/debiased_ndcg@10`. Member ids are left out.
    """
    frame, own = report.requests, f"{report.model}/"
    values = [name for name in frame.columns if "/" in name]
    groups = [name for name in SLICES if name in frame.columns]
    return frame.select(
        pl.col("request_id").alias(REQUEST),
        (pl.col("member_id").rank("dense") - 1).cast(pl.UInt32).alias(MEMBER),
        *groups,
        *(pl.col(name).cast(pl.Float32).alias(name.removeprefix(own)) for name in values),
    )


def run_title(reports: Sequence[EvaluationReport]) -> str:
    """Return the heading of a page of reports."""
    return f"{reports[0].model}: {', '.join(dict.fromkeys(report.protocol for report in reports))}"


def log_report(run: RunHandle, report: EvaluationReport, folder: Path) -> list[Path]:
    """Store one canvas's report, tables and plots; the plots go through a new folder, and are returned."""
    folder.mkdir()
    run.log_table(models_table(report), f"{report.canvas}_models")
    if report.slices:
        run.log_table(slices_table(report), f"{report.canvas}_slices")
    run.log_text(report.to_json(), f"evaluation/{report.canvas}/report.json")
    drawn = plots(report, folder)
    for plot in drawn:
        run.log_artifact(plot, f"evaluation/{report.canvas}")
    return drawn


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


def examples_summary(data: TrainingSet) -> dict[str, Any]:
    """Return how many rows there are and what weighs them, as parameters."""
    shown = len(data.rows) - int(data.rows.next.sum())
    summary: dict[str, Any] = {"rows": len(data.rows), "shown": shown, "tokens": len(data.tokens)}
    summary["tokens_per_epoch"] = data.epoch_tokens
    if len(data.tokens):
        summary["events_per_token"] = round(data.events / len(data.tokens), 3)
    if data.rewards:
        summary["rewards"] = dict(data.rewards)
    if data.strata:
        drawn = sum(stratum.drawn for stratum in data.strata)
        least = min(data.strata, key=lambda stratum: stratum.sampled_share)
        summary["strata"] = {"count": len(data.strata), "drawn": drawn, "least_share": round(least.sampled_share, 6)}
    return summary


def log_examples(run: RunHandle, data: TrainingSet) -> None:
    """Store the table of strata: the share of each in the log and in an epoch, and the weight that restores it."""
    if data.strata:
        run.log_table(strata_frame(data.strata), "strata")
