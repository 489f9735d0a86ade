"""The study of pages as JSON, a table and a picture.

The study of pages in MLflow: its numbers, tables and picture.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.metrics import Interval
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.recording import EXPERIMENTS
from playbill_lab.studies.pages.study import PagesStudy

HEADLINES = ("recall@3x6", "recall@4x3", "page_ndcg", "held_out_reward", "held_out_discovery", "diversity")
"""Metrics of the picture."""
ONLINE = ("value", "retained", "plays_per_day", "satisfaction")


def pages_json(study: PagesStudy) -> dict[str, Any]:
    """Return `arms` (arm -> metric -> value, low, high, difference), `reward_error`, `simulated_ab` and the sizes."""
    arms: dict[str, dict[str, Any]] = {}
    for arm, metrics in study.arms.items():
        arms[arm] = {name: _numbers(one, study.differences[arm][name]) for name, one in metrics.items()}
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


def _numbers(own: Interval, difference: Interval) -> dict[str, Any]:
    shown = {"value": own.value, "interval": [own.low, own.high]}
    return shown | {"difference": difference.value, "difference_interval": [difference.low, difference.high]}


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
    names = list(next(iter(study.arms.values())))
    lines = ["| metric | " + " | ".join(study.arms) + " |", "|---" * (len(study.arms) + 1) + "|"]
    for name in names:
        cells = [f"{one[name].value:.4f} ({one[name].low:.4f} to {one[name].high:.4f})" for one in study.arms.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| coverage | " + " | ".join(f"{study.coverage[arm]:.3f}" for arm in study.arms) + " |")
    for measure in ONLINE:
        cells = []
        for arm in study.arms:
            row = study.online.of(arm, measure)
            shown = "" if row.difference is None else f" ({row.difference.value:+.4f}, p {row.p_adjusted:.3f})"
            cells.append(f"{row.mean.value:.4f}{shown}")
        lines.append(f"| A/B {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_pages(study: PagesStudy, path: Path) -> None:
    """Draw every arm's difference from the first, offline and in the simulated A/B, with intervals by member."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    arms = list(study.arms)[1:]
    panels = [*HEADLINES, *(f"A/B {name}" for name in ONLINE)]
    figure, axes = plt.subplots(2, len(panels) // 2, figsize=(3.2 * len(panels) / 2, 5.6), sharey=True)
    for axis, name in zip(axes.ravel(), panels, strict=True):
        found = [_difference(study, arm, name) for arm in arms]
        middle = np.array([one.value for one in found])
        low, high = (np.array([getattr(one, side) for one in found]) for side in ("low", "high"))
        axis.errorbar(middle, np.arange(len(arms)), xerr=[middle - low, high - middle], fmt="o", capsize=3)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(np.arange(len(arms)), arms)
        axis.set_title(name, fontsize=9)
    figure.suptitle(f"Row order: difference from '{study.options.arms[0]}', 95 % by member")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _difference(study: PagesStudy, arm: str, name: str) -> Interval:
    if not name.startswith("A/B "):
        return study.differences[arm][name]
    difference = study.online.of(arm, name.removeprefix("A/B ")).difference
    assert difference is not None
    return difference


NAME = "pages"


def record_pages(tracking: Tracking, study: PagesStudy) -> str:
    """Keep the study in MLflow, and return the run's id."""
    whole = pages_json(study)
    params = {name: whole[name] for name in ("members", "log_days", "pages", "parameters", "seed")}
    tags = {PREFIX + "arms": ", ".join(study.options.arms)}
    with tracking.start_run(EXPERIMENTS, NAME, tags, params) as run:
        run.log_metrics({f"{arm}/{name}": one.value for arm, own in study.arms.items() for name, one in own.items()})
        run.log_metrics({f"{row.arm}/ab_{row.measure}": row.mean.value for row in study.online.arms})
        run.log_metrics({f"reward_error/{name}": float(value) for name, value in whole["reward_error"].items()})
        run.log_table(pages_frame(study), NAME)
        run.log_text(json.dumps(whole, indent=1), f"{NAME}/report.json")
        run.log_text(pages_page(study), f"{NAME}/report.md")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{NAME}.png"
            plot_pages(study, path)
            run.log_artifact(path, "figures")
        return run.run_id
