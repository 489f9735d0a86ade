"""The three ways to use a foundation, feeding one ranker of home: quality, freshness and cost side by side.

    python tests/benchmarks/integrations.py --json
    python tests/benchmarks/integrations.py --log kuairand:../shared/data/kuairand-pure:3000 --json

A log is one of `every_canvas.py`'s. A foundation is trained on its training part (`playbill pretrain`), and its vectors
are published day by day. The same ranker is then trained four times with one seed and the same passes:

- `scratch`: without the foundation
- `vectors`: reads the published vectors of members and titles as features, beside its own trunk
- `subgraph`: `init_from: {model: foundation:1, trunk: frozen}`
- `copy`: `init_from: foundation:1`

NDCG@10 on home, with paired intervals of the relative difference to `scratch` by member.
`fresh` and `stale` are the requests before which the member had no event, or some, since the day began: what happened
today is in no published vector. `train_s` is CPU time of the training run with its evaluation, `request_ms` the median
of requests to the served version.
"""

import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from every_canvas import bring_in, without_folder

from playbill import Project
from playbill.metrics.comparisons import relative_interval
from playbill.tables import Tables

METRIC = "ndcg@10"
ARMS = {
    "scratch": "",
    "vectors": "",
    "subgraph": "init_from: {model: 'foundation:1', trunk: frozen}\n",
    "copy": "init_from: foundation:1\n",
}
RANKER = """
kind: Model
name: {name}
version: 1
features: {service}
canvases: [home]
rows: []
trunk: {{type: gated_transformer, dim: {width}, layers: 2, heads: 2, dropout: 0.1}}
heads:
  discovery_play: {{label: discovery_play, loss: softmax}}
  thumbs_up: {{label: thumbs_up, loss: bce, weight: 0.3, optional: true}}
  thumbs_down: {{label: thumbs_down, loss: bce, weight: 0.1, optional: true}}
training: {{epochs: {epochs}, min_steps: {steps}, max_epochs: 12, learning_rate: 4.0e-3, seed: {seed}}}
evaluate: {{protocol: {protocol}, baselines: [], k: [10]}}
{start}"""
SERVICE = """
from playbill.features.own import extend
from published_vectors import foundation_member_vectors_v1, foundation_title_vectors_v1
from services import everycanvas_v3

with_foundation = extend(everycanvas_v3, "with_foundation", foundation_member_vectors_v1, foundation_title_vectors_v1)
"""


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--log", "name", default="world:4000:28:31", show_default=True)
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option("--steps", default=200, show_default=True, help="At least so many optimizer steps.")
@click.option("--seed", default=17, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file that the result is written to as it comes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(name, out, as_json, **options):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        project = start(Path(folder) / "project", name, options)
        begun = time.process_time()
        published = project.pretrain(protocol=options["protocol"], seed=options["seed"]).vectors.record
        about = {"log": without_folder(name), "foundation_s": round(time.process_time() - begun)}
        about |= {"members": published.members, "titles": published.titles, "vectors": published.member_rows}
        (project.workspace.project.root / "feature_repo/with_foundation.py").write_text(SERVICE)
        project.apply()
        found, frames = {}, {}
        for arm in ARMS:
            found[arm], frames[arm] = measured(project, arm)
            found[arm] |= compared(frames[arm], frames["scratch"], busy_days(project))
            print(arm, found[arm], flush=True)
            if out:
                out.write_text(json.dumps(about | {"arms": found}, indent=1) + "\n")
    if as_json:
        print(json.dumps(about | {"arms": found}))


def start(folder, name, options):
    """Return a project with the log, its features, the foundation's definition at this width, and the rankers."""
    project = Project.create(folder).select("bench")
    for arm, first in ARMS.items():
        service = "with_foundation" if arm == "vectors" else "everycanvas_v3"
        path = folder / f"model_zoo/models/{arm}/model.yaml"
        path.parent.mkdir()
        path.write_text(RANKER.format(name=arm, service=service, start=first, **options))
    model = folder / "model_zoo/models/foundation/model.yaml"
    text = model.read_text()
    wanted = {
        "dim: 128": f"dim: {options['width']}",
        "epochs: 6": f"epochs: {options['epochs']}",
        "min_steps: 400": f"min_steps: {options['steps']}",
    }
    for key, own in wanted.items():
        assert key in text
        text = text.replace(key, own, 1)
    model.write_text(text)
    bring_in(project.workspace, name.split(":"))
    project.apply()
    project.build_features()
    project.materialize()
    return project


def measured(project, arm):
    """Train a ranker; return what it costs, and its requests with their values."""
    begun = time.process_time()
    outcome = project.train(arm)
    spent = time.process_time() - begun
    report = outcome.evaluation.reports["home"]
    frame = report.requests.select("request_id", "member_id", pl.col(f"{report.model}/{METRIC}").alias("value"))
    frame = frame.join(moments(project), on="request_id", how="left", validate="1:1").sort("request_id")
    members = busy_days(project)["member_id"].unique().sort().to_list()[:60]
    for member in members[:10]:
        project.recommend(member, "home", model=arm, version=outcome.version)
    seconds = []
    for member in members[10:]:
        at = time.perf_counter()
        project.recommend(member, "home", model=arm, version=outcome.version)
        seconds.append(time.perf_counter() - at)
    return {"train_s": round(spent), "request_ms": round(1_000 * statistics.median(seconds), 1)}, frame


def moments(project):
    """Return when each request was made: its first event, or the event that asked without one."""
    events = Tables(project.workspace).interactions()
    request = pl.coalesce("request_id", "event_id").alias("request_id")
    return events.group_by(request).agg(pl.col("event_at").min())


def busy_days(project):
    """Return member_id and event_at of every event, for telling what a vector of the day before has not seen."""
    return Tables(project.workspace).interactions().select("member_id", "event_at").sort("event_at")


def compared(frame, scratch, events):
    """Return the mean, the paired difference to `scratch`, and both in requests with and without events that day."""
    assert frame["request_id"].equals(scratch["request_id"])
    before = events.rename({"event_at": "last"})
    asked = frame.sort("event_at").join_asof(
        before, left_on="event_at", right_on="last", by="member_id", allow_exact_matches=False, check_sortedness=False
    )
    stale = asked.sort("request_id").select(pl.col("last") >= pl.col("event_at").dt.truncate("1d")).to_series()
    stale = stale.fill_null(False).to_numpy()
    found = {"requests": frame.height, "ndcg": mean(frame, ~np.zeros(frame.height, bool)), "gain": gain(frame, scratch)}
    for group, rows in {"fresh": ~stale, "stale": stale}.items():
        own = {"requests": int(rows.sum()), "ndcg": mean(frame, rows)}
        found[group] = own | {"gain": gain(frame.filter(pl.Series(rows)), scratch.filter(pl.Series(rows)))}
    return found


def mean(frame, rows):
    """Return the mean of some requests."""
    return round(float(frame["value"].to_numpy()[rows].mean()), 4) if rows.any() else None


def gain(frame, scratch):
    """Return low, value and high of the relative difference."""
    if not frame.height:
        return None
    members = frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    found = relative_interval(members, frame["value"].to_numpy()[None], scratch["value"].to_numpy()[None])
    ends = (found.low, found.value, found.high)
    return None if any(map(math.isnan, ends)) else [round(float(end), 4) for end in ends]


if __name__ == "__main__":
    main()
