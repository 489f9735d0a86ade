"""The folder of a training set: made beside its place and renamed, and never in the place of something else."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from playbill.datasets.export_manifest import MANIFEST, Inputs, Manifest
from playbill.datasets.stored import StoredDataset, differences
from playbill.errors import IntegrityError, ServiceError, StateError


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
        ServiceError: The disk is full or cannot be written. `folder` is as it was, and nothing is left beside it.
    """
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.writing")
    try:
        beside.mkdir(parents=True)
        yield beside
        _put(beside, folder, replace=replace)
    except OSError as error:
        what = error.strerror or str(error)
        raise ServiceError(f"writing the training set {folder} failed: {what}. Nothing of it was kept.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put(beside: Path, folder: Path, *, replace: bool) -> None:
    if not replace:
        os.replace(beside, folder)
        return
    old = beside.with_suffix(".replaced")
    os.replace(folder, old)
    try:
        os.replace(beside, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)
