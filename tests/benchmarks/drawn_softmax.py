"""What ranking against every title in training brings over ranking against drawn ones.

    python tests/benchmarks/drawn_softmax.py --log kuairand:../shared/data/kuairand-pure:15000 --json
    python tests/benchmarks/drawn_softmax.py --log catalogue:8400:17900:165000 --seeds 17,18 --json
    python tests/benchmarks/drawn_softmax.py --log ml_1m:../shared/data/ml-1m --json

A log is one of those of every_canvas.py (the model is `kuairand`, or `next_play` of sequence_quality.py for MovieLens)
or `catalogue:TITLES:MEMBERS:PLAYS` of tests/fixtures/large_catalogue.py (`everycanvas` with the canvas home alone). Of
each seed and both kinds: NDCG@10 of the test fold on the main canvas, the network alone, without terms, and the CPU
seconds of the steps. `drawn_minus_full` is the mean difference, paired by request, with its interval over members and
seeds.
"""

import json
import tempfile
import time
from pathlib import Path

import click
import fixtures_path  # noqa: F401
import numpy as np
import torch
from every_canvas import METRIC, bring_in, without_folder
from sequence_quality import WEEK, Log, SomeColumns, plain, scorer_of

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import build_training_set, make_split
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.metrics.comparisons import seed_interval
from playbill.sources import ingest
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
KINDS = {"full": 10_000_000, "drawn": 0}
"""Values of `full_softmax_titles` under which every catalogue is ranked against as a whole, and none is."""


@click.command()
@click.option("--log", "name", required=True)
@click.option("--seeds", default="17,18", show_default=True)
@click.option("--kinds", default=",".join(KINDS), show_default=True)
@click.option("--epochs", type=int, help="Default: the definition's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(name, seeds, kinds, epochs, as_json):
    """Train both ways, and compare."""
    torch.set_num_threads(1)
    rows, values = [], {kind: [] for kind in kinds.split(",")}
    with tempfile.TemporaryDirectory() as scratch:
        log, resolved, case = opened(name, Path(scratch))
        for seed in map(int, seeds.split(",")):
            for kind, own in values.items():
                found, row = trained(log, resolved, case, kind, seed, epochs, Path(scratch))
                own.append(found)
                rows.append({"kind": kind, "seed": seed} | row)
                print(json.dumps(rows[-1]), flush=True)
    result = {"log": without_folder(name), "titles": len(case.catalogue), "requests": len(case), "rows": rows}
    if len(values) == len(KINDS):
        members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
        found = seed_interval(members, np.stack(values["drawn"]) - np.stack(values["full"])).interval
        result["drawn_minus_full"] = [round(float(end), 5) for end in (found.low, found.value, found.high)]
        print("drawn - full: {1:+.4f} [{0:+.4f}, {2:+.4f}]".format(*result["drawn_minus_full"]))
    if as_json:
        print(json.dumps(result))


def opened(name, home):
    """Return a log, the definition that is trained on it, and the test fold of its main canvas."""
    kind = name.split(":")
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="bench")).workspace()
    if kind[0] == "catalogue":
        from fixtures.large_catalogue import write_large_catalogue

        mapping = write_large_catalogue(home / "data", *map(int, kind[1:]))
        ingest(workspace, "parquet", {"path": home / "data", "mapping": mapping})
    else:
        bring_in(workspace, kind)
    FeatureDoor(workspace).apply()
    build_features(workspace)
    tables, door = Tables(workspace), FeatureDoor(workspace)
    resolved = load_zoo(ROOT / "model_zoo").model("kuairand" if kind[0] == "kuairand" else "everycanvas")
    if kind[0] == "ml_1m":
        resolved, door = plain(resolved, 128), SomeColumns(door, WEEK)
    elif kind[0] == "catalogue":
        found = json.loads(resolved.to_json())
        found["model"] |= {"canvases": ["home"], "tasks": {}}
        found |= {"canvases": {"home": found["canvases"]["home"]}, "rows": {}}
        resolved = type(resolved).model_validate(found)
    protocol = "global_time_successive" if kind[0] == "kuairand" else "leave_one_out"
    resolved = TrainOptions(protocol=protocol).applied(resolved)
    split = make_split(protocol, tables.interactions())
    log = Log(tables, EvaluationTables.read(tables), door, split, workspace)
    return log, resolved, build_case(log.frames, split, resolved, resolved.main_canvas)


def trained(log, resolved, case, kind, seed, epochs, scratch):
    """Train one network, and return [N] its NDCG@10 and a row about it."""
    resolved = TrainOptions(seed=seed, epochs=epochs).applied(resolved)
    training = resolved.model.training.model_copy(update={"full_softmax_titles": KINDS[kind]})
    resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"training": training})})
    data = build_training_set(log.tables, resolved, log.split, log.door, workspace_clock(log.workspace))
    resolved = data.trained(resolved)
    network = build_network(resolved, data)
    begun = time.process_time()
    fitted = fit(network, data, loop_settings(resolved))
    seconds = time.process_time() - begun
    scorer = scorer_of(log, resolved, data, fitted.network, log.door, scratch)
    function = CanvasScorer(scorer, resolved, case.canvas, log.door)
    values = measure(case, {kind: function}, (10,))[kind].values
    found = values[METRIC]
    return found, {
        METRIC: round(float(found.mean()), 5),
        "hr@10": round(float(values["hr@10"].mean()), 5),
        "steps": data.steps() * loop_settings(resolved).total_epochs(data.steps()),
        "step_seconds": round(seconds),
        "loss": round(fitted.reports[-1]["loss"], 4),
    }


if __name__ == "__main__":
    main()
