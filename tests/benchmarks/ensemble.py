"""An ensemble beside its members: overall, by country, and what a request costs.

Example: python tests/benchmarks/ensemble.py --project my_service -w ml_1m everywhere --json
         python tests/benchmarks/ensemble.py --project my_service -w ml_1m everywhere --keep docs/results/ensemble.json

The members must be registered. The gate is learnt on the validation fold, everything here is measured on the test fold:
each model by its own network, whole, on the same requests. Differences are paired by request, with 95 % intervals over
members. A request is timed as `playbill recommend` answers it, by the base and by the ensemble in turn, with a history
that no cache has. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from playbill import Project
from playbill.continual.ensembles.ensemble import EnsembleOutcome
from playbill.continual.ensembles.ensemble_report import weights_figure
from playbill.metrics import MemberBootstrap
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.numbers import MEMBER, REQUEST

TIMED = 60
METRIC = "ndcg@10"


def main() -> None:
    """Learn, measure and time one ensemble."""
    options = _options()
    torch.set_num_threads(1)
    project = Project.open(options.project, options.workspace)
    outcome = project.ensemble(options.ensemble, again=True)
    assert isinstance(outcome, EnsembleOutcome)
    found: dict[str, Any] = {"ensemble": f"{outcome.model}:{outcome.version}", "protocol": outcome.protocol}
    found |= {"members": outcome.members, "folded": [vars(one) for one in outcome.folded], "notes": outcome.notes}
    found["canvases"] = {canvas: measured(project, outcome, canvas) for canvas in outcome.evaluation.reports}
    found["scored_ms"] = {"base": outcome.cost.base_ms, "ensemble": outcome.cost.ensemble_ms}
    found["request_ms"] = timed(project, outcome)
    if options.plot:
        from playbill.definitions.zoo import open_zoo

        zoo = open_zoo(project.workspace.project.model_zoo, project.workspace.project.feature_repo)
        canvas = next(iter(outcome.evaluation.reports))
        figure = weights_figure(outcome.gate.weights, canvas, zoo.ensembles[outcome.model])
        figure.savefig(options.plot, dpi=110, bbox_inches="tight")
    if options.keep:
        options.keep.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def measured(project: Project, outcome: EnsembleOutcome, canvas: str) -> list[dict[str, Any]]:
    """Return a row for all requests and for each country: every model's mean, and what the ensemble adds to each."""
    tracking = Tracking(project.workspace)
    named = {"ensemble": f"{outcome.model}:{outcome.version}"} | outcome.members
    frames = {}
    for role, reference in named.items():
        if ":" in reference:
            (own, *_) = tracking.evaluations(tracking.resolve(reference))
            values = own.requests(canvas)
            if values is not None and METRIC in values.columns:
                frames[role] = values
    joined = frames["ensemble"].select(REQUEST, MEMBER, "country", pl.col(METRIC).alias("ensemble"))
    for role, values in frames.items():
        if role != "ensemble":
            joined = joined.join(values.select(REQUEST, pl.col(METRIC).alias(role)), on=REQUEST, how="inner")
    groups = joined.group_by("country").len().sort("len", "country", descending=[True, False])["country"].to_list()
    shares = outcome.gate.weights.filter(pl.col("canvas") == canvas, pl.col("member") == "base")
    base = dict(shares.select("country", "share").iter_rows())
    rows = [_row("all", joined, list(frames))]
    for group in groups:
        row = _row(str(group), joined.filter(pl.col("country") == group), list(frames))
        rows.append(row | {"share of the base": base.get(group, 1.0)})
    return rows


def _row(name: str, frame: pl.DataFrame, roles: list[str]) -> dict[str, Any]:
    members = np.unique(frame[MEMBER].to_numpy(), return_inverse=True)[1].astype(np.int64)
    others = [role for role in roles if role != "ensemble"]
    gains = np.stack([(frame["ensemble"] - frame[role]).to_numpy().astype(np.float64) for role in others], axis=1)
    found = MemberBootstrap(members).intervals(gains)
    return {
        "country": name,
        "requests": frame.height,
        **{role: float(frame[role].mean() or 0.0) for role in roles},  # type: ignore[arg-type]
        "added": {role: list(interval) for role, interval in zip(others, found, strict=True)},
    }


def timed(project: Project, outcome: EnsembleOutcome) -> dict[str, float]:
    """Return the median milliseconds of a request by the base and by the ensemble."""
    (path,) = (project.workspace.folder / "tables").rglob("members*.parquet")
    members = pl.read_parquet(path)["member_id"].unique().sort().sample(TIMED + 1, seed=1).to_list()
    versions = {"base": outcome.members[outcome.base], "ensemble": f"{outcome.model}:{outcome.version}"}
    times: dict[str, list[float]] = {name: [] for name in versions}
    for place, member in enumerate(members):
        for name, reference in versions.items():
            begun = time.perf_counter()
            project.recommend(member, model=reference, rows=False)
            if place:  # the first one loads the model
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ensemble")
    parser.add_argument("--project", default=".")
    parser.add_argument("-w", "--workspace")
    parser.add_argument("--keep", type=Path, help="file for the JSON object")
    parser.add_argument("--plot", type=Path, help="file for the picture of members' shares by country")
    parser.add_argument("--json", action="store_true", help="print the JSON object, as always")
    return parser.parse_args()


if __name__ == "__main__":
    main()
