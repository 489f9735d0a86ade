"""`playbill init`: a project of one's own, from what ships with Playbill.

`playbill status`: what this workspace holds, and which model is served.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from playbill.cli.main import Selection
from playbill.config import FILE_NAME, Workspace
from playbill.errors import PlaybillError
from playbill.project.starting import FOLDERS, MAPPING, start_project


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--minimal", is_flag=True, help="The smallest definitions, and a mapping for a CSV of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(folder: Path, minimal: bool, as_json: bool) -> None:
    """Start a project in DIR: playbill.toml, model_zoo/ and feature_repo/.

    Nothing that is there already is overwritten. With --minimal it has one model of one canvas and mapping.yaml, which
    reads a file log.csv with the columns member, title and time.

    Example: playbill init my_service
    """
    written = start_project(folder, minimal=minimal)
    if as_json:
        click.echo(json.dumps({"project": str(folder.resolve()), "files": written}))
        return
    files = [FILE_NAME, *([MAPPING] if minimal else []), *(f"{name}/" for name in FOLDERS)]
    command = f"playbill ingest parquet FOLDER --mapping {MAPPING}" if minimal else "playbill quickstart"
    click.echo(f"Started a project in {folder}: {', '.join(files)}.")
    click.echo(f"Next:\n  cd {folder}\n  playbill check\n  {command}")


def data_status(workspace: Workspace) -> dict[str, Any]:
    """Return table rows, snapshot, clock, and which feature files are there."""
    from playbill.features import online_store_state
    from playbill.tables import Tables, workspace_clock

    tables = Tables(workspace)
    if not tables.exists():
        return {"rows": {}, "next": f"playbill -w {workspace.name} ingest movielens_100k"}
    online = online_store_state(workspace)
    files = sorted(path.stem for path in workspace.features.glob("*.parquet"))
    return {
        "rows": tables.row_counts(),
        "snapshot": tables.snapshot_id(),
        "clock": workspace_clock(workspace).now().isoformat(),
        "feature_files": files,
        "feature_store": workspace.feature_store_yaml.is_file(),
        "online_store": online.loaded,
        "online_store_at": online.where,
        "online_store_problem": online.problem or None,
    }


def model_status(workspace: Workspace) -> list[dict[str, Any]]:
    """Return every registered version with its aliases, and whether it is the approved one."""
    from playbill.versions.promotion import approved
    from playbill.versions.tracking import Tracking

    tracking = Tracking(workspace)
    found = []
    for model in tracking.models():
        served = approved(workspace, model)
        for version in tracking.versions(model):
            is_served = served is not None and (served.version, served.digest) == (version.version, version.digest)
            found.append(
                {
                    "model": model,
                    "version": version.version,
                    "aliases": list(version.aliases),
                    "approved": is_served,
                    "protocol": version.tags.get("playbill.protocol", ""),
                    "protocol_reason": version.tags.get("playbill.protocol_reason", ""),
                    "decision": version.tags.get("playbill.promotion", ""),
                }
            )
    return found


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(selection: Selection, as_json: bool) -> None:
    """Say what this workspace holds and which model is served.

    Example: playbill -w ml_100k status
    """
    workspace = selection.workspace
    data = data_status(workspace)
    problem = ""
    try:
        models = model_status(workspace) if data["rows"] else []
    except PlaybillError as error:
        models, problem = [], str(error)
    if as_json:
        click.echo(
            json.dumps({"workspace": workspace.name, **data, "models": models, "models_problem": problem or None})
        )
        return
    _show(workspace, data, models, problem)


def _online(data: dict[str, Any]) -> str:
    if data["online_store_problem"]:
        return f"{data['online_store_at']} does not answer: {data['online_store_problem']}"
    return f"loaded: {data['online_store_at']}" if data["online_store"] else "empty: playbill materialize"


def _show(workspace: Workspace, data: dict[str, Any], models: list[dict[str, Any]], problem: str) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    console = Console()
    if not data["rows"]:
        console.print(f"workspace {workspace.name} is empty. Next: {data['next']}")
        return
    table = Table("what", "found", title=f"Workspace {workspace.name}")
    for name, rows in data["rows"].items():
        table.add_row(name, f"{rows:,} rows")
    table.add_row("clock", data["clock"])
    table.add_row("feature files", ", ".join(data["feature_files"]) or "none: playbill features build")
    table.add_row("feature store", "applied" if data["feature_store"] else "not applied: playbill apply")
    table.add_row("online store", _online(data))
    console.print(table)
    if problem:
        console.print(f"models: {problem}", style="yellow")
        return
    versions = Table("model", "version", "aliases", "served", "protocol", "decision", title="Models")
    for row in models:
        served = "yes" if row["approved"] else ""
        aliases = ", ".join(row["aliases"])
        versions.add_row(row["model"], str(row["version"]), aliases, served, row["protocol"], row["decision"])
    console.print(versions if models else "no model yet: playbill train everycanvas")
