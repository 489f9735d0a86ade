"""A model that starts from a foundation against the same model that does not, by canvas, over several logs.

    python tests/benchmarks/foundation_start.py --json
    python tests/benchmarks/foundation_start.py --log kuairand:../shared/data/kuairand-pure:3000 --keep FILE

A log is one of `every_canvas.py`'s: `world:MEMBERS:DAYS:SEED`, `kuairand:FOLDER:MEMBERS` and so on. The foundation has
the trunk, titles and history of the model, and one self-supervised head: which title is played next, over all plays
(`{label: any_play, loss: softmax}`). It learns from the training part of the same log. Then the model is trained three
times with one seed, the same examples and the same passes: `scratch` afresh, `tuned` from the foundation, `frozen` with
the foundation's title tower, event tokens and trunk left as they are; `frozen_adapters` has a small network for each
head besides. What is compared is the network (`--terms`: with its terms of histories and their learnt weights, as
`playbill train` does).

NDCG@10 on every canvas of titles, and of all of them together (`all`), with paired intervals of the relative
difference by member; `few_events` are members by their plays in the training part. --keep takes rows as they come.
"""

import json
import math
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from every_canvas import bring_in, without_folder

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import evaluate_model
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.features import FeatureDoor, build_features
from playbill.metrics.comparisons import relative_interval
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.example_weights import example_weights
from playbill.training.inherit import Parent, inherited
from playbill.training.loop import fit
from playbill.training.options import TrainOptions
from playbill.training.term_weights import ValidationFold, add_terms, learn_weights, log_of, terms_config

ROOT = Path(__file__).parents[2]
LOGS = ("world:2000:28:31",)
ARMS = ("scratch", "tuned", "frozen")
METRIC, HEAD = "ndcg@10", "any_play"
FEW = {"0-5": (0, 5), "6-20": (6, 20), "more": (21, 1 << 40)}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--log", "logs", multiple=True, default=LOGS, show_default=True)
@click.option("--arm", "arms", multiple=True, default=ARMS, show_default=True, help="Or frozen_adapters.")
@click.option("--protocol", default="global_time_successive", show_default=True)
@click.option("--seed", default=17, show_default=True, help="Of every training.")
@click.option("--epochs", type=click.IntRange(1), help="Passes of the model (default: the definition's).")
@click.option("--foundation-epochs", type=click.IntRange(1), help="Passes of the foundation (default: likewise).")
@click.option("--rate", type=float, default=1.0, show_default=True, help="Learning rate of `tuned` over the others'.")
@click.option("--terms", is_flag=True, help="Compare with terms of histories; learning their weights takes longer.")
@click.option("--keep", type=click.Path(path_type=Path), help="JSON file whose rows of these logs are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(logs, keep, as_json, **options):
    torch.set_num_threads(1)
    rows = json.loads(keep.read_text())["rows"] if keep and keep.exists() else []
    for name in logs:
        log = without_folder(name)
        found = of_log(name, log, options)
        rows = [row for row in rows if (row["log"], row["terms"]) != (log, options["terms"])] + found
        if keep:
            keep.write_text(json.dumps({"metric": METRIC, "rows": rows}, indent=1) + "\n")
    if as_json:
        print(json.dumps({"metric": METRIC, "rows": rows}))


def of_log(name, log, options):
    """Train the foundation and every arm on one log; return a row for each canvas, and one for all."""
    kind = name.split(":")
    with tempfile.TemporaryDirectory() as home:
        workspace = ProjectFolder(ROOT, ProjectSettings(home=home, workspace="bench")).workspace()
        bring_in(workspace, kind)
        door = FeatureDoor(workspace)
        door.apply()
        build_features(workspace)
        bench = Bench(workspace, door, options)
        model = load_zoo(ROOT / "model_zoo").model("kuairand" if kind[0] == "kuairand" else "everycanvas")
        model = TrainOptions(protocol=options["protocol"], seed=options["seed"], epochs=options["epochs"]).applied(
            model
        )
        if not options["terms"]:
            heads = {name: head.model_copy(update={"terms": ()}) for name, head in model.model.heads.items()}
            model = model.model_copy(update={"model": model.model.model_copy(update={"heads": heads})})
        begun = time.process_time()
        parent = bench.foundation(model, Path(home) / "foundation")
        seconds = {"foundation": time.process_time() - begun}
        data = bench.examples(model)
        taken = list(map(str, inherited(data.encoder.state, data.plays, model.model.heads, parent)))
        print(f"{log}: {', '.join(taken)}", flush=True)
        values = {}
        for arm in options["arms"]:
            begun = time.process_time()
            resolved, network = bench.trained(
                started(model, arm, options["rate"]), data, None if arm == "scratch" else parent
            )
            values[arm] = bench.measured(resolved, network, data, Path(home) / arm)
            seconds[arm] = time.process_time() - begun
            print(f"{log} {arm}: {values[arm]['value'].mean():.4f}, {seconds[arm]:.0f} CPU s", flush=True)
        plays = bench.plays()
    about = {"log": log, "terms": options["terms"], "seed": options["seed"], "rate": options["rate"]}
    about["cpu_seconds"] = {name: round(own) for name, own in seconds.items()}
    return rows_of(values, plays, about)


class Bench:
    """One log: its split, its frames and its features."""

    def __init__(self, workspace, door, options):
        self.door, self.options = door, options
        self.tables, self.clock = Tables(workspace), workspace_clock(workspace)
        self.split = make_split(options["protocol"], self.tables.interactions())
        self.frames = EvaluationTables.read(self.tables)
        self.log = log_of(self.split, self.frames)

    def plays(self):
        """Return the plays of each member in the training part."""
        return self.log.fitted_plays().group_by("member_id").agg(plays=pl.len())

    def examples(self, resolved):
        """Return a training set."""
        weights = example_weights(resolved)
        return build_training_set(self.tables, resolved, self.split, self.door, self.clock, weights=weights)

    def trained(self, resolved, data, parent):
        """Return the definition as it was trained, and its network."""
        resolved = data.trained(resolved)
        return resolved, fit(build_network(resolved, data, parent), data, loop_settings(resolved)).network

    def foundation(self, model, folder):
        """Train the foundation of a model."""
        epochs = self.options["foundation_epochs"]
        resolved = TrainOptions(epochs=epochs).applied(self_supervised(model))
        data = self.examples(resolved)
        resolved, network = self.trained(resolved, data, None)
        return Parent("foundation:1", bundle(folder, resolved, network, data))

    def measured(self, resolved, network, data, folder):
        """Return a row for each request of a canvas of titles: canvas, request_id, member_id, value."""
        wanted = terms_config(resolved, data.encoder) if self.options["terms"] else None
        if wanted is not None:
            network = add_terms(network, wanted, self.log, data.encoder)
        given = (bundle(folder, resolved, network, data), self.frames.titles_at(data.watermark))
        moment = data.watermark
        scorer = Scorer(*given, self.frames.availability, self.door, as_of=moment, network=network.eval())
        if wanted is not None:
            fold = ValidationFold(scorer, self.log, self.split, self.frames, self.door, self.options["seed"])
            _, resolved = learn_weights(fold, resolved)
        titles = [name for name, canvas in resolved.canvases.items() if canvas.target == "title"]
        given = (scorer, self.split, self.frames, resolved, self.door)
        reports = evaluate_model(*given, canvases=titles, baselines=()).reports.values()
        return pl.concat(
            report.requests.select(
                pl.lit(report.canvas).alias("canvas"),
                "request_id",
                "member_id",
                pl.col(f"{report.model}/{METRIC}").alias("value"),
            )
            for report in reports
            # Requests that were made for a canvas without logs are no measure of one against another.
            if report.protocol.startswith("global_time") or report.protocol == "leave_one_out"
        ).sort("canvas", "request_id")


def self_supervised(model):
    """Return a model with the network of another, and one head: which title is played next."""
    found = json.loads(model.to_json())
    canvas = model.main_canvas
    label = json.loads(load_zoo(ROOT / "model_zoo").labels[HEAD].model_dump_json(by_alias=True))
    found["labels"][HEAD] = label
    found["canvases"] = {
        canvas: found["canvases"][canvas] | {"blend": {HEAD: 1.0}, "metric": HEAD, "rows": [], "page": None}
    }
    heads = {HEAD: {"label": HEAD, "loss": "softmax"}}
    found["model"] |= {"name": "foundation", "canvases": [canvas], "heads": heads, "tasks": {}, "gates": [], "rows": []}
    found["model"]["evaluate"]["reward"] = None
    return ResolvedModel.model_validate(found | {"rows": {}, "rewards": {}})


def started(model, arm, rate):
    """Return a definition as an arm has it."""
    found = json.loads(model.to_json())
    if arm != "scratch":
        trunk = "frozen" if arm.startswith("frozen") else "tuned"
        found["model"]["init_from"] = {"model": "foundation:1", "trunk": trunk}
    if arm == "frozen_adapters":
        found["model"]["trunk"]["sharing"] = {"type": "adapters"}
    if arm == "tuned":
        found["model"]["training"]["learning_rate"] *= rate
    return ResolvedModel.model_validate(found)


def bundle(folder, resolved, network, data):
    """Write a version's bundle and read it."""
    write_bundle(
        folder,
        resolved=resolved,
        encoder=data.encoder,
        config=network.config,
        weights=network.state_dict(),
        plays=data.plays,
    )
    return read_bundle(folder)


def rows_of(values, plays, about):
    """Return a row for each canvas, and one for all of them."""
    keys = ["canvas", "request_id", "member_id"]
    frame = values["scratch"].rename({"value": "scratch"})
    for arm in values.keys() - {"scratch"}:
        frame = frame.join(values[arm].rename({"value": arm}), on=keys, maintain_order="left")
    frame = frame.join(plays, on="member_id", how="left").with_columns(pl.col("plays").fill_null(0))
    rows = []
    for canvas in ["all", *frame["canvas"].unique(maintain_order=True)]:
        own = frame if canvas == "all" else frame.filter(pl.col("canvas") == canvas)
        groups = {name: own.filter(pl.col("plays").is_between(*ends)) for name, ends in FEW.items()}
        few = {name: compared(group) for name, group in groups.items() if group.height}
        rows.append({**about, "canvas": canvas, **compared(own), "few_events": few})
        print(
            " ".join(f"{key}={value}" for key, value in rows[-1].items() if key in ("canvas", "requests", "gain")),
            flush=True,
        )
    return rows


def compared(frame):
    """Return each arm's mean, and how far it is from a fresh start."""
    members = frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    scratch = frame["scratch"].to_numpy()
    found = {"requests": frame.height, "members": int(members.max()) + 1, "from_scratch": float(scratch.mean())}
    for arm, names in {
        "tuned": ("from_foundation", "gain"),
        "frozen": ("from_frozen", "frozen_gain"),
        "frozen_adapters": ("from_frozen_adapters", "frozen_adapters_gain"),
    }.items():
        if arm in frame.columns:
            own = frame[arm].to_numpy()
            gain = relative_interval(members, own[None], scratch[None])
            found |= {names[0]: float(own.mean()), names[1]: [number(end) for end in (gain.low, gain.value, gain.high)]}
    return found


def number(value):
    """Return a number that JSON has; None where a fresh start scored 0 throughout."""
    return None if math.isnan(value) else round(float(value), 4)


if __name__ == "__main__":
    main()
