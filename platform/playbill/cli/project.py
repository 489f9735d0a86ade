"""`playbill init`: a project of one's own, from what ships with Playbill."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import click

from playbill.config import FILE_NAME, shipped_folder
from playbill.errors import ConfigError
from playbill.files import make_folder, put_in_place, storage_errors, to_disk

FOLDERS = ("model_zoo", "feature_repo")

SETTINGS = """\
# Where things are. Everything here has a default; `playbill doctor` prints what is in force.
workspace = "ml_100k"

[workspaces.ml_100k]
clock = "data_end"                 # or "wall" for a live service, or a fixed moment such as "1998-04-22T00:00:00Z"
"""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(folder: Path, as_json: bool) -> None:
    """Start a project in DIR: playbill.toml, model_zoo/ and feature_repo/.

    Nothing that is there already is overwritten.

    Example: playbill init my_service
    """
    written = start_project(folder)
    if as_json:
        click.echo(json.dumps({"project": str(folder.resolve()), "files": written}))
        return
    click.echo(f"Started a project in {folder}: {FILE_NAME}, {', '.join(f'{name}/' for name in FOLDERS)}.")
    click.echo(f"Next:\n  cd {folder}\n  playbill check\n  playbill quickstart")


def start_project(folder: Path) -> list[str]:
    """Write the project's files and return their names relative to `folder`.

    Everything is written beside its place and moved there at the end, so that a failure leaves nothing behind.

    Raises:
        ConfigError: Something is there already.
        StorageError: The folder cannot be written.
    """
    names = (FILE_NAME, *FOLDERS)
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise ConfigError(f"{folder} already has {', '.join(taken)}; nothing was written")
    make_folder(folder)
    with (
        storage_errors("the project", folder),
        tempfile.TemporaryDirectory(prefix=".playbill-init-", dir=folder) as place,
    ):
        _fill(Path(place))
        to_disk(Path(place))
        for name in names:
            put_in_place(Path(place) / name, folder / name)
    found = [path for name in names for path in ((folder / name), *sorted((folder / name).rglob("*")))]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _fill(place: Path) -> None:
    (place / FILE_NAME).write_text(SETTINGS, encoding="utf-8")
    for name in FOLDERS:
        source = shipped_folder(name)
        if not source.is_dir():
            raise ConfigError(f"the installation lacks its templates ({source}); reinstall playbill")
        shutil.copytree(source, place / name, ignore=_LEFT_OUT)
