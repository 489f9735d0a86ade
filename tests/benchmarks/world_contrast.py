"""A simulated world that separates models, beside the plain one and real logs: histories, and what models reach.

    python tests/benchmarks/world_contrast.py --json
    python tests/benchmarks/world_contrast.py --ml-1m ../shared/data/ml-1m --kuairand ../shared/data/kuairand-pure

A world is NAME:SEED (a file or name as of `playbill simulate --world`) or MEMBERS:DAYS:SEED (plain, 600 titles). Of
each log: quantiles of the plays and of the distinct titles of a member, titles, Gini coefficient of popularity, share
of plays that repeat a title. Then, of each world, NDCG@10 on home in `--protocol`: `everycanvas` as it is shipped
(every canvas, head and feature; only home is measured), the same with a trunk of width 32 and one layer, the same
without device, hour, country and language of the request, EASE, item_knn, popular_7d, and the ceiling: a ranking by
how likely each title was to be played in that request, worked out from the law (and what it falls to for an oracle
that does not know the effects of contexts, or of what was finished last). Beside each figure stands its part of the
ceiling, and the shipped model's lead with its paired 95 % interval by member. The last line is one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.beside import Beside
from playbill.evaluation.canvases.model import CanvasScorer, evaluate_canvas
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import AlignedScorer
from playbill.evaluation.ceiling import ceiling_of
from playbill.evaluation.measure import measure
from playbill.evaluation.report import CEILING
from playbill.features import FeatureDoor, build_features
from playbill.metrics.bootstrap import MemberBootstrap
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.sources import ingest
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings, network_config
from playbill.training.loop import fit
from playbill.training.options import TrainOptions
from playbill.training.term_weights import ValidationFold, add_terms, learn_weights, log_of, terms_config
from playbill_lab.simulator.engine.true_plays import TruePlays, truth_of
from playbill_lab.simulator.workspace import simulate_workspace
from playbill_lab.simulator.world.checkpoint import read_world
from playbill_lab.simulator.world.members import popularity_gini
from playbill_lab.simulator.world.spec import WorldSpec, read_spec, read_world_file
from playbill_lab.simulator.world.world import World

ROOT = Path(__file__).parents[2]
MOMENT = ("device_length", "evening_films", "hour_genre", "weekday_kind", "season_genre", "device_rows", "device_look")
LAST = ("sequel", "out_of_order", "momentum")
CONTEXTS = ("device", "hour_of_week", "country", "language")
VARIANTS = ("shipped", "narrow", "no_contexts")
BASELINES = ("ease", "item_knn", "popular_7d")
METRIC, MAIN = "ndcg@10", "discovery_play"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--world", "worlds", multiple=True, default=("rich:42",), show_default=True)
@click.option("--plain", default="4000:28:31", show_default=True, help="The plain world of the table of histories.")
@click.option("--ml-1m", type=click.Path(path_type=Path, exists=True), help="Folder, for the table of histories.")
@click.option("--kuairand", type=click.Path(path_type=Path, exists=True), help="Folder or archive, the same.")
@click.option("--variant", "variants", multiple=True, default=VARIANTS, show_default=True, help="None: '-'.")
@click.option("--protocol", default="global_time", show_default=True, help="global_time_successive has more requests.")
@click.option("--seed", default=17, show_default=True, help="Of training.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data (default: the definition's).")
@click.option("--set", "fields", multiple=True, metavar="EFFECT=SIZE", help="Other sizes of effects of the worlds.")
@click.option("--home-only", is_flag=True, help="Learn home's main head alone, without terms: several times cheaper.")
@click.option("--kept", type=click.Path(path_type=Path, file_okay=False), help="Keep worlds here, and use those kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(worlds, plain, ml_1m, kuairand, variants, protocol, seed, epochs, fields, home_only, kept, as_json):
    torch.set_num_threads(1)
    changes = {name: float(size) for name, _, size in (field.partition("=") for field in fields)}
    logs, figures = {}, {}
    if ml_1m or kuairand:
        logs |= real_logs(ml_1m, kuairand)
        logs[f"plain {plain}"] = histories_of(plain, {})
    for name in worlds:
        with tempfile.TemporaryDirectory() as home:
            place = Path(home) if kept is None else kept / name.replace(":", "-")
            workspace = simulated(place, wanted(name, changes))
            logs[name] = histories(Tables(workspace))
            print(f"{name}: {logs[name]}, {time.process_time():.0f} CPU s", flush=True)
            options = TrainOptions(seed=seed, epochs=epochs)
            shipped = options.applied(load_zoo(ROOT / "model_zoo").model("everycanvas"))
            resolved = alone(shipped) if home_only else shipped
            figures[name] = measured(workspace, resolved, [name for name in variants if name != "-"], protocol)
    console = Console(width=150)
    console.print(histories_table(logs))
    for name, found in figures.items():
        console.print(figures_table(name, found))
    if as_json:
        print(json.dumps({"metric": METRIC, "histories": logs, "worlds": figures}))


def wanted(name: str, changes: dict[str, float]) -> WorldSpec:
    """Return the world of a name."""
    *parts, seed = name.split(":")
    if len(parts) == 2:
        return read_spec({"members": int(parts[0]), "days": int(parts[1]), "seed": int(seed), "effects": changes})
    spec = read_world_file(Path(parts[0]), {"seed": int(seed)})
    return spec.model_copy(update={"effects": spec.effects.model_copy(update=changes)})


def simulated(home: Path, spec: WorldSpec) -> Workspace:
    """Return a workspace with a world's log and its features."""
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="bench")).workspace()
    if not Tables(workspace).exists():
        simulate_workspace(workspace, spec, processes=1)
    elif read_world(workspace.folder).spec != spec:
        raise click.ClickException(f"{home} holds another world; give another --kept")
    return workspace


def real_logs(ml_1m: Path | None, kuairand: Path | None) -> dict[str, Any]:
    """Return what is said of the histories of real logs."""
    found = {}
    mapping = ROOT / "docs/guide/mappings/ml_1m.yaml"
    sources = {"ML-1M": ("parquet", ml_1m, {"mapping": mapping}), "KuaiRand-Pure": ("kuairand", kuairand, {})}
    for name, (source, path, more) in sources.items():
        if path is not None:
            with tempfile.TemporaryDirectory() as home:
                workspace = ProjectFolder(ROOT, ProjectSettings(home=home, workspace="bench")).workspace()
                ingest(workspace, source, {"path": path, **more})
                found[name] = histories(Tables(workspace))
    return found


def histories_of(name: str, changes: dict[str, float]) -> dict[str, Any]:
    """Return what is said of the histories of a world."""
    with tempfile.TemporaryDirectory() as home:
        return histories(Tables(simulated(Path(home), wanted(name, changes))))


def histories(tables: Tables) -> dict[str, Any]:
    """Count plays of members, distinct titles of members, members of titles, and repeats."""
    log = tables.interactions()
    plays = log.filter(pl.col("action").is_in(["play", "rating"])).drop_nulls("title_id")
    pairs = plays.select("member_id", "title_id").unique()
    counts = {
        "plays": plays.group_by("member_id").len()["len"].to_numpy(),
        "titles": pairs.group_by("member_id").len()["len"].to_numpy(),
    }
    quantiles = {name: [float(at) for at in np.quantile(own, QUANTILES)] for name, own in counts.items()}
    return {
        "members": len(counts["plays"]),
        "catalogue": tables.titles().height,
        "events": log.height,
        "plays": plays.height,
        "plays_of_a_member": quantiles["plays"],
        "titles_of_a_member": quantiles["titles"],
        "gini": popularity_gini(pairs.group_by("title_id").len()["len"].to_numpy()),
        "repeats": 1 - pairs.height / plays.height,
    }


def measured(workspace: Workspace, shipped: ResolvedModel, variants: list[str], protocol: str) -> dict[str, Any]:
    """Train each variant of a definition on a world, and measure home."""
    door, tables = FeatureDoor(workspace), Tables(workspace)
    door.apply()
    build_features(workspace)
    split, frames = make_split(protocol, tables.interactions()), EvaluationTables.read(tables)
    truth, beside, data = truth_of(workspace.folder), Beside(), {}
    values: dict[str, Any] = {}
    seconds = {}
    for name in variants:
        resolved, begun = variant(shipped, name), time.process_time()
        key = tuple(resolved.canvas("home").context)
        if key not in data:
            data[key] = build_training_set(tables, resolved, split, door, workspace_clock(workspace))
        with tempfile.TemporaryDirectory() as folder:
            scorer, resolved = trained(Path(folder) / "bundle", resolved, data[key], split, frames, door)
        seconds[name] = time.process_time() - begun
        function = CanvasScorer(scorer, resolved, "home", door)
        given = (function, split, frames, resolved, "home")
        report = evaluate_canvas(*given, baselines=BASELINES, name=name, beside=beside, truth=truth)
        print(f"{name}: {report.requests[f'{name}/{METRIC}'].mean():.4f}, {seconds[name]:.0f} CPU s", flush=True)
        scored = report.requests.sort("request_id")
        values |= {key: scored[f"{key}/{METRIC}"].to_numpy() for key in (name, *BASELINES)}
        values[CEILING] = scored[f"{CEILING}/{METRIC}"].to_numpy()
        members = scored["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    if not values:
        return {}
    case = build_case(frames, split, shipped, "home")
    values |= {name: scored_by(oracle, case) for name, oracle in lesser_oracles(truth.world).items()}
    return {"ceiling_expected": best_possible(case, truth)} | compared(values, members, seconds)


def lesser_oracles(world: World) -> dict[str, TruePlays]:
    """Return oracles that believe in a law without some of the world's effects; none where it has none."""
    if world.effects is None:
        return {}
    believed = {
        f"{CEILING} without contexts": replace(without(world, *MOMENT), truth=replace(world.truth, taste_alone=None)),
        f"{CEILING} without what came last": without(world, *LAST),
    }
    return {name: TruePlays(world, believed=other) for name, other in believed.items()}


def without(world: World, *names: str) -> World:
    """Return a world by the law without some effects."""
    effects = world.spec.effects.model_copy(update=dict.fromkeys(names, 0.0))
    return replace(world, spec=world.spec.model_copy(update={"effects": effects}))


def scored_by(oracle: TruePlays, case: EvaluationCase) -> Any:
    """Return an oracle's metric for each request, sorted by its id."""
    scored = measure(case, {CEILING: ceiling_of(case, oracle)}, (10,))[CEILING].values[METRIC]
    order = case.frame.select("request_id").with_row_index("row").sort("request_id")["row"]
    return scored[order.to_numpy()]


def best_possible(case: EvaluationCase, truth: TruePlays) -> float:
    """Return the NDCG@10 that a ranking by the truth has in the mean over everything that could have been played."""
    order, total = ceiling_of(case, truth), 0.0
    scorer = AlignedScorer(CEILING, order, case.catalogue)
    for chunk in case.chunks():
        chances, candidates = scorer.score(chunk.requests, chunk.candidates)
        chances = -np.sort(-np.where(candidates, chances, 0.0), axis=1)
        total += float((chances[:, :10] @ (1 / np.log2(np.arange(2, 12))) / chances.sum(axis=1)).sum())
    return total / len(case)


def alone(resolved: ResolvedModel) -> ResolvedModel:
    """Return the definition with home and its main head alone, without terms and tasks."""
    head = {MAIN: resolved.model.heads[MAIN].model_copy(update={"terms": ()})}
    model = resolved.model.model_copy(update={"heads": head, "canvases": ("home",), "tasks": {}})
    home = resolved.canvas("home").model_copy(update={"blend": {MAIN: 1.0}})
    return resolved.model_copy(update={"model": model, "canvases": {"home": home}})


def variant(resolved: ResolvedModel, name: str) -> ResolvedModel:
    """Return the shipped definition with one thing changed."""
    if name == "narrow":
        trunk = resolved.model.trunk.model_copy(update={"dim": 32, "layers": 1})
        return resolved.model_copy(update={"model": resolved.model.model_copy(update={"trunk": trunk})})
    if name == "no_contexts":
        canvases = {
            canvas: spec.model_copy(update={"context": tuple(own for own in spec.context if own not in CONTEXTS)})
            for canvas, spec in resolved.canvases.items()
        }
        return resolved.model_copy(update={"canvases": canvases})
    return resolved


def trained(
    bundle: Path, given: ResolvedModel, data: TrainingSet, split: Any, frames: EvaluationTables, door: FeatureDoor
) -> tuple[Scorer, ResolvedModel]:
    """Train as `playbill train` does, terms of histories included; the definition has the blends that were learnt."""
    resolved = data.trained(given)
    result = fit(build_network(resolved, data), data, loop_settings(resolved))
    network, log = result.network.cpu(), log_of(split, frames)
    wanted_terms = terms_config(resolved, data.encoder)
    if wanted_terms is not None:
        network = add_terms(network, wanted_terms, log, data.encoder)
    write_bundle(
        bundle,
        resolved=resolved,
        encoder=data.encoder,
        config=network.config if wanted_terms else network_config(resolved, data.encoder),
        weights=network.state_dict(),
        plays=data.plays,
    )
    titles, moment = frames.titles_at(data.watermark), data.watermark
    scorer = Scorer(read_bundle(bundle), titles, frames.availability, door, as_of=moment, network=network)
    if wanted_terms is not None:
        fold = ValidationFold(scorer, log, split, frames, door, resolved.model.training.seed)
        _, resolved = learn_weights(fold, resolved)
    return scorer, resolved


def compared(values: dict[str, Any], members: Any, seconds: dict[str, float]) -> dict[str, Any]:
    """Return each mean, the shipped model's lead with its paired interval, and the part of the ceiling."""
    rows, ceiling = {}, float(values[CEILING].mean())
    for name, own in values.items():
        row = {"mean": float(own.mean()), "of_ceiling": float(own.mean()) / ceiling}
        if "shipped" in values and name != "shipped":
            lead = MemberBootstrap(members).intervals((values["shipped"] - own)[:, None])[0]
            row |= {"shipped_less": float(lead.value), "low": float(lead.low), "high": float(lead.high)}
        rows[name] = row | ({"cpu_seconds": round(seconds[name])} if name in seconds else {})
    return {"requests": len(members), "members": int(members.max()) + 1, "figures": rows}


def histories_table(logs: dict[str, Any]) -> Table:
    """Return the logs side by side."""
    table = Table("log", "members", "titles", "plays", "plays of a member", "titles of a member", "Gini", "repeats")
    for name, own in logs.items():
        quantiles = [" ".join(f"{at:.0f}" for at in own[key]) for key in ("plays_of_a_member", "titles_of_a_member")]
        sizes = [f"{own[key]:,}" for key in ("members", "catalogue", "plays")]
        table.add_row(name, *sizes, *quantiles, f"{own['gini']:.3f}", f"{own['repeats']:.1%}")
    return table


def figures_table(name: str, found: dict[str, Any]) -> Table:
    """Return the figures of a world."""
    table = Table(
        "home", METRIC, "of the ceiling", "shipped less it", title=f"{name}, {found.get('requests')} requests"
    )
    for key, row in found.get("figures", {}).items():
        lead = f"{row['shipped_less']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]" if "low" in row else ""
        table.add_row(key, f"{row['mean']:.4f}", f"{row['of_ceiling']:.0%}", lead)
    return table


if __name__ == "__main__":
    main()
