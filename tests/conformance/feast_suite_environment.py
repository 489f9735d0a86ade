"""What a run of Feast's universal suites needs: the tests themselves, and a virtual environment for them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAKEN = ["sdk/python/tests", "sdk/python/pytest.ini"]
# What the suites were written against; no Docker is needed for the tests that run here.
SUITE_NEEDS = [
    "pytest<8",
    "pytest-xdist",
    "pytest-timeout==1.4.2",
    "pytest-lazy-fixture==0.6.3",
    "pytest-ordering",
    "pytest-mock==1.10.4",
    "pytest-env",
    "pytest-benchmark<4",
    "pytest-asyncio<=0.24",
    "py>=1.11",
    "testcontainers",
    "minio",
    "assertpy",
    "python-keycloak<5",
    "httpx",
    "deltalake<1",
    "grpcio",
    "moto",
    "boto3",
]
NOT_PINNED = ("pytest", "pytest-timeout", "pytest-cov", "iniconfig", "pluggy", "hypothesis")
SHOWN = ("feast", "playbill", "polars", "pyarrow", "pandas", "numpy", "redis", "pytest")


def take_tests(requested: str, work: Path) -> tuple[Path, str]:
    """Return the folder that holds `tests/` and pytest.ini, and what it is.

    Args:
        requested: A folder with `sdk/python/tests`, or `GIT@REF`.
        work: A folder to write to.
    """
    if "@" in requested:
        folder, ref = requested.rsplit("@", 1)
        return _checked_out(Path(folder), ref, work)
    folder = next(
        (at for at in (Path(requested) / "sdk/python", Path(requested)) if (at / "tests/universal").is_dir()), None
    )
    if not folder or not (folder / "pytest.ini").is_file():
        raise SystemExit(f"{requested}: has no sdk/python/tests with sdk/python/pytest.ini of a Feast tag")
    digest = hashlib.sha256()
    for path in sorted((folder / "tests").rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    # The suites must not see Feast's sources beside them, which would shadow the installed Feast.
    if (folder / "feast").exists():
        raise SystemExit(f"{folder}: take only {' and '.join(TAKEN)}; Feast's sources beside them would be tested")
    return folder, f"tests with the hash {digest.hexdigest()[:12]}"


def _checked_out(folder: Path, ref: str, work: Path) -> tuple[Path, str]:
    tree = work / "tree"
    tree.mkdir()
    inside = folder / ".git" if (folder / ".git").exists() else folder
    git = ["git", f"--git-dir={inside}"]
    environment = {"GIT_INDEX_FILE": str(work / "index"), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    checkout = [*git, f"--work-tree={tree}", "checkout", ref, "--", *TAKEN]
    done = subprocess.run(checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}@{ref}: {done.stderr.strip()}")
    named = subprocess.run(
        [*git, "describe", "--tags", "--always", ref], capture_output=True, text=True, check=True
    ).stdout.strip()
    return tree / "sdk/python", f"feast-dev/feast at {named}"


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment with the suites' needs and this checkout; made when it is not there."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#") and line.split("==")[0].lower() not in NOT_PINNED
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins))
        constraints.flush()
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", constraints.name, "-e", f"{ROOT}[features,redis]", *SUITE_NEEDS], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return the versions of what matters to the outcome."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {row["name"].lower(): row["version"] for row in json.loads(listing.stdout)}
    return {name: found[name] for name in SHOWN}
