"""`playbill dataset`: training sets on disk, built and looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.protocols import protocol_list, protocol_option

if TYPE_CHECKING:
    from rich.table import Table

    from playbill.config import Workspace
    from playbill.datasets.examples.sampling import ExampleWeights
    from playbill.datasets.export.manifest import ExportManifest, ViewRecord
    from playbill.datasets.export.stored import ExportDifference, StoredDataset
    from playbill.datasets.export.write import Exported
    from playbill.definitions.specs import ResolvedModel

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group("dataset")
def dataset() -> None:
    """Write a model's training set to disk, and look at one.

    Example: playbill -w ml_100k dataset build everycanvas
    """


@dataset.command("build", epilog=protocol_list(auto=True))
@click.argument("model")
@click.option("--definition", type=click.IntRange(min=1), help="Version of the definition (default: the newest).")
@click.option("--out", type=FOLDER, help="Folder to write (default: HOME/NAME/datasets/MODEL-HASH).")
@protocol_option("the definition's, which may leave it to the log")
@click.option("--until", metavar="MOMENT", help="Build as at this moment, ISO 8601 with a zone (default: now).")
@click.option("--overwrite", is_flag=True, help="Replace a training set of other inputs.")
@click.option("--log", "log_run", is_flag=True, help="Log it in MLflow, as the input of a run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def build(
    selection: Selection,
    model: str,
    definition: int | None,
    out: Path | None,
    protocol: str | None,
    until: str | None,
    overwrite: bool,
    log_run: bool,
    as_json: bool,
) -> None:
    """Write the labelled requests of MODEL with their features as of each moment, as partitioned parquet.

    The same inputs give the same bytes, and a sound training set that is there already is left as it is.

    Example: playbill -w ml_100k dataset build everycanvas --protocol global_time
    """
    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.clock import parse_moment
    from playbill.project.references import definition_reference

    workspace, model = selection.workspace, definition_reference(model, definition, "dataset build")
    moment = parse_moment(until) if until else None
    with Stages() as stages:
        exported = _export(workspace, model, out, protocol, moment, overwrite, stages)
        if log_run:
            stages.stage("log in MLflow")
        run_id = _log(workspace, exported) if log_run else None
    if as_json:
        click.echo(
            json.dumps(
                {**_facts(exported.manifest, exported.folder), "written": exported.written, "notes": exported.notes}
                | _run(run_id)
            )
        )
        return
    Console().print(_folds(exported.manifest))
    for note in exported.notes:
        click.echo(f"note: {note}")
    if not exported.written:
        click.echo("It was there already, from the same inputs, and every file is as it was written.")
    click.echo(str(exported.folder))


def _export(
    workspace: Workspace, model: str, out: Path | None, protocol: str | None, until: Any, overwrite: bool, stages: Any
) -> Exported:
    """Check everything that can be wrong first, then write."""
    from playbill.datasets.export.write import Export
    from playbill.definitions.zoo import open_zoo
    from playbill.features import FeatureDoor
    from playbill.tables import Tables, workspace_clock

    stages.stage("check definitions, data and features")
    resolved = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(model)
    tables = Tables(workspace).require()
    export = Export.prepare(
        workspace.name,
        tables,
        resolved,
        FeatureDoor(workspace),
        workspace_clock(workspace),
        protocol=protocol,
        until=until,
        weights=_weights(resolved),
    )
    folder = (out or workspace.folder / "datasets" / export.name).resolve()
    stages.stage("write rows")
    return export.write(folder, overwrite=overwrite, progress=stages.advance)


def _weights(resolved: ResolvedModel) -> ExampleWeights | None:
    """Return what examples are worth. The training room, and with it torch, is asked only where there is a reward."""
    if all(head.reward is None for head in resolved.model.heads.values()):
        return None
    from playbill.training.example_weights import example_weights

    return example_weights(resolved)


def _log(workspace: Workspace, exported: Exported) -> str:
    from playbill.datasets.export.stored import StoredDataset
    from playbill.versions.tracking import Tracking
    from playbill.versions.tracking.connection import import_mlflow
    from playbill.versions.tracking.registry import git_revision

    import_mlflow()
    from playbill.versions.tracking.dataset_source import EXPERIMENT, dataset_tags, log_dataset

    stored = StoredDataset(exported.folder, exported.manifest)
    tags = dataset_tags(stored.manifest, git_revision(workspace.project.root))
    with Tracking(workspace).start_run(EXPERIMENT, exported.folder.name, tags) as run:
        log_dataset(run, stored)
    return run.run_id


@dataset.command("show")
@click.argument("folder", type=FOLDER)
@click.option("--against", type=FOLDER, help="Say which inputs differ from those of this training set.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare every file with the manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def show(folder: Path, against: Path | None, verify: bool, as_json: bool) -> None:
    """Say what a training set holds and what it was made from, and check that it is as it was written.

    Example: playbill dataset show datasets/everycanvas --against datasets/everycanvas_before
    """
    from playbill.cli.console import Console
    from playbill.cli.train import strata_table
    from playbill.datasets.export.stored import StoredDataset

    mine = StoredDataset.open(folder, verify=verify)
    other = StoredDataset.open(against, verify=verify) if against else None
    if as_json:
        click.echo(json.dumps(_facts(mine.manifest, mine.folder) | _compared(mine, other)))
        return
    console = Console()
    strata = [strata_table(mine.manifest.strata)] if mine.manifest.strata else []
    for table in (_folds(mine.manifest), *strata, _inputs(mine.manifest)):
        console.print(table)
    if other is not None:
        console.print(_differences(mine.diff(other)))
        console.print("The rows are the same." if mine.same_rows(other) else "The rows differ.")


def _facts(manifest: ExportManifest, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "model": manifest.name,
        "workspace": manifest.workspace,
        "protocol": manifest.inputs.protocol,
        "moment": manifest.inputs.moment.isoformat(),
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "parts": len(manifest.parts),
        "digest": manifest.digest,
        "inputs_digest": manifest.inputs.digest,
        "rows_digest": manifest.rows_digest,
        "strata": [stratum.model_dump() for stratum in manifest.strata],
        "rewards": dict(manifest.inputs.rewards),
        "folds": {fold: record.model_dump(mode="json") for fold, record in manifest.folds.items()},
    }


def _run(run_id: str | None) -> dict[str, str]:
    return {"run_id": run_id} if run_id else {}


def _compared(mine: StoredDataset, other: StoredDataset | None) -> dict[str, Any]:
    if other is None:
        return {}
    found = [{"name": one.name, "here": one.here, "there": one.there} for one in mine.diff(other)]
    return {"against": str(other.folder), "same_rows": mine.same_rows(other), "differences": found}


def _folds(manifest: ExportManifest) -> Table:
    from rich.table import Table

    table = Table("fold", title=f"Training set of {manifest.name}, {manifest.inputs.protocol}")
    for name in ("rows", "members", "titles"):
        table.add_column(name, justify="right")
    table.add_column("from (UTC)")
    table.add_column("to (UTC)")
    for head in manifest.inputs.heads:
        table.add_column(f"{head}: positive / labelled", justify="right")
    for fold, record in manifest.folds.items():
        ends = [f"{end:%Y-%m-%d %H:%M}" if end else "" for end in (record.first, record.last)]
        labels = [f"{record.positive[head]:,} / {record.labelled[head]:,}" for head in manifest.inputs.heads]
        table.add_row(fold, f"{record.rows:,}", f"{record.members:,}", f"{record.titles:,}", *ends, *labels)
    table.caption = f"{len(manifest.parts):,} files, {manifest.bytes / 2**20:,.1f} MiB, {manifest.digest[:16]}"
    return table


def _inputs(manifest: ExportManifest) -> Table:
    from rich.table import Table

    inputs = manifest.inputs
    table = Table("input", "what", title="Made from")
    table.add_row("tables", f"workspace {manifest.workspace}, snapshot {inputs.tables}, up to {inputs.moment}")
    table.add_row("model", f"{manifest.name}, {inputs.model.spec_hash[:16]}")
    for name, label in inputs.labels.items():
        table.add_row("label", f"{name}:{label.version}, {label.definition[:16]}")
    for head, version in inputs.rewards.items():
        table.add_row("reward", f"{version}, weighs the rows of {head}")
    table.add_row("feature service", f"{inputs.features.service}, {inputs.features.version}")
    table.add_row(
        "registry", f"Feast project {manifest.registry.project}, service registered {manifest.registry.updated}"
    )
    for view, record in inputs.features.views.items():
        table.add_row(f"{record.kind.replace('_', '-')} view", f"{view}, {record.definition}{_values(record)}")
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in inputs.libraries.items()))
    return table


def _values(record: ViewRecord) -> str:
    if record.rows is None:
        return ""
    built = f", built from {record.snapshot_id}" if record.snapshot_id else ""
    built += f" up to {record.built_until}" if record.built_until else ""
    return f", {record.rows:,} rows known {record.created_from} to {record.created_until}{built}"


def _differences(found: tuple[ExportDifference, ...]) -> Table:
    from rich.table import Table

    table = Table("input", "here", "there", title="Inputs that differ" if found else "No input differs")
    for one in found:
        table.add_row(one.name, _shown(one.here), _shown(one.there))
    return table


def _shown(value: Any) -> str:
    return "" if value is None else str(value)
