"""What a request costs from Python: opening a project, its first call, and every later one.

    python tests/benchmarks/python_api.py --json
    python tests/benchmarks/python_api.py --titles 1682 --folder scratch --json     # keeps what it makes in scratch

1,682 titles are MovieLens-100K after `playbill quickstart`, with `everycanvas` as shipped; any other number is the
catalogue of tests/fixtures/large_catalogue.py with `everycanvas` after a short training. A process of its own then
opens the project, asks for home once, and goes round the canvases, each time with another member, query or source
title, as an application would by `Project.recommend`. Requests are logged as ever. Milliseconds are of the clock on the
wall; those with `cpu` are of the processor, all threads together, and tell the same on a machine with other work.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import click
import fixtures_path  # noqa: F401
import numpy as np
from rich.console import Console
from rich.table import Table

MOVIELENS = 1_682
MEMBERS, PLAYS = 1_500, 30_000
CANVASES = ("home", "billboard", "search", "more_like_this")
COMMAND = (sys.executable, "-m", "playbill.cli")


@click.command()
@click.option("--titles", multiple=True, type=int, default=(MOVIELENS, 10_000), show_default=True)
@click.option("--calls", default=100, show_default=True, help="Later calls on each canvas.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep projects here, or use those that are here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("--measure", type=click.Path(path_type=Path), hidden=True, help="Measure one project, here.")
def main(titles, calls, folder, as_json, measure):
    """Measure catalogues of several sizes."""
    if measure is not None:
        print(json.dumps(measured(measure, calls)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {size: in_its_own_process(project(folder or Path(scratch), size), calls) for size in titles}
    show(sizes)
    if as_json:
        first = next(iter(sizes.values()))
        own = {"open_ms": first["open_ms"], "first_call_ms": first["first_call_ms"]}
        own["next_call_p50_ms"] = first["canvases"]["home"]["p50_wall_ms"]
        print(json.dumps({**own, "calls": calls, "titles": sizes}))


def project(folder, titles):
    """Return the folder of a project with a promoted model of so many titles, made where it is not there."""
    home = folder / str(titles)
    if not (home / "made").exists():
        subprocess.run([*COMMAND, "init", str(home)], check=True, stdout=subprocess.DEVNULL)
        if titles == MOVIELENS:
            playbill(home, "quickstart")
        else:
            large(home, titles)
        (home / "made").touch()
    return home


def large(home, titles):
    """Fill a project with a large catalogue, and train on it for a short time."""
    from fixtures.large_catalogue import write_large_catalogue

    (home / "playbill.toml").write_text('workspace = "large"\n[workspaces.large]\nclock = "data_end"\n')
    model = home / "model_zoo" / "models" / "everycanvas" / "model.yaml"
    text = model.read_text()
    for name, value in {"epochs": 1, "min_steps": 40, "max_epochs": 1}.items():
        text = re.sub(rf"\b{name}: \d+", f"{name}: {value}", text)
    model.write_text(text)
    mapping = write_large_catalogue(home / "data", titles, MEMBERS, PLAYS)
    playbill(home, "ingest", "parquet", str(home / "data"), "--mapping", str(mapping))
    for command in ("apply", "features build", "materialize", "train everycanvas", "promote everycanvas"):
        playbill(home, *command.split())


def playbill(home, *arguments):
    """Run a command in a project."""
    subprocess.run([*COMMAND, "--project", str(home), *arguments], check=True, stdout=sys.stderr)


def in_its_own_process(home, calls):
    """Measure a project where nothing was imported or read before."""
    command = [sys.executable, __file__, "--measure", str(home), "--calls", str(calls)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(home, calls):
    """Return milliseconds of opening, of the first call, and of later ones by canvas."""
    opening = Stopwatch()
    from playbill import Project

    opened = Project.open(home)
    opening.stop()
    first = Stopwatch()
    opened.recommend("unknown", "home")
    first.stop()
    asked = {canvas: [Stopwatch() for _ in range(calls)] for canvas in CANVASES}
    members, titles = known(opened)
    for number in range(calls):
        for canvas in CANVASES:
            member, (title, name) = next(members), next(titles)
            situation = {"search": {"query": name[: 2 + number % 7]}, "more_like_this": {"source_title": title}}
            watch = asked[canvas][number].start()
            opened.recommend(member, canvas, **situation.get(canvas, {}))
            watch.stop()
    return {
        "open_ms": opening.wall_ms,
        "first_call_ms": first.wall_ms,
        "first_call_cpu_ms": first.cpu_ms,
        "canvases": {canvas: percentiles(watches) for canvas, watches in asked.items()},
    }


def known(opened):
    """Return members, and titles with their names, in a random order that is the same every time."""
    from playbill.tables import Tables

    tables, random = Tables(opened.workspace), np.random.default_rng(3)
    members = tables.members()["member_id"].to_list()
    titles = tables.titles().select("title_id", "name").rows()
    random.shuffle(members)
    random.shuffle(titles)
    return cycle(members), cycle(titles)


class Stopwatch:
    """Milliseconds of the wall and of the processor."""

    def __init__(self):
        self.start()

    def start(self):
        """Begin again."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def stop(self):
        """Note what has passed."""
        self.wall_ms = 1e3 * (time.perf_counter() - self._wall)
        self.cpu_ms = 1e3 * (time.process_time() - self._cpu)


def percentiles(watches):
    """Return the median and the 95th percentile of wall and processor."""
    return {
        f"{at}_{kind}": float(np.percentile([getattr(watch, kind) for watch in watches], int(at[1:])))
        for kind in ("wall_ms", "cpu_ms")
        for at in ("p50", "p95")
    }


def show(sizes):
    """Print a line for each size and canvas."""
    table = Table("titles", "canvas", "p50, ms", "p95, ms", "p50 cpu, ms", title="Project.recommend")
    for size, found in sizes.items():
        print(f"{size:,} titles: open {found['open_ms']:.0f} ms, first call {found['first_call_ms']:.0f} ms")
        for canvas, ms in found["canvases"].items():
            own = (ms["p50_wall_ms"], ms["p95_wall_ms"], ms["p50_cpu_ms"])
            table.add_row(f"{size:,}", canvas, *(f"{value:.1f}" for value in own))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
