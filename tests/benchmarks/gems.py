"""What the objective of gems changes: the same network, the row's own blend against that of top picks.

On a simulated service, over held-out plays that the label `gem` calls gems, among the candidates of the row
`gems_for_you`. Prints one object: ndcg@10 and recall@10 of either blend with the paired difference and its interval,
and over the members' lists of ten how many titles both share and how popular they are.

    python tests/benchmarks/gems.py --members 2000 --titles 600 --days 42 --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from playbill.datasets import make_split
from playbill.evaluation import CanvasScorer
from playbill.evaluation.build import build_case
from playbill.evaluation.cases import EvaluationCase
from playbill.evaluation.scoring import AlignedScorer
from playbill.experiments.fitting import fit_model
from playbill.experiments.live_features import NoFeatures
from playbill.experiments.simulated_log import SimulatedLog, going_on
from playbill.metrics.topk import top_k
from playbill.simulator import load_policy
from playbill.simulator.run import simulate
from playbill.simulator.spec import WorldSpec
from playbill.simulator.world import World
from playbill.specs import ResolvedModel
from playbill.zoo import load_zoo

ROOT = Path(__file__).parents[2]
RIPENING_DAYS = 10
"""Days after the log by which it is known what came of its last plays."""
HEADS = ("discovery_play", "gem", "thumbs_up", "thumbs_down")


def definition(seed: int, epochs: int) -> ResolvedModel:
    """Return a small model of one canvas: home, asked for gems alone and judged by them."""
    zoo = load_zoo(ROOT / "model_zoo")
    resolved, row = zoo.model("everycanvas"), zoo.rows["gems_for_you"]
    model = resolved.model
    changed = {
        "canvases": ("home",),
        "rows": (),
        "tasks": {},
        "gates": (),
        "heads": {name: model.heads[name] for name in HEADS},
        "trunk": model.trunk.model_copy(update={"dim": 64}),
        "training": model.training.model_copy(update={"seed": seed, "epochs": epochs, "min_steps": 0}),
    }
    context = ("member", "country", "device", "language", "hour_of_week")
    home = resolved.canvases["home"].model_copy(
        update={"candidates": row.candidates, "metric": "gem", "page": None, "rows": (), "context": context}
    )
    return resolved.model_copy(
        update={"model": model.model_copy(update=changed), "canvases": {"home": home}, "rows": {}, "rewards": {}}
    )


def blended(resolved: ResolvedModel, weights: dict[str, float]) -> ResolvedModel:
    """Return the model with another blend on home."""
    home = resolved.canvases["home"].model_copy(update={"blend": weights})
    return resolved.model_copy(update={"canvases": {"home": home}})


def main() -> None:
    """Simulate, train, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in (("members", 2000), ("titles", 600), ("days", 42), ("epochs", 8), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true", help="One object as the last line; it is printed either way.")
    options = parser.parse_args()
    spec = WorldSpec(seed=options.seed, members=options.members, titles=options.titles, days=options.days)
    world = World.make(spec)
    events = simulate(going_on(world, RIPENING_DAYS), load_policy("plackett_luce"), keep_log=True).interactions
    log = SimulatedLog(world, events.filter(pl.col("event_at") < spec.end), spec.end, events)
    split, resolved = make_split("global_time_successive", log.interactions()), definition(options.seed, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_model(log, resolved, split, NoFeatures(), Path(folder))
        scorer = fitted.scorer(world, NoFeatures())
    zoo = load_zoo(ROOT / "model_zoo")
    blends = {"gems_for_you": zoo.rows["gems_for_you"].blend, "top_picks": zoo.rows["top_picks"].blend}
    case = build_case(log.evaluation(), split, resolved, "home")
    lists, hits = {}, {}
    for name, weights in blends.items():
        function = CanvasScorer(scorer, blended(fitted.bundle.resolved, weights or {}), "home", NoFeatures())
        lists[name], hits[name] = ranked(function, case)
    print(json.dumps(report(case, lists, hits)))


def ranked(function: CanvasScorer, case: EvaluationCase) -> tuple[np.ndarray, np.ndarray]:
    """Return [N, 10] listed columns and [N] ndcg@10 of each request's target."""
    aligned = AlignedScorer("blend", function, case.catalogue)
    tops, gains = [], []
    for chunk in case.chunks():
        scores, candidates = aligned.score(chunk.requests, chunk.candidates)
        best = top_k(scores, 10, candidates)
        found = best[chunk.rows] == chunk.columns[:, None]
        tops.append(best)
        gains.append(np.where(found.any(axis=1), 1 / np.log2(2 + found.argmax(axis=1)), 0.0))
    return np.concatenate(tops), np.concatenate(gains)


def report(case: EvaluationCase, lists: dict[str, np.ndarray], hits: dict[str, np.ndarray]) -> dict[str, object]:
    """Return what is printed."""
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64)[case.rows] - 1
    difference = hits["gems_for_you"] - hits["top_picks"]
    draws = np.random.default_rng(0).integers(0, members.max() + 1, (2000, members.max() + 1))
    sums, counts = (np.bincount(members, weight) for weight in (difference, np.ones_like(difference)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    pairs = zip(*(lists[name].tolist() for name in ("gems_for_you", "top_picks")), strict=True)
    shared = [len(set(gems) & set(picks)) for gems, picks in pairs]
    plays = case.rule.plays.before(case.frame["at"].min())
    return {
        "requests": len(case),
        "ndcg@10": {name: round(float(values.mean()), 4) for name, values in hits.items()},
        "recall@10": {name: round(float((values > 0).mean()), 4) for name, values in hits.items()},
        "difference": round(float(difference.mean()), 4),
        "interval": [round(float(edge), 4) for edge in np.quantile(means, [0.025, 0.975])],
        "shared_of_10": round(float(np.mean(shared)), 2),
        "plays_of_listed": {name: round(float(plays[own].mean()), 1) for name, own in lists.items()},
    }


if __name__ == "__main__":
    main()
