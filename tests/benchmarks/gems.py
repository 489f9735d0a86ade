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
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from playbill.datasets import make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation import CanvasScorer, EvaluationReport, Judging, RowFigure, compare, evaluate_row
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.score_function import AlignedScorer
from playbill.metrics.topk import top_k
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog, fit_model, going_on
from playbill_lab.simulator import load_policy
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

ROOT = Path(__file__).parents[2]
RIPENING_DAYS = 10
"""Days after the log by which it is known what came of its last plays."""
ROW = "gems_for_you"
HEADS = ("discovery_play", "gem", "thumbs_up", "thumbs_down")


def definition(seed: int, epochs: int) -> ResolvedModel:
    """Return a small model of one canvas with one row: home and gems."""
    zoo = load_zoo(ROOT / "model_zoo")
    resolved = zoo.model("everycanvas")
    model = resolved.model
    changed = {
        "canvases": ("home",),
        "rows": (ROW,),
        "tasks": {},
        "gates": (),
        "heads": {name: model.heads[name] for name in HEADS},
        "trunk": model.trunk.model_copy(update={"dim": 64}),
        "training": model.training.model_copy(update={"seed": seed, "epochs": epochs, "min_steps": 0}),
    }
    context = ("member", "country", "device", "language", "hour_of_week")
    home = resolved.canvases["home"].model_copy(update={"page": None, "rows": (ROW,), "context": context})
    return resolved.model_copy(
        update={
            "model": model.model_copy(update=changed),
            "canvases": {"home": home},
            "rows": {ROW: zoo.rows[ROW]},
            "rewards": {},
        }
    )


def blended(resolved: ResolvedModel, weights: dict[str, float]) -> ResolvedModel:
    """Return the model with another blend of its row."""
    return resolved.model_copy(update={"rows": {ROW: resolved.rows[ROW].model_copy(update={"blend": weights})}})


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
    zoo, trained, tables = load_zoo(ROOT / "model_zoo"), fitted.bundle.resolved, log.evaluation()
    judging, reports, lists = Judging(slices=()), {}, {}
    for name in (ROW, "top_picks"):
        model = blended(trained, zoo.rows[name].blend or {})
        figure = replace(RowFigure.of(model, ROW, label="gem"), anywhere=True)
        reports[name] = evaluate_row(figure, scorer, split, tables, model, NoFeatures(), baselines=(), judging=judging)
        case = figure.case(tables, split)
        lists[name] = listed(CanvasScorer(scorer, figure.resolved, "home", NoFeatures()), case)
    print(json.dumps(summary(case, lists, reports)))


def listed(function: CanvasScorer, case: EvaluationCase) -> np.ndarray:
    """Return [N, 10] listed columns."""
    aligned = AlignedScorer("blend", function, case.catalogue)
    return np.concatenate([top_k(*_masked(aligned.score(chunk.requests, chunk.candidates))) for chunk in case.chunks()])


def _masked(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, int, np.ndarray]:
    return found[0], 10, found[1]


def summary(
    case: EvaluationCase, lists: dict[str, np.ndarray], reports: dict[str, EvaluationReport]
) -> dict[str, object]:
    """Return what is printed."""
    change = compare(reports["top_picks"], reports[ROW]).differences["ndcg@10"]
    pairs = zip(*(lists[name].tolist() for name in (ROW, "top_picks")), strict=True)
    plays = case.rule.plays.before(case.frame["at"].min())
    values = {
        metric: {name: round(one.result.metrics[key].value, 4) for name, one in reports.items()}
        for metric, key in (("ndcg@10", "ndcg@10"), ("recall@10", "hr@10"))  # with one target they are the same
    }
    return {
        "requests": len(case),
        **values,
        "difference": round(change.value, 4),
        "interval": [round(change.low, 4), round(change.high, 4)],
        "shared_of_10": round(float(np.mean([len(set(gems) & set(picks)) for gems, picks in pairs])), 2),
        "plays_of_listed": {name: round(float(plays[own].mean()), 1) for name, own in lists.items()},
    }


if __name__ == "__main__":
    main()
