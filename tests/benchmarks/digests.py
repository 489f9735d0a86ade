"""What checking costs: reading feature files and the event log for the first time, with and without their digests.

    python tests/benchmarks/digests.py --json

Each read is a first one (a fresh copy of the files, so that nothing is known of them), from memory: the system's cache
holds the files. Reads with and without digests take turns, and CPU time of the process counts (all threads), so that
other load of the machine is in neither. Later reads of a process compare a size and a time only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from playbill.clock import FixedClock
from playbill.config import ProjectFolder
from playbill.features.view_folder import ViewFolder, ViewState
from playbill.tables import TIMESTAMP, Tables
from playbill.tables.published import Published
from playbill_feast.offline import parquet_files as feature_files
from playbill_feast.offline.parquet_files import parts_of, scan_parts

START = datetime(2024, 1, 1, tzinfo=UTC)


def main() -> None:
    """Write, read in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print only one JSON object on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features = measured(Path(folder), write_view(Path(folder), options.rows), read_view, options.turns)
        log = measured(Path(folder), write_log(Path(folder), options.rows), read_log, options.turns)
    result = {"rows": options.rows, "feature_files": features, "event_log": log}
    print(json.dumps(result))


def measured(folder: Path, written: Path, read: Callable[[Path], int], turns: int) -> dict[str, float]:
    """Return the medians of first reads, in milliseconds, the bytes, and the ratio."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * turns):
        checked = turn % 2 == 0
        place = folder / f"copy-{turn}"
        shutil.copytree(written, place)
        began = time.process_time()
        if checked:
            read(place)
        else:
            unchecked(place, read)
        times[checked].append(time.process_time() - began)
        shutil.rmtree(place)
    size = sum(path.stat().st_size for path in written.rglob("*.parquet"))
    checked_s, plain_s = statistics.median(times[True]), statistics.median(times[False])
    return {
        "mib": round(size / 2**20, 1),
        "plain_cpu_ms": round(plain_s * 1e3, 1),
        "checked_cpu_ms": round(checked_s * 1e3, 1),
        "ratio": round(checked_s / plain_s, 3),
    }


def unchecked(place: Path, read: Callable[[Path], int]) -> None:
    """Read as if nothing were known of the files' content."""
    kept = feature_files.require_sound, Published.require_sound
    try:
        feature_files.require_sound = lambda _files: None
        Published.require_sound = lambda _published, _files: None
        read(place)
    finally:
        feature_files.require_sound, Published.require_sound = kept


def write_view(folder: Path, rows: int) -> Path:
    """Write a view of twelve features in two parts."""
    chance = np.random.default_rng(1)
    frame = pl.DataFrame({f"f{number}": chance.normal(size=rows // 2).astype(np.float32) for number in range(12)})
    frame = frame.with_columns(member_id=pl.int_range(pl.len()).cast(pl.String))
    view = ViewFolder(folder / "view.parquet")
    view.replace([frame, frame], ViewState("1", 0, None, "s", {}, {}))
    return view.path


def read_view(place: Path) -> int:
    """Read a view whole."""
    return scan_parts(parts_of(place), place).collect().height


def write_log(folder: Path, rows: int) -> Path:
    """Write a log of thirty days."""
    chance = np.random.default_rng(2)
    moments = pl.Series(np.sort(chance.integers(0, 30 * 86_400_000_000, rows))) + int(START.timestamp() * 1e6)
    members = pl.Series(chance.integers(0, rows // 100, rows)).cast(pl.String)
    events = pl.DataFrame({"member_id": members, "event_at": moments.cast(TIMESTAMP)}).with_columns(
        event_id=pl.int_range(pl.len()).cast(pl.String),
        seq=pl.int_range(pl.len(), dtype=pl.Int64),
        recorded_at="event_at",
        action=pl.lit("play"),
        title_id=pl.Series(chance.integers(0, 500, rows)).cast(pl.String),
        canvas=pl.lit("home"),
        country=pl.lit("SE"),
    )
    titles = events.select(pl.col("title_id").unique()).with_columns(
        valid_from=pl.lit(START, dtype=TIMESTAMP),
        recorded_at=pl.lit(START, dtype=TIMESTAMP),
        name="title_id",
        kind=pl.lit("film"),
    )
    tables = Tables(ProjectFolder.find(folder).workspace("log"))
    with tables.replace(FixedClock(START + timedelta(days=31))) as writer:
        writer.write("titles", titles)
        writer.write("interactions", events)
    return tables.published().folder


def read_log(place: Path) -> int:
    """Read every event, by member."""
    return Published(place).log(None, None, None).collect().height


if __name__ == "__main__":
    main()
