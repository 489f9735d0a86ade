"""`playbill check`: every definition, every mistake, in under a second.

`playbill schema`: JSON schemas for editors.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection
from playbill.config import TEMPLATES
from playbill.errors import ConfigError, DefinitionError, PlaybillError, Problem
from playbill.files import write_text
from playbill.schema import INTERACTIONS

if TYPE_CHECKING:
    import polars as pl

    from playbill.definitions.zoo import Zoo
    from playbill.definitions.zoo.value_checks import CanvasData

INCOMPLETE = 3
"""Exit status of `--strict` for a sound zoo some of whose labels the data has no events of; click's own is 2."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a sound zoo names that a workspace's data does not have."""

    canvases: list[CanvasData]
    notes: list[Problem]
    of_labels: list[Problem]

    @property
    def complete(self) -> bool:
        """Whether every label of every canvas has events."""
        return not any(one.without_events for one in self.canvases)


@click.command()
@click.option("--deep", is_flag=True, help="Also ask Feast itself for every feature service (some seconds).")
@click.option("--data", "with_data", is_flag=True, help="Also look genres, canvases and the like up in the data.")
@click.option("--strict", is_flag=True, help="With --data: exit status 3 where a label of a canvas has no events.")
@click.option("--verbose", is_flag=True, help="With --data: every value that the data lacks, with file and line.")
@click.option("--lock", is_flag=True, help="Publish: record every version, so that a changed one fails later.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with everything that --verbose prints.")
@click.pass_obj
def check(
    selection: Selection, deep: bool, with_data: bool, strict: bool, verbose: bool, lock: bool, as_json: bool
) -> None:
    """Check every definition in model_zoo/ and its names in feature_repo/.

    Every mistake of every file is reported at once, with file, line, column and the nearest right name. --data says
    canvas by canvas which labels the workspace's log has no events of, and what ranks the canvas without them.

    \b
    Exit status: 0  every definition is right
                 1  there are mistakes, or no data to look into
                 2  the command line is wrong
                 3  with --data --strict: right, but a canvas has labels without events

    Example: playbill check

    Of a script: playbill check --data --strict --json
    """  # noqa: D301
    from playbill.definitions.zoo import load_zoo

    if (strict or verbose) and not with_data:
        raise click.UsageError("--strict and --verbose are about what the data lacks: add --data")
    started = time.perf_counter()
    project, report = selection.folder, None
    try:
        zoo = load_zoo(project.model_zoo, project.feature_repo)
        if with_data:
            report = _data_report(selection, zoo)
        if deep:
            _ask_feast(selection, zoo)
    except DefinitionError as error:
        if as_json:
            click.echo(_failure(error))
            raise SystemExit(1) from None
        raise
    published = _publish(zoo) if lock else []
    if as_json:
        click.echo(_success(zoo, report, published, time.perf_counter() - started))
    else:
        _print(zoo, report, verbose, published, time.perf_counter() - started)
    if strict and report is not None and not report.complete:
        raise SystemExit(INCOMPLETE)


def _data_report(selection: Selection, zoo: Zoo) -> DataReport:
    """Look up what definitions name in the data.

    Raises:
        DefinitionError: Some values are nearly ones that the data has.
        StateError: The workspace has no data.
    """
    from playbill.definitions.zoo.value_checks import canvas_data, check_values
    from playbill.tables import Tables

    tables = Tables(selection.workspace).require()
    known = known_values(tables.titles(), tables.published().log(None, None, None))
    found = check_values(zoo.index, known)
    if found.mistakes:
        raise DefinitionError(f"{zoo.folder} against the data of {selection.workspace.name}", found.mistakes)
    canvases = [one for name in zoo.models for one in canvas_data(zoo.model(name), known)]
    return DataReport(canvases, found.notes, found.of_labels)


def known_values(titles: pl.DataFrame, log: pl.LazyFrame) -> dict[str, set[str]]:
    """Return candidate rule or column of a `where` -> the values that the data has; nothing where there are none.

    Under `UNFILLED` are the columns of the log that no event has a value of.

    Args:
        titles: Rows of `titles`.
        log: Rows of `interactions`.
    """
    import polars as pl

    from playbill.definitions.zoo.value_checks import COLUMNS, RULES, UNFILLED

    found: dict[str, set[str]] = {}
    for rule in RULES:
        column = {"origin": "countries"}.get(rule, rule)
        if column in titles.columns:
            values = titles[column].explode() if titles.schema[column].is_nested() else titles[column]
            found[rule] = set(values.drop_nulls().unique().to_list())
    names = log.collect_schema().names()
    there = [name for name in COLUMNS if name in names]
    seen = log.select(pl.col(name).cast(pl.String).unique().implode() for name in there).collect()
    found |= {name: set(seen[name].item().drop_nulls().to_list()) for name in there}
    counts = log.select(pl.all().count()).collect().row(0, named=True)
    found[UNFILLED] = {name for name in INTERACTIONS.names() if not counts.get(name, 0)}
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


def _success(zoo: Zoo, report: DataReport | None, published: list[str], seconds: float) -> str:
    from playbill.definitions.zoo import placed

    data = {} if report is None else {"data": _data_facts(report)}
    lacking = () if report is None else (*report.notes, *report.of_labels)
    return json.dumps(
        {
            "ok": True,
            "model_zoo": str(zoo.folder),
            "checked": zoo.counts(),
            "models": {name: zoo.model(name).spec_hash for name in zoo.models},
            "notes": [placed(note) for note in (*zoo.notes, *lacking)],
            **data,
            "published": published,
            "seconds": round(seconds, 3),
        }
    )


def _data_facts(report: DataReport) -> dict[str, object]:
    return {"complete": report.complete, "canvases": [asdict(one) for one in report.canvases]}


def _print(zoo: Zoo, report: DataReport | None, verbose: bool, published: list[str], seconds: float) -> None:
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
    for note in (*zoo.notes, *(_lacking(report, verbose) if report is not None else ())):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for key in published:
        console.print(f"published {key}", markup=False)
    total = sum(zoo.counts().values())
    console.print(f"{total} definitions are right ({seconds * 1000:.0f} ms).", markup=False)


def _lacking(report: DataReport, verbose: bool) -> list[str]:
    """Return what the data lacks: a line for each canvas, and for each rule of a row or canvas; of labels on demand."""
    from playbill.definitions.zoo.value_checks import canvas_lines

    lines = [*canvas_lines(report.canvases), *map(str, report.notes)]
    if verbose:
        return [*lines, *map(str, report.of_labels)]
    if report.of_labels:
        lines.append(f"labels name {len(report.of_labels)} values that the data does not have: --verbose lists them")
    return lines


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
