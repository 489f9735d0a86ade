"""Historical retrieval: our as-of store against Feast's own stores and against the bare join, in CPU seconds.

    python tests/benchmarks/asof_join.py --json
    python tests/benchmarks/asof_join.py --rows 10000000 --views 5 --json

Every method runs in a fresh process with the same number of threads: once unmeasured (which also imports everything),
then `--repeats` times. The clock starts with the entity rows as a pandas frame and stops with the result as one, so
reading the feature files is part of it. CPU seconds are those of the process and of its children; a ratio is between
medians over all seeds and repeats. Above a million rows only our store runs, and `peak_gib` is what to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from asof_problem import (
    ROW,
    VIEWS,
    by_hand_pandas,
    by_hand_polars,
    differences,
    entity_rows,
    feature_store,
    write_problem,
)
from rich.console import Console
from rich.table import Table

PLAYBILL, DASK, DUCKDB, BARE = "playbill", "feast_dask", "feast_duckdb", "bare_join"
STORES = {
    PLAYBILL: {"type": "playbill_feast.offline.store.AsofOfflineStore"},
    DASK: {"type": "dask"},
    DUCKDB: {"type": "duckdb"},
}
LARGE = 1_000_000
SAMPLE = 200_000
"""Entity rows whose answers are compared with the reference when there are more than `LARGE`."""


def main() -> None:
    """Run every method on every seed and print the medians."""
    options = _options()
    if options.write is not None:
        write_problem(Path(options.folder), options.rows, options.views, options.write)
        return
    if options.method:
        print(json.dumps(measure(options.method, Path(options.folder), options.views, options.repeats)))
        return
    methods = [PLAYBILL] if options.rows > LARGE else [PLAYBILL, BARE, DUCKDB, DASK]
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            _alone("--write", str(seed), "--folder", folder, options=options)
            for method in methods:
                runs[method].append(json.loads(_alone("--method", method, "--folder", folder, options=options)))
    result = summary(runs, options.rows)
    _show(runs)
    if options.json:
        print(json.dumps(result))


def measure(method: str, folder: Path, views: int, repeats: int) -> dict[str, Any]:
    """Run one method in this process.

    Returns:
        Seconds and CPU seconds of each measured run, the process's peak memory in GiB until then, the rows that came
        back, and the number of cells that differ from the reference.
    """
    chosen = VIEWS[:views]
    entities = entity_rows(folder)
    with tempfile.TemporaryDirectory() as repo:
        run = _runner(method, entities, chosen, folder, Path(repo))
        found = run()
        times = []
        for _ in range(repeats):
            del found
            seconds, cpu = time.perf_counter(), _cpu_seconds()
            found = run()
            times.append((time.perf_counter() - seconds, _cpu_seconds() - cpu))
        peak = _peak_gib()
    every = max(1, len(entities) // SAMPLE) if len(entities) > LARGE else 1
    reference = by_hand_pandas(entities[::every], chosen, folder)
    if method in (DASK, DUCKDB):
        found = found.sort_values(ROW, ignore_index=True)
    return {
        "seconds": [seconds for seconds, _ in times],
        "cpu_seconds": [cpu for _, cpu in times],
        "peak_gib": peak,
        "rows": len(found),
        "differences": differences(found[::every] if len(found) == len(entities) else found, reference, chosen),
    }


def summary(runs: dict[str, list[dict[str, Any]]], rows: int) -> dict[str, float]:
    """Return the numbers to report, with ratios of CPU seconds: others to ours, ours to the bare join."""
    cpu = {method: _median(found, "cpu_seconds") for method, found in runs.items()}
    ours = runs[PLAYBILL]
    complete = all(run["differences"] == 0 and run["rows"] == rows for run in ours)
    result: dict[str, float] = {
        "rows": rows,
        "seconds": _median(ours, "seconds"),
        "cpu_seconds": cpu[PLAYBILL],
        "peak_gib": max(run["peak_gib"] for run in ours),
        "equal_to_reference": int(complete),
    }
    if DASK in runs:
        result["ratio_vs_feast_dask"] = cpu[DASK] / cpu[PLAYBILL]
        result["ratio_vs_feast_duckdb"] = cpu[DUCKDB] / cpu[PLAYBILL]
        result["ratio_to_bare_join"] = cpu[PLAYBILL] / cpu[BARE]
        for method in (DASK, DUCKDB, BARE):
            result[f"cpu_seconds_{method}"] = cpu[method]
            result[f"rows_{method}"] = runs[method][0]["rows"]
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="entity rows")
    parser.add_argument("--views", type=int, default=3, choices=range(1, 6), help="feature views of five features")
    parser.add_argument("--seeds", type=int, default=3, help="how many problems")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs of each method on each problem")
    parser.add_argument("--threads", type=int, default=2, help="of every method")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _alone(*words: str, options: argparse.Namespace) -> str:
    """Run this script in a process of its own, and return the last line it printed."""
    threads = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), str(options.threads))
    numbers = [f"--{name}={getattr(options, name)}" for name in ("rows", "views", "repeats", "threads")]
    command = [sys.executable, "-W", "ignore", __file__, *words, *numbers]
    done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip().rpartition("\n")[2]


def _runner(method: str, entities: Any, views: Any, folder: Path, repo: Path) -> Any:
    if method == BARE:
        return lambda: by_hand_polars(entities, views, folder)
    store = feature_store(STORES[method], views, folder, repo)
    features = [f"{view.name}:{name}" for view in views for name in view.features]
    return lambda: store.get_historical_features(entity_df=entities, features=features).to_df()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(value for run in runs for value in run[name])


def _show(runs: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("method", "CPU s", "s", "peak GiB", "rows", "cells that differ")
    for method, found in runs.items():
        numbers = (_median(found, "cpu_seconds"), _median(found, "seconds"), max(run["peak_gib"] for run in found))
        counts = (found[0]["rows"], max(run["differences"] for run in found))
        table.add_row(method, *(f"{number:.2f}" for number in numbers), *(f"{count:,}" for count in counts))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
