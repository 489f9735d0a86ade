"""The study `objective_before_capacity` as JSON, as a page of tables, as a picture, and in MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from playbill.metrics import Interval
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.report import MEASURES, Arm, Contrast
from playbill_lab.ab.results import draw_intervals, markdown_table, record_results, with_interval
from playbill_lab.studies.cells import Offline
from playbill_lab.studies.objective.arms import BASE
from playbill_lab.studies.objective.study import OFFLINE, Study

SHOWN = ("value", "plays_per_day", "false_starts_per_day")  # Measures whose differences are written out


def study_json(study: Study) -> dict[str, Any]:
    """Return the whole study: `models` (offline), `arms` (online), `contrasts`, `agreement`, and its sizes."""
    options = study.options
    models: dict[str, list[dict[str, Any]]] = {}
    for row in study.offline:
        models.setdefault(row.arm, []).append(_offline_json(row))
    return {
        "models": models,
        **study.online.as_json(),
        "contrasts": [_contrast_json(row) for row in study.contrasts],
        "agreement": [
            {**asdict(row), "spearman": round(row.mean, 4), "by_seed": {str(k): v for k, v in row.by_seed.items()}}
            for row in study.agreements
        ],
        "recipe": vars(options.recipe),
        "objectives": list(options.objectives),
        "capacities": list(options.capacities),
    }


def _offline_json(row: Offline) -> dict[str, Any]:
    return {
        "seed": row.seed,
        **{name: list(row.metrics[name]) for name in OFFLINE if name in row.metrics},
        "requests": row.requests,
        "parameters": row.parameters,
        "examples": row.examples,
        "train_seconds": round(row.train_seconds, 1),
    }


def _contrast_json(row: Contrast) -> dict[str, Any]:
    names, p = {"name": row.name, "measure": row.measure}, {"p": row.p, "p_adjusted": row.p_adjusted}
    return names | with_interval("value", row.value) | p


def study_page(study: Study) -> str:
    """Return the study's tables as Markdown."""
    online = study.online
    offline = ["ndcg@10 of plays", f"ndcg@10 of plays by what they were worth (`{study.options.judged_by}`)"]
    parts = [
        "## Offline: what members played next\n",
        "The held-out end of the log; a mean with its 95 % interval by member for each seed.\n",
        markdown_table(["model", "weights", "seed", *offline], [_offline_cells(row) for row in study.offline]),
        f"\n## Online: what becomes of the members, beside `{BASE}`\n",
        f"{online.members} members for {online.days} days; mean, and difference to `{BASE}` with its 95 % "
        "interval by member. A star: it stands at 5 % after Holm's correction over the arms of the column.\n",
        markdown_table(["arm", *MEASURES], [_arm_cells(study, name) for name in online.names]),
        "\n## What capacity does, what an objective is worth, and how both meet\n",
        "Differences member by member with their 95 % intervals; a star: it stands at 5 % after Holm's correction over "
        "all rows of the column.\n",
        markdown_table(["difference", *SHOWN], _contrast_rows(study.contrasts)),
        "\n## Does an offline metric find the model that serves members best?\n",
        "Spearman's rank correlation over the models; mean of the seeds, and each.\n",
        markdown_table(
            ["offline", "online", "correlation", "by seed", "best offline", "best online"], _agreement_rows(study)
        ),
    ]
    return "\n".join(parts) + "\n"


def _offline_cells(row: Offline) -> list[str]:
    numbers = [_interval(row.metrics.get(name), 4) for name in OFFLINE]
    return [row.arm, f"{row.parameters:,}", str(row.seed), *numbers]


def _arm_cells(study: Study, name: str) -> list[str]:
    return [name, *(_arm(study.online.of(name, measure)) for measure in MEASURES)]


def _arm(row: Arm) -> str:
    digits = 1 if row.measure == "value" else 3
    if row.difference is None:
        return f"{row.mean.value:.{digits}f}"
    return f"{row.mean.value:.{digits}f} ({_gap(row.difference, digits)}){_star(row.significant)}"


def _contrast_rows(rows: Sequence[Contrast]) -> list[list[str]]:
    found = {(row.name, row.measure): row for row in rows}
    names = dict.fromkeys(row.name for row in rows)
    return [[name, *(_contrast(found[name, measure]) for measure in SHOWN)] for name in names]


def _contrast(row: Contrast) -> str:
    return _gap(row.value, 2 if row.measure == "value" else 3) + _star(row.significant)


def _agreement_rows(study: Study) -> list[list[str]]:
    return [
        [
            row.metric,
            row.measure,
            f"{row.mean:+.2f}",
            " ".join(f"{value:+.2f}" for value in row.by_seed.values()),
            row.best_offline,
            row.best_online,
        ]
        for row in study.agreements
    ]


def _gap(gap: Interval, digits: int) -> str:
    return f"{gap.value:+.{digits}f}, {gap.low:+.{digits}f} to {gap.high:+.{digits}f}"


def _star(stands: bool) -> str:
    return " *" if stands else ""


def _interval(value: Interval | None, digits: int) -> str:
    if value is None:
        return "not measured"
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


COLOURS = ("#cc3311", "#ee7733", "#0077bb", "#009988", "#aa3377", "#555555")
"""One for each objective, in their order."""
MARKERS = "osDv^*"  # One for each capacity, in their order
FITS = {"ndcg@10": "offline: ndcg@10 of plays", "reward_ndcg@10": "offline: ndcg@10 by worth"}
LIVES = {
    "value": "long-term value, days",
    "retained": "share of members who stay",
    "satisfaction": "satisfaction",
    "false_starts_per_day": "false starts a day",
}


def plot_study(study: Study, path: Path) -> None:
    """Draw offline fit and online measures by capacity, a line for each objective, and fit against value."""
    from playbill.evaluation.rendering.plots import figure_with_axes

    figure, (above, below) = figure_with_axes(15, 7, 2, 4)
    for axes, (metric, title) in zip(above[:2], FITS.items(), strict=True):
        _fit_by_capacity(axes, study, metric)
        axes.set_title(title, fontsize=10)
    for axes, (metric, title) in zip(above[2:], FITS.items(), strict=True):
        _value_by_fit(axes, study, metric)
        axes.set_xlabel(title, fontsize=9)
        axes.set_title(f"value, days beside {BASE}", fontsize=10)
    for axes, (measure, title) in zip(below, LIVES.items(), strict=True):
        _life_by_capacity(axes, study, measure)
        axes.set_title(f"online: {title}", fontsize=10)
    for axes in (*above[:2], *below):
        axes.set_xlabel("capacity", fontsize=9)
        axes.margins(x=0.2)
    above[0].legend(title="objective")
    for axes in below:
        axes.set_ylabel(f"beside {BASE}", fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _fit(study: Study, arm: str, metric: str) -> float:
    found = [row.metrics[metric].value for row in study.offline if row.arm == arm and metric in row.metrics]
    return float(np.mean(found)) if found else float("nan")


def _fit_by_capacity(axes: Any, study: Study, metric: str) -> None:
    sizes = study.options.capacities
    for objective, colour in zip(study.options.objectives, COLOURS, strict=False):
        fits = [_fit(study, f"{objective}_{size}", metric) for size in sizes]
        axes.plot(sizes, fits, marker="o", color=colour, label=objective)


def _life_by_capacity(axes: Any, study: Study, measure: str) -> None:
    sizes = study.options.capacities
    for shift, (objective, colour) in enumerate(zip(study.options.objectives, COLOURS, strict=False)):
        gaps = [study.online.of(f"{objective}_{size}", measure).difference for size in sizes]
        known = [gap for gap in gaps if gap is not None]
        draw_intervals(axes, known, np.arange(len(sizes)) + 0.06 * (shift - 1), "y", fmt="o-", color=colour)
    axes.set_xticks(range(len(sizes)), sizes)
    axes.axhline(0.0, color="#888888", linewidth=1)


def _value_by_fit(axes: Any, study: Study, metric: str) -> None:
    for objective, colour in zip(study.options.objectives, COLOURS, strict=False):
        for size, marker in zip(study.options.capacities, MARKERS, strict=False):
            gap = study.online.of(f"{objective}_{size}").difference
            if gap is not None:
                axes.plot(_fit(study, f"{objective}_{size}", metric), gap.value, marker, color=colour, label=size)
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes.legend(named.values(), named.keys(), title="capacity", fontsize=8)
    axes.axhline(0.0, color="#888888", linewidth=1)


def record_study(tracking: Tracking, study: Study) -> str:
    """Record the study in MLflow, and return the run's id."""
    name, whole, online = "objective_before_capacity", study_json(study), study.online
    keys = ("objectives", "capacities", "recipe", "members", "days", "seeds")
    return record_results(
        tracking,
        name,
        tags={PREFIX + "arms": ", ".join(online.names)},
        params={key: whole[key] for key in keys},
        metrics=online.metrics({}) | {f"spearman/{row.metric}/{row.measure}": row.mean for row in study.agreements},
        tables={name: online.frame()},
        texts={f"{name}/report.json": json.dumps(whole, indent=1), f"{name}/report.md": study_page(study)},
        draw=lambda folder: plot_study(study, folder / f"{name}.png"),
    )
