"""Windows, an auxiliary head of genres, and gBCE, each against the plain softmax over sliding windows.

    python tests/benchmarks/objectives.py --json
    python tests/benchmarks/objectives.py --arms softmax,gbce --seeds 17 --steps 40 --json

MovieLens-100K, `leave_one_out`, the whole catalogue but what the member has played; the network of sequence_quality.py
(ids of titles, one head, the week's popularity), no terms. Every arm takes as many optimizer steps and differs from
`softmax` in one thing. `arms` are means over seeds of NDCG@10 and HR@10, tokens that an epoch reads and CPU seconds;
`minus_softmax` is (low, value, high) of the difference in NDCG@10 by member and seed, paired by request.
"""

import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from sequence_quality import WEEK, Log, SomeColumns, plain, scorer_of

from playbill.datasets import build_training_set
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.measure import measure
from playbill.metrics.comparisons import seed_interval
from playbill.tables import workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
PLAY = "discovery_play"
GBCE = {"loss": "gbce", "options": {"calibration": 0.75}, "negatives": {"policy": "uniform", "count": 256}}
ARMS = {
    "softmax": {},
    "last": {"training": {"windows": "last"}},
    "mixed": {"training": {"windows": "mixed", "earlier_share": 0.25}},
    "genres": {"heads": {"genre": {"auxiliary": "next_genres", "weight": 0.1}}},
    "gbce": {"play": GBCE},
    "horizon": {"play": {"horizon": {"within": "48h", "half_life": "12h", "most": 8}}},
}


@click.command()
@click.option("--arms", default=",".join(ARMS), show_default=True)
@click.option("--seeds", default="17,18,19", show_default=True)
@click.option("--steps", default=400, show_default=True, help="Of the optimizer.")
@click.option("--width", default=64, show_default=True)
@click.option("--length", default=100, show_default=True, help="Tokens of a window.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(arms, seeds, steps, width, length, as_json):
    """Train every arm with every seed, and compare them.

    Example: python tests/benchmarks/objectives.py --arms softmax,gbce --seeds 17,18 --json
    """
    torch.set_num_threads(1)
    names, rows = arms.split(","), []
    values = {arm: [] for arm in names}
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(Path(scratch), None, None, "leave_one_out")
        base = sized(plain(load_zoo(ROOT / "model_zoo").model("everycanvas"), width), steps, length)
        for seed in map(int, seeds.split(",")):
            for arm in names:
                found, row = trained(log, changed(base, ARMS[arm]), seed, Path(scratch))
                values[arm].append(found)
                rows.append({"arm": arm, "seed": seed} | row)
                print(json.dumps(rows[-1]), flush=True)
        members = log.case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    result = {"arms": {arm: means(row for row in rows if row["arm"] == arm) for arm in names}, "minus_softmax": {}}
    for arm in names:
        if arm != names[0] and len(values[arm]) > 1:
            found = seed_interval(members, np.stack(values[arm]) - np.stack(values[names[0]])).interval
            result["minus_softmax"][arm] = [round(float(end), 4) for end in (found.low, found.value, found.high)]
    result |= {"steps": steps, "width": width, "length": length, "seeds": seeds, "requests": len(members)}
    if as_json:
        print(json.dumps(result))


def sized(resolved, steps, length):
    """Return the model with so many steps and windows of a length."""
    found = json.loads(resolved.to_json())
    found["model"]["heads"][PLAY] |= {"terms": []}
    found["model"]["history"]["length"] = length
    found["model"]["training"] |= {"epochs": 1, "min_steps": steps, "max_epochs": 1000, "stride": length}
    found["model"]["training"] |= {"full_softmax_titles": 10_000}
    return ResolvedModel.model_validate(found)


def changed(resolved, changes):
    """Return the model with an arm's changes of its training, its heads, or its one head."""
    found = json.loads(resolved.to_json())
    found["model"]["training"] |= changes.get("training", {})
    found["model"]["heads"][PLAY] |= changes.get("play", {})
    found["model"]["heads"] |= changes.get("heads", {})
    return ResolvedModel.model_validate(found)


def trained(log, resolved, seed, scratch):
    """Train one network; return [N] its NDCG@10 and a row about it."""
    # `min_steps` counts: a run's own epochs would take it away.
    resolved = TrainOptions(protocol=log.split.protocol, seed=seed).applied(resolved)
    door = SomeColumns(log.door, WEEK)
    begun = time.process_time()
    data = build_training_set(log.tables, resolved, log.split, door, workspace_clock(log.workspace))
    settings = loop_settings(resolved)
    fitted = fit(build_network(resolved, data), data, settings)
    seconds = time.process_time() - begun
    scorer = scorer_of(log, resolved, data, fitted.network, door, scratch)
    values = measure(log.case, {"own": CanvasScorer(scorer, resolved, "home", door)}, (10,))["own"].values
    return values["ndcg@10"], {
        "ndcg@10": round(float(values["ndcg@10"].mean()), 4),
        "hr@10": round(float(values["hr@10"].mean()), 4),
        "tokens_per_epoch": data.epoch_tokens,
        "steps": data.steps() * settings.total_epochs(data.steps()),
        "seconds": round(seconds, 1),
    }


def means(rows):
    """Return the mean of every number over seeds."""
    every = [{name: value for name, value in row.items() if name not in ("arm", "seed")} for row in rows]
    return {name: round(float(np.mean([row[name] for row in every])), 4) for name in every[0]}


if __name__ == "__main__":
    main()
