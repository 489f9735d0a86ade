"""Online reads and materialization: our packed store against Feast's own stores on the same databases.

    python tests/benchmarks/online_read.py --json

100 entities x 20 float features of 10,000 stored entities, `get_online_features(...).to_dict()`. The stores take
turns of 50 requests, so that a slow moment of the machine meets all of them and none pays for what another left in the
caches; a ratio is between the medians of CPU seconds of this process
(`process_time`), so Redis' own work is in neither side. Materialization is `FeatureStore.materialize` from one parquet
file, the whole way: offline store, compute engine, online store and registry, ours against Feast's defaults. A Redis
server of its own is started.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fixtures_path  # noqa: F401
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

PACKED, FEAST = "packed", "feast"
BACKENDS = ("sqlite", "redis")
NOW = datetime(2024, 3, 1, tzinfo=UTC)
TURN, WARM_UP = 50, 10

Read = Callable[[], dict[str, list[Any]]]


def main() -> None:
    """Fill every store, let them take turns, and print the medians."""
    from fixtures.throwaway_redis import throwaway_redis

    options = _options()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, throwaway_redis() as url:
        write_values(Path(folder) / "values.parquet", options.stored, options.features, options.seed)
        stores = {
            (kind, backend): feature_store(Path(folder), kind, backend, url, options.features)
            for kind in (PACKED, FEAST)
            for backend in BACKENDS
        }
        written = {name: materialize_cpu_s(store, options.materializations) for name, store in stores.items()}
        result = {
            **reads(stores, options),
            **materialization(written, options.stored),
        }
    _show(result)
    if options.json:
        print(json.dumps(result))


def write_values(path: Path, rows: int, features: int, seed: int) -> None:
    """Write one row per entity: a text key, float32 features, and both times."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"f{number}": rng.normal(size=rows).astype("float32") for number in range(features)})
    frame["member_id"] = [f"member-{number}" for number in range(rows)]
    at = pd.Series([NOW - timedelta(hours=1)] * rows).dt.as_unit("us")
    frame["event_timestamp"] = frame["created_timestamp"] = at
    frame.to_parquet(path, index=False)


def feature_store(folder: Path, kind: str, backend: str, redis_url: str, features: int) -> Any:
    """Return an applied Feast store: ours or Feast's own, on one of the databases."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.repo_config import RepoConfig
    from feast.types import Float32

    config = RepoConfig(
        project=f"{kind}_{backend}",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/{kind}_{backend}_registry.db"},
        entity_key_serialization_version=3,
        **(_ours if kind == PACKED else _feasts)(folder, backend, redis_url),
    )
    store = FeatureStore(config=config)
    member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="stats",
        entities=[member],
        ttl=timedelta(0),
        schema=[Field(name=f"f{number}", dtype=Float32) for number in range(features)],
        source=FileSource(
            path=str(folder / "values.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    with quiet():
        store.apply([member, view])
    return store


def _ours(folder: Path, backend: str, redis_url: str) -> dict[str, Any]:
    where = {"path": str(folder / "packed.db")} if backend == "sqlite" else {"connection_string": redis_url}
    return {
        "offline_store": {"type": "playbill_feast.offline.store.AsofOfflineStore"},
        "online_store": {"type": "playbill_feast.online.store.PackedOnlineStore", "backend": backend, **where},
        "batch_engine": {"type": "playbill_feast.compute_engine.PackedComputeEngine"},
    }


def _feasts(folder: Path, backend: str, redis_url: str) -> dict[str, Any]:
    where = {"path": str(folder / "feast.db")}
    if backend == "redis":
        where = {"connection_string": urlsplit(redis_url).netloc}
    return {"offline_store": {"type": "file"}, "online_store": {"type": backend, **where}}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's prints and progress bars off the terminal."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def materialize_cpu_s(store: Any, times: int) -> float:
    """Return the median CPU seconds of materializing everything; the first time is not counted if there are more."""
    measured = []
    for _ in range(times):
        with quiet():
            started = time.process_time()
            store.materialize(NOW - timedelta(days=1), NOW)
            measured.append(time.process_time() - started)
    return statistics.median(measured[1:] or measured)


def reads(stores: Mapping[tuple[str, str], Any], options: argparse.Namespace) -> dict[str, float]:
    """Return CPU milliseconds of every store, the ratios, and whether all answers are the same dictionary."""
    rng = np.random.default_rng(options.seed)
    chosen = [f"member-{number}" for number in rng.choice(options.stored, options.entities, replace=False)]
    many = {name: _read(store, chosen, options.features) for name, store in stores.items()}
    one = {name: _read(store, chosen[:1], options.features) for name, store in stores.items()}
    # An unknown entity and one asked for twice must come back alike as well.
    odd = [_read(store, ["nobody", chosen[0], chosen[0]], options.features)() for store in stores.values()]
    cpu_ms, single_ms = cpu_p50_ms(many, options.repeats), cpu_p50_ms(one, options.repeats)
    answers = [read() for read in many.values()]
    result = {
        "entities": options.entities,
        "features": options.features,
        "stored": options.stored,
        "same_dictionary": int(all(answer == answers[0] for answer in answers) and all(o == odd[0] for o in odd)),
        "single_entity_ms": max(single_ms[PACKED, backend] for backend in BACKENDS),
    }
    for backend in BACKENDS:
        result[f"ratio_vs_feast_{backend}"] = cpu_ms[FEAST, backend] / cpu_ms[PACKED, backend]
        for kind in (PACKED, FEAST):
            result[f"{kind}_{backend}_ms"] = cpu_ms[kind, backend]
            result[f"{kind}_{backend}_single_ms"] = single_ms[kind, backend]
    return result


def _read(store: Any, members: list[str], features: int) -> Read:
    names = [f"stats:f{number}" for number in range(features)]
    rows = [{"member_id": member} for member in members]

    def read() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = store.get_online_features(features=names, entity_rows=rows).to_dict()
        return found

    return read


def cpu_p50_ms(reads: Mapping[Any, Read], repeats: int) -> dict[Any, float]:
    """Return the median CPU milliseconds of every reader. They take turns of `TURN` requests, the first unmeasured."""
    measured: dict[Any, list[float]] = {name: [] for name in reads}
    for _ in range(math.ceil(repeats / TURN)):
        for name, read in reads.items():
            for number in range(WARM_UP + TURN):
                started = time.process_time()
                read()
                if number >= WARM_UP:
                    measured[name].append((time.process_time() - started) * 1e3)
    return {name: statistics.median(times) for name, times in measured.items()}


def materialization(cpu_s: Mapping[tuple[str, str], float], rows: int) -> dict[str, float]:
    """Return rows per CPU second and the ratios."""
    result = {"materialize_rows_per_second": rows / cpu_s[PACKED, "sqlite"]}
    for backend in BACKENDS:
        result[f"materialize_ratio_vs_feast_{backend}"] = cpu_s[FEAST, backend] / cpu_s[PACKED, backend]
        for kind in (PACKED, FEAST):
            result[f"materialize_{kind}_{backend}_rows_per_second"] = rows / cpu_s[kind, backend]
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100, help="entities per request")
    parser.add_argument("--features", type=int, default=20, help="float features of each")
    parser.add_argument("--stored", type=int, default=10_000, help="entities in the store")
    parser.add_argument("--repeats", type=int, default=300, help="measured requests of each store")
    parser.add_argument("--materializations", type=int, default=3, help="of each store; the first is not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    return parser.parse_args()


def _show(result: Mapping[str, float]) -> None:
    table = Table("store", title="Online reads, CPU milliseconds (p50), and materialization, rows per CPU second")
    for name in (f"{result['entities']} entities", "1 entity", "rows per second"):
        table.add_column(name, justify="right")
    for backend in BACKENDS:
        for kind in (FEAST, PACKED):
            many, one = result[f"{kind}_{backend}_ms"], result[f"{kind}_{backend}_single_ms"]
            rows = result[f"materialize_{kind}_{backend}_rows_per_second"]
            table.add_row(f"{kind}, {backend}", f"{many:.3f}", f"{one:.3f}", f"{rows:,.0f}")
        ratios = (result[f"ratio_vs_feast_{backend}"], result[f"materialize_ratio_vs_feast_{backend}"])
        table.add_row(f"ratio, {backend}", f"{ratios[0]:.1f}x", "", f"{ratios[1]:.1f}x", end_section=True)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
