"""How long all shipped labels take on a long log, and whether they are what plain pandas says, row by row.

    .venv/bin/python tests/benchmarks/labels.py --json
    .venv/bin/python tests/benchmarks/labels.py --events 100000 --sample 2

Makes a seeded log of visits (`tests/problems/label_log.py`), labels all of it in a process of its own, and compares a
sample of its members, every label and every event, with `tests/problems/plain_labels.py`, at the end of the log and in
its middle.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))

import polars as pl
from label_log import DAYS, START, label_log
from plain_labels import PLAIN, plain_labels
from rich.console import Console
from rich.table import Table

from playbill.labels import label_events
from playbill.specs import LabelSpec
from playbill.zoo import load_zoo

END = START + timedelta(days=DAYS)
LOG, TITLES = "interactions.parquet", "titles.parquet"


def main() -> None:
    given = arguments()
    if given.stage:
        print(json.dumps(STAGES[given.stage](given)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        stage("make", given, folder)
        labelled = stage("label", given, folder)
        streamed = stage("stream", given, folder) if given.stream else {}
        compared = stage("compare", given, folder)
    plain = compared.pop("plain_seconds_per_event")
    ratio = plain / (labelled["seconds"] / labelled["events"])
    result = {**labelled, **streamed, **compared, "ratio_to_reference": round(ratio, 1)}
    if given.json:
        print(json.dumps(result))
    else:
        show(result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=12, help="members that are compared")
    parser.add_argument("--stream", action="store_true", help="also label the log from its file, block by block")
    parser.add_argument("--folder", help="where the log is made (default: the system's temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    return parser.parse_args()


def stage(name: str, given: argparse.Namespace, folder: str) -> dict:
    """Run one stage in a process of its own, so that its memory is its own."""
    words = [f"--{key}={getattr(given, key)}" for key in ("events", "members", "titles", "sample", "seed")]
    command = [sys.executable, __file__, "--stage", name, "--folder", folder, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def make(given: argparse.Namespace) -> dict:
    log = label_log(given.events, given.members, given.titles, given.seed)
    log.interactions.write_parquet(Path(given.folder) / LOG, row_group_size=250_000)
    log.titles.write_parquet(Path(given.folder) / TITLES)
    return {}


def label(given: argparse.Namespace) -> dict:
    events = pl.read_parquet(Path(given.folder) / LOG)
    before = peak_gib()
    started, cpu = time.perf_counter(), time.process_time()
    found = label_events(labels(), events, END, titles=titles(given))
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    names = list(PLAIN)
    return {
        "events": events.height,
        "labels": len(names),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "peak_gib": peak_gib(),
        "log_gib": before,
        "values": dict(zip(names, found.select(pl.col(names).count()).row(0), strict=True)),
        "positives": dict(zip(names, found.select((pl.col(names) > 0).sum()).row(0), strict=True)),
    }


def stream(given: argparse.Namespace) -> dict:
    started = time.perf_counter()
    label_events(labels(), pl.scan_parquet(Path(given.folder) / LOG), END, titles=titles(given))
    return {"stream_seconds": round(time.perf_counter() - started, 2), "stream_peak_gib": peak_gib()}


def compare(given: argparse.Namespace) -> dict:
    scan = pl.scan_parquet(Path(given.folder) / LOG)
    counts = scan.group_by("member_id").len().collect().sort("len", "member_id")
    # From the idlest to a busy one: the busiest alone would take plain pandas an hour.
    usual = counts.filter(pl.col("len") <= 2 * counts["len"].median())
    places = [round(n * (usual.height - 1) / max(1, given.sample - 1)) for n in range(given.sample)]
    drawn = usual["member_id"].gather(places).unique()
    own = scan.filter(pl.col("member_id").is_in(drawn.implode())).collect()
    genres = {title: list(of) for title, of in titles(given).select("title_id", "genres").iter_rows()}
    wrong: list[tuple] = []
    seconds = compared = 0
    for as_of in (END, START + timedelta(days=DAYS / 2)):
        started = time.perf_counter()
        plain = plain_labels(own.to_pandas(), genres, as_of)
        seconds += time.perf_counter() - started
        fast = told(own, as_of, given)
        compared += sum(len(values) for values in plain.values())
        wrong += [(event, plain.get(event), fast.get(event)) for event in {*plain, *fast} if differ(plain, fast, event)]
    for line in wrong[:3]:
        print(line, file=sys.stderr)
    return {
        "equal_to_reference": int(not wrong),
        "members_compared": len(drawn),
        "values_compared": compared,
        "plain_seconds_per_event": seconds / (2 * own.height),
    }


def told(own: pl.DataFrame, as_of: datetime, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    rows = label_events(labels(), own, as_of, titles=titles(given)).iter_rows(named=True)
    return {row["event_id"]: {name: row[name] for name in PLAIN if row[name] is not None} for row in rows}


def differ(plain: dict, fast: dict, event: str) -> bool:
    return plain.get(event, {}) != fast.get(event, {})


def labels() -> list[LabelSpec]:
    zoo = load_zoo(Path(__file__).parents[2] / "model_zoo")
    return [zoo.labels[name] for name in PLAIN]


def titles(given: argparse.Namespace) -> pl.DataFrame:
    return pl.read_parquet(Path(given.folder) / TITLES)


def peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def show(result: dict) -> None:
    table = Table("label", title=f"{result['events']:,} events")
    table.add_column("values", justify="right")
    table.add_column("positive", justify="right")
    for name, count in result["values"].items():
        table.add_row(name, f"{count:,}", f"{result['positives'][name] / max(1, count):.1%}")
    Console().print(table)
    for name, value in result.items():
        if not isinstance(value, dict):
            Console().print(f"{name}: {value:,}")


STAGES = {"make": make, "label": label, "stream": stream, "compare": compare}

if __name__ == "__main__":
    main()
