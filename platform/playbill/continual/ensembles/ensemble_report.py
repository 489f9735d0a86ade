"""What an ensemble's run leaves in MLflow: how members were folded, what they weigh by country, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from playbill.continual.ensembles.folding import Folded
from playbill.continual.ensembles.gate import GateGain, LearntGate
from playbill.definitions.specs import EnsembleSpec
from playbill.evaluation.rendering.plots import figure_with_axes
from playbill.versions.tracking import RunHandle

MOST_COUNTRIES = 40
POORLY = 0.5  # share of a member's scores that its map has, below which a note says so
_COLOURS = ("#bbbbbb", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")


def log_ensemble(run: RunHandle, folded: Sequence[Folded], gate: LearntGate) -> None:
    """Store how members were folded, and what the ensemble adds on each canvas and in each country, as tables."""
    if folded:
        run.log_table(pl.DataFrame([vars(one) for one in folded]), "folded_members")
    run.log_table(gains_table(gate.gains), "gate_gains")


def gains_table(gains: Sequence[GateGain]) -> pl.DataFrame:
    """Return a row for each canvas and country: what the base reaches, what the ensemble adds, who is best alone."""
    return pl.DataFrame(
        [
            {"slice": one.slice, "group": one.group, "requests": one.requests, "kept": one.kept}
            | {"base ndcg@10": one.base, "gain": one.gain.value, "low": one.gain.low, "high": one.gain.high}
            | {"log likelihood": one.likelihood.value, "its low": one.likelihood.low, "its high": one.likelihood.high}
            | {"best alone": one.best, "its ndcg@10": one.best_value, "ahead of the ensemble": one.behind}
            for one in gains
        ]
    )


def log_weights(run: RunHandle, gate: LearntGate, spec: EnsembleSpec) -> None:
    """Store what members weigh in each country, as a table and a picture for each canvas."""
    if gate.weights.is_empty():
        return
    run.log_table(gate.weights, "gate_weights")
    for canvas in gate.weights["canvas"].unique(maintain_order=True).to_list():
        run.log_figure(weights_figure(gate.weights, canvas, spec), f"gate_weights_{canvas}")


def weights_figure(weights: pl.DataFrame, canvas: str, spec: EnsembleSpec) -> Any:
    """Draw each member's share of the score in each country, the largest country at the top.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    own = weights.filter(pl.col("canvas") == canvas)
    sizes = own.unique("country").sort("requests", "country", descending=[True, False]).head(MOST_COUNTRIES)
    countries = sizes["country"].to_list()
    figure, axes = figure_with_axes(8, 1.6 + 0.3 * len(countries))
    left = np.zeros(len(countries))
    members = own["member"].unique(maintain_order=True).to_list()
    for place, member in enumerate(members):
        shares = dict(own.filter(pl.col("member") == member).select("country", "share").iter_rows())
        values = np.array([shares.get(country, 0.0) for country in countries])
        name = spec.base if member == "base" else member
        axes.barh(range(len(countries)), values, left=left, color=_COLOURS[place % len(_COLOURS)], label=name)
        left += values
    axes.set_yticks(
        range(len(countries)), [f"{name} ({n:,})" for name, n in sizes.select("country", "requests").iter_rows()]
    )
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("share of the score")
    axes.set_title(f"{spec.name} on {canvas}: whom to trust where (requests of the window)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    return figure


def notes_of(spec: EnsembleSpec, folded: Sequence[Folded], gate: LearntGate) -> tuple[str, ...]:
    """Return what a reader should know: where the base answers alone, who is ahead by itself, who was folded badly."""
    notes = []
    for kind, plural in (("canvas", "canvases"), ("country", "countries")):
        alone = [one.group for one in gate.gains if one.slice == kind and one.group != "all" and not one.kept]
        if alone:
            notes.append(
                f"{spec.base} answers alone on these {plural}, where the ensemble was not ahead: {', '.join(alone)}"
            )
    for one in gate.gains:
        if one.behind:
            where = f"on {one.group}" if one.slice == "canvas" else f"in {one.group}"
            notes.append(f"{one.best} by itself is ahead of the ensemble {where}: ndcg@10 {one.best_value:.4f}")
    countries = {one.group for one in gate.gains if one.slice == "country"}
    if "country" in spec.gate and len(countries) == 1:
        notes.append(
            f"all requests of the window are of one country, {', '.join(countries)}, so the gate cannot compare"
        )
    for member in folded:
        if member.explained < POORLY:
            notes.append(f"{member.role} could not be folded well: {member.explained:.0%} of its scores are explained")
    return tuple(notes)
