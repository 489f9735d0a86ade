"""Next plays of MovieLens-1M: HR@10 and NDCG@10 of every model and seed, under protocols that others publish.

    python tests/benchmarks/sequence_quality.py --data FOLDER --json
    python tests/benchmarks/sequence_quality.py --data FOLDER --models next_play --seeds 18
    python tests/benchmarks/sequence_quality.py --data FOLDER --models next_play --trunk hstu
    python tests/benchmarks/sequence_quality.py --data FOLDER --models next_play,popular_7d --protocol global_time

The whole catalogue is ranked but what the member has played; events of one second are in the order of `seq_pos`. Rows
go to --out, one by one, in place of an earlier one of the same model, protocol and seed, so that a long table can be
made a model at a time. `sasrec` has the full softmax: published are HR@10 .315 and NDCG@10 .182 (Klenitskiy and
Vasilev, RecSys 2023), and a harness that is right comes within 5 %. `next_play` is everycanvas without what a plain log
of plays has no use for, see `plain`; `+ terms` adds its terms of histories, whose weights are learnt on the validation
fold; another trunk than the definition's is in the name, as in `next_play (hstu)`. `seconds` are CPU seconds of one
thread, for all that is learnt.

`debiased_hr@10` counts hits after the most popular titles among the targets were thinned out to the upper fence of the
box plot (third quartile and 1.5 times the range of quartiles), as RecTools' debiased metrics do.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel, TrunkOptions
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.baselines.popularity import build_baseline, popular
from playbill.evaluation.baselines.sasrec import SasRec, SasRecOptions
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.sources import ingest
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions
from playbill.training.term_weights import ValidationFold, add_terms, learn_weights, log_of, terms_config

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/results/ml-1m.json"
NETWORKS = ("next_play", "everycanvas")
BASELINES = ("popular", "popular_7d", "item_knn", "ease")
WEEK = "title_popularity__log_plays_7d"
SASREC = SasRecOptions(
    dim=128, batch=32, dropout=0.1, epochs=8, check_every=8, learning_rate=2e-3, falling=True, loss="softmax"
)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of MovieLens-1M.")
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option("--models", default=",".join((*BASELINES, "sasrec", "next_play")), show_default=True)
@click.option("--seeds", default="17,18,19", show_default=True, help="Of sasrec and the networks.")
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--epochs", type=int, help="Of next_play and everycanvas (default: the definition's).")
@click.option("--width", default=128, show_default=True, help="Of next_play.")
@click.option(
    "--trunk",
    help="Registered trunk of next_play and everycanvas, such as hstu or hstu+time (default: the definition's).",
)
@click.option("--home", type=click.Path(path_type=Path), help="Where the workspace is kept (default: thrown away).")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, models, seeds, protocol, epochs, width, trunk, home, out, as_json):
    """Measure models, and write a row for each.

    Example: python tests/benchmarks/sequence_quality.py --data ml-1m --models popular,ease --json
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(home or Path(scratch), data, mapping, protocol)
        for model in models.split(","):
            for seed in [int(text) for text in seeds.split(",")] if model not in BASELINES else [None]:
                for row in rows_of(log, model, seed, epochs, width, trunk, Path(scratch)):
                    print(json.dumps(row), flush=True)
                    keep(row, out)
    if as_json:
        print(json.dumps(summary(json.loads(out.read_text())["rows"])))


@dataclass(frozen=True)
class Log:
    """The tables of a log and what a protocol holds out of them."""

    tables: Tables
    frames: EvaluationTables
    door: FeatureDoor
    split: object
    workspace: object

    @classmethod
    def of(cls, home, data, mapping, protocol):
        """Read the log, unless `home` has it already; MovieLens-100K where there is no folder."""
        workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="ml1m")).workspace()
        if not (workspace.folder / "tables").exists():
            source = ("movielens_100k",) if data is None else ("parquet", {"path": data, "mapping": mapping})
            ingest(workspace, *source)
            FeatureDoor(workspace).apply()
            build_features(workspace)
        tables = Tables(workspace)
        return cls(
            tables,
            EvaluationTables.read(tables),
            FeatureDoor(workspace),
            make_split(protocol, tables.interactions()),
            workspace,
        )

    @cached_property
    def case(self):
        """The test fold on home."""
        return build_case(self.frames, self.split, load_zoo(ROOT / "model_zoo").model("everycanvas"), "home")


class SomeColumns:
    """A feature door that knows some title features and nothing of members and requests.

    Args:
        door: Where they come from.
        names: Columns, in the order of their service.
    """

    def __init__(self, door, *names):
        self.door, self.names = door, names

    def schema(self, service):
        """Return these columns."""
        found = self.door.schema(service)
        return replace(found, columns=tuple(column for column in found.columns if column.name in self.names))

    def member_features(self, service, frame):
        """Return the rows as they are."""
        return frame

    def title_snapshots(self, service, moments, title_ids):
        """Return these columns of every title at every moment."""
        found = self.door.title_snapshots(service, moments, title_ids)
        places = [found.columns.index(name) for name in self.names]
        values, categorical = found.values[:, :, places], found.categorical.select("title_id")
        return replace(found, columns=self.names, values=values, categorical=categorical)


def plain(resolved, width):
    """Return everycanvas for a log that has plays and no more: ids of titles, one head, one canvas.

    No metadata of titles, so nothing of the id vectors is hidden in training; no member features, no made rows.
    """
    found = json.loads(resolved.to_json())
    model, home = found["model"], found["canvases"]["home"]
    home |= {"blend": {"discovery_play": 1.0}, "context": ["member"]}
    model["heads"] = {"discovery_play": model["heads"]["discovery_play"]}
    model |= {"canvases": ["home"], "tasks": {}}
    model["contexts"] |= dict.fromkeys(("task", "imputation", "crossing", "title_crossing"), False)
    model["titles"] |= {"metadata": [], "age_gate": False, "id_mask": 0}
    model["trunk"]["dim"] = width
    return ResolvedModel.model_validate(found | {"canvases": {"home": home}, "rows": {}})


def with_trunk(resolved, trunk):
    """Return a definition with another trunk of the same sizes; `+time` adds its bias for time."""
    kind, plus, _ = trunk.partition("+time")
    found = json.loads(resolved.to_json())
    shared = resolved.model.trunk.model_dump(include=set(TrunkOptions.model_fields))
    found["model"]["trunk"] = shared | {"type": kind} | ({"time_bias": True} if plus else {})
    return ResolvedModel.model_validate(found)


def rows_of(log, model, seed, epochs, width, trunk, scratch):
    """Train a model and yield its rows."""
    log.case.log.fitted_plays()  # read once for all, so that no model pays for it
    begun = time.process_time()
    if model in NETWORKS:
        yield from network_rows(log, model, seed, epochs, width, trunk, scratch)
        return
    if model == "sasrec":
        plays, backoff = log.case.log.fitted_plays(), popular(log.case).shares
        function = SasRec.fit(log.case.catalogue, plays, replace(SASREC, seed=seed), backoff=backoff, watch=tell)
    else:
        function = build_baseline(model, log.case)
    yield row_of(log, model, seed, time.process_time() - begun, function)


def network_rows(log, model, seed, epochs, width, trunk, scratch):
    """Train one of our networks; yield it alone, and with its terms."""
    resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
    door = log.door
    if model == "next_play":
        resolved, door = plain(resolved, width), SomeColumns(log.door, WEEK)
    name = model
    if trunk not in (None, resolved.model.trunk.type):
        name, resolved = f"{model} ({trunk})", with_trunk(resolved, trunk)
    options = TrainOptions(protocol=log.split.protocol, seed=seed, epochs=epochs)
    resolved = options.applied(resolved)
    begun = time.process_time()
    data = build_training_set(log.tables, resolved, log.split, door, workspace_clock(log.workspace))
    resolved = data.trained(resolved)
    network = build_network(resolved, data)
    network = fit(network, data, loop_settings(resolved), report=tell_epoch).network
    alone = time.process_time() - begun
    scorer = scorer_of(log, resolved, data, network, door, scratch)
    about = {"epochs": loop_settings(resolved).total_epochs(data.steps()), "width": resolved.model.trunk.dim}
    yield row_of(log, name, seed, alone, CanvasScorer(scorer, resolved, "home", door)) | about
    begun = time.process_time()
    events = log_of(log.split, log.frames)
    network = add_terms(network, terms_config(resolved, data.encoder), events, data.encoder)
    scorer = scorer_of(log, resolved, data, network, door, scratch)
    learnt, resolved = learn_weights(ValidationFold(scorer, events, log.split, log.frames, door, seed), resolved)
    spent = alone + time.process_time() - begun
    row = row_of(log, f"{name} + terms", seed, spent, CanvasScorer(scorer, resolved, "home", door))
    home = next(gain for gain in learnt[0].gains if gain.canvas == "home")
    ends = (home.gain.low, home.gain.value, home.gain.high)
    gained = {"validation_ndcg@10": round(home.written, 4), "validation_gain": [round(float(end), 4) for end in ends]}
    weights = learnt[0].weights.group_by("term", maintain_order=True).agg("weight").rows()
    yield row | about | gained | {"weights": {term: own for term, own in weights}}


def scorer_of(log, resolved, data, network, door, scratch):
    """Return what scores requests with a network as the shipped service does."""
    folder = scratch / "bundle"
    write_bundle(
        folder,
        resolved=resolved,
        encoder=data.encoder,
        config=network.config,
        weights=network.state_dict(),
        plays=data.plays,
    )
    titles = log.frames.titles_at(data.watermark)
    return Scorer(
        read_bundle(folder), titles, log.frames.availability, door, as_of=data.watermark, network=network.eval()
    )


def row_of(log, model, seed, seconds, function):
    """Measure a model on the test fold."""
    found = measure(log.case, {model: function}, (10,))[model]
    return {
        "model": model,
        "protocol": log.split.protocol,
        "seed": seed,
        "requests": len(log.case),
        "hr@10": round(float(found.values["hr@10"].mean()), 4),
        "ndcg@10": round(float(found.values["ndcg@10"].mean()), 4),
        "debiased_hr@10": round(debiased_hits(log.case, found.ranks), 4),
        "seconds": round(seconds),
    }


def debiased_hits(case, ranks, cut=10):
    """Return the expected share of requests with a hit, when targets of the most popular titles are thinned out.

    Each target is kept with probability fence / count, so a request counts by the chance that any of its targets is
    kept, and hits by the chance that one in its list is.

    Args:
        case: Requests and targets.
        ranks: [M] rank of each target, 0 where it was no candidate.
        cut: Length of the list.
    """
    counts = np.bincount(case.columns, minlength=len(case.catalogue)).astype(np.float64)
    low, high = np.quantile(counts[counts > 0], [0.25, 0.75])
    kept = np.minimum(1.0, (high + 1.5 * (high - low)) / np.maximum(counts, 1.0))[case.columns]
    hit = (ranks > 0) & (ranks <= cut)
    none, none_hit = np.ones(len(case)), np.ones(len(case))
    np.multiply.at(none, case.rows, 1 - kept)
    np.multiply.at(none_hit, case.rows, np.where(hit, 1 - kept, 1.0))
    return float((1 - none_hit).sum() / (1 - none).sum())


def keep(row, out):
    """Put a row into the file, in place of an earlier one."""
    key = ("model", "protocol", "seed")
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [other for other in rows if any(other[name] != row[name] for name in key)]
    rows = sorted([*rows, row], key=lambda one: (one["protocol"], one["model"], one["seed"] or 0))
    lines = ",\n".join(f"  {json.dumps(one)}" for one in rows)
    out.write_text(f'{{"rows": [\n{lines}\n]}}\n')


def summary(rows):
    """Return each model's means over its seeds, by protocol."""
    found = {}
    for row in rows:
        found.setdefault(row["protocol"], {}).setdefault(row["model"], []).append(row)
    return {
        protocol: {
            model: {"seeds": len(own)}
            | {
                name: statistics.mean(row[name] for row in own)
                for name in ("hr@10", "ndcg@10", "debiased_hr@10", "seconds")
            }
            for model, own in models.items()
        }
        for protocol, models in found.items()
    }


def tell(epoch, loss, quality):
    """Print how sasrec comes on."""
    print(f"epoch {epoch}: loss {loss:.3f}, NDCG@10 of plays held back {quality:.4f}", flush=True)


def tell_epoch(numbers, _checkpoint):
    """Print how a network comes on."""
    print(
        f"epoch {numbers['epoch']:.0f}: loss {numbers['loss']:.3f}, {numbers['tokens_per_second']:.0f} tokens/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
