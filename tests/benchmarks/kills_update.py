"""Random SIGKILLs over `playbill update`: the same command goes on, and no event is lost or learnt from twice.

    python tests/benchmarks/kills_update.py --kills 50 --json

A small model is trained and promoted, and a day of events arrives, some of them late and some of new titles. An update
first runs undisturbed. Then, again and again from the same project: the update is killed with its children at a random
moment (seeded), started again and killed again, `--chain` times, and at last left to finish. Compared with the
undisturbed one are the events that the new version has learnt (`lost`, `doubled`, by its split and by the plays that it
counted), its weights bit for bit, and that there is one new version, promoted once.
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
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import fixtures_path  # noqa: F401
import polars as pl
from kills import copied
from rich.console import Console

from fixtures.new_days import arrive, champion_of, define
from fixtures.small_project import Playbill, Shell, fill, start
from fixtures.small_service import write_small_service

UPDATE = ("update", "daily", "--json")
LATE = 7


@dataclass(frozen=True)
class Left:
    """What an update leaves."""

    learnt: tuple[str, ...]  # events that the newest version has learnt from
    plays: dict[str, float]  # title -> plays that it counted
    counted: dict[str, float]  # title -> plays among the events it has learnt
    weights: str  # SHA-256
    versions: int
    champion: int | None
    states: tuple[str, ...]  # of the records of updates


@dataclass
class Report:
    """What became of the kills."""

    undisturbed_s: float
    kills: int = 0
    chains: int = 0  # updates that were killed one or more times and then finished
    equal: int = 0
    lost: int = 0
    doubled: int = 0
    stages: Counter[str] = field(default_factory=Counter)  # how far the killed updates had come
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Kill updates, and end with one JSON object."""
    options = _options()
    if options.look:
        print(json.dumps(asdict(left(Playbill(Path(options.look))))))
        return
    chance, console = random.Random(options.seed), Console(stderr=options.json)
    with tempfile.TemporaryDirectory(prefix="playbill-kills-update-") as scratch:
        project = prepared(Path(scratch))
        undisturbed = copied(project, Path(scratch))
        began = time.perf_counter()
        undisturbed.run(*UPDATE)
        report, expected = Report(time.perf_counter() - began), looked_at(undisturbed)
        assert expected.champion == 2, expected.states
        while report.kills < options.kills:
            one_chain(project, Path(scratch), options.chain, chance, report, expected)
            console.print(f"{report.kills} kills, {report.lost} lost, {report.doubled} doubled", highlight=False)
    found = asdict(report) | {"stages": dict(report.stages), "seed": options.seed}
    print(json.dumps(found))


def prepared(scratch: Path) -> Playbill:
    """Return a project with a champion and a day that it has not learnt."""
    data = write_small_service(scratch / "data").parent
    empty = scratch / "empty_mlflow.db"
    filled = start(scratch / "filled")
    fill(filled, data)
    _migrated(empty)
    shell = champion_of(filled, scratch / "champion", empty)
    arrive(shell, 1, late=LATE)
    define(shell, promote="auto")
    return Playbill(shell.folder)


def _migrated(file: Path) -> None:
    from playbill.versions.tracking.connection import Connection

    Connection(f"sqlite:///{file}").client.search_experiments()


def one_chain(
    project: Playbill, scratch: Path, length: int, chance: random.Random, report: Report, expected: Left
) -> None:
    """Kill an update several times, let it finish, and look at what it left."""
    own = copied(project, scratch)
    for _ in range(length):
        if not killed(own, report.undisturbed_s * chance.random()):
            break
        report.kills += 1
        report.stages[stage(own)] += 1
    done = subprocess.run(own.command(*UPDATE), env=own.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        report.problems.append(done.stderr.strip()[-400:])
        return
    report.chains += 1
    found = looked_at(own)
    report.lost += len(set(expected.learnt) - set(found.learnt))
    report.doubled += len(found.learnt) - len(set(found.learnt))
    report.doubled += int(sum(max(0.0, found.plays.get(title, 0.0) - count) for title, count in found.counted.items()))
    report.lost += int(sum(max(0.0, count - found.plays.get(title, 0.0)) for title, count in found.counted.items()))
    if found == expected:
        report.equal += 1
    else:
        names = [name for name in found.__dataclass_fields__ if getattr(found, name) != getattr(expected, name)]
        report.problems.append(f"{', '.join(names)} differ: {found.versions} versions, {found.states}")


def killed(project: Playbill, after_s: float) -> bool:
    """Start an update and kill it and its children; False where it had ended by itself."""
    process = subprocess.Popen(
        project.command(*UPDATE),
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def stage(project: Playbill) -> str:
    """Return how far an update had come when it was killed."""
    # By a connection of its own: the file is another one after each copy.
    with closing(sqlite3.connect(project.home / "playbill.db")) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'model_updates'").fetchall()
        rows = database.execute("SELECT state, folder FROM model_updates").fetchall() if tables else []
    if not rows:
        return "before the window was fixed"
    (state, folder), runs = rows[-1], project.home / "runs"
    if state == "published":
        return "registered, before the promotion was decided"
    if not (runs / folder / "training_set").is_dir():
        return "the training set was built"
    saved = len(list((runs / folder / "checkpoints").glob("epoch-*")))
    return f"{state}: {('training began', 'trained', 'trained')[min(saved, 2)] if saved else 'training set kept'}"


def looked_at(project: Playbill) -> Left:
    """Read what an update left in a process of its own, which has no connection to an earlier copy."""
    command = [sys.executable, __file__, "--look", str(project.folder)]
    done = subprocess.run(command, env=project.environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Left(**found | {"learnt": tuple(found["learnt"]), "states": tuple(found["states"])})


def left(project: Playbill) -> Left:
    """Read what an update left."""
    from playbill.continual.incremental.watermarks import UpdateRecords
    from playbill.evaluation.canvases.loaded_version import frozen_split
    from playbill.files import file_digest
    from playbill.ranking.scoring.bundle import WEIGHTS, read_bundle
    from playbill.tables import Tables
    from playbill.versions.tracking import Tracking

    workspace = Shell(project.folder).workspace
    tracking = Tracking(workspace)
    champion = tracking.alias("daily", "champion")
    versions = tracking.versions("daily")
    shutil.rmtree(workspace.serving, ignore_errors=True)
    bundle = read_bundle(tracking.download("daily", versions[0].version))
    frame = frozen_split(bundle.folder).frame
    learnt = frame.filter(pl.col("fold").cast(pl.String) == "train")["event_id"]
    log = (
        Tables(workspace).interactions().filter(pl.col("event_id").is_in(learnt.implode()), pl.col("action") == "play")
    )
    return Left(
        learnt=tuple(learnt.sort()),
        plays={title: count for title, count in bundle.titles.iter_rows() if count},
        counted=dict(log["title_id"].value_counts().iter_rows()),
        weights=file_digest(bundle.folder / WEIGHTS),
        versions=len(versions),
        champion=champion,
        states=tuple(row.state for row in UpdateRecords(workspace, "daily").rows()),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--chain", type=int, default=4, help="kills of one update before it may finish")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--look", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print only one JSON object on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    main()
