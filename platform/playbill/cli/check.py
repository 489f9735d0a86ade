"""`playbill check`: every definition, every mistake, in under a second."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection
from playbill.config import TEMPLATES
from playbill.errors import ConfigError, DefinitionError, PlaybillError, Problem

if TYPE_CHECKING:
    from playbill.zoo import Zoo


@click.command()
@click.option("--deep", is_flag=True, help="Also ask Feast itself for every feature service (some seconds).")
@click.option("--lock", is_flag=True, help="Publish: record every version, so that a changed one fails later.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(selection: Selection, deep: bool, lock: bool, as_json: bool) -> None:
    """Check every definition in model_zoo/ and its names in feature_repo/.

    Every mistake of every file is reported at once, with file, line, column and the nearest right name. Exit
    status 1 when there is one.

    Example: playbill check
    """
    from playbill.zoo import load_zoo

    started = time.perf_counter()
    project = selection.project
    try:
        zoo = load_zoo(project.model_zoo, project.feature_repo)
        if deep:
            _ask_feast(selection, zoo)
    except DefinitionError as error:
        if as_json:
            click.echo(_failure(error))
            raise SystemExit(1) from None
        raise
    published = _publish(zoo) if lock else []
    if as_json:
        click.echo(_success(zoo, published, time.perf_counter() - started))
    else:
        _print(zoo, published, time.perf_counter() - started)


def _publish(zoo: Zoo) -> list[str]:
    if zoo.folder.is_relative_to(TEMPLATES):
        raise ConfigError(f"{zoo.folder} came with the installation, `playbill init DIR` makes one of your own")
    return zoo.publish()


def _ask_feast(selection: Selection, zoo: Zoo) -> None:
    """Ask Feast for every service a model names.

    Raises:
        DefinitionError: Feast does not know some of them.
    """
    from playbill.features import FeatureDoor

    door = FeatureDoor(selection.workspace)
    services: dict[str, list[str]] = {}
    for model in zoo.models.values():
        services.setdefault(model.features, []).append(model.name)
    problems = []
    for service, models in services.items():
        try:
            door.schema(service)
        except PlaybillError as error:
            problems.append(Problem(f"model {', '.join(models)}: features", str(error)))
    if problems:
        raise DefinitionError(f"{zoo.folder} against Feast", problems)


def _failure(error: DefinitionError) -> str:
    from playbill.zoo import placed

    problems = [placed(problem) for problem in error.problems]
    return json.dumps({"ok": False, "model_zoo": error.subject, "problems": problems})


def _success(zoo: Zoo, published: list[str], seconds: float) -> str:
    from playbill.zoo import placed

    return json.dumps(
        {
            "ok": True,
            "model_zoo": str(zoo.folder),
            "checked": zoo.counts(),
            "models": {name: zoo.model(name).spec_hash for name in zoo.models},
            "notes": [placed(note) for note in zoo.notes],
            "published": published,
            "seconds": round(seconds, 3),
        }
    )


def _print(zoo: Zoo, published: list[str], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("kind", "definitions", title=str(zoo.folder), title_justify="left")
    for kind, names in zoo.names().items():
        if names:
            table.add_row(kind, ", ".join(names))
    if zoo.features is not None:
        table.add_row("feature services", ", ".join(sorted(zoo.features.services)))
        table.add_row("feature views", ", ".join(sorted(zoo.features.views)))
    console.print(table)
    for note in zoo.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for key in published:
        console.print(f"published {key}", markup=False)
    total = sum(zoo.counts().values())
    console.print(f"{total} definitions are right ({seconds * 1000:.0f} ms).", markup=False)
