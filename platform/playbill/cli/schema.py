"""`playbill schema`: JSON schemas for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from playbill.errors import ConfigError
from playbill.files import write_text

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
    from playbill.definitions.zoo.reference import replace_reference

    try:
        text = replace_reference(guide.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{guide}: {error}") from None
    write_text(guide, text, "the guide")
    return guide
