"""Files that a run's driver and its workers share: a folder, or a URL that pyarrow or fsspec opens (`s3://...`)."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid, fs

from playbill.errors import ServiceError, StateError
from playbill.training.checkpoint import STATE

_RAY_PREFIX = "checkpoint_"  # how Ray names the folders of reported checkpoints; their names sort by time


@dataclass(frozen=True)
class Storage:
    """A folder (an absolute path) or URL that every node reaches. Pickles to workers, which open it themselves."""

    url: str

    @cached_property
    def opened(self) -> tuple[Any, str]:
        """The file system, and the path on it.

        Raises:
            ServiceError: Nothing that is installed opens such URLs, or it refuses.
        """
        if self.local is not None:
            return fs.LocalFileSystem(), str(self.local)
        try:
            found: tuple[Any, str] = fs.FileSystem.from_uri(self.url)
        except ArrowInvalid:
            return self._by_fsspec()
        except OSError as error:
            raise ServiceError(f"training.storage {self.url} cannot be opened: {error}") from None
        return found

    def _by_fsspec(self) -> tuple[Any, str]:
        import fsspec

        try:
            found, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise ServiceError(f"training.storage {self.url} cannot be opened: {error}") from None
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path

    @property
    def local(self) -> Path | None:
        """The folder, None where it is a URL of anything but this machine's files."""
        path = self.url.removeprefix("file://")
        return None if "://" in path else Path(path)

    def at(self, name: str) -> str:
        """Return the path of something in it, on its file system."""
        return f"{self.opened[1]}/{name}"

    def put(self, source: Path, name: str) -> None:
        """Copy a file or a folder into it."""
        system, target = self.opened[0], self.at(name)
        system.create_dir(target if source.is_dir() else target.rpartition("/")[0], recursive=True)
        fs.copy_files(str(source), target, destination_filesystem=system)

    def fetch(self, name: str, cache: Path) -> Path:
        """Return a folder of it on this machine: in place where it is one, else a copy in `cache` that is made once.

        Whoever comes second finds the copy whole.

        Raises:
            StateError: It is not there.
        """
        if self.local is not None:
            return self._there(self.local / name)
        if not cache.is_dir():
            unfinished = cache.with_name(f"{cache.name}.{uuid.uuid4().hex}")
            self.download(name, unfinished)
            try:
                os.rename(unfinished, cache)
            except OSError:  # Another worker of this node was faster.
                return self._there(cache)
        return cache

    def _there(self, folder: Path) -> Path:
        if not folder.is_dir():
            raise StateError(
                f"{folder} is not on this node; set training.storage in playbill.toml to a folder or URL that every "
                f"node of the cluster reaches"
            )
        return folder

    def download(self, name: str, target: Path) -> None:
        """Copy a folder of it to `target`."""
        target.mkdir(parents=True)
        fs.copy_files(self.at(name), str(target), source_filesystem=self.opened[0])

    def newest(self, run: str) -> str | None:
        """Return the name of the newest checkpoint that Ray keeps of a run, None where there is none."""
        system, path = self.opened
        selector = fs.FileSelector(f"{path}/{run}", allow_not_found=True)
        folders = [info.base_name for info in system.get_file_info(selector) if info.type == fs.FileType.Directory]
        names = [name for name in folders if name.startswith(_RAY_PREFIX)]
        return f"{run}/{max(names)}" if names else None

    def reports(self, run: str) -> list[dict[str, float]]:
        """Return the numbers of every epoch of a run that Ray has a checkpoint of."""
        name = self.newest(run)
        if name is None:
            return []
        try:
            with self.opened[0].open_input_file(self.at(f"{name}/{STATE}")) as file:
                found: list[dict[str, float]] = json.loads(file.readall())["reports"]
        except (OSError, ValueError, KeyError):  # Being written, or dropped since it was listed.
            return []
        return found

    def remove(self) -> None:
        """Drop everything in it."""
        system, path = self.opened
        system.delete_dir_contents(path, missing_dir_ok=True)
