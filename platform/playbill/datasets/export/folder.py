"""The folder of a training set: made beside its place and renamed, and never in the place of something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from playbill.datasets.export.manifest import MANIFEST, Inputs, Manifest
from playbill.datasets.export.stored import StoredDataset, differences
from playbill.errors import IntegrityError, StateError
from playbill.files import replaced_folder


class Existing(Enum):
    """What is where a training set is wanted."""

    NOTHING = "nothing"
    REPLACED = "replaced"
    """A training set that may be overwritten."""


def existing(folder: Path, inputs: Inputs, *, overwrite: bool) -> Manifest | Existing:
    """Return the manifest of a sound training set from these inputs, or what is there instead.

    Raises:
        StateError: There is something that must not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return Existing.NOTHING
    if not (folder / MANIFEST).is_file():
        raise StateError(f"{folder} holds something that is no training set; choose another --out")
    try:
        found = StoredDataset.open(folder).manifest
    except IntegrityError as error:
        return _replaced(f"{folder} holds a damaged training set ({error})", overwrite)
    if found.inputs == inputs:
        return found
    named = [difference.name for difference in differences(found.inputs, inputs)]
    more = f" and {len(named) - 8} more" if len(named) > 8 else ""
    return _replaced(f"{folder} holds a training set from other inputs: {', '.join(named[:8])}{more}", overwrite)


def _replaced(what: str, overwrite: bool) -> Existing:
    if not overwrite:
        raise StateError(f"{what}. Choose another --out, or replace it with --overwrite")
    return Existing.REPLACED


@contextmanager
def building(folder: Path, *, replace: bool) -> Iterator[Path]:
    """Lend an empty folder beside `folder`, and put it in its place at the end of the block.

    Raises:
        StateError: Something came to be at `folder` meanwhile.
        StorageError: The disk is full or cannot be written. `folder` is as it was, and nothing is left beside it.
    """
    with replaced_folder(folder, "the training set") as beside:
        yield beside
        if not replace and folder.exists() and any(folder.iterdir()):
            raise StateError(f"{folder} was made by another process meanwhile; nothing was changed")
