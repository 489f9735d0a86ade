"""Many heads on one trunk: losses, balances, ways to share, against a model for each head.

Example:  python tests/benchmarks/heads.py --json
KuaiRand: python tests/benchmarks/heads.py --data ../shared/data/kuairand-pure --seeds 17,18 --json

Every arm is the same definition, rows, passes and seeds; AUC of each head is over the held-out labelled events of all
its canvases. `single` trains a model for each head, by the recipe of the base arm. Arms that share through experts have
as many parameters as `wide`, where one expert of their width serves all. Differences are from `base`, with 95 %
intervals over members and seeds; "nats" is the mean of -log p of what was chosen among all titles, for heads that rank.
The last line is one JSON object: tasks, and in each arms, base, heads and sparse.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heads_tasks import Task, TaskResult, kuairand, simulated, trained_task
from kuairand_heads import MemberDraws, difference
from rich.console import Console
from rich.table import Table

from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.network import read_balance, read_sharing
from playbill.metrics import auc

BASE, SINGLE = "base", "single"
SOFTMAX_WEIGHT, HEAD_RATE, WIDTH, EXPERTS = 0.3, 10.0, 64, 4
BALANCES: dict[str, Any] = {
    "uncertainty": "uncertainty",
    "gradnorm": "gradnorm",
    "scale": "scale",
    "scale_half": {"type": "scale", "power": 0.5},
}


def arms_of(heads: int, dim: int) -> dict[str, dict[str, Any]]:
    """Return arm -> what it changes of the definition: weights, level, head_rate, balance, sharing."""
    recipe = {"softmax": SOFTMAX_WEIGHT, "rate": HEAD_RATE}
    budget = EXPERTS * 2 * dim * WIDTH
    own = max(2, round(budget / (2 * dim * heads)))
    levels = max(2, round(budget / (2 * dim * 2 * (2 + heads))))
    return {
        BASE: recipe,
        SINGLE: recipe,
        "no_level": recipe | {"level": False},
        "rate_1": {"softmax": SOFTMAX_WEIGHT},
        "weights_1": {"rate": HEAD_RATE},
        "plain": {"level": False},
        **{name: {"rate": HEAD_RATE, "balance": balance} for name, balance in BALANCES.items()},
        "wide": recipe | {"sharing": {"type": "mmoe", "experts": 1, "width": EXPERTS * WIDTH}},
        "adapters": recipe | {"sharing": {"type": "adapters", "width": own}},
        "mmoe": recipe | {"sharing": {"type": "mmoe", "experts": EXPERTS, "width": WIDTH}},
        "ple": recipe | {"sharing": {"type": "ple", "experts": 2, "own": 1, "width": levels, "levels": 2}},
    }


def changed(
    resolved: ResolvedModel,
    seed: int,
    heads: Sequence[str],
    *,
    softmax: float = 1.0,
    rate: float = 1.0,
    level: bool | None = None,
    balance: Any = "static",
    sharing: Any = "shared",
) -> ResolvedModel:
    """Return the definition with some of its heads and an arm's changes."""
    model = resolved.model
    kept = {}
    for name in heads:
        head = model.heads[name]
        weight = softmax if head.loss == "softmax" else head.weight
        kept[name] = head.model_copy(update={"weight": weight, "level": level})
    training = model.training.model_copy(update={"seed": seed, "head_rate": rate})
    trunk = model.trunk.model_copy(update={"sharing": read_sharing(sharing)})
    update = {"heads": kept, "training": training, "trunk": trunk, "balance": read_balance(balance)}
    return resolved.model_copy(update={"model": model.model_copy(update=update)})


def trained(task: Task, arm: str, options: Mapping[str, Any], seed: int) -> TaskResult:
    """Train an arm: one model, or for `single` one for each head."""
    names = list(task.resolved.model.heads)
    if arm != SINGLE:
        return trained_task(task, changed(task.resolved, seed, names, **options))
    parts = [trained_task(task, changed(task.resolved, seed, [name], **options)) for name in names]
    return TaskResult(
        logits={name: part.logits[name] for name, part in zip(names, parts, strict=True)},
        labels={name: part.labels[name] for name, part in zip(names, parts, strict=True)},
        members={name: part.members[name] for name, part in zip(names, parts, strict=True)},
        seconds=sum(part.seconds for part in parts),
        parameters=sum(part.parameters for part in parts),
        weights={},
    )


def study(task: Task, names: Sequence[str], seeds: Sequence[int], resamples: int) -> dict[str, Any]:
    """Train every arm with every seed, and compare each with the base."""
    wanted = arms_of(len(task.resolved.model.heads), task.resolved.model.trunk.dim)
    found: dict[str, list[TaskResult]] = {}
    for arm in [BASE, *(name for name in names if name != BASE)]:
        for seed in seeds:
            found.setdefault(arm, []).append(trained(task, arm, wanted[arm], seed))
            progress = found[arm][-1]
            shown = " ".join(f"{head} {value:.4f}" for head, value in aucs(progress).items())
            print(f"{task.name} {arm} seed {seed}, {progress.seconds:.1f} CPU s: {shown}", flush=True)
    return {
        "base": {**recipe_of(found[BASE]), "auc": mean_aucs(found[BASE]), "surprise": surprise(found[BASE], task)},
        "arms": {arm: against(found[arm], found[BASE], task, resamples) for arm in found if arm != BASE},
        "heads": found[BASE][0].measured,
        "sparse": task.sparse,
        "rows": {head: len(labels) for head, labels in found[BASE][0].labels.items()},
        "positives": {head: int(labels.sum()) for head, labels in found[BASE][0].labels.items()},
        "protocol": task.split.protocol,
        "seeds": list(seeds),
    }


def aucs(progress: TaskResult) -> dict[str, float]:
    """Return head -> AUC."""
    return {head: float(auc(progress.logits[head], progress.labels[head].astype(float))) for head in progress.measured}


def mean_aucs(progress: Sequence[TaskResult]) -> dict[str, float]:
    """Return head -> mean AUC over seeds."""
    every = [aucs(one) for one in progress]
    return {head: statistics.fmean(one[head] for one in every) for head in every[0]}


def surprise(progress: Sequence[TaskResult], task: Task) -> dict[str, float]:
    """Return, for heads over the whole catalogue, the mean of -log p of what was chosen, in nats over all titles."""
    heads = [name for name, head in task.resolved.model.heads.items() if head.loss == "softmax"]
    return {name: statistics.fmean(-one.logits[name][one.labels[name]].mean() for one in progress) for name in heads}


def recipe_of(progress: Sequence[TaskResult]) -> dict[str, Any]:
    """Return what an arm costs, and the weights that its balance came to."""
    return {
        "cpu_seconds": statistics.fmean(one.seconds for one in progress),
        "parameters": progress[0].parameters,
        "weights": dict(progress[0].weights),
    }


def against(ours: Sequence[TaskResult], base: Sequence[TaskResult], task: Task, resamples: int) -> dict[str, Any]:
    """Return an arm's AUCs, and their differences from the base with intervals over members and seeds."""
    heads, mean = {}, mean_aucs(ours)
    for head in base[0].measured:
        members = np.unique(base[0].members[head], return_inverse=True)[1]
        labels = base[0].labels[head].astype(float)
        draws, rows = MemberDraws(members, resamples), np.ones(len(labels), np.bool_)
        points, drawn = [], []
        for side in (ours, base):
            points.append(np.array([auc(one.logits[head], labels) for one in side]))
            drawn.append(np.mean([draws.auc(one.logits[head], labels, rows) for one in side], axis=0))
        found = difference(points[0], points[1], drawn[0] - drawn[1], int(members.max()) + 1)
        heads[head] = {"auc": mean[head], "difference": found["multi_minus_single"], "interval": found["interval"]}
    cost = recipe_of(ours)
    ratio = cost["cpu_seconds"] / max(statistics.fmean(one.seconds for one in base), 1e-9)
    sparse = [head for head in heads if head in task.sparse]
    groups = {"sparse": sparse, "dense": [head for head in heads if head not in sparse]}
    means = {name: _mean(heads, group) for name, group in groups.items()}
    return {"heads": heads, **means, "surprise": surprise(ours, task), "seconds_ratio": ratio, **cost}


def _mean(heads: Mapping[str, Mapping[str, Any]], group: Sequence[str]) -> float | None:
    return statistics.fmean(heads[head]["difference"] for head in group) if group else None


def show(console: Console, name: str, found: Mapping[str, Any]) -> None:
    """Print a row for each arm: AUC of the base, then differences from it; bold where the interval leaves out 0."""
    table = Table("arm", title=f"{name}: AUC of base, and differences from it", title_justify="left")
    for column in (*found["heads"], "dense", "sparse", "nats", "time"):
        table.add_column(column, justify="right")
    first = [f"{found['base']['auc'][head]:.4f}" for head in found["heads"]]
    table.add_row(BASE, *first, "", "", _nats(found["base"]), "1.00")
    for arm, own in found["arms"].items():
        cells = []
        for head in found["heads"]:
            low, high = own["heads"][head]["interval"]
            text = f"{own['heads'][head]['difference']:+.4f}"
            cells.append(f"[bold]{text}[/]" if low > 0 or high < 0 else text)
        means = ("-" if own[group] is None else f"{own[group]:+.4f}" for group in ("dense", "sparse"))
        table.add_row(arm, *cells, *means, _nats(own), f"{own['seconds_ratio']:.2f}")
    console.print(table)


def _nats(own: Mapping[str, Any]) -> str:
    return " ".join(f"{value:.3f}" for value in own["surprise"].values())


def main() -> None:
    """Run the tasks, and print a table and an object for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder or archive of KuaiRand; without it the simulated log alone.")
    parser.add_argument("--seeds", default="17", help="Comma-separated; each trains every arm.")
    parser.add_argument("--arms", help="Comma-separated (default: all).")
    parser.add_argument("--members", type=int, default=1000, help="Of the simulated service.")
    parser.add_argument("--titles", type=int, default=300, help="Of the simulated service.")
    parser.add_argument("--days", type=int, default=28, help="Of the simulated service.")
    parser.add_argument("--steps", type=int, default=100, help="Optimizer steps at least, on the simulated log.")
    parser.add_argument("--kuairand-members", type=int, help="Draw so many members of KuaiRand (default: all).")
    parser.add_argument("--resamples", type=int, default=200, help="Draws of members behind intervals.")
    parser.add_argument("--skip-simulated", action="store_true", help="KuaiRand alone.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object as the last line.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun, found, console = time.perf_counter(), {}, Console(stderr=given.json, width=200)
    makers = {}
    if not given.skip_simulated:
        makers["simulated"] = lambda: simulated(given.members, given.titles, given.days, given.steps)
    if given.data is not None:
        makers["kuairand"] = lambda: kuairand(given.data, given.kuairand_members)
    for name, make in makers.items():
        task = make()
        names = given.arms.split(",") if given.arms else list(arms_of(1, 64))
        found[name] = study(task, names, tuple(map(int, given.seeds.split(","))), given.resamples)
        show(console, name, found[name])
    if given.json:
        print(json.dumps({"tasks": found, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
