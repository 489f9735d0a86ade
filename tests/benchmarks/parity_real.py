"""Served against historical values on real logs: random (member, moment) pairs, and every view's entities.

    python tests/benchmarks/parity_real.py --movielens ml-1m --kuairand kuairand-pure --json

A folder is the publisher's, or one of parquet tables (MovieLens: `interactions.parquet` with users.dat and movies.dat).
Moments are drawn around events and the ends of their windows. For each one the online store is loaded up to it, and
what it then serves to random members is compared, value by value, with what training reads of that moment; numbers
as float32 to the bit. Values never get older in the store, so moments come in order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

EDGES = [timedelta(0), *(timedelta(hours=hours) for hours in (0.5, 1, 24, 7 * 24, 30 * 24))]
OFFSETS = [timedelta(microseconds=us) for us in (-1_000_000, -1, 0, 1, 1_000_000)]


def main() -> None:
    """Compare on every log that was given and print a row for each view."""
    options = _options()
    folders = {"movielens_1m": options.movielens, "kuairand": options.kuairand}
    found = {source: compare(source, folder, options) for source, folder in folders.items() if folder}
    for source, result in found.items():
        _show(source, result)
    if options.json:
        totals = {name: sum(result[name] for result in found.values()) for name in ("compared", "different")}
        print(json.dumps({**totals, **found}))


def compare(source: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return values compared and different: of the door's features of members, and of every view through Feast."""
    from playbill.features import FeatureDoor, build_features

    with tempfile.TemporaryDirectory() as root:
        workspace = _ingested(source, folder, Path(root))
        started = time.perf_counter()
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            build_features(workspace)
        built = time.perf_counter()
        door = FeatureDoor(workspace)
        door.apply()
        counted = _served(door, workspace, options)
        seconds = {"build": built - started, "compare": time.perf_counter() - built}
    views = {
        view: {"compared": counted[view, True], "different": counted[view, False]} for view, equal in counted if equal
    }
    return {
        "pairs": options.moments * options.members,
        "compared": sum(view["compared"] for view in views.values()),
        "different": sum(view["different"] for view in views.values()),
        "views": views,
        "seconds": seconds,
    }


def _ingested(source: str, folder: Path, root: Path) -> Any:
    from click.testing import CliRunner

    from playbill.cli.main import main as playbill
    from playbill.config import ProjectFolder

    if source == "movielens_1m" and (folder / "interactions.parquet").is_file():
        folder = _as_published(folder, root / "published")
    # With the wall clock plain Feast holds values to their ttl, at the moment that the comparison gives it.
    (root / "playbill.toml").write_text('[workspaces.real]\nclock = "wall"\n')
    done = CliRunner().invoke(playbill, ["--project", str(root), "-w", "real", "ingest", source, str(folder)])
    if done.exit_code:
        raise SystemExit(done.output)
    return ProjectFolder.find(root).workspace("real")


def _as_published(folder: Path, target: Path) -> Path:
    """Write ratings.dat from a table of interactions; a rating that is not known is a 4."""
    target.mkdir()
    for name in ("users.dat", "movies.dat"):
        shutil.copyfile(folder / name, target / name)
    text = pl.format("{}::{}::{}::{}", "user_id", "movie_id", pl.col("rating").fill_null(4), "timestamp_filled")
    lines = pl.read_parquet(folder / "interactions.parquet").select(text).to_series()
    (target / "ratings.dat").write_text("\n".join(lines) + "\n")
    return target


def _served(door: Any, workspace: Any, options: argparse.Namespace) -> Counter[tuple[str, bool]]:
    """Count values by view: (view, True) compared, (view, False) different."""
    from fixtures.online_parity import entities_of, online_views, served_and_history, services_of_members
    from playbill.features.feast_door import FeastDoor
    from playbill.tables import Tables

    rng = np.random.default_rng(options.seed)
    events = Tables(workspace).interactions()
    members = events.get_column("member_id").unique().sort()
    store = FeastDoor(workspace).store
    entities = {view.name: entities_of(store, view) for view in online_views(store)}
    counted: Counter[tuple[str, bool]] = Counter()
    for moment in _moments(events.get_column("event_at"), rng, options.moments):
        door.materialize(moment)
        chosen = members.sample(options.members, seed=int(rng.integers(1 << 31))).to_list()
        for service in services_of_members(door):
            served = door.online(service, chosen, moment)
            read = door.member_features(service, served.select("member_id", "event_at"))
            for column in door.schema(service).of("member", "request"):
                differ = served[column.name].ne_missing(read[column.name])
                counted[f"{service}: {column.view}", True] += served.height
                counted[f"{service}: {column.view}", False] += int(differ.sum())
        for view in online_views(store):
            keys = entities[view.name]
            some = keys.sample(min(options.members, keys.height), seed=int(rng.integers(1 << 31)))
            for _, online, history in served_and_history(store, view, some, moment):
                counted[view.name, True] += len(online)
                counted[view.name, False] += sum(a != b for a, b in zip(online, history, strict=True))
    return counted


def _moments(times: pl.Series, rng: np.random.Generator, count: int) -> list[datetime]:
    drawn = times.sample(count, seed=int(rng.integers(1 << 31))).to_list()
    return sorted(at + EDGES[rng.integers(len(EDGES))] + OFFSETS[rng.integers(len(OFFSETS))] for at in drawn)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movielens", type=Path, help="folder of MovieLens-1M")
    parser.add_argument("--kuairand", type=Path, help="folder of KuaiRand")
    parser.add_argument("--moments", type=int, default=20, help="moments on each log")
    parser.add_argument("--members", type=int, default=500, help="members, and entities of a view, at each moment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    return parser.parse_args()


def _show(source: str, result: dict[str, Any]) -> None:
    table = Table("view", title=f"{source}: {result['pairs']:,} (member, moment) pairs")
    table.add_column("compared", justify="right")
    table.add_column("different", justify="right")
    for view, counts in result["views"].items():
        table.add_row(view, f"{counts['compared']:,}", f"{counts['different']:,}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
