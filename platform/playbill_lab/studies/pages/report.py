"""The study of pages as JSON, tables and a picture, and in MLflow."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.metrics import Interval
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.results import draw_intervals, markdown_table, record_results, with_interval
from playbill_lab.studies.pages.study import PagesStudy

HEADLINES = ("recall@3x6", "recall@4x3", "page_ndcg", "held_out_reward", "held_out_discovery", "diversity")
"""Metrics of the picture."""
ONLINE = ("value", "retained", "plays_per_day", "satisfaction")


def pages_json(study: PagesStudy) -> dict[str, Any]:
    """Return `arms` (arm -> metric -> value, low, high, difference), `reward_error`, `simulated_ab` and the sizes."""
    arms: dict[str, dict[str, Any]] = {}
    for arm, metrics in study.arms.items():
        arms[arm] = {
            name: with_interval("value", interval)
            | with_interval("difference", study.differences[arm][name], "difference_interval")
            for name, interval in metrics.items()
        }
        arms[arm]["coverage"] = {"value": study.coverage[arm]}
    return {
        "arms": arms,
        "first": study.options.arms[0],
        "reward_error": asdict(study.error),
        "simulated_ab": study.online.as_json(),
        "pages": study.pages,
        "members": study.options.members,
        "log_days": study.options.log_days,
        "parameters": study.fitted.parameters,
        "train_seconds": round(study.fitted.seconds, 1),
        "seed": study.options.seed,
    }


def pages_frame(study: PagesStudy) -> pl.DataFrame:
    """Return a row per arm and metric."""
    rows = [
        {"arm": arm, "metric": name, "value": own.value, "low": own.low, "high": own.high}
        | {"difference": study.differences[arm][name].value}
        for arm, metrics in study.arms.items()
        for name, own in metrics.items()
    ]
    return pl.DataFrame(rows)


def pages_page(study: PagesStudy) -> str:
    """Return the tables as Markdown."""
    rows = []
    for name in next(iter(study.arms.values())):
        own = [metrics[name] for metrics in study.arms.values()]
        rows.append([name, *(f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in own)])
    rows.append(["coverage", *(f"{study.coverage[arm]:.3f}" for arm in study.arms)])
    for measure in ONLINE:
        cells = []
        for arm in study.arms:
            row = study.online.of(arm, measure)
            gap = "" if row.difference is None else f" ({row.difference.value:+.4f}, p {row.p_adjusted:.3f})"
            cells.append(f"{row.mean.value:.4f}{gap}")
        rows.append([f"A/B {measure}", *cells])
    return markdown_table(["metric", *study.arms], rows) + "\n"


def plot_pages(study: PagesStudy, path: Path) -> None:
    """Draw every arm's difference from the first, offline and in the simulated A/B, with intervals by member."""
    from playbill.evaluation.rendering.plots import figure_with_axes

    arms = list(study.arms)[1:]
    panels = [*HEADLINES, *(f"A/B {name}" for name in ONLINE)]
    figure, axes = figure_with_axes(3.2 * len(panels) / 2, 5.6, 2, len(panels) // 2, sharey=True)
    for axis, name in zip(axes.ravel(), panels, strict=True):
        draw_intervals(axis, [_difference(study, arm, name) for arm in arms], np.arange(len(arms)))
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(np.arange(len(arms)), arms)
        axis.set_title(name, fontsize=9)
    figure.suptitle(f"Row order: difference from '{study.options.arms[0]}', 95 % by member")
    figure.savefig(path, dpi=150)


def _difference(study: PagesStudy, arm: str, name: str) -> Interval:
    if not name.startswith("A/B "):
        return study.differences[arm][name]
    difference = study.online.of(arm, name.removeprefix("A/B ")).difference
    assert difference is not None
    return difference


def record_pages(tracking: Tracking, study: PagesStudy) -> str:
    """Record the study in MLflow, and return the run's id."""
    whole = pages_json(study)
    metrics = {f"{arm}/{name}": one.value for arm, own in study.arms.items() for name, one in own.items()}
    metrics |= {f"{row.arm}/ab_{row.measure}": row.mean.value for row in study.online.arms}
    metrics |= {f"reward_error/{name}": float(value) for name, value in whole["reward_error"].items()}
    return record_results(
        tracking,
        "pages",
        tags={PREFIX + "arms": ", ".join(study.options.arms)},
        params={name: whole[name] for name in ("members", "log_days", "pages", "parameters", "seed")},
        metrics=metrics,
        tables={"pages": pages_frame(study)},
        texts={"pages/report.json": json.dumps(whole, indent=1), "pages/report.md": pages_page(study)},
        draw=lambda folder: plot_pages(study, folder / "pages.png"),
    )
