"""How long all feature views take to build from a long log, and whether their values are those of plain loops.

    .venv/bin/python tests/benchmarks/feature_build.py --json
    .venv/bin/python tests/benchmarks/feature_build.py --events 1000000 --increment-hours 1

Makes a seeded log of bursty sessions over a year (`event_log_problem.py`), ingests it, builds every view in a process
of its own, and compares a sample of members, titles, pairs and countries at random moments, and at moments at which a
state begins, with loops over their events (`tests/fixtures/plain_features.py`). Then lets some hours of events arrive
and times the increment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import fixtures_path  # noqa: F401

os.environ.setdefault("POLARS_MAX_THREADS", "2")
import numpy as np
import polars as pl
from event_log_problem import DAYS, START, event_log
from rich.console import Console
from rich.table import Table

from fixtures import plain_features as plain
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.features import build_features
from playbill.features.titles import LEVELS
from playbill.features.views import EVENT_COLUMNS, EVENT_VIEWS
from playbill.tables import Tables, canonical_frame

END = START + timedelta(days=DAYS)


def main() -> None:
    given = arguments()
    if given.stage:
        print(json.dumps(STAGES[given.stage](given)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        made = stage("make", given, folder)
        built = stage("build", given, folder)
        compared = stage("compare", given, folder)
        arrived = stage("increment", given, folder) if given.increment_hours else {}
    result = {**built, **compared, "events": made["events"], **arrived}
    if given.json:
        print(json.dumps(result))
    else:
        show(result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--titles", type=int, default=20_000)
    parser.add_argument("--countries", type=int, default=200)
    parser.add_argument("--sample", type=int, default=40, help="keys of every view that are compared")
    parser.add_argument("--increment-hours", type=int, default=1, help="0 leaves the increment out")
    parser.add_argument("--folder", help="where the log is made (default: the system's temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    return parser.parse_args()


def stage(name: str, given: argparse.Namespace, folder: str) -> dict:
    """Run one stage in a process of its own, so that its memory is its own."""
    words = [f"--{key.replace('_', '-')}={value}" for key, value in vars(given).items() if key in PASSED]
    command = [sys.executable, __file__, "--stage", name, "--folder", folder, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def workspace(given: argparse.Namespace) -> Workspace:
    return ProjectFolder(Path(given.folder), ProjectSettings()).workspace("log")


def make(given: argparse.Namespace) -> dict:
    log = event_log(given.events, given.members, given.titles, given.countries, given.seed)
    log.write(workspace(given))
    return {"events": log.interactions.height}


def build(given: argparse.Namespace) -> dict:
    started = time.perf_counter()
    report = build_features(workspace(given), until=END)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "rows": sum(view.rows for view in report.views),
        "seconds_by_view": {view.view: round(view.seconds, 1) for view in report.views},
        "rows_by_view": {view.view: view.rows for view in report.views},
        "mib_on_disk": round(sum(p.stat().st_size for v in report.views for p in v.path.iterdir()) / 2**20),
    }


def increment(given: argparse.Namespace) -> dict:
    """Let as many events arrive as a year's log has in some hours, a tenth of them late, and build again."""
    count = max(10, given.events * given.increment_hours // (DAYS * 24))
    fresh = event_log(count, given.members, given.titles, given.countries, given.seed + 1).interactions
    late = np.random.default_rng(0).random(fresh.height) < 0.1
    end = pl.lit(END).dt.cast_time_unit("us")
    spread = (pl.col("event_at").rank("ordinal") * given.increment_hours * 3_600_000_000 // fresh.height).cast(pl.Int64)
    at = pl.when(pl.Series(late)).then("event_at").otherwise(end + pl.duration(microseconds=spread))
    fresh = fresh.with_columns(
        pl.format("new-{}", "event_id").alias("event_id"),
        at.alias("event_at"),
        (end + timedelta(hours=given.increment_hours)).alias("recorded_at"),
        pl.col("seq") + 10 * given.events,
    )
    frame, mistakes = canonical_frame("interactions", fresh)
    assert not mistakes, mistakes
    Tables(workspace(given)).append_events(frame)
    started = time.process_time(), time.perf_counter()
    report = build_features(workspace(given), until=END + timedelta(hours=given.increment_hours))
    assert all(view.how in ("increment", "unchanged") for view in report.views), report
    return {
        "increment_events": frame.height,
        "increment_seconds": round(time.perf_counter() - started[1], 1),
        "increment_cpu_seconds": round(time.process_time() - started[0], 1),
        "increment_rows": sum(view.written for view in report.views),
        "increment_rows_by_view": {view.view: view.written for view in report.views},
    }


def compare(given: argparse.Namespace) -> dict:
    tables = Tables(workspace(given))
    events = tables.interactions(columns=(*EVENT_COLUMNS, "seq"))
    genres = dict(tables.titles().select("title_id", "genres").iter_rows())
    states = {
        "member_activity": lambda own, at: plain.activity(own, genres, at),
        "member_genres": lambda own, at: plain.taste(own, genres, at),
        "member_session": lambda own, at: plain.session(own, genres, at),
        "title_popularity": plain.popularity,
        "title_anticipation": plain.anticipation,
        "title_country_popularity": lambda own, at: plain.popularity(own, at, plain.COUNTRY_WINDOWS),
        "country_popularity": lambda own, at: plain.country(own, at, LEVELS),
    }
    rng = np.random.default_rng(given.seed)
    checked, wrong = 0, []
    for view, state in states.items():
        for key, own, rows in sampled(given, view, events, rng):
            for at in moments(rows, rng):
                expected, found = state(own, at), rows.filter(pl.col("event_timestamp") <= at).tail(1).to_dicts()
                checked += 1
                if not same(expected, found[0] if found else None):
                    wrong.append((view, key, at.isoformat(), expected, found))
    for line in wrong[:3]:
        print(line, file=sys.stderr)
    return {"equal_to_reference": int(not wrong), "values_compared": checked}


def sampled(given: argparse.Namespace, view: str, events: pl.DataFrame, rng: np.random.Generator):
    """Yield keys drawn by their events (so that busy ones are among them), their events, and their rows."""
    spec = EVENT_VIEWS[view]
    counted = events.filter(spec.counted())
    drawn = counted[rng.integers(0, counted.height, given.sample)].select(spec.keys).unique(maintain_order=True)
    if spec.keys == ("country",):
        rare = counted.group_by("country").len().sort("len").head(given.countries // 2)
        drawn = rare.sample(min(rare.height, 3), seed=given.seed).select(spec.keys)
    own = events.join(drawn, on=spec.keys, how="semi").sort("event_at", "seq")
    folder = workspace(given).features / f"{view}.parquet"
    rows = pl.scan_parquet(sorted(folder.glob("part-*.parquet"))).join(drawn.lazy(), on=spec.keys, how="semi")
    ordered = rows.collect().sort("event_timestamp", "created_timestamp")
    for key in drawn.iter_rows(named=True):
        test = pl.all_horizontal(pl.col(name) == value for name, value in key.items())
        yield key, own.filter(test).to_dicts(), ordered.filter(test)


def moments(rows: pl.DataFrame, rng: np.random.Generator) -> list:
    """Return random moments of the year, and moments just before, at and after some states begin."""
    begins = rows.get_column("event_timestamp")
    some = begins.gather(rng.integers(0, len(begins), 4)).to_list()
    tick = timedelta(microseconds=1)
    found = [START + timedelta(seconds=float(s)) for s in rng.integers(0, DAYS * 86_400, 4)]
    return [at for at in [*found, *(at + step for at in some for step in (-tick, 0 * tick, tick))] if at <= END]


def same(expected: dict | None, found: dict | None) -> bool:
    if expected is None or found is None:
        return expected is found
    return all(close(value, found[name]) for name, value in expected.items())


def close(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-6)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(close, first, second))
    return first == second


def show(result: dict) -> None:
    table = Table("view", title=f"{result['events']:,} events")
    table.add_column("rows", justify="right")
    table.add_column("seconds", justify="right")
    for view, seconds in result["seconds_by_view"].items():
        table.add_row(view, f"{result['rows_by_view'][view]:,}", f"{seconds:.1f}")
    Console().print(table)
    for name, value in result.items():
        if not isinstance(value, dict):
            Console().print(f"{name}: {value:,}")


STAGES = {"make": make, "build": build, "compare": compare, "increment": increment}
PASSED = ("events", "members", "titles", "countries", "sample", "increment_hours", "seed")

if __name__ == "__main__":
    main()
