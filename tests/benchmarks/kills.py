"""Random SIGKILLs over everything that writes: the command is run again, and the result is what nobody had disturbed.

    python tests/benchmarks/kills.py --json

Each command first runs undisturbed from a copied project: how long it takes, and what it leaves. Then, for each kill,
it starts from the same copy, is killed with its children at a random moment (seeded), and is run again. `equal`: the
second run left what the undisturbed one did. `lost` and `doubled` count events that were acknowledged before the kill,
or are in the file that was pushed. Times within a run's record (when a row was written) are not compared; weights of
two trainings may differ in their last digits, so they are compared within a tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from fixtures.small_project import Playbill, start
from fixtures.small_service import write_small_service

COMPACTED = 80_000
PUSHED = 2_000
WEIGHTS_TOLERANCE = 0.02
STAMPS = ("recorded_at", "created_timestamp")
_START = datetime(2024, 3, 1, tzinfo=UTC)
_KILLS = {
    "ingest": 5,
    "push": 6,
    "compact": 6,
    "build": 6,
    "apply": 4,
    "materialize": 5,
    "train": 4,
    "promote": 4,
    "publish 80,000": 4,
}


@dataclass
class Kind:
    """One command.

    Attributes:
        name: In the table.
        project: What it starts from; copied for each run.
        arguments: Of the command.
        state: What the command leaves, to be compared.
        events: Ids that may be neither lost nor doubled.
        moment: Waits for the part of the run in which to kill; None is the whole run.
    """

    name: str
    project: Playbill
    arguments: list[str]
    state: Callable[[Playbill], Any]
    events: frozenset[str] = frozenset()
    moment: Callable[[Playbill, subprocess.Popen[bytes]], bool] | None = None


@dataclass
class Row:
    """What became of the kills of one command."""

    name: str
    undisturbed_s: float
    kills: int = 0
    reruns_finished: int = 0
    equal: int = 0
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Kill every command, print a table, and end with one JSON object."""
    options = _options()
    chance, console = random.Random(options.seed), Console(stderr=options.json)
    rows = []
    with tempfile.TemporaryDirectory(prefix="playbill-kills-") as scratch:
        for kind in kinds(Path(scratch), console):
            if options.only and kind.name not in options.only:
                continue
            rows.append(tried(kind, max(1, round(_KILLS[kind.name] * options.share)), chance, Path(scratch)))
            console.print(json.dumps(asdict(rows[-1])), highlight=False, soft_wrap=True)
    console.print(shown(rows))
    total = {name: sum(getattr(row, name) for row in rows) for name in ("kills", "reruns_finished", "lost", "doubled")}
    print(json.dumps({**total, "equal": sum(row.equal for row in rows), "seed": options.seed}))


def tried(kind: Kind, kills: int, chance: random.Random, scratch: Path) -> Row:
    """Run a command undisturbed, then kill it so many times and run it again."""
    project = copied(kind.project, scratch)
    began = time.perf_counter()
    project.run(*kind.arguments)
    row = Row(kind.name, time.perf_counter() - began)
    expected = kind.state(project)
    window = _publishing_s(kind, scratch) if kind.moment else row.undisturbed_s
    while row.kills < kills:
        project = copied(kind.project, scratch)
        if not killed(kind, project, window * chance.random()):
            continue
        row.kills += 1
        again = subprocess.run(
            project.command(*kind.arguments), env=project.environment, capture_output=True, text=True, check=False
        )
        if again.returncode:
            row.problems.append(again.stderr.strip()[-300:])
            continue
        row.reruns_finished += 1
        row.equal += _same(kind.state(project), expected, row)
        if kind.events:
            ids = events_of(project)
            row.lost += len(kind.events - set(ids))
            row.doubled += len(ids) - len(set(ids))
    return row


def killed(kind: Kind, project: Playbill, after_s: float) -> bool:
    """Start a command and kill it and its children; False where it had ended by itself."""
    process = subprocess.Popen(
        project.command(*kind.arguments),
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if kind.moment is not None and not kind.moment(project, process):
        return False
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def kinds(scratch: Path, console: Console) -> Iterator[Kind]:
    """Yield the commands, each with the project it starts from; a later project holds what an earlier command made."""
    data = write_small_service(scratch / "data").parent
    empty = start(scratch / "empty")
    ingest = ["ingest", "parquet", str(data), "--mapping", str(data / "mapping.yaml")]
    yield Kind("ingest", empty, ingest, rows_of_tables, frozenset())
    filled = _next(empty, scratch / "filled", ingest)
    events = scratch / "events.ndjson"
    pushed = write_events(events, PUSHED, filled)
    known = frozenset(events_of(filled))
    yield Kind("push", filled, ["ingest", "push", str(events)], rows_of_events, known | pushed)
    journalled = _next(filled, scratch / "journalled", ["ingest", "push", str(events)])
    yield Kind("compact", journalled, ["ingest", "push", "--compact"], rows_of_events, known | pushed)
    yield from _publishing(filled, scratch, known)
    yield Kind("apply", filled, ["apply"], names_of_registry)
    applied = _next(filled, scratch / "applied", ["apply"])
    yield Kind("build", applied, ["features", "build"], rows_of_features)
    built = _next(applied, scratch / "built", ["features", "build"])
    yield Kind("materialize", built, ["materialize"], rows_of_online_store)
    ready = _next(built, scratch / "ready", ["materialize"])
    yield Kind("train", ready, ["train", "everycanvas"], trained_version)
    console.print("training the version to promote", highlight=False)
    trained = _next(ready, scratch / "trained", ["train", "everycanvas"])
    yield Kind("promote", trained, ["promote", "everycanvas:1"], champion)


def _publishing(filled: Playbill, scratch: Path, known: frozenset[str]) -> Iterator[Kind]:
    events = scratch / "many.ndjson"
    pushed = write_events(events, COMPACTED, filled)
    many = _next(filled, scratch / "many", ["ingest", "push", str(events)])
    compact = ["ingest", "push", "--compact"]
    yield Kind("publish 80,000", many, compact, rows_of_events, known | pushed, _wait_for_manifest)


def _wait_for_manifest(project: Playbill, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a generation is built whole and about to be published."""
    while process.poll() is None:
        if list((project.home / "tables").glob("writing-*/manifest.json")):
            return True
        time.sleep(0.0005)
    return False


def _publishing_s(kind: Kind, scratch: Path) -> float:
    project = copied(kind.project, scratch)
    process = subprocess.Popen(
        project.command(*kind.arguments), env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for_manifest(project, process)
    began = time.perf_counter()
    process.wait()
    return time.perf_counter() - began


def copied(project: Playbill, scratch: Path) -> Playbill:
    """Return a fresh copy of a project; its path is always the same, as absolute paths are kept in it."""
    place = scratch / "run" / "project"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(project.folder, place, ignore=shutil.ignore_patterns("__pycache__"))
    return _rendered(Playbill(place))


def _next(project: Playbill, place: Path, arguments: list[str]) -> Playbill:
    """Return a copy of a project in which one more command has run."""
    shutil.copytree(project.folder, place, ignore=shutil.ignore_patterns("__pycache__"))
    made = _rendered(Playbill(place))
    made.run(*arguments)
    return made


def _rendered(project: Playbill) -> Playbill:
    from playbill.features.registration import render

    if (project.home / "feature_store.yaml").is_file():
        render(_workspace(project))
    return project


def _workspace(project: Playbill) -> Any:
    from playbill.config import ProjectFolder

    return ProjectFolder.find(project.folder).workspace(project.workspace)


def write_events(path: Path, rows: int, project: Playbill) -> frozenset[str]:
    """Write events of the project's members and titles, several of one member in one second; return their ids."""
    from playbill.tables import Tables

    tables = Tables(_workspace(project))
    members = tables.members().get_column("member_id").to_list()
    titles = tables.titles().get_column("title_id").to_list()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            event = {
                "event_id": f"{path.stem}-{number}",
                "member_id": members[number % len(members)],
                "event_at": (_START + timedelta(seconds=number // 100)).isoformat(),
                "action": "details_view",
                "title_id": titles[number % len(titles)],
                "canvas": "home",
            }
            file.write(json.dumps(event) + "\n")
    return frozenset(f"{path.stem}-{number}" for number in range(rows))


def events_of(project: Playbill) -> list[str]:
    """Return the id of every event that is stored, and of those in the journal that are not."""
    from playbill.tables import Tables

    tables = Tables(_workspace(project))
    stored = tables.interactions().get_column("event_id").to_list()
    return stored + sorted(set(tables.journal.read().get_column("event_id").to_list()) - set(stored))


def _content(frame: pl.DataFrame) -> tuple[int, int]:
    compared = frame.select(sorted(name for name in frame.columns if name not in STAMPS))
    return frame.height, int(compared.hash_rows(7).sum())


def rows_of_tables(project: Playbill) -> Any:
    """Return every table's content, and every vocabulary."""
    from playbill.tables import Tables

    tables = Tables(_workspace(project))
    frames = tables.title_versions(), tables.member_versions(), tables.availability(), tables.interactions()
    words = {
        path.stem: tables.vocabulary(path.stem).entries
        for path in sorted((project.home / "vocabularies").glob("*.parquet"))
    }
    return [_content(frame) for frame in frames], words


def rows_of_events(project: Playbill) -> Any:
    """Return the log with what is in the journal."""
    from playbill.tables import Tables

    tables = Tables(_workspace(project))
    return _content(tables.interactions(include_journal=True)), tables.journal.read().height


def rows_of_features(project: Playbill) -> Any:
    """Return every view's content."""
    views = sorted((project.home / "features").glob("*.parquet"))
    return {view.stem: _content(pl.read_parquet(view / "part-*.parquet")) for view in views}


def names_of_registry(project: Playbill) -> Any:
    """Return what is registered."""
    with sqlite3.connect(project.home / "feast_registry.db") as database:
        tables = ("feature_views", "on_demand_feature_views", "entities", "feature_services", "data_sources")
        names = {
            "entities": "entity_name",
            "feature_services": "feature_service_name",
            "data_sources": "data_source_name",
        }
        return {
            table: sorted(
                row[0] for row in database.execute(f"SELECT {names.get(table, 'feature_view_name')} FROM {table}")
            )
            for table in tables
        }


def rows_of_online_store(project: Playbill) -> Any:
    """Return every stored row."""
    with sqlite3.connect(project.home / "online_store.db") as database:
        listed = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%/%'").fetchall()
        return {name: database.execute(f'SELECT key, row FROM "{name}" ORDER BY key').fetchall() for (name,) in listed}


def trained_version(project: Playbill) -> Any:
    """Return how many versions there are, and the weights of the only one."""
    from safetensors.numpy import load_file

    found = [
        path for path in project.folder.rglob("weights.safetensors") if "mlflow" in str(path) and "bundle" in str(path)
    ]
    with sqlite3.connect(project.folder / ".playbill" / "mlflow.db") as database:
        versions = database.execute("SELECT count(*) FROM model_versions").fetchone()[0]
        finished = database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0]
        running = database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
    return (versions, finished, running), [load_file(path) for path in found]


def champion(project: Playbill) -> Any:
    """Return the aliases, and what was approved."""
    with sqlite3.connect(project.folder / ".playbill" / "mlflow.db") as database:
        return sorted(database.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall())


def _same(found: Any, expected: Any, row: Row) -> bool:
    if row.name != "train":
        same = found == expected
    else:
        (counts, weights), (all_counts, all_weights) = found, expected
        pairs = list(zip(weights, all_weights, strict=False))
        apart = max(
            (float(np.abs(one[name] - two[name]).max(initial=0.0)) for one, two in pairs for name in one),
            default=np.inf,
        )
        same = counts == all_counts and len(weights) == len(all_weights) and apart <= WEIGHTS_TOLERANCE
        found, expected = (counts, apart), (all_counts, 0.0)
    if not same:
        row.problems.append(f"{str(found)[:200]} is not {str(expected)[:200]}")
    return bool(same)


def shown(rows: list[Row]) -> Table:
    """Return the table."""
    table = Table(title="Commands killed at random moments, and run again", title_justify="left")
    for name in ("command", "undisturbed, s", "kills", "reruns finished", "equal", "lost", "doubled"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for row in rows:
        numbers = (row.kills, row.reruns_finished, row.equal, row.lost, row.doubled)
        table.add_row(row.name, f"{row.undisturbed_s:.1f}", *map(str, numbers))
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--share", type=float, default=1.0, help="part of the kills, for a short look")
    parser.add_argument("--only", nargs="*", help="commands")
    parser.add_argument("--json", action="store_true", help="print only one JSON object on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    main()
