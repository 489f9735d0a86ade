"""Run Feast's own universal store suites, at a tag of Feast, against Playbill's stores.

    python tests/conformance/feast_universal.py TESTS

TESTS is a folder with `sdk/python/tests` and `sdk/python/pytest.ini` of a Feast tag, or `GIT@REF`: a clone (bare
or not) and the commit or tag to take them from. The tests are read, not copied into the repository. They need
another pytest than ours, so they run in an environment of their own; `--environment` keeps it for the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from feast_suite_environment import ROOT, make_environment, take_tests, versions
from feast_suite_report import Outcome, page, read_outcome, show
from rich.console import Console

sys.path.insert(0, str(ROOT / "tests"))  # for `fixtures`

OFFLINE = {"type": "playbill_feast.offline.store.AsofOfflineStore"}
PACKED = {"type": "playbill_feast.online.store.PackedOnlineStore"}
SQLITE = PACKED | {"backend": "sqlite", "path": "{file}"}
REDIS = PACKED | {"backend": "redis", "connection_string": "{redis}"}
ENGINE = {"type": "playbill_feast.compute_engine.PackedComputeEngine"}
DASK, FEAST_SQLITE = {"type": "dask"}, {"type": "sqlite", "path": "{file}"}
FEAST_REDIS = {"type": "redis", "connection_string": "{redis}"}

_FOLDER = "tests/integration/online_store"
_GENERAL = f"{_FOLDER}/test_universal_online.py"
OFFLINE_TESTS = ["-m", "universal_offline_stores", "tests/integration/offline_store"]
ONLINE_TESTS = [
    "-m",
    "universal_online_stores",
    *(f"{_FOLDER}/test_{name}.py" for name in ("universal_online", "universal_online_types", "universal_e2e")),
    f"{_FOLDER}/test_push_features_to_online_store.py",
]
DQM = {"tests/integration/offline_store/test_dqm_validation.py": "needs great_expectations, is no test of stores"}
DYNAMO = {
    f"{test}": "starts DynamoDB in Docker, whatever store is asked for"
    for test in (
        f"{_GENERAL}::test_async_online_retrieval_with_event_timestamps_dynamo",
        f"{_FOLDER}/test_push_features_to_online_store.py::test_push_features_and_read_async_dynamodb",
    )
}
KEY_TTL = {f"{_GENERAL}::test_entity_ttl_online_store": "on SQLite only: `key_ttl_seconds` is Redis's removal of keys"}
AGED = {
    f"{_GENERAL}::test_write_to_online_store_event_check": "only where `enforce_ttl` is on: it reads values of an hour "
    "ago from a view whose ttl is five minutes; run with `enforce_ttl: false`"
}


class Run(NamedTuple):
    """One run of a suite: what is tested, with which tests."""

    title: str
    offline: dict[str, Any]
    online: dict[str, Any]
    engine: dict[str, Any] | None
    tests: list[str]
    left_out: dict[str, str]
    names: Sequence[str] = ("sqlite", "redis", "mongodb", "milvus")
    """Feast's stores whose own tests are run too: those for Redis are about any store that compares event times, those
    for MongoDB about any that reads asynchronously, those for Milvus about any that searches vectors."""


AS_FEAST = {"enforce_ttl": False}
RUNS = {
    "offline": Run("AsofOfflineStore", OFFLINE, SQLITE, None, OFFLINE_TESTS, DQM),
    "online-sqlite": Run("PackedOnlineStore, SQLite", OFFLINE, SQLITE, None, ONLINE_TESTS, DYNAMO | KEY_TTL | AGED),
    "online-redis": Run("PackedOnlineStore, Redis", OFFLINE, REDIS, None, ONLINE_TESTS, DYNAMO | AGED),
    "engine-sqlite": Run(
        "PackedComputeEngine, SQLite, enforce_ttl: false",
        OFFLINE,
        SQLITE | AS_FEAST,
        ENGINE,
        ONLINE_TESTS,
        DYNAMO | KEY_TTL,
    ),
    "engine-redis": Run(
        "PackedComputeEngine, Redis, enforce_ttl: false", OFFLINE, REDIS | AS_FEAST, ENGINE, ONLINE_TESTS, DYNAMO
    ),
    "feast-dask": Run("Feast's file store", DASK, FEAST_SQLITE, None, OFFLINE_TESTS, DQM, ["sqlite"]),
    "feast-sqlite": Run("Feast's SQLite store", DASK, FEAST_SQLITE, None, ONLINE_TESTS, DYNAMO, ["sqlite"]),
    "feast-redis": Run("Feast's Redis store", DASK, FEAST_REDIS, None, ONLINE_TESTS, DYNAMO, ["redis"]),
}
OURS = [name for name in RUNS if not name.startswith("feast-")]


def main() -> int:
    """Run the suites; 1 when a test failed or a run came to nothing."""
    requested = _arguments()
    console = Console()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feast-suites-")))
        suite, source = take_tests(requested.tests, work)
        with console.status("An environment for Feast's suites"):
            python = make_environment(requested.environment or work / "environment")
        redis = stack.enter_context(_redis()) if any("redis" in name for name in requested.runs) else ""
        outcomes = []
        for name in requested.runs:
            with console.status(f"{name}: {RUNS[name].title}"):
                outcomes.append(run(name, suite, python, redis, work, requested.only))
        if requested.report:
            command = "make feast-conformance TESTS=<folder with sdk/python/tests and pytest.ini of a Feast tag>"
            requested.report.write_text(page(outcomes, source, versions(python), command))
    show(outcomes, console)
    print(json.dumps({outcome.name: outcome.counts for outcome in outcomes}))
    return int(any(outcome.failed or not outcome.passed for outcome in outcomes))


def run(name: str, suite: Path, python: Path, redis: str, work: Path, only: str | None = None) -> Outcome:
    """Run one of `RUNS` in a process of its own and read its outcome."""
    requested = RUNS[name]
    scratch, xml, log = work / name, work / f"{name}.xml", work / f"{name}.log"
    scratch.mkdir()
    skipped = [word for test in requested.left_out for word in ("--deselect" if "::" in test else "--ignore", test)]
    chosen = ["-k", only] if only else []
    command = [str(python), "-m", "pytest", "--integration", "-q", f"--junitxml={xml}", "-p", "no:cacheprovider"]
    started = time.perf_counter()
    with log.open("w") as output:
        subprocess.run(
            [*command, *skipped, *chosen, *requested.tests],
            cwd=suite,
            env=_environment(requested, suite, redis, scratch),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not xml.exists():
        raise SystemExit(f"{name}: the suite did not run\n" + "\n".join(log.read_text().splitlines()[-30:]))
    outcome = Outcome(name, requested.title, time.perf_counter() - started, left_out=requested.left_out)
    read_outcome(outcome, xml)
    if outcome.failed:
        print(log.read_text())
    return outcome


def _environment(requested: Run, suite: Path, redis: str, scratch: Path) -> dict[str, str]:
    stores = {
        "offline": requested.offline,
        "online": requested.online,
        "engine": requested.engine,
        "names": requested.names,
    }
    return os.environ | {
        "FULL_REPO_CONFIGS_MODULE": "feast_suite_config",
        "PLAYBILL_SUITE_STORES": json.dumps(stores).replace("{redis}", redis),
        "PYTEST_PLUGINS": "feast_suite_plugin",
        "PYTHONPATH": f"{suite}{os.pathsep}{Path(__file__).parent}",
        "IS_TEST": "True",
        "FEAST_USAGE": "False",
        "TMPDIR": str(scratch),
    }


def _redis() -> contextlib.AbstractContextManager[str]:
    from fixtures.servers import REDIS, install_command
    from fixtures.throwaway_redis import throwaway_redis

    if not REDIS.find():
        raise SystemExit(f"Redis is not installed: {install_command([REDIS])}, or leave the redis runs out (--runs)")
    return _as_feast_writes_it(throwaway_redis())


@contextlib.contextmanager
def _as_feast_writes_it(server: contextlib.AbstractContextManager[str]) -> Any:
    with server as url:
        address, database = url.removeprefix("redis://").split("/")
        yield f"{address},db={database}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", help="folder with sdk/python/tests, or GIT@REF")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=OURS, metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--environment", type=Path, help="keep the virtual environment here, and use it if it is there")
    parser.add_argument("--only", help="a pytest -k expression")
    parser.add_argument("--report", type=Path, help="write the outcome as a page, such as docs/results/...md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
