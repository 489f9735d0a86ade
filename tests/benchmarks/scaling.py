"""How quality grows with the size of the network and with what it is told: a fit of P = P0 - a N^-b, and a sweep.

    python tests/benchmarks/scaling.py --data ML_1M --kuairand KUAIRAND --json
    python tests/benchmarks/scaling.py --data ML_1M --sizes 8x1,64x2 --home KEPT      # some sizes, kept for later
    python tests/benchmarks/scaling.py --home KEPT --fit-only --json                  # of what is kept

Sizes are WIDTHxLAYERS of `next_play` (`plain` in sequence_quality.py) on MovieLens-1M, `leave_one_out`, the whole
catalogue ranked but what the member has played, the same passes, learning rate and dropout for all. N counts what is no
embedding: neither the table of titles nor those of fields and positions. MRR is over the rank in the whole catalogue,
without a cut.

Context, at one size on KuaiRand (`global_time_successive`, every surface's next long view): titles of events alone;
what is known of each event beside it (actions, canvas, device, gap, duration); metadata of titles; features of members
and titles. What the request says is the same throughout.

Ranks of each run are kept in --home, so a run that was cut goes on; the summary goes to --out. Intervals are over draws
of members, those of context over members and seeds.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from kuairand import prepared
from kuairand_lists import surface_cases
from kuairand_models import Service, with_heads
from scaling_fit import draw, fitted
from sequence_quality import ROOT, WEEK, Log, SomeColumns, plain, scorer_of
from torch import nn

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor
from playbill.metrics import MemberBootstrap, seed_interval
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions

SIZES = "8x1,16x1,32x1,64x1,64x2,128x2"
HEAD = "next_long_view"
ABOUT_EVENTS = ("actions", "canvas", "device", "language", "gap", "duration")
CONTEXTS = ("titles of events", "+ facts of events", "+ metadata of titles", "+ member and title features")
DRAWS = 500


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of MovieLens-1M.")
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option("--kuairand", type=click.Path(path_type=Path, exists=True), help="Folder of KuaiRand-Pure.")
@click.option("--sizes", default=SIZES, show_default=True, help="WIDTHxLAYERS, comma-separated.")
@click.option("--epochs", default=2, show_default=True, help="Of every size.")
@click.option("--seed", default=17, show_default=True, help="Of the sizes.")
@click.option("--context-seeds", default="17,18", show_default=True)
@click.option("--home", type=click.Path(path_type=Path), help="Where workspaces and ranks are kept.")
@click.option("--fit-only", is_flag=True, help="Train nothing: fit and draw what is kept in --home.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs/results/scaling.json")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it here, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, kuairand, sizes, epochs, seed, context_seeds, home, fit_only, out, plot, as_json):
    """Train, fit and draw."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Kept((home or Path(scratch)) / "scaling")
        if data is not None and not fit_only:
            log = Log.of(home or Path(scratch) / "home", data, mapping, "leave_one_out")
            train_sizes(kept, log, [read_size(text) for text in sizes.split(",")], epochs, seed, Path(scratch))
        if kuairand is not None and not fit_only:
            train_contexts(kept, kuairand, [int(text) for text in context_seeds.split(",")], Path(scratch))
        result = summary(kept)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        draw(result, plot)
    if as_json:
        print(json.dumps(result))


class Kept:
    """The ranks and costs of runs, a file each.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder):
        self.folder = folder

    def has(self, name):
        """Return whether a run is there."""
        return (self.folder / f"{name}.npz").is_file()

    def put(self, name, about, members, reciprocal, top):
        """Keep a run: what it was, [N] members, reciprocal ranks and NDCG@10 of requests."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = np.array(json.dumps(about))
        np.savez_compressed(self.folder / f"{name}.npz", about=text, members=members, reciprocal=reciprocal, ndcg=top)
        print(json.dumps(about | {"mrr": float(reciprocal.mean()), "ndcg@10": float(top.mean())}), flush=True)

    def all(self, kind):
        """Return every run of a kind: what it was, and its arrays."""
        found = []
        for file in sorted(self.folder.glob(f"{kind}-*.npz")):
            with np.load(file) as arrays:
                found.append((json.loads(str(arrays["about"])), {name: arrays[name] for name in arrays.files[1:]}))
        return found


def read_size(text):
    """Return (width, layers)."""
    width, _, layers = text.partition("x")
    return int(width), int(layers)


def train_sizes(kept, log, sizes, epochs, seed, scratch):
    """Train every size that is not kept."""
    data, door = None, SomeColumns(log.door, WEEK)
    for width, layers in sizes:
        name = f"size-{width}x{layers}-{epochs}-{seed}"
        if kept.has(name):
            continue
        resolved = sized(plain(load_zoo(ROOT / "model_zoo").model("everycanvas"), width), layers)
        resolved = TrainOptions(protocol=log.split.protocol, seed=seed, epochs=epochs).applied(resolved)
        clock = workspace_clock(log.workspace)
        if data is None:  # no size of the network is in it
            data = build_training_set(log.tables, resolved, log.split, door, clock)
        resolved = data.trained(resolved)
        begun = time.process_time()
        network = fit(build_network(resolved, data), data, loop_settings(resolved)).network
        about = {"width": width, "layers": layers, "epochs": epochs, "seed": seed, **parameters(network)}
        about["seconds"] = round(time.process_time() - begun)
        scorer = scorer_of(log, resolved, data, network, door, scratch)
        kept.put(name, about, *ranked([(log.case, CanvasScorer(scorer, resolved, "home", door))]))


def sized(resolved, layers):
    """Return a definition with so many layers."""
    found = json.loads(resolved.to_json())
    found["model"]["trunk"]["layers"] = layers
    return ResolvedModel.model_validate(found)


def parameters(network):
    """Return the parameters that are no embedding, and all of them."""
    tables = {id(one.weight) for one in network.modules() if isinstance(one, nn.Embedding | nn.EmbeddingBag)}
    own = [(parameter.numel(), id(parameter) in tables) for parameter in network.parameters()]
    return {"parameters": sum(size for size, table in own if not table), "all": sum(size for size, _ in own)}


def ranked(cases):
    """Return members [N], reciprocal ranks [N] and NDCG@10 [N] of the requests of cases."""
    members, reciprocal, top = [], [], []
    for case, function in cases:
        found = measure(case, {"model": function}, (10,))["model"]
        own = np.zeros(len(case))
        np.maximum.at(own, case.rows, np.where(found.ranks > 0, 1.0 / np.maximum(found.ranks, 1), 0.0))
        members.append(case.frame["member_id"].to_numpy())
        reciprocal.append(own)
        top.append(found.values["ndcg@10"])
    codes = np.unique(np.concatenate(members), return_inverse=True)[1]
    return codes, np.concatenate(reciprocal), np.concatenate(top)


def train_contexts(kept, folder, seeds, scratch):
    """Train every context that is not kept, over one read of the log."""
    missing = [
        (level, seed) for seed in seeds for level in range(len(CONTEXTS)) if not kept.has(f"context-{level}-{seed}")
    ]
    if not missing:
        return
    home = kept.folder.parent
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home))).workspace("kuairand")
    if not (workspace.folder / "tables").exists():
        workspace = prepared(home, folder, None)
    resolved = with_heads(load_zoo(ROOT / "model_zoo").model("kuairand"), (HEAD,))
    tables = Tables(workspace)
    service = Service(tables, resolved, make_split("global_time", tables.interactions()), FeatureDoor(workspace))
    cases = {name: case for name, case in surface_cases(service, 1, 2000) if isinstance(case, EvaluationCase)}
    log = Log(tables, service.frames, service.door, service.split, workspace)
    for level, seed in missing:
        given, door = with_context(resolved, level), service.door if level == 3 else SomeColumns(service.door)
        given = TrainOptions(seed=seed).applied(given)
        data = build_training_set(tables, given, service.split, door, workspace_clock(workspace))
        given = data.trained(given)
        begun, network = time.process_time(), build_network(given, data)
        if level == 0:
            network.events.register_forward_pre_hook(titles_alone)
        network = fit(network, data, loop_settings(given)).network
        about = {"context": CONTEXTS[level], "level": level, "seed": seed, **parameters(network)}
        about["seconds"] = round(time.process_time() - begun)
        scorer = scorer_of(log, given, data, network, door, scratch)
        own = [(case, CanvasScorer(scorer, given, name, door)) for name, case in cases.items()]
        kept.put(f"context-{level}-{seed}", about, *ranked(own))


def with_context(resolved, level):
    """Return the definition with or without metadata of titles."""
    found = json.loads(resolved.to_json())
    if level < 2:
        found["model"]["titles"] |= {"metadata": [], "age_gate": False, "id_mask": 0}
    return ResolvedModel.model_validate(found)


def titles_alone(_, given):
    """Hide everything of a history but its titles."""
    history, vectors = given
    return replace(history, **{name: torch.zeros_like(getattr(history, name)) for name in ABOUT_EVENTS}), vectors


def summary(kept):
    """Return what is kept as one JSON object."""
    runs = sorted(kept.all("size"), key=lambda run: run[0]["parameters"])
    result = {"sizes": [], "mrr": None, "p0": None, "a": None, "b": None, "predicted_largest": None}
    for about, arrays in runs:
        columns = np.stack([arrays["reciprocal"], arrays["ndcg"]], axis=1)
        mrr, ndcg = MemberBootstrap(arrays["members"]).intervals(columns)
        result["sizes"].append(about | {"mrr": list(mrr), "ndcg@10": list(ndcg), "requests": len(columns)})
    if len(runs) > 3:
        sizes, values = [about["parameters"] for about, _ in runs], np.stack([own["reciprocal"] for _, own in runs], 1)
        drawn = MemberBootstrap(runs[0][1]["members"], DRAWS).totals(np.c_[values, np.ones(len(values))])
        result |= fitted(sizes, values.mean(0), drawn[:, :-1] / drawn[:, -1:])
    result["mrr"] = [one["mrr"][0] for one in result["sizes"]]
    return result | {"context": contexts(kept.all("context"))}


def contexts(runs):
    """Return a row for each context: its MRR and NDCG@10 over members and seeds, and what it adds to the one before."""
    found, before = [], None
    for level, name in enumerate(CONTEXTS):
        own = [(about, arrays) for about, arrays in runs if about["level"] == level]
        if len(own) < 2:
            continue
        members = own[0][1]["members"]
        values = {metric: np.stack([arrays[metric] for _, arrays in own]) for metric in ("reciprocal", "ndcg")}
        row = {"context": name, "seeds": [about["seed"] for about, _ in own], "requests": len(members)}
        row |= {
            "mrr": list(seed_interval(members, values["reciprocal"]).interval),
            "ndcg@10": list(seed_interval(members, values["ndcg"]).interval),
            "seconds": sum(about["seconds"] for about, _ in own) / len(own),
        }
        if before is not None:
            row["mrr_added"] = list(seed_interval(members, values["reciprocal"] - before).interval)
        before = values["reciprocal"]
        found.append(row)
    return found


if __name__ == "__main__":
    main()
