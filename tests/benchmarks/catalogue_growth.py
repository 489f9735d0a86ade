"""What `train everycanvas` costs as the catalogue grows and the log does not.

    python tests/benchmarks/catalogue_growth.py --json
    python tests/benchmarks/catalogue_growth.py --titles 8400 --events 165000 --members 17900 --json

For each size, in a process of its own on one thread: CPU seconds until the network is trained (the training set, its
start, the steps, the weights of terms) and until it is evaluated and registered (canvases home, search and
more_like_this, features tried, MLflow), and the most memory that the process ever had. `growth` is the exponent of
both together against titles, by least squares in logarithms. The log is that of tests/fixtures/large_catalogue.py.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import fixtures_path  # noqa: F401
import numpy as np

ROOT = Path(__file__).parents[2]
CANVASES = ("home", "search", "more_like_this")
TRAINING = ("build the training set", "start the network", "train", "learn the weights of terms")


@click.command()
@click.option("--titles", multiple=True, type=int, default=(1_000, 10_000, 50_000), show_default=True)
@click.option("--events", default=30_000, show_default=True, help="Plays in the log, about.")
@click.option("--members", default=3_000, show_default=True)
@click.option("--steps", default="shipped", show_default=True, help="As many as the definition says, or a number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("--folder", type=click.Path(path_type=Path), hidden=True, help="Measure one size, here.")
def main(titles, events, members, steps, as_json, folder):
    """Measure every size, and how cost grows."""
    if folder is not None:
        print(json.dumps(measured(folder, titles[0], events, members, steps)))
        return
    sizes = [in_its_own_process(size, events, members, steps) for size in titles]
    for one in sizes:
        print(
            f"{one['titles']:>7,} titles: train {one['train_seconds']:.0f} s ({one['steps']} steps), "
            f"evaluate {one['evaluate_seconds']:.0f} s, {one['peak_gib']:.2f} GiB"
        )
    seconds = [one["train_seconds"] + one["evaluate_seconds"] for one in sizes]
    growth = float(np.polyfit(np.log(titles), np.log(seconds), 1)[0]) if len(sizes) > 1 else None
    peak = max(one["peak_gib"] for one in sizes)
    if growth is not None:
        print(f"CPU seconds grow with the number of titles to the power of {growth:.2f}")
    if as_json:
        print(json.dumps({"growth": growth, "peak_gib": peak, "events": events, "members": members, "sizes": sizes}))


def in_its_own_process(size, events, members, steps):
    """Measure one size where nothing was measured before."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"--titles": size, "--events": events, "--members": members, "--steps": steps, "--folder": folder}
        command = [sys.executable, __file__, *(str(part) for pair in options.items() for part in pair)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(folder, titles, events, members, steps):
    """Return what one size costs."""
    from playbill.config import ProjectFolder
    from playbill.training.run import train

    start_project(folder, steps)
    workspace = ProjectFolder.find(folder).workspace()
    fill(workspace, folder / "data", titles, members, events)
    stages = StageSeconds()
    outcome = train(workspace, "everycanvas", watcher=stages)
    stages.stage("end")
    seconds = stages.seconds
    return {
        "titles": titles,
        "steps": stages.steps,
        "train_seconds": round(sum(seconds.get(name, 0.0) for name in TRAINING), 1),
        "evaluate_seconds": round(sum(spent for name, spent in seconds.items() if name not in TRAINING), 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "stages": {name: round(spent, 1) for name, spent in seconds.items()},
        "requests": {canvas: len(report.requests) for canvas, report in outcome.evaluation.reports.items()},
    }


def start_project(folder, steps):
    """Start a project whose model has three canvases."""
    subprocess.run([sys.executable, "-m", "playbill.cli", "init", str(folder)], check=True, capture_output=True)
    (folder / "playbill.toml").write_text('workspace = "growth"\n[workspaces.growth]\n[training]\nthreads = 1\n')
    model = folder / "model_zoo" / "models" / "everycanvas" / "model.yaml"
    text = re.sub(r"canvases:\n(  - \w+\n)+", f"canvases: [{', '.join(CANVASES)}]\n", model.read_text(), count=1)
    if steps != "shipped":
        own = {"epochs": 1, "min_steps": steps, "max_epochs": 1000}
        for name, value in own.items():
            text = re.sub(rf"\b{name}: \d+", f"{name}: {value}", text)
    model.write_text(text)


def fill(workspace, data, titles, members, events):
    """Bring in a log, and compute what is known of its titles and members."""
    from fixtures.large_catalogue import write_large_catalogue
    from playbill.features import FeatureDoor, build_features
    from playbill.sources import ingest

    mapping = write_large_catalogue(data, titles, members, events)
    ingest(workspace, "parquet", {"path": data, "mapping": mapping})
    FeatureDoor(workspace).apply()
    build_features(workspace)


class StageSeconds:
    """CPU seconds of each stage of a run, said as they end."""

    def __init__(self):
        self.seconds, self.steps, self._name, self._begun = {}, 0, None, time.process_time()

    def stage(self, name):
        """End the stage before."""
        now = time.process_time()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._begun
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"  {self._name}: {self.seconds[self._name]:.1f} s, {peak:.2f} GiB", file=sys.stderr, flush=True)
        self._name, self._begun = name, now

    def advance(self, done, total, detail=""):
        """Count the steps."""
        if self._name == "train":
            self.steps = done


if __name__ == "__main__":
    main()
