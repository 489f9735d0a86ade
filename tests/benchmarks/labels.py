"""How long all shipped labels take on a long log, and whether they are what plain pandas says, row by row.

    .venv/bin/python tests/benchmarks/labels.py --json
    .venv/bin/python tests/benchmarks/labels.py --events 100000 --sample 2

Makes a seeded log of visits (`tests/fixtures/label_log.py`) as the tables of a workspace. Then a process of its own
does what `playbill labels publish` does, without Feast's registry: it reads the log, tells every shipped label of every
event, and writes a file for each label. `seconds` is all of that, `peak_gib` the most memory that process ever held.
`label_seconds` is the telling alone, of a log that is in memory already.

A sample of members, every label and every event, is compared with `tests/fixtures/plain_labels.py`, at the end of the
log and in its middle. `ratio_to_reference` is the CPU time plain pandas takes for an event over that of the telling.
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
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import fixtures_path  # noqa: F401

os.environ.setdefault("POLARS_MAX_THREADS", "2")
import polars as pl
from rich.console import Console
from rich.table import Table

from fixtures.label_log import DAYS, START, label_log
from fixtures.plain_labels import PLAIN, plain_labels
from playbill.config import ProjectFolder, Workspace
from playbill.definitions.specs import LabelSpec
from playbill.definitions.zoo import load_zoo
from playbill.features import LabelValues
from playbill.features.labels import write_labels
from playbill.labels import label_events, label_parts, labeler, published_rows, summarise
from playbill.tables import Tables

END = START + timedelta(days=DAYS)


def main() -> None:
    given = arguments()
    if given.stage:
        print(json.dumps(STAGES[given.stage](given)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = {name: run(name, given, folder) for name in STAGES}
    progress, plain = found["tell"], found["compare"].pop("plain_seconds_per_event")
    ratio = plain / (progress["label_cpu_seconds"] / found["publish"]["events"])
    result = {**found["publish"], **progress, **found["compare"], "ratio_to_reference": round(ratio, 1)}
    counts = found["count"]["by_label"]
    if given.json:
        print(json.dumps({**result, "by_label": counts}))
    else:
        show(result, counts)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=12, help="members that are compared")
    parser.add_argument("--folder", help="where the log is made (default: the system's temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    return parser.parse_args()


def run(stage: str, given: argparse.Namespace, folder: str) -> dict:
    """Run one stage in a process of its own, so that its memory is its own."""
    words = [f"--{key}={getattr(given, key)}" for key in ("events", "members", "titles", "sample", "seed")]
    command = [sys.executable, __file__, "--stage", stage, "--folder", folder, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def make(given: argparse.Namespace) -> dict:
    (Path(given.folder) / "playbill.toml").write_text("[workspaces.log]\n")
    label_log(given.events, given.members, given.titles, given.seed).write(workspace(given))
    return {}


def publish(given: argparse.Namespace) -> dict:
    started, cpu = time.perf_counter(), time.process_time()
    values = [LabelValues(label.name, labeler(label), partial(published_rows, label)) for label in labels()]
    done = write_labels(workspace(given).features, values, parts(given), END)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    return {
        "events": tables(given).row_counts()["interactions"],
        "labels": len(done),
        "values": sum(label.rows for label in done),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "peak_gib": peak_gib(),
    }


def tell(given: argparse.Namespace) -> dict:
    log = tables(given).interactions()
    started, cpu = time.perf_counter(), time.process_time()
    label_events(labels(), log, END, titles=tables(given).titles())
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    return {"label_seconds": round(seconds, 2), "label_cpu_seconds": round(used, 2)}


def count(given: argparse.Namespace) -> dict:
    found = summarise(labels(), parts(given), END)
    keys = ("positives", "zeros", "too_young", "unlabelled")
    return {"by_label": {label.name: {key: getattr(label, key) for key in keys} for label in found}}


def compare(given: argparse.Namespace) -> dict:
    scan = log(given)
    counts = scan.group_by("member_id").len().collect().sort("len", "member_id")
    # From the idlest to a busy one: the busiest alone would take plain pandas an hour.
    usual = counts.filter(pl.col("len") <= 2 * counts["len"].median())
    places = [round(n * (usual.height - 1) / max(1, given.sample - 1)) for n in range(given.sample)]
    drawn = usual["member_id"].gather(places).unique()
    own = scan.filter(pl.col("member_id").is_in(drawn.implode())).collect()
    titles = tables(given).titles()
    genres = {title: list(of) for title, of in titles.select("title_id", "genres").iter_rows()}
    wrong: list[tuple] = []
    seconds = compared = 0
    for as_of in (END, START + timedelta(days=DAYS / 2)):
        started = time.process_time()
        plain = plain_labels(own.to_pandas(), genres, as_of)
        seconds += time.process_time() - started
        fast = progress(own, as_of, titles)
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


def progress(own: pl.DataFrame, as_of: datetime, titles: pl.DataFrame) -> dict[str, dict[str, float]]:
    rows = label_events(labels(), own, as_of, titles=titles).iter_rows(named=True)
    return {row["event_id"]: {name: row[name] for name in PLAIN if row[name] is not None} for row in rows}


def differ(plain: dict, fast: dict, event: str) -> bool:
    return plain.get(event, {}) != fast.get(event, {})


def labels() -> list[LabelSpec]:
    zoo = load_zoo(Path(__file__).parents[2] / "model_zoo")
    return [zoo.labels[name] for name in PLAIN]


def workspace(given: argparse.Namespace) -> Workspace:
    return ProjectFolder.find(Path(given.folder)).workspace("log")


def tables(given: argparse.Namespace) -> Tables:
    return Tables(workspace(given))


def log(given: argparse.Namespace) -> pl.LazyFrame:
    return tables(given).published().log(None, None, None)


def parts(given: argparse.Namespace) -> Iterator[pl.DataFrame]:
    return label_parts(labels(), log(given), END, titles=tables(given).titles())


def peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def show(result: dict, counts: dict) -> None:
    table = Table("label", title=f"{result['events']:,} events")
    for column in ("values", "ones", "too young", "share too young"):
        table.add_column(column, justify="right")
    for name, found in counts.items():
        values, young = found["positives"] + found["zeros"], found["too_young"]
        shares = (f"{found['positives'] / max(1, values):.1%}", f"{young:,}", f"{young / max(1, values + young):.1%}")
        table.add_row(name, f"{values:,}", *shares)
    Console().print(table)
    for name, value in result.items():
        Console().print(f"{name}: {value:,}")


STAGES = {"make": make, "publish": publish, "tell": tell, "count": count, "compare": compare}

if __name__ == "__main__":
    main()
