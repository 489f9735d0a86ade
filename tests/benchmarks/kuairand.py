"""One model of every head against one model for each head on KuaiRand, by surface, over members and seeds.

    .venv/bin/python tests/benchmarks/kuairand.py --data ../shared/data/kuairand-pure --json
    .venv/bin/python tests/benchmarks/kuairand.py --data kuairand-pure --members 3000 --seeds 17 --epochs 1 --json

DATA is a folder of parquet tables or the publisher's archive, as for `playbill ingest kuairand`. The definition is
model_zoo/kuairand; the models for one head each are the same definition without its other heads: the same exposures,
network, passes and seeds. Protocol `global_time`: the last tenth of the time is held out. Works in a scratch project.
The last line is one JSON object: heads, surfaces, multi_minus_single, gains, losses, lists, train_seconds, off_policy
and how it was made.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import torch
from kuairand_heads import ALL, Exposures, Side, compared
from kuairand_lists import ARMS, compared_lists, surface_cases
from kuairand_models import Blend, Service, Trained, with_heads
from kuairand_random import off_policy
from kuairand_report import plot, show
from kuairand_seeds import Seed, ask, kept_folder, train_arms
from rich.console import Console

from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.datasets.protocol_choice import model_split
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.off_policy.evaluate import played_outcome, reward_outcome
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]
MODEL, REWARD = "kuairand", "kuairand_satisfaction"
MAIN_SURFACE = "kuairand.tab_1"


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder or archive.")
@click.option("--seeds", default="17,18", show_default=True, help="Comma-separated; each trains every model.")
@click.option("--heads", help="Comma-separated (default: all of the definition's).")
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Passes over the data.")
@click.option("--members", type=click.IntRange(1), help="Draw so many members (default: all).")
@click.option("--resamples", default=300, show_default=True, help="Draws of members behind intervals.")
@click.option("--minimum-positives", default=10, show_default=True, help="Held-out ones and zeros that a head needs.")
@click.option("--minimum-members", default=30, show_default=True, help="Members that a surface's lists need.")
@click.option("--most-lists", default=2000, show_default=True, help="Requests at most of a surface's lists.")
@click.option("--top", default=100, show_default=True, help="Titles that an off-policy judged policy chooses among.")
@click.option("--exposures", default=500, show_default=True, help="Exposures weighed at most, of each kind.")
@click.option("--floor", default=100.0, show_default=True, help="Effective exposures under which none is estimated.")
@click.option("--threads", default=1, show_default=True, help="Of torch.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Folder that keeps each seed; a killed run goes on there."
)
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the differences here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(
    data: Path,
    seeds: str,
    heads: str | None,
    members: int | None,
    keep: Path | None,
    threads: int,
    plot_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Ingest, train, measure, and print."""
    torch.set_num_threads(threads)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        workspace = prepared(Path(home), data, members)
        options |= {"heads": None if heads is None else tuple(heads.split(","))}
        result = study(workspace, keep or Path(home) / "kept", tuple(map(int, seeds.split(","))), **options)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    result["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    show(Console(stderr=as_json), result)
    if plot_file is not None:
        plot(result, plot_file)
    if as_json:
        click.echo(json.dumps(result))


def prepared(home: Path, data: Path, members: int | None) -> Workspace:
    """Return a workspace with the data and its features."""
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home))).workspace("kuairand")
    ingest(workspace, "kuairand", {"path": data})
    if members is not None:
        keep_members(Tables(workspace), members)
    FeatureDoor(workspace).apply()
    build_features(workspace)
    return workspace


def keep_members(tables: Tables, count: int, seed: int = 0) -> None:
    """Keep only some members that have events, drawn at random."""
    log, known = tables.interactions(), tables.members()
    drawn = log["member_id"].unique().sort().sample(count, shuffle=True, seed=seed).to_frame()
    kept = {"titles": tables.titles(), "availability": tables.availability()}
    kept |= {"members": known.join(drawn, on="member_id", how="semi")}
    kept |= {"interactions": log.join(drawn, on="member_id", how="semi", maintain_order="left")}
    with tables.replace() as writer:
        for name, frame in kept.items():
            writer.write(name, frame)


def study(
    workspace: Workspace,
    kept: Path,
    seeds: Sequence[int],
    *,
    heads: Sequence[str] | None = None,
    epochs: int = 1,
    resamples: int = 300,
    minimum_positives: int = 10,
    minimum_members: int = 30,
    most_lists: int = 2000,
    top: int = 100,
    exposures: int = 500,
    floor: float = 100.0,
) -> dict[str, Any]:
    """Train both arms for every seed and compare them; seeds that are kept already are not trained again."""
    tables, resolved = Tables(workspace), load_zoo(ROOT / "model_zoo").model(MODEL)
    resolved = with_heads(resolved, heads or tuple(resolved.model.heads))
    split = model_split(resolved, tables.interactions())
    service = Service(tables, resolved, split, FeatureDoor(workspace))
    shown, cases = Exposures.of(service), dict(surface_cases(service, minimum_members, most_lists))
    found = []
    for seed in seeds:
        folder = kept_folder(kept, service, seed, epochs=epochs, members=minimum_members, lists=most_lists)
        if (one := Seed.read(folder)) is None:
            models = train_arms(service, seed, epochs, folder)
            policies = None if found else weighed(service, models, cases, top=top, most=exposures, floor=floor)
            one = ask(service, models, shown, cases, policies, baselines=not found)
            one.write(folder)
        found.append(one)
    sides = {arm: Side([one.logits[arm] for one in found]) for arm in ARMS}
    surfaces = compared(shown, sides["multi"], sides["single"], resamples, minimum_positives)
    together = surfaces.pop(ALL)
    skipped = {surface: {"skipped": case} for surface, case in cases.items() if isinstance(case, str)}
    return {
        "heads": together,
        "surfaces": surfaces,
        "multi_minus_single": {name: row["multi_minus_single"] for name, row in together.items()},
        "gains": claims(together, surfaces, "multi"),
        "losses": claims(together, surfaces, "single"),
        "lists": compared_lists([one.lists for one in found], resamples) | skipped,
        "off_policy": found[0].off_policy,
        "train_seconds": cost(found, "seconds"),
        "train_cpu_seconds": cost(found, "cpu_seconds"),
        "parameters": cost(found[:1], "parameters"),
        "steps": cost(found[:1], "steps"),
        "protocol": split.protocol,
        "held_out_from": str(shown.frame["event_at"].min()),
        "exposures": {"trained": trained_exposures(service), "held_out": shown.frame.height},
        "members": int(tables.interactions()["member_id"].n_unique()),
        "seeds": list(seeds),
        "epochs": epochs,
        "resamples": resamples,
    }


def trained_exposures(service: Service) -> int:
    """Count the exposures of the training part, whatever their surface."""
    return service.split.events(service.frames.interactions, "train").filter(pl.col("action") == "impression").height


def claims(heads: Mapping[str, Any], surfaces: Mapping[str, Mapping[str, Any]], better: str) -> list[str]:
    """Name the heads for which an arm is better beyond the noise, on all surfaces together and on each."""
    groups = {ALL: heads, **surfaces}
    return [
        f"{head} on {name}" for name, rows in groups.items() for head, row in rows.items() if row.get("claim") == better
    ]


def cost(seeds: Sequence[Seed], what: str) -> dict[str, Any]:
    """Return what one model cost and what one for each head cost together, means over seeds."""
    (multi,) = ([one.costs["multi"][name][what] for one in seeds] for name in seeds[0].costs["multi"])
    by_head = {
        name: float(np.mean([one.costs["single"][name][what] for one in seeds])) for name in seeds[0].costs["single"]
    }
    together, total = float(np.mean(multi)), sum(by_head.values())
    return {"multi": together, "single": total, "single_over_multi": total / together, "by_head": by_head}


def weighed(
    service: Service,
    models: Mapping[str, Sequence[Trained]],
    cases: Mapping[str, EvaluationCase | str],
    *,
    top: int,
    most: int,
    floor: float,
) -> dict[str, Any]:
    """Judge policies from random exposures of the largest surface, where there are some."""
    case = cases[MAIN_SURFACE]
    if isinstance(case, str):
        return {"refused": case}
    blend, zoo = service.resolved.canvas(MAIN_SURFACE).blend, load_zoo(ROOT / "model_zoo")
    policies = {
        **{name: build_baseline(name, case) for name in ("popular", "popular_7d")},
        **{name: Blend(own, service.resolved, blend) for name, own in models.items()},
    }
    outcomes = {
        "played": played_outcome(timedelta(hours=1)),
        REWARD: reward_outcome(zoo.rewards[REWARD], zoo.labels),
    }
    since = case.log.frame.filter(pl.col("fold") == "test")["event_at"].min()
    return off_policy(service, MAIN_SURFACE, policies, outcomes, since=since, top=top, most=most, floor=floor)


if __name__ == "__main__":
    main()
