"""`playbill check`: every definition, every mistake, in under a second.

`playbill schema`: JSON schemas for editors.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection
from playbill.config import TEMPLATES
from playbill.errors import ConfigError, DefinitionError, PlaybillError, Problem
from playbill.files import write_text

if TYPE_CHECKING:
    import polars as pl

    from playbill.definitions.zoo import Zoo


@click.command()
@click.option("--deep", is_flag=True, help="Also ask Feast itself for every feature service (some seconds).")
@click.option("--data", "with_data", is_flag=True, help="Also look genres, canvases and the like up in the data.")
@click.option("--lock", is_flag=True, help="Publish: record every version, so that a changed one fails later.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(selection: Selection, deep: bool, with_data: bool, lock: bool, as_json: bool) -> None:
    """Check every definition in model_zoo/ and its names in feature_repo/.

    Every mistake of every file is reported at once, with file, line, column and the nearest right name. Exit
    status 1 when there is one.

    Example: playbill check
    """
    from playbill.definitions.zoo import load_zoo

    started = time.perf_counter()
    project = selection.folder
    try:
        zoo = load_zoo(project.model_zoo, project.feature_repo)
        if with_data:
            zoo = _with_data(selection, zoo)
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


def _with_data(selection: Selection, zoo: Zoo) -> Zoo:
    """Return the zoo with a note of every value that it names and the data does not have.

    Raises:
        DefinitionError: Some are nearly values that the data has.
        StateError: The workspace has no data.
    """
    from playbill.definitions.zoo.value_checks import check_values
    from playbill.tables import Tables

    tables = Tables(selection.workspace).require()
    mistakes, notes = check_values(zoo.index, known_values(tables.titles(), tables.published().log(None, None, None)))
    if mistakes:
        raise DefinitionError(f"{zoo.folder} against the data of {selection.workspace.name}", mistakes)
    return replace(zoo, notes=(*zoo.notes, *notes))


def known_values(titles: pl.DataFrame, log: pl.LazyFrame) -> dict[str, set[str]]:
    """Return candidate rule or column of a `where` -> the values that the data has; nothing where there are none.

    Args:
        titles: Rows of `titles`.
        log: Rows of `interactions`.
    """
    import polars as pl

    from playbill.definitions.zoo.value_checks import COLUMNS, RULES

    found: dict[str, set[str]] = {}
    for rule in RULES:
        column = {"origin": "countries"}.get(rule, rule)
        if column in titles.columns:
            values = titles[column].explode() if titles.schema[column].is_nested() else titles[column]
            found[rule] = set(values.drop_nulls().unique().to_list())
    there = [name for name in COLUMNS if name in log.collect_schema().names()]
    seen = log.select(pl.col(name).cast(pl.String).unique().implode() for name in there).collect()
    found |= {name: set(seen[name].item().drop_nulls().to_list()) for name in there}
    return {name: values for name, values in found.items() if values}


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
    from playbill.definitions.zoo import placed

    problems = [placed(problem) for problem in error.problems]
    return json.dumps({"ok": False, "model_zoo": error.subject, "problems": problems})


def _success(zoo: Zoo, published: list[str], seconds: float) -> str:
    from playbill.definitions.zoo import placed

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
    from rich.table import Table

    from playbill.cli.console import Console

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


DEFAULT = "model_zoo/schemas"


@click.command()
@click.argument("folder", metavar="[DIR]", default=DEFAULT, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--guide",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Rewrite the key reference of this Markdown file instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def schema(folder: Path, guide: Path | None, as_json: bool) -> None:
    """Write the JSON schemas of every kind of definition to DIR (default: model_zoo/schemas).

    The files of model_zoo/ name them in their first line, so that editors complete keys without any setting.

    Example: playbill schema model_zoo/schemas
    """
    written = [_write_guide(guide)] if guide is not None else _write_schemas(folder)
    if as_json:
        click.echo(json.dumps({"files": [str(path) for path in written]}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    if guide is None:
        line = "# yaml-language-server: $schema=../schemas/label.schema.json"
        click.echo(f"In the first line of a file in model_zoo/labels/, and so on: {line}")


def _write_schemas(folder: Path) -> list[Path]:
    from playbill.definitions.zoo.json_schema import write_schemas

    return write_schemas(folder)


def _write_guide(guide: Path) -> Path:
    from playbill.definitions.zoo.json_schema import replace_reference

    try:
        text = replace_reference(guide.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{guide}: {error}") from None
    write_text(guide, text, "the guide")
    return guide
