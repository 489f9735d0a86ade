"""A real server under requests that nobody would send: nothing is a 5xx, and nothing is answered off its document.

Example: python tests/benchmarks/fuzz.py --json
Small:   python tests/benchmarks/fuzz.py --cases 300 --json

A small service is made, ingested, trained and promoted, and `playbill serve` answers over HTTP with its real canvases.
schemathesis draws the cases from the server's OpenAPI document; every text and moment of `tests/fixtures/fuzz_service`
follows. The last line is one JSON object; the exit status is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fixtures_path  # noqa: F401
import requests
import yaml
from rich.console import Console
from rich.table import Table

from fixtures.fuzz_service import Fuzzed, Names, fuzz
from fixtures.small_project import Playbill, fill, start
from fixtures.small_service import write_small_service

START_SECONDS = 120


def names_of(project: Playbill) -> Names:
    """Return the canvases of the project's model, and who and what its small service has."""
    model = yaml.safe_load((project.folder / "model_zoo" / "models" / "everycanvas" / "model.yaml").read_text())
    members, titles = [f"m{number}" for number in range(0, 160, 7)], [f"t{number}" for number in range(0, 120, 5)]
    return Names(model["canvases"], members, titles, ["NL", "BR", "JP", "ZZ"])


@contextmanager
def serving(project: Playbill) -> Iterator[str]:
    """Run `playbill serve` in a process of its own; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = project.command("serve", "--port", str(port), "--no-controller", "--queue-seconds", "30")
    log = (project.folder / "serve.log").open("wb")
    process = subprocess.Popen(command, cwd=project.folder, env=project.environment, stdout=log, stderr=log)
    url, begin = f"http://127.0.0.1:{port}", time.perf_counter()
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                raise RuntimeError(f"the server did not start:\n{(project.folder / 'serve.log').read_text()}")
            try:
                requests.get(f"{url}/healthz", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def make_project(folder: Path) -> Playbill:
    """Make, ingest, train and promote a small service."""
    write_small_service(folder / "data")
    project = start(folder / "project")
    fill(project, folder / "data")
    version = project.json("train", "everycanvas")["version"]
    project.run("promote", f"everycanvas:{version}")
    return project


def show(found: Fuzzed) -> None:
    """Print how often each route gave each status, and what is wrong."""
    table = Table("route and status", "answers")
    for name, count in sorted(found.statuses.items()):
        table.add_row(name, f"{count:,}")
    console = Console()
    console.print(table)
    for line in [*found.server_errors, *found.undocumented][:20]:
        console.print(line, style="red", markup=False, highlight=False)


def main() -> None:
    """Fuzz, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5_000, help="Drawn requests.")
    parser.add_argument("--seed", type=int, default=11, help="The same number draws the same requests.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object as the last line.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="playbill-fuzz-") as folder:
        project = make_project(Path(folder))
        begin = time.perf_counter()
        with serving(project) as url:
            found = fuzz(url, names_of(project), arguments.cases, arguments.seed)
            ready = requests.get(f"{url}/readyz", timeout=30).json()
    show(found)
    summary = {
        "requests": found.requests,
        "server_errors": len(found.server_errors),
        "undocumented": len(found.undocumented),
        "statuses": dict(sorted(found.statuses.items())),
        "dead_letters": ready["dead_letters"],
        "seconds": round(time.perf_counter() - begin, 1),
        "seed": arguments.seed,
    }
    if arguments.json:
        print(json.dumps(summary))
    raise SystemExit(1 if found.server_errors or found.undocumented else 0)


if __name__ == "__main__":
    main()
