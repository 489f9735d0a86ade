"""What a daily update costs beside a full retrain, and what of its quality it keeps, on MovieLens-1M by time.

    python tests/benchmarks/update_cost.py --data ML_1M --json

The log is cut at a moment and a model is trained on what came before and promoted. Then days arrive one by one; after
each, features are brought up to date and `playbill update` makes a champion of the next version. The first update also
learns what the training had held out, and is left out of the medians. After the last day the model is trained afresh on
the very events that the last update has learnt, and both are measured on the days after, which neither has seen.

`cost_ratio`: seconds of CPU of one update (median) over those of the retrain, both whole commands in processes of their
own, with registration in MLflow and evaluation. `work_ratio`: the same without what a command costs that has nothing to
do (imports, above all), which a process that goes on pays once. `quality_ratio`: NDCG@10 of the updated version over
that of the retrained one, with an interval over members, on some plays of each in the test days, each asked after all
that came before it. Terms of histories have the weights that the first training learnt, in all of them: the retrain
learns from every event that they could be learnt on. `stale`: of the version that was never updated;
`updated_once`: of the first update's. `weights_alone`: all of them without terms.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import numpy as np
import polars as pl
import torch
import yaml

from playbill.arrays import Floats64, Indices
from playbill.config import ProjectFolder
from playbill.datasets import Split
from playbill.datasets.splits import FOLDS
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.measure import measure as measure_functions
from playbill.features import FeatureDoor
from playbill.metrics import MemberBootstrap
from playbill.project import Project
from playbill.ranking.scoring.bundle import read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables
from playbill.training.options import TrainOptions
from playbill.training.run import train
from playbill.versions.tracking import Tracking

ROOT = Path(__file__).parents[2]
MAPPING = ROOT / "docs/guide/mappings/ml_1m.yaml"
MODEL = "mine"
DAY = timedelta(days=1)
TERM_WEIGHTS = "history_terms.weights"
DRAWS = 2_000  # of members, for the interval of a ratio
SHAPE = {
    "history": {"length": 200},
    "trunk": {"type": "gated_transformer", "layers": 2, "heads": 2, "dropout": 0.1},
    "training": {"learning_rate": 4.0e-3},
    "evaluate": {"protocol": "global_time", "slices": []},
    "gates": [{"metric": "ndcg@10", "canvas": "home", "against": "champion", "tolerance": "-50%"}],
    "promote": "auto",
}


@dataclass(frozen=True)
class Spent:
    """What one command took."""

    name: str
    cpu_s: float
    wall_s: float


def main() -> None:
    """Run the days, and end with one JSON object."""
    options = _options()
    if options.stage:
        STAGES[options.stage](options)
        return
    folder = Path(options.folder)
    first = datetime.fromisoformat(options.first).replace(tzinfo=UTC)
    spent = list(_prepared(options, folder, first))
    updates: list[dict[str, Any]] = []
    for number in range(options.days + 1):
        spent.append(_command(folder, f"push day {number}", *_pushed(options, folder, first + number * DAY)))
        spent.append(_command(folder, f"features day {number}", "features", "build"))
        spent.append(_command(folder, f"update {number}", "update", MODEL, "--json", keep=updates))
        _say(spent[-1], updates[-1])
    spent.append(_command(folder, "nothing to do", "update", MODEL))
    last = first + (options.days + 1) * DAY
    spent.append(_command(folder, "push test days", *_pushed(options, folder, last, options.test_days)))
    spent.append(_command(folder, "features test days", "features", "build"))
    spent.append(_stage(options, "retrain"))
    _say(spent[-1], {})
    found: list[dict[str, Any]] = []
    _stage(options, "measure", keep=found)
    print(json.dumps(_result(spent, updates, found[0], options)))


def _result(
    spent: list[Spent], updates: list[dict[str, Any]], measured: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    daily = [one for one in spent if one.name.startswith("update ") and one.name != "update 0"]
    retrain = next(one for one in spent if one.name == "retrain")
    idle = next(one for one in spent if one.name == "nothing to do").cpu_s
    update_s = statistics.median(one.cpu_s for one in daily)
    return {
        "work_ratio": round((update_s - idle) / (retrain.cpu_s - idle), 4),
        "cost_ratio": round(update_s / retrain.cpu_s, 4),
        "wall_ratio": round(statistics.median(one.wall_s for one in daily) / retrain.wall_s, 4),
        "quality_ratio": round(measured["updated"]["ratio"], 4),
        "quality_interval": [round(end, 4) for end in measured["updated"]["ratio_interval"]],
        "stale_ratio": round(measured["stale"]["ratio"], 4),
        "measured": measured,
        "updates": updates,
        "spent": [asdict(one) for one in spent],
        "members": options.members,
        "update": options.update,
        "epochs": options.epochs,
        "width": options.width,
    }


def _prepared(options: argparse.Namespace, folder: Path, first: datetime) -> Iterator[Spent]:
    """Start a project, ingest what came before the first day, and train and promote a model."""
    Project.create(folder, minimal=True)
    definition = folder / "model_zoo" / "models" / f"{MODEL}.yaml"
    shape = SHAPE | {"update": json.loads(options.update)}
    shape["training"] = SHAPE["training"] | {"epochs": options.epochs}
    shape["trunk"] = SHAPE["trunk"] | {"dim": options.width}
    definition.write_text(yaml.safe_dump(yaml.safe_load(definition.read_text()) | shape))
    data = folder / "data"
    data.mkdir()
    for name in ("users.dat", "movies.dat", "abstracts.json"):
        (data / name).symlink_to(Path(options.data).resolve() / name)
    _events(options).filter(pl.col("at") < first).drop("at").write_parquet(data / "interactions.parquet")
    yield _command(folder, "ingest", "ingest", "parquet", str(data), "--mapping", str(MAPPING))
    yield _command(folder, "apply", "apply")
    yield _command(folder, "features", "features", "build")
    yield _command(folder, "train", "train", MODEL)
    yield _command(folder, "promote", "promote", f"{MODEL}:1")


def _events(options: argparse.Namespace) -> pl.DataFrame:
    events = pl.read_parquet(Path(options.data) / "interactions.parquet")
    events = events.with_columns(at=pl.from_epoch("timestamp_filled").dt.replace_time_zone("UTC"))
    return events.filter(pl.col("user_id") % 100 < 100 * options.members)


def _pushed(options: argparse.Namespace, folder: Path, day: datetime, days: int = 1) -> tuple[str, ...]:
    file = folder / f"events-{day:%Y-%m-%d}.parquet"
    _events(options).filter(pl.col("at").is_between(day, day + days * DAY, closed="left")).drop("at").write_parquet(
        file
    )
    return "ingest", "push", str(file), "--mapping", str(MAPPING), "--compact"


def retrain(options: argparse.Namespace) -> None:
    """Train afresh on what the last version has learnt; what it held out is for the weights of terms."""
    workspace = ProjectFolder.find(Path(options.folder)).workspace()
    split = _test_days(options)
    outcome = train(workspace, MODEL, TrainOptions(split=split))
    print(json.dumps({"version": outcome.version, "train_seconds": outcome.train_seconds}))


def _test_days(options: argparse.Namespace) -> Split:
    """Return a split that holds out the test days: `validation` is what the last update held out."""
    workspace = ProjectFolder.find(Path(options.folder)).workspace()
    tracking, log = Tracking(workspace), Tables(workspace).interactions(columns=("event_id", "event_at"))
    champion = tracking.alias(MODEL, "champion")
    learnt = frozen_split(tracking.download(MODEL, int(champion or 0)))
    day = datetime.fromisoformat(options.first).replace(tzinfo=UTC) + (options.days + 1) * DAY
    known = learnt.frame.filter(pl.col("fold").cast(pl.String) == "train").select("event_id", taken=pl.lit(True))
    fold = pl.when(pl.col("event_at") >= day).then(pl.lit("test")).when("taken").then(pl.lit("train"))
    frame = log.join(known, on="event_id", how="left", maintain_order="left").select(
        "event_id", fold=fold.otherwise(pl.lit("validation")).cast(pl.Enum(FOLDS))
    )
    return Split.at(frame, day, learnt.cutoff)


def measure(options: argparse.Namespace) -> None:
    """Measure the version that was never updated, the updated one and the retrained one on the test days."""
    workspace = ProjectFolder.find(Path(options.folder)).workspace()
    tracking, frames, features = Tracking(workspace), EvaluationTables.read(Tables(workspace)), FeatureDoor(workspace)
    split = _asked(_test_days(options), frames, options.plays)
    champion = int(tracking.alias(MODEL, "champion") or 0)
    versions = {"stale": 1, "updated_once": 2, "updated": champion, "retrained": champion + 1}
    bundles = {name: read_bundle(tracking.download(MODEL, version)) for name, version in versions.items()}
    case = build_case(frames, split, bundles["retrained"].resolved, "home")
    moment = split.cutoff or frames.end
    titles = frames.titles_at(moment)
    members = case.frame["member_id"].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    own = np.unique(members, return_inverse=True)[1]
    first = bundles["stale"].network().state_dict()[TERM_WEIGHTS]
    measured: list[dict[str, Any]] = []
    for weights in (first, torch.zeros_like(first)):
        functions: dict[str, ScoreFunction] = {"popular_7d": build_baseline("popular_7d", case)}
        for name, bundle in bundles.items():
            network = bundle.network()
            with torch.no_grad():
                network.state_dict()[TERM_WEIGHTS].copy_(weights)
            scorer = Scorer(bundle, titles, frames.availability, features, as_of=moment, network=network)
            functions[name] = CanvasScorer(scorer, bundle.resolved, "home", features)
        found = measure_functions(case, functions, (10,))
        values = np.stack([found[name].values["ndcg@10"] for name in functions], axis=1)
        measured.append(_with_intervals(list(functions), values, own))
    print(json.dumps(measured[0] | {"weights_alone": measured[1]}))


def _asked(split: Split, frames: EvaluationTables, plays: int) -> Split:
    """Keep so many held-out plays of each member, evenly spread; each is asked after what came before it."""
    test = frames.interactions.join(split.frame, on="event_id").filter(pl.col("fold").cast(pl.String) == "test")
    place = pl.int_range(pl.len()).over("member_id")
    step = (pl.len().over("member_id") / plays).ceil().cast(pl.Int64)
    kept = test.filter(place % step == 0).select("event_id", asked=pl.lit(True))
    fold = pl.when((pl.col("fold").cast(pl.String) == "test") & pl.col("asked").is_null()).then(pl.lit("validation"))
    frame = split.frame.join(kept, on="event_id", how="left", maintain_order="left").select(
        "event_id", fold=fold.otherwise(pl.col("fold").cast(pl.String)).cast(pl.Enum(FOLDS))
    )
    assert split.cutoff is not None
    return Split.at(frame, split.cutoff, split.validation_cutoff).under("global_time_successive")


def _with_intervals(names: list[str], values: Floats64, members: Indices) -> dict[str, Any]:
    """Return each model's NDCG@10, and that of each over the retrained one's, with 95 % intervals over members."""
    means = MemberBootstrap(members).intervals(values)
    result: dict[str, Any] = {"requests": len(values), "members": int(members.max()) + 1}
    result |= {
        name: dict(zip(("ndcg@10", "low", "high"), mean, strict=True)) for name, mean in zip(names, means, strict=True)
    }
    generator, sums = np.random.default_rng(0), np.zeros((int(members.max()) + 1, len(names)))
    np.add.at(sums, members, values)
    drawn = np.stack([sums[generator.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(DRAWS)])
    base = names.index("retrained")
    for place, name in enumerate(names[:base]):
        ratios = np.quantile(drawn[:, place] / drawn[:, base], (0.025, 0.975))
        result[name] |= {"ratio": values[:, place].mean() / values[:, base].mean(), "ratio_interval": ratios.tolist()}
    return result


STAGES = {"retrain": retrain, "measure": measure}


def _command(folder: Path, name: str, *arguments: str, keep: list[dict[str, Any]] | None = None) -> Spent:
    command = [sys.executable, "-m", "playbill.cli", "--project", str(folder), *arguments]
    return _timed(name, command, keep)


def _stage(options: argparse.Namespace, name: str, keep: list[dict[str, Any]] | None = None) -> Spent:
    given = ["--data", options.data, "--folder", options.folder, "--days", str(options.days), "--first", options.first]
    return _timed(
        name,
        [
            sys.executable,
            __file__,
            *given,
            "--members",
            str(options.members),
            "--plays",
            str(options.plays),
            "--stage",
            name,
        ],
        keep,
    )


def _timed(name: str, command: list[str], keep: list[dict[str, Any]] | None) -> Spent:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if keep is not None:
        keep.append(json.loads(done.stdout.strip().splitlines()[-1]))
    found = Spent(name, round(cpu, 2), round(time.perf_counter() - began, 2))
    print(f"{found.name}: {found.cpu_s} s of CPU", file=sys.stderr, flush=True)
    return found


def _say(spent: Spent, update: dict[str, Any]) -> None:
    names = ("status", "version", "events", "replayed", "new_titles", "promoted", "reason")
    print(json.dumps({name: update[name] for name in names if name in update}), file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of MovieLens-1M as the mapping reads it")
    parser.add_argument("--folder", required=True, help="where the project is made; it must not exist")
    parser.add_argument("--first", default="2000-12-12", help="first day that is not in the log of the training")
    parser.add_argument("--days", type=int, default=3, help="updates that are counted, beside the first one")
    parser.add_argument("--test-days", type=int, default=31, help="days after the last update to measure on")
    parser.add_argument("--plays", type=int, default=8, help="plays of each member to measure on")
    parser.add_argument("--members", type=float, default=1.0, help="share of the members")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--update", default="{}", help="keys of `update` in the definition, as JSON")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
