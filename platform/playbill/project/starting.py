"""A project of one's own, from what ships with Playbill."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playbill import config
from playbill.errors import ConfigError
from playbill.files import make_folder, put_in_place, storage_errors, to_disk

FOLDERS = ("model_zoo", "feature_repo")
MAPPING = "mapping.yaml"
"""Of a minimal project: how a CSV of one's own fills the tables."""

SETTINGS = """\
# Where things are. Everything here has a default; `playbill doctor` prints what is in force.
workspace = "ml_100k"

[workspaces.ml_100k]
clock = "data_end"                 # or "wall" for a live service, or a fixed moment such as "1998-04-22T00:00:00Z"
"""

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def start_project(folder: Path, *, minimal: bool = False) -> list[str]:
    """Write the project's files and return their names relative to `folder`.

    Everything is written beside its place and moved there at the end, so that a failure leaves nothing behind.

    Args:
        folder: Where to; made where it is not there.
        minimal: The smallest definitions instead of those that ship with Playbill, and a mapping.

    Raises:
        ConfigError: Something is there already.
        StorageError: The folder cannot be written.
    """
    names = (config.FILE_NAME, *FOLDERS, *([MAPPING] if minimal else []))
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise ConfigError(f"{folder} already has {', '.join(taken)}; nothing was written")
    make_folder(folder)
    with (
        storage_errors("the project", folder),
        tempfile.TemporaryDirectory(prefix=".playbill-init-", dir=folder) as place,
    ):
        _fill(Path(place), minimal=minimal)
        to_disk(Path(place))
        for name in names:
            put_in_place(Path(place) / name, folder / name)
    found = [path for name in names for path in ((folder / name), *sorted((folder / name).rglob("*")))]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _fill(place: Path, *, minimal: bool) -> None:
    sources = {name: config.shipped_folder(name) for name in FOLDERS}
    if minimal:
        sources = {name: config.TEMPLATES / "minimal" / name for name in FOLDERS}
    for name, source in sources.items():
        if not source.is_dir():
            raise ConfigError(f"the installation lacks its templates ({source}); reinstall playbill")
        shutil.copytree(source, place / name, ignore=_LEFT_OUT)
    if minimal:
        for name in (config.FILE_NAME, MAPPING):
            shutil.copyfile(config.TEMPLATES / "minimal" / name, place / name)
    else:
        (place / config.FILE_NAME).write_text(SETTINGS, encoding="utf-8")
