"""The study `objective_before_capacity` as JSON, as a page of tables, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import ConfigError
from playbill.experiments.ab_report import MEASURES, Arm
from playbill.experiments.contrasts import Contrast
from playbill.experiments.objective_before_capacity import BASE, Offline, Study
from playbill.experiments.objectives import OBJECTIVES
from playbill.metrics import Interval

OFFLINE = {"ndcg@10": "ndcg@10 of plays", "reward_ndcg@10": "ndcg@10 of plays by what they were worth"}
"""Offline metrics that are shown."""
COLOURS = {"click": "#cc3311", "play": "#ee7733", "long_term": "#0077bb"}


def study_json(study: Study) -> dict[str, Any]:
    """Return the whole study: `models` (offline), `arms` (online), `contrasts`, and its sizes."""
    options = study.options
    models: dict[str, list[dict[str, Any]]] = {}
    for row in study.offline:
        models.setdefault(row.arm, []).append(
            {
                "seed": row.seed,
                **{name: list(row.metrics[name]) for name in OFFLINE if name in row.metrics},
                "requests": row.requests,
                "parameters": row.parameters,
                "examples": row.examples,
                "train_seconds": round(row.train_seconds, 1),
            }
        )
    return {
        "models": models,
        **study.online.as_json(),
        "contrasts": [_contrast_json(row) for row in study.contrasts],
        "recipe": vars(options.recipe),
        "objectives": {name: OBJECTIVES[name] for name in options.objectives},
    }


def _contrast_json(row: Contrast) -> dict[str, Any]:
    numbers = {"value": row.value.value, "interval": [row.value.low, row.value.high]}
    return {"name": row.name, "measure": row.measure, **numbers, "p": row.p, "p_adjusted": row.p_adjusted}


def study_page(study: Study) -> str:
    """Return the study's tables as Markdown."""
    parts = [
        "## Offline: what members played next\n",
        "The held-out end of the log; a mean with its 95 % interval by member for each seed.\n",
        _table(["model", "weights", "seed", *OFFLINE.values()], [_offline_cells(row) for row in study.offline]),
        f"\n## Online: what becomes of the members, beside `{BASE}`\n",
        f"{study.online.members} members for {study.online.days} days; mean, and difference to `{BASE}` with its 95 % "
        "interval by member. A star: it stands at 5 % after Holm's correction over the arms of the column.\n",
        _table(["arm", *MEASURES], [_arm_cells(study, name) for name in study.online.names]),
        "\n## What capacity does, what a misaligned objective costs, and how both meet\n",
        "Differences of long-term value in days, member by member; Holm over all rows.\n",
        _table(["difference", "value", "95 %", "p adjusted"], _contrast_cells(study.contrasts, "value")),
    ]
    return "\n".join(parts) + "\n"


def plot_study(study: Study, path: Path) -> None:
    """Draw offline fit, long-term value, retention and plays by capacity, a line per objective.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    for objective in study.options.objectives:
        arms = [f"{objective}_{capacity}" for capacity in study.options.capacities]
        colour = COLOURS.get(objective)
        fits = [
            float(np.mean([row.metrics["ndcg@10"].value for row in study.offline if row.arm == arm])) for arm in arms
        ]
        panels[0].plot(study.options.capacities, fits, marker="o", color=colour, label=objective)
        for axes, measure in zip(panels[1:], ("value", "false_starts_per_day", "plays_per_day"), strict=True):
            gaps = [gap for arm in arms if (gap := study.online.of(arm, measure).difference) is not None]
            centres = [gap.value for gap in gaps]
            reach = [[gap.value - gap.low for gap in gaps], [gap.high - gap.value for gap in gaps]]
            axes.errorbar(study.options.capacities, centres, yerr=reach, marker="o", capsize=4, color=colour)
    panels[0].set_title("offline: ndcg@10 of plays", fontsize=10)
    panels[0].legend(title="objective")
    titles = ("long-term value, days", "false starts a day", "plays a day")
    for axes, title in zip(panels[1:], titles, strict=True):
        axes.axhline(0.0, color="#888888", linewidth=1)
        axes.set_title(f"online: {title}, beside {BASE}", fontsize=10)
    for axes in panels:
        axes.set_xlabel("capacity")
        axes.margins(x=0.2)
    figure.savefig(path)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _offline_cells(row: Offline) -> list[str]:
    numbers = [_interval(row.metrics.get(name), 4) for name in OFFLINE]
    return [row.arm, f"{row.parameters:,}", str(row.seed), *numbers]


def _arm_cells(study: Study, name: str) -> list[str]:
    return [name, *(_arm(study.online.of(name, measure)) for measure in MEASURES)]


def _arm(row: Arm) -> str:
    digits = 1 if row.measure == "value" else 3
    if row.difference is None:
        return f"{row.mean.value:.{digits}f}"
    gap, star = row.difference, " *" if row.significant else ""
    return (
        f"{row.mean.value:.{digits}f} ({gap.value:+.{digits}f}, {gap.low:+.{digits}f} to {gap.high:+.{digits}f}){star}"
    )


def _contrast_cells(rows: Sequence[Contrast], measure: str) -> list[list[str]]:
    return [
        [
            row.name + (" *" if row.significant else ""),
            f"{row.value.value:+.2f}",
            f"{row.value.low:+.2f} to {row.value.high:+.2f}",
            f"{row.p_adjusted:.4f}",
        ]
        for row in rows
        if row.measure == measure
    ]


def _interval(value: Interval | None, digits: int) -> str:
    if value is None:
        return "not measured"
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"
