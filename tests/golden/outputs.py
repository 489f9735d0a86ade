"""What Playbill puts out on a small simulated log, to compare before and after a change that should change nothing.

    python tests/golden/outputs.py record outputs.json
    python tests/golden/outputs.py check outputs.json

Only commands and files that users see are read, so that the modules behind them may move. Every number is of one
thread and fixed seeds: tables, feature values, labels and a training set as digests of their rows; what `train`,
`evaluate`, `recommend --explain`, a page and a cell of the ledger print as JSON. What differs between two runs of the
same code (ids of runs, seconds, folders) is left out. Some four minutes.

`outputs.json` beside this file was recorded with version 4 of everycanvas. Another processor or torch
rounds differently: then record at the commit before a change, and check after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import polars as pl

WORLD = ("--members", "300", "--days", "21", "--seed", "11", "--titles", "200", "--processes", "1")
AT = "2025-01-21T12:00:00Z"
CANVASES = ("home", "billboard", "kids", "coming_soon", "screensaver")
OF_ONE_RUN = re.compile(
    r"(^|[._/])(.*second.*|train_ratio|.*_ms|run_id|request_id|experiment_id|created.*|.*timestamp|.*_at_wall|url|uri|folder|path|"
    r"digest|commit|git.*|peak.*|rss.*|model_uri|tracking.*|started|ended|duration.*|log_file)$"
)
DIGITS = 6


@click.group()
def main() -> None:
    """Record what Playbill puts out, or compare it with a record."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def record(file: Path) -> None:
    """Write FILE.

    Example: python tests/golden/outputs.py record outputs.json
    """
    file.write_text(json.dumps(outputs(), indent=1, sort_keys=True) + "\n")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
def check(file: Path) -> None:
    """Compare with FILE, and name every value that differs. The exit status is 1 then.

    Example: python tests/golden/outputs.py check outputs.json
    """
    before, now = json.loads(file.read_text()), outputs()
    names = sorted(before.keys() | now.keys())
    wrong = [name for name in names if before.get(name) != now.get(name)]
    for name in wrong:
        click.echo(f"{name}: {before.get(name)} before, {now.get(name)} now")
    click.echo(f"{len(names) - len(wrong):,} of {len(names):,} values are equal")
    sys.exit(bool(wrong))


def outputs() -> dict[str, Any]:
    """Return every value by name."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        playbill(None, "init", str(project))
        return dict(_values(project))


def _values(project: Path) -> Iterator[tuple[str, Any]]:
    run = lambda *command: playbill(project, *command)  # noqa: E731
    yield from flat("simulate", run("simulate", *WORLD, "--json"))
    run("apply")
    yield from flat("features", run("features", "build", "--json"))
    home = next(project.rglob("interactions*")).parent
    yield from digests("tables", home)
    yield from digests("feature values", next(path for path in project.rglob("features") if "playbill" in str(path)))
    yield from flat("labels", run("labels", "show", "--json"))
    dataset = project / "training_set"
    run("dataset", "build", "everycanvas", "--out", str(dataset))
    yield from digests("training set", dataset)
    yield from flat("train", run("train", "everycanvas", "--epochs", "1", "--protocol", "global_time", "--json"))
    yield from flat("promote", run("promote", "everycanvas:1", "--json"))
    yield from flat("materialize", run("materialize", "--json"))
    row = ("--row", "top_picks", "--canvas", "home")
    yield from flat("evaluate a row", run("evaluate", "everycanvas:1", *row, "--no-log", "--json"))
    for canvas in CANVASES:
        command = ("recommend", "--canvas", canvas, "--member", "m7", "--at", AT, "--json")
        yield from flat(f"recommend {canvas}", run(*command))
    first = run("recommend", "--canvas", "home", "--no-rows", "--at", AT, "-k", "3", "--json")
    yield from flat("recommend a stranger", first)
    title = next(value for name, value in flat("", first) if name.endswith("/title_id"))
    of_title = ("--source-title", title, "--at", AT, "--json")
    for canvas in ("more_like_this", "post_play"):
        yield from flat(f"recommend {canvas}", run("recommend", "--canvas", canvas, *of_title))
    yield from flat("recommend search", run("recommend", "--canvas", "search", "--query", "the", "--at", AT, "--json"))
    why = ("--member", "m7", "--canvas", "home", "--at", AT, "--explain", title, "--json")
    yield from flat("recommend --explain", run("recommend", *why))
    cell = ("--canvases", "home", "--seeds", "17", "--epochs", "1", "--min-steps", "5", "--dim", "16", "--threads", "1")
    ledger = run("ledger", "everycanvas", *cell, "--requests", "100", "--resamples", "100", "--no-log", "--json")
    yield from flat("ledger", ledger)


def playbill(project: Path | None, *command: str) -> Any:
    """Run a command at one thread, and return its last line as JSON where it is some."""
    where = () if project is None else ("--project", str(project), "--workspace", "golden")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "COLUMNS": "200"}
    click.echo(f"playbill {' '.join(command)}", err=True)
    done = subprocess.run(
        [sys.executable, "-m", "playbill.cli", *where, *command],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(f"playbill {' '.join(command)}: {done.stderr or done.stdout}")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return json.loads(last) if last.startswith("{") else {}


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value of a JSON object under its path, numbers rounded."""
    if OF_ONE_RUN.search(name):
        return
    if isinstance(value, dict):
        for key, own in value.items():
            yield from flat(f"{name}/{key}", own)
    elif isinstance(value, list):
        for place, own in enumerate(value):
            yield from flat(f"{name}/{place}", own)
    else:
        yield name, round(value, DIGITS) if isinstance(value, float) else value


def digests(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield a digest of the columns, types and rows of every parquet file below a folder, in sorted order."""
    files = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]
    for path in files:
        frame = pl.read_parquet(path, hive_partitioning=False)
        kept = [column for column in sorted(frame.columns) if column not in ("created", "created_timestamp")]
        rows = sorted(hash_rows(frame.select(kept)))
        text = f"{[(column, str(frame.schema[column])) for column in kept]} {rows}"
        place = re.sub(r"[0-9a-f-]{8,}", "*", str(path.relative_to(folder)))
        yield f"{name}/{place}", hashlib.sha256(text.encode()).hexdigest()


def hash_rows(frame: pl.DataFrame) -> list[str]:
    """Return a digest of each row, the same in every process."""
    lines = frame.write_ndjson().splitlines()
    return [hashlib.sha256(line.encode()).hexdigest() for line in lines]


if __name__ == "__main__":
    main()
