"""The world behind a workspace's log, kept beside it: members can be asked again, and the service can go on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import ValidationError

from playbill.errors import IntegrityError, StateError
from playbill.files import make_folder, replaced_folder, write_text
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

FILE, FOLDER = "world.json", "world_catalogue"
RETIRED = f"{FILE}.retired"
TITLES, AVAILABILITY, ARRAYS = "titles.parquet", "availability.parquet", "arrays.npz"
_ARRAYS = ("genre", "language", "kind", "kids", "runtime_min", "seasons", "episodes")


def save_world(folder: Path, spec: WorldSpec, catalogue: WorldCatalogue | None = None) -> None:
    """Write what a world was made from, with its real catalogue if any, whole or not at all, over an older one."""
    make_folder(folder)
    about: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "catalogue": None}
    if catalogue is not None:
        name = f"{FOLDER}-{secrets.token_hex(4)}"
        about["catalogue"] = name
        about |= {"genres": catalogue.genres, "languages": catalogue.languages}
        _write_catalogue(folder / name, catalogue)
    write_text(folder / FILE, json.dumps(about), "the world")
    for old in folder.glob(f"{FOLDER}-*"):
        if old.name != about["catalogue"]:
            shutil.rmtree(old)


class WorldCheckpoint:
    """Lets a log and its world change together: where they cannot, there is no world, never another one's.

    A context manager around the writing of the tables. Call `retire` right before they are published, `save` after.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._retired = folder, folder / RETIRED

    def __enter__(self) -> Self:
        # Left by a killed run, which may have published its tables or not: nobody knows whose world it is.
        self._retired.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._retired.is_file():
            os.replace(self._retired, self._folder / FILE)

    def retire(self) -> None:
        """Set the world of the log that is about to be replaced aside. An error brings it back, a kill does not."""
        if (self._folder / FILE).is_file():
            os.replace(self._folder / FILE, self._retired)

    def save(self, spec: WorldSpec, catalogue: WorldCatalogue | None) -> None:
        """Keep the world of the new log."""
        save_world(self._folder, spec, catalogue)
        self._retired.unlink(missing_ok=True)


def is_simulated(folder: Path) -> bool:
    """Say whether the log of a workspace's folder was simulated, also where a kill has cost it its world."""
    return any((folder / name).is_file() for name in (FILE, RETIRED))


def read_world(folder: Path) -> World:
    """Make the world of a workspace's log again, to the bit.

    Raises:
        StateError: The workspace's log is not a simulated one.
        IntegrityError: What was kept is damaged, or of another version of Playbill.
    """
    path = folder / FILE
    if not path.is_file():
        raise StateError(
            f"workspace '{folder.name}' has no simulated world; run `playbill -w {folder.name} simulate` first"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        spec = WorldSpec.model_validate(about["spec"])
        name = about["catalogue"]
        catalogue = None if name is None else _read_catalogue(folder / name, about["genres"], about["languages"])
    except (ValidationError, ValueError, KeyError, TypeError, OSError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0]
        raise IntegrityError(f"{path} cannot be read ({first}); simulate the workspace again") from None
    return World.make(spec, catalogue)


def _write_catalogue(folder: Path, catalogue: WorldCatalogue) -> None:
    with replaced_folder(folder, "the world's catalogue") as beside:
        catalogue.titles.write_parquet(beside / TITLES)
        if catalogue.availability is not None:
            catalogue.availability.write_parquet(beside / AVAILABILITY)
        arrays = {name: getattr(catalogue, name) for name in _ARRAYS}
        np.savez(beside / ARRAYS, allow_pickle=False, **arrays)


def _read_catalogue(folder: Path, genres: list[str], languages: list[str]) -> WorldCatalogue:
    windows = folder / AVAILABILITY
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS}
    return WorldCatalogue(
        titles=pl.read_parquet(folder / TITLES),
        genres=tuple(genres),
        languages=tuple(languages),
        availability=pl.read_parquet(windows) if windows.is_file() else None,
        **arrays,
    )
