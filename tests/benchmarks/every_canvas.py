"""The shipped model of a log beside EASE, item_knn and the popularities on every canvas of it, over several logs.

    python tests/benchmarks/every_canvas.py --json
    python tests/benchmarks/every_canvas.py --log world:4000:28:31 --log ml_100k --json
    python tests/benchmarks/every_canvas.py --log ml_1m:../shared/data/ml-1m --keep docs/results/every_canvas.json
    python tests/benchmarks/every_canvas.py --log kuairand:../shared/data/kuairand-pure:5000

A log is `world:MEMBERS:DAYS:SEED` (simulated, 600 titles), `world:NAME:SEED` (as `playbill simulate --world NAME`),
`ml_100k`, `ml_1m:FOLDER`, `kuairand:FOLDER:MEMBERS` (drawn at random), or one of these with `days/` before it: the same
log with whole-day times. The model is `everycanvas`, of KuaiRand `kuairand`. Works in a scratch project. Of each canvas
that the log has requests of: the model, the best of the baselines, the relative difference with its paired interval by
member, and the ceiling where the truth is known. `worst_lower_end` is the lowest lower end over canvases with 300
requests or more: of this run, or with `--keep` of every log that a file has rows of.
"""

import json
import math
import resource
import tempfile
from pathlib import Path

import click
import numpy as np
import polars as pl
from kuairand import keep_members

from playbill.config import ProjectFolder, ProjectSettings
from playbill.evaluation.report import CEILING
from playbill.features import FeatureDoor, build_features
from playbill.metrics.comparisons import relative_interval
from playbill.sources import ingest
from playbill.tables import Tables
from playbill.training.options import TrainOptions
from playbill.training.run import train
from playbill_lab.simulator.workspace import simulate_workspace
from playbill_lab.simulator.world.spec import read_spec, read_world_file

ROOT = Path(__file__).parents[2]
LOGS = ("world:4000:28:31", "world:20000:28:32", "world:4000:150:33", "ml_100k", "days/ml_100k")
METRIC, ENOUGH = "ndcg@10", 300
BASELINES = ("ease", "item_knn", "popular", "popular_7d")


@click.command()
@click.option("--log", "logs", multiple=True, default=LOGS, show_default=True)
@click.option("--protocol", help="Default: global_time_successive for worlds and KuaiRand, else leave_one_out.")
@click.option("--seed", default=17, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="JSON file whose rows of these logs are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(logs, protocol, seed, keep, as_json):
    """Train on each log, and compare every canvas.

    Example: python tests/benchmarks/every_canvas.py --log world:4000:28:31 --json
    """
    rows = json.loads(keep.read_text())["canvases"] if keep and keep.exists() else []
    for name in logs:
        rows = [row for row in rows if row["log"] != without_folder(name)] + of_log(name, protocol, seed)
        ends = [row["low"] for row in rows if row["requests"] >= ENOUGH and row["low"] is not None]
        result = {"worst_lower_end": min(ends, default=None), "metric": METRIC, "canvases": rows}
        if keep:
            keep.write_text(json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))


def of_log(name, protocol, seed):
    """Train on one log and return a row for each of its canvases."""
    kind = name.removeprefix("days/").split(":")
    chosen = protocol or ("global_time_successive" if kind[0] in ("world", "kuairand") else "leave_one_out")
    with tempfile.TemporaryDirectory() as home:
        workspace = ProjectFolder(ROOT, ProjectSettings(home=home, workspace="bench")).workspace()
        bring_in(workspace, kind)
        if name.startswith("days/"):
            whole_days(workspace)
        FeatureDoor(workspace).apply()
        build_features(workspace)
        begun = cpu_seconds()
        model = "kuairand" if kind[0] == "kuairand" else "everycanvas"
        outcome = train(workspace, model, TrainOptions(protocol=chosen, seed=seed))
        spent = cpu_seconds() - begun
    about = {"log": without_folder(name), "protocol": chosen, "cpu_seconds": round(spent)}
    rows = [about | row for row in map(of_canvas, outcome.evaluation.reports.values()) if row]
    for row in rows:
        ends = "no interval" if row["low"] is None else f"{row['low']:+.1%} to {row['high']:+.1%}"
        means = f"{row['model']:.4f}, {row['best']} {row['baseline']:.4f}"
        if row["ceiling"] is not None:
            means += f", ceiling {row['ceiling']:.4f} ({row['model'] / row['ceiling']:.0%} of it)"
        print(f"{row['log']} {row['canvas']} ({row['requests']}): {means}, {ends}", flush=True)
    return rows


def without_folder(log):
    """Return a log's name without where its data lies: `kuairand:5000` of `kuairand:FOLDER:5000`."""
    return ":".join(part for part in log.split(":") if not Path(part).is_dir())


def bring_in(workspace, kind):
    """Fill the workspace's tables."""
    source, *rest = kind
    if source == "world":
        *size, seed = rest
        if len(size) == 1:
            spec = read_world_file(Path(size[0]), {"seed": int(seed)})
        else:
            spec = read_spec({"members": int(size[0]), "days": int(size[1]), "seed": int(seed)})
        simulate_workspace(workspace, spec)
    elif source == "ml_100k":
        ingest(workspace, "movielens_100k")
    elif source == "ml_1m":
        ingest(workspace, "parquet", {"path": Path(rest[0]), "mapping": ROOT / "docs/guide/mappings/ml_1m.yaml"})
    else:
        ingest(workspace, source, {"path": Path(rest[0])})
        keep_members(Tables(workspace), int(rest[1]))


def whole_days(workspace):
    """Cut the times of the log to days, as a log of purchases has them."""
    tables = Tables(workspace)
    frames = {name: getattr(tables, name)() for name in ("titles", "availability", "interactions")}
    frames["members"] = tables.member_versions()
    day = {name: pl.col(name).dt.truncate("1d") for name in ("event_at", "recorded_at")}
    frames["interactions"] = frames["interactions"].with_columns(**day)
    with tables.replace() as writer:
        for name, frame in frames.items():
            writer.write(name, frame)


def of_canvas(report):
    """Return what a report says of the model and its best baseline; nothing of made requests, or of rows."""
    requests = report.requests
    others = {name: requests[f"{name}/{METRIC}"].to_numpy() for name in BASELINES if f"{name}/{METRIC}" in requests}
    if not others or not report.protocol.startswith(("leave_one_out", "global_time")):
        return None
    own = requests[f"{report.model}/{METRIC}"].to_numpy()
    best = max(others, key=lambda name: others[name].mean())
    members = requests["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    found = relative_interval(members, own[None], others[best][None])
    ceiling = requests[f"{CEILING}/{METRIC}"].mean() if f"{CEILING}/{METRIC}" in requests else None
    return {
        "canvas": report.canvas,
        "requests": len(own),
        "model": float(own.mean()),
        "best": best,
        "baseline": float(others[best].mean()),
        "relative": number(found.value),
        "low": number(found.low),
        "high": number(found.high),
        "ceiling": ceiling,
        "asked_as_logged": not any("no held-out target on" in note for note in report.notes),
    }


def number(value):
    """Return a number that JSON has, None where a baseline scored 0 throughout."""
    return None if math.isnan(value) else float(value)


def cpu_seconds():
    """Return the processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
