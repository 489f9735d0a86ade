"""`playbill doctor`: what is installed, reachable, and missing, with the remedy beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import click

from playbill.cli.main import Selection
from playbill.config import FILE_NAME, Workspace
from playbill.errors import PlaybillError

EXTRAS = {
    "features": ("feast", "pandas"),
    "redis": ("redis",),
    "models": ("torch", "safetensors", "scipy"),
    "tracking": ("mlflow", "matplotlib"),
    "serving": ("fastapi", "uvicorn"),
    "train": ("scikit-learn",),
    "ray": ("ray",),
    "postgres": ("psycopg",),
}
"""Which packages each optional part of Playbill needs."""

NEEDED_DISK_GIB = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    detail: str
    remedy: str = ""


def machine() -> Iterator[Finding]:
    """Look at Python, processors and disk."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", (3, 11) <= sys.version_info[:2] <= (3, 13), version, "use Python 3.11, 3.12 or 3.13")
    yield Finding("processors", True, f"{os.cpu_count()}, GPU driver: {'yes' if shutil.which('nvidia-smi') else 'no'}")


def packages() -> Iterator[Finding]:
    """Look for the packages of every optional part."""
    for extra, names in EXTRAS.items():
        found, missing = [], []
        for name in names:
            try:
                found.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                missing.append(name)
        detail = ", ".join([*found, *(f"{name} missing" for name in missing)])
        yield Finding(f"playbill[{extra}]", not missing, detail, f"pip install 'playbill[{extra}]'")


def project(workspace: Workspace) -> Iterator[Finding]:
    """Look at the project's files and folders."""
    toml = workspace.project.root / FILE_NAME
    yield Finding("project", True, str(toml) if toml.is_file() else f"{workspace.project.root} (defaults)")
    yield Finding("home", True, str(workspace.project.home))
    parent = workspace.project.home
    while not parent.exists():
        parent = parent.parent
    free_gib = shutil.disk_usage(parent).free / 2**30
    yield Finding("disk", free_gib > NEEDED_DISK_GIB, f"{free_gib:.0f} GiB free", f"free {NEEDED_DISK_GIB} GiB")
    yield _definitions(workspace)
    filled = workspace.tables.is_dir()
    remedy = f"playbill -w {workspace.name} ingest movielens_100k"
    yield Finding(f"data of {workspace.name}", filled, str(workspace.tables) if filled else "none", remedy)
    applied = workspace.feature_store_yaml.is_file()
    remedy = f"playbill -w {workspace.name} apply"
    yield Finding("feature store", applied, str(workspace.feature_store_yaml) if applied else "not applied", remedy)


def _definitions(workspace: Workspace) -> Finding:
    from playbill.definitions.zoo import load_zoo

    try:
        zoo = load_zoo(workspace.project.model_zoo, workspace.project.feature_repo)
    except PlaybillError as error:
        return Finding("model zoo", False, str(error).splitlines()[0], "playbill check")
    models = ", ".join(sorted(zoo.models))
    return Finding("model zoo", True, f"{workspace.project.model_zoo}: models {models}")


def services(workspace: Workspace) -> Iterator[Finding]:
    """Look whether the databases and ports can be had."""
    yield _database(workspace)
    yield _mlflow(workspace)
    yield _online_store(workspace)
    settings = workspace.project.settings.serving
    for name, port in (("server port", settings.port), ("MLflow port", settings.mlflow_port)):
        free = port_is_free(settings.host, port)
        yield Finding(name, True, f"{settings.host}:{port} {'free' if free else 'in use'}")


def port_is_free(host: str, port: int) -> bool:
    """Return whether nothing listens at `host:port`."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) != 0


def _database(workspace: Workspace) -> Finding:
    import sqlalchemy

    url = sqlalchemy.make_url(workspace.database_url)
    shown = url.render_as_string(hide_password=True)
    try:
        with sqlalchemy.create_engine(url).connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        return Finding("database", False, f"{shown}: {str(error).splitlines()[0]}", "see [services] in playbill.toml")
    return Finding("database", True, shown)


def _mlflow(workspace: Workspace) -> Finding:
    uri = urlparse(workspace.mlflow_uri)
    if uri.scheme not in ("http", "https"):
        path = Path(uri.path) if uri.scheme == "sqlite" else None
        fresh = path is not None and not path.exists()
        return Finding("mlflow", True, f"{uri.scheme} database{', made by the first run' if fresh else ''}")
    port = uri.port or (443 if uri.scheme == "https" else 80)
    reachable = not port_is_free(uri.hostname or "", port)
    return Finding("mlflow", reachable, f"{uri.hostname}:{port}", "start the MLflow server, or see [services]")


def _online_store(workspace: Workspace) -> Finding:
    from playbill.features import online_store_state

    try:
        found = online_store_state(workspace)
    except PlaybillError as error:
        return Finding("online store", False, str(error), "see [services] in playbill.toml")
    detail = f"{found.where}{f': {found.problem}' if found.problem else '' if found.loaded else ', empty'}"
    return Finding("online store", found.reachable, detail, "start Redis, or see [services] in playbill.toml")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(selection: Selection, as_json: bool) -> None:
    """Say what is installed, reachable, and missing, and what to do about it.

    Example: playbill -w ml_100k doctor
    """
    workspace = selection.workspace
    findings = [*machine(), *packages(), *project(workspace), *services(workspace)]
    if as_json:
        healthy = all(finding.ok for finding in findings)
        click.echo(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
        return
    from rich.table import Table

    from playbill.cli.console import Console, mark

    table = Table("", "what", "found", "to do", title=f"Playbill, workspace {workspace.name}")
    for finding in findings:
        tick = mark(finding.ok, otherwise="!", style="yellow")
        table.add_row(tick, finding.what, finding.detail, "" if finding.ok else finding.remedy)
    Console().print(table)
