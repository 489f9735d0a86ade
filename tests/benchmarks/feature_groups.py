"""Whether groups of features pay: one model with and without each, on the same held-out requests of a simulated log.

    python tests/benchmarks/feature_groups.py --members 3000 --seeds 17,18 --work /tmp/groups --keep groups.json

An arm is everycanvas with a narrower network over `everycanvas_v3` and one group. Requests are every held-out play of
the canvases below under `global_time_successive`; differences are paired by request, intervals by member over the mean
of the training seeds. Beside NDCG@10 stands the change of the target's ln(rank): -0.05 is 5 % further up. It is far
less noisy: every request counts, not only those whose target is among the first ten. Rows are printed as they come.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from playbill import Project
from playbill.config import shipped_folder
from playbill.evaluation import EvaluationTables, build_case, canvas_function, open_model
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.metrics import MemberBootstrap
from playbill.tables import Tables
from playbill.versions.tracking import Tracking
from playbill_lab.simulator.workspace import simulate_workspace
from playbill_lab.simulator.world.spec import read_spec

CANVASES = ("home", "billboard", "post_play", "search")
OWN = '''
"""Groups of features, each beside everycanvas_v3."""

from contexts import canvas, request_device, request_local_time
from countries import title_country_age, title_country_popularity, title_country_standing
from members import member, member_genres, member_presence, member_session
from playbill.features.own import Count, event_view, extend
from services import everycanvas_v3

member_here = event_view(
    name="member_here",
    entity=[member, canvas],
    actions=["play"],
    values={"log_plays": Count(log=True), "log_plays_7d": Count(within="7d", log=True)},
)
# Projections stand inside the calls: Feast takes one that has a name for a view of its own.
group_country = extend(
    everycanvas_v3,
    "group_country",
    title_country_popularity[["log_plays_1d", "log_plays_7d", "log_plays_30d"]],
    title_country_standing,
    title_country_age,
)
group_canvas = extend(everycanvas_v3, "group_canvas", member_here)
group_session = extend(
    everycanvas_v3,
    "group_session",
    member_session[["log_events", "log_plays", "distinct_titles", "last_genre"]],
    member_presence,
)
group_request = extend(everycanvas_v3, "group_request", request_local_time, request_device)
group_genres = extend(
    everycanvas_v3, "group_genres", member_genres[["first_genre", "first_share", "second_genre", "genre_entropy"]]
)
'''
BASE = "everycanvas_v3"
ARMS = (BASE, "group_country", "group_canvas", "group_session", "group_request", "group_genres")
MODEL = """
kind: Model
name: {name}
version: 1
extends: everycanvas
features: {service}
canvases: [home, billboard, post_play, search]
trunk: {{type: gated_transformer, dim: 64, layers: 1, heads: 2, dropout: 0.1}}
training: {{epochs: {epochs}, min_steps: 0, max_epochs: {epochs}, seed: {seed}}}
evaluate: {{protocol: global_time, baselines: [], slices: [country], k: [10]}}
gates: []
"""


def main() -> None:
    """Simulate, build, train every arm with every seed, and compare."""
    options = read_options()
    project = prepared(options)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    arms = options.arms.split(",")
    for seed in seeds:
        for service in arms:
            name = f"{service}_s{seed}"
            folder = options.work / "model_zoo" / "models" / name
            folder.mkdir(parents=True, exist_ok=True)
            text = MODEL.format(name=name, service=service, seed=seed, epochs=options.epochs)
            (folder / "model.yaml").write_text(text)
    found: dict[str, list[pl.DataFrame]] = {service: [] for service in arms}
    rows: list[dict] = []
    for seed in seeds:
        for service in arms:
            found[service].append(measured(project, f"{service}_s{seed}"))
            print(json.dumps({"trained": service, "seed": seed}), flush=True)
        rows = compared(found)
        for row in rows:
            print(json.dumps({"seeds": len(found[BASE]), **row}), flush=True)
    if options.keep:
        members = Tables(project.workspace).members().height  # those of the log that is there
        about = {"members": members, "days": options.days, "world_seed": options.world, "seeds": seeds}
        options.keep.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=3000)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--world", type=int, default=7)
    parser.add_argument("--seeds", default="17,18")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> Project:
    """Return a project with a simulated log and its features; what is there is taken as it is."""
    if not (options.work / "playbill.toml").exists():
        Project.create(options.work)
        (options.work / "feature_repo" / "own.py").write_text(OWN)
    project = Project.open(options.work, workspace="simulated")
    if not (options.work / "model_zoo").exists():
        shutil.copytree(shipped_folder("model_zoo"), options.work / "model_zoo")
    if not project.workspace.tables.exists():
        spec = read_spec({"members": options.members, "days": options.days, "seed": options.world})
        simulate_workspace(project.workspace, spec)
    build_features(project.workspace)
    FeatureDoor(project.workspace).apply()
    return project


def measured(project: Project, model: str) -> pl.DataFrame:
    """Train a model where it is not, and return each held-out request's metric and the ln(rank) of its target."""
    tracking, workspace = Tracking(project.workspace), project.workspace
    if not tracking.versions(model):
        project.train(model)
    version = tracking.resolve(model)
    frames, door = EvaluationTables.read(Tables(workspace)), FeatureDoor(workspace)
    opened = open_model(tracking.download(version.model, version.version), frames, door, digest=version.digest)
    split = opened.split("global_time_successive", frames)
    parts = []
    for canvas in CANVASES:
        case = build_case(frames, split, opened.resolved, canvas)
        function = canvas_function(opened.scorer, opened.resolved, canvas, door)
        values = measure(case, {model: function}, (10,))[model]
        ranks = np.where(values.ranks > 0, values.ranks, len(case.catalogue)).astype(np.float64)
        part = case.frame.select("member_id", "request_id", canvas=pl.lit(canvas))
        parts.append(part.with_columns(ndcg=pl.Series(values.values["ndcg@10"]), ln_rank=pl.Series(np.log(ranks))))
    return pl.concat(parts)


def compared(found: dict[str, list[pl.DataFrame]]) -> list[dict]:
    """Return a row for each arm and canvas, and for all canvases: the difference to the base, with its interval."""
    base = found[BASE]
    frame = base[0]
    members = frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    rows = []
    for arm, seeds in found.items():
        if arm == BASE or len(seeds) < len(base):
            continue
        for canvas in ("all", *CANVASES):
            own = np.ones(frame.height, bool) if canvas == "all" else (frame["canvas"] == canvas).to_numpy()
            row = {"arm": arm, "canvas": canvas, "requests": int(own.sum())}
            for metric in ("ndcg", "ln_rank"):
                pairs = zip(seeds, base, strict=True)
                change = np.mean([one[metric].to_numpy() - other[metric].to_numpy() for one, other in pairs], axis=0)
                interval = MemberBootstrap(members).intervals(np.where(own, change, np.nan)[:, None])[0]
                row[metric] = [round(value, 5) for value in interval]
            row["base_ndcg"] = round(float(np.mean([one["ndcg"].to_numpy()[own].mean() for one in base])), 4)
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
