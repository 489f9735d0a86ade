"""Lists that are served late: the next title as the target against all that is chosen within a time.

    python tests/benchmarks/serving_delay.py --json
    python tests/benchmarks/serving_delay.py --log world:300:28:41 --epochs 2 --json
    python tests/benchmarks/serving_delay.py --log kuairand:../shared/data/kuairand-pure:10000 --json

A list is often older than the request it answers: states and vectors are worked out, kept, and read hours later. So a
request at t is answered here from what the member had done before t - delay, by a list made at that moment; what was
played before t is taken out of it as a server does. Two networks differ in nothing but the targets of their one head:
the next title, or, with a `horizon`, every title within it. A log is one of those of every_canvas.py. Protocol
`global_time_successive`: each held-out title is asked for on the main canvas, ranked over the whole catalogue.
`next_step` and `set_valued` are delay -> mean NDCG@10, `gain` the difference (low, value, high) by member and seed,
paired by request; `mrr` likewise.
"""

import json
import resource
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
import fixtures_path  # noqa: F401
import numpy as np
import torch
from every_canvas import bring_in, without_folder
from matplotlib.figure import Figure
from sequence_quality import WEEK, Log, SomeColumns, scorer_of

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.metrics.comparisons import seed_interval
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
PROTOCOL = "global_time_successive"
DELAYS = {"0": 0, "1h": 1, "6h": 6, "24h": 24, "48h": 48}
ARMS = {
    "next_step": None,
    "set_valued": {"within": "48h", "half_life": "12h", "most": 8},
}


@click.command()
@click.option("--log", "name", default="world:4000:28:41", show_default=True)
@click.option("--seeds", default="17,18", show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option(
    "--most-requests",
    default=3000,
    show_default=True,
    help="Drawn at random where there are more.",
)
@click.option("--half-life", default=ARMS["set_valued"]["half_life"], show_default=True)
@click.option("--home", type=click.Path(path_type=Path), help="Where the workspace is kept (default: thrown away).")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of finished runs; a killed run goes on there.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw both curves here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(name, seeds, epochs, most_requests, half_life, home, keep, picture, as_json):
    """Train both ways with every seed, and measure them at every delay.

    Example: python tests/benchmarks/serving_delay.py --log world:300:28:41 --epochs 2 --json
    """
    torch.set_num_threads(1)
    arms = {name: own and own | {"half_life": half_life} for name, own in ARMS.items()}
    values = {arm: {delay: [] for delay in DELAYS} for arm in arms}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        log, resolved, case = opened(home or Path(scratch), name.split(":"), most_requests)
        for seed in map(int, seeds.split(",")):
            for arm, horizon in arms.items():
                path = (keep or Path(scratch)) / f"{arm}-{seed}.npz"
                if not path.is_file():
                    own = with_horizon(resolved, horizon)
                    save(path, *trained(log, own, case, seed, epochs, Path(scratch)))
                found, row = read_back(path)
                for delay, own in found.items():
                    values[arm][delay].append(own)
                rows.append({"arm": arm, "seed": seed} | row)
                print(json.dumps(rows[-1]), flush=True)
    result = summary(case, values) | {
        "log": without_folder(name),
        "titles": len(case.catalogue),
        "requests": len(case),
    }
    result |= {
        "seeds": [int(seed) for seed in seeds.split(",")],
        "epochs": epochs,
        "half_life": half_life,
    }
    result |= {
        "rows": rows,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    if picture is not None:
        plot(result, picture)
    if as_json:
        print(json.dumps(result))


def save(path, found, row):
    """Keep what `trained` returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {f"{delay}/{metric}": own for delay in found for metric, own in found[delay].items()}
    np.savez(path, row=json.dumps(row), **flat)


def read_back(path):
    """Return what `save` kept."""
    found = {delay: {} for delay in DELAYS}
    with np.load(path, allow_pickle=False) as kept:
        for delay, metric in (name.split("/") for name in kept.files if name != "row"):
            found[delay][metric] = kept[f"{delay}/{metric}"]
        return found, json.loads(str(kept["row"]))


def opened(home, kind, most_requests):
    """Return a log, the definition with one head and surface, and its held-out requests."""
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="bench")).workspace()
    if not (workspace.folder / "tables").exists():
        bring_in(workspace, kind)
        FeatureDoor(workspace).apply()
        build_features(workspace)
    tables, door = Tables(workspace), SomeColumns(FeatureDoor(workspace), WEEK)
    resolved = load_zoo(ROOT / "model_zoo").model("kuairand" if kind[0] == "kuairand" else "everycanvas")
    resolved = TrainOptions(protocol=PROTOCOL).applied(alone(resolved))
    split = make_split(PROTOCOL, tables.interactions())
    log = Log(tables, EvaluationTables.read(tables), door, split, workspace)
    case = build_case(log.frames, split, resolved, resolved.main_canvas, as_logged=False)
    if len(case) > most_requests:
        drawn = np.zeros(len(case), np.bool_)
        drawn[np.random.default_rng(0).choice(len(case), most_requests, replace=False)] = True
        case = case.keep(drawn[case.rows])
    return log, resolved, case


def alone(resolved):
    """Return a model's first head by itself, on its main canvas, over what the member has not played."""
    found = json.loads(resolved.to_json())
    canvas = resolved.main_canvas
    head = next(iter(resolved.canvas(canvas).blend))
    own = found["canvases"][canvas] | {
        "blend": {head: 1.0},
        "candidates": {"available": "now", "watched": False},
    }
    found["model"]["heads"] = {head: found["model"]["heads"][head] | {"terms": [], "weight": 1.0}}
    found["model"] |= {"canvases": [canvas], "tasks": {}}
    found["model"]["evaluate"] |= {"reward": None}
    found["model"]["training"] |= {"min_steps": 0}
    return ResolvedModel.model_validate(found | {"canvases": {canvas: own}, "rows": {}, "rewards": {}})


def with_horizon(resolved, horizon):
    """Return the model with a horizon of its head, or without one."""
    found = json.loads(resolved.to_json())
    for head in found["model"]["heads"].values():
        head |= {} if horizon is None else {"horizon": horizon}
    return ResolvedModel.model_validate(found)


class Late:
    """Scores made some time before they are asked for, from what was known then.

    Args:
        function: Scores requests.
        delay: How much earlier.
    """

    def __init__(self, function, delay):
        self.function, self.delay = function, delay

    @property
    def title_ids(self):
        """The titles that are scored."""
        return self.function.title_ids

    def score(self, requests):
        """Return [N, T] scores as they were the delay before each request."""
        return self.function.score([self.as_it_was(request) for request in requests])

    def as_it_was(self, request):
        """Return a request made the delay earlier; without a delay it has read all before it in the log's order."""
        if not self.delay:
            return request
        at = request.at - self.delay
        known = request.history["event_at"].search_sorted(at, side="left")
        return replace(request, at=at, history=request.history.head(int(known)))


def trained(log, resolved, case, seed, epochs, scratch):
    """Train one network; return delay -> its values by request, and a row about it."""
    resolved = TrainOptions(seed=seed, epochs=epochs).applied(resolved)
    data = build_training_set(log.tables, resolved, log.split, log.door, workspace_clock(log.workspace))
    begun = time.process_time()
    fitted = fit(build_network(resolved, data), data, loop_settings(resolved))
    seconds = time.process_time() - begun
    scorer = scorer_of(log, resolved, data, fitted.network, log.door, scratch)
    function = CanvasScorer(scorer, resolved, case.canvas, log.door)
    functions = {delay: Late(function, timedelta(hours=hours)) for delay, hours in DELAYS.items()}
    found = {}
    for delay, measured in measure(case, functions, (10,)).items():
        reciprocal = np.where(measured.ranks > 0, 1 / np.maximum(measured.ranks, 1), 0.0)
        targets = np.maximum(np.bincount(case.rows, minlength=len(case)), 1)
        mrr = np.bincount(case.rows, weights=reciprocal, minlength=len(case)) / targets
        found[delay] = {"ndcg@10": measured.values["ndcg@10"], "mrr": mrr}
    about = {
        "train_seconds": round(seconds, 1),
        "loss": round(fitted.reports[-1]["loss"], 4),
        "steps": data.steps(),
    }
    return found, about | {delay: round(float(own["ndcg@10"].mean()), 5) for delay, own in found.items()}


def summary(case, values):
    """Return means by arm and delay, and the gains with their intervals."""
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    result = {"gain": {}, "mrr": {"gain": {}}}
    for metric, place in (("ndcg@10", result), ("mrr", result["mrr"])):
        stacked = {
            arm: {delay: np.stack([own[metric] for own in seeds]) for delay, seeds in delays.items()}
            for arm, delays in values.items()
        }
        for arm, delays in stacked.items():
            place[arm] = {delay: round(float(own.mean()), 5) for delay, own in delays.items()}
        for delay in DELAYS:
            found = seed_interval(members, stacked["set_valued"][delay] - stacked["next_step"][delay]).interval
            place["gain"][delay] = [round(float(end), 5) for end in (found.low, found.value, found.high)]
    return result


def plot(result, path):
    """Draw NDCG@10 of both arms, and the gain with its interval, by delay."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for arm, words in (
        ("next_step", "next title"),
        ("set_valued", "titles within 48 h"),
    ):
        left.plot(
            list(DELAYS),
            [result[arm][delay] for delay in DELAYS],
            marker="o",
            label=words,
        )
    left.set(xlabel="age of the list", ylabel="NDCG@10", ylim=(0, None))
    left.legend(frameon=False)
    low, mean, high = np.array([result["gain"][delay] for delay in DELAYS]).T
    right.errorbar(list(DELAYS), mean, yerr=[mean - low, high - mean], fmt="o", capsize=3)
    right.axhline(0, color="grey", linewidth=0.8)
    right.set(xlabel="age of the list", ylabel="gain in NDCG@10 (95 %)")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
