"""Fetching archives from their publishers, and MovieLens 100K from a wheel on PyPI. All of it is checksummed."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError

import platformdirs

from playbill.errors import DataError, IntegrityError, Problem, ServiceError
from playbill.files import make_folder, replaced_file, storage_errors
from playbill.sources.canonicalise import Progress

PUBLISHER = "https://files.grouplens.org/datasets/movielens/"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_PIP_TIMEOUT_S = 300

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """A publisher's archive: its file name, the MD5 the publisher states, and the files in it that are read."""

    name: str
    md5: str
    files: tuple[str, ...]


def cache_folder(folder: str = "movielens") -> Path:
    """Return where downloads of one publisher are kept between ingests: in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("playbill", appauthor=False)) / folder


def fetch_archive(
    archive: Archive, progress: Progress, *, publisher: str | None = None, folder: str = "movielens"
) -> Path:
    """Return the publisher's archive, from the cache or downloaded.

    `publisher` is the URL of the folder it is in (MovieLens's where absent), `folder` the name of the cache's.

    Raises:
        ServiceError: The publisher does not answer in time.
        IntegrityError: What came is not what the publisher states.
    """
    url = (publisher or PUBLISHER) + archive.name
    kept = cache_folder(folder) / archive.name
    if kept.is_file() and digest(kept, "md5") == archive.md5:
        return kept
    with replaced_file(kept, "the download") as arrived:
        _download(url, arrived, lambda done, total: progress(f"download {archive.name}", done, total))
        found = digest(arrived, "md5")
        if found != archive.md5:
            raise IntegrityError(
                f"{url} has MD5 {found}, but its publisher states {archive.md5}. "
                "It was not used; try again, or give the path of an archive you trust."
            )
    return kept


def fetch_wheel(progress: Progress) -> Path:
    """Return the PyPI wheel that carries MovieLens 100K, from the cache or through pip.

    Raises:
        ServiceError: pip is not there, or cannot download it.
        IntegrityError: The wheel is not the known one.
    """
    folder = cache_folder()
    for kept in folder.glob("recbole-*.whl"):
        if digest(kept, "sha256") == WHEEL_SHA256:
            return kept
    make_folder(folder)
    progress("pip download", 0, None)
    with storage_errors("the download", folder), TemporaryDirectory(dir=folder, prefix="download-") as temporary:
        _pip_download(Path(temporary))
        (arrived,) = Path(temporary).glob("*.whl")
        found = digest(arrived, "sha256")
        if found != WHEEL_SHA256:
            raise IntegrityError(f"{arrived.name} has SHA-256 {found}, expected {WHEEL_SHA256}. It was not used.")
        with replaced_file(folder / arrived.name, "the download") as beside:
            shutil.move(arrived, beside)
    return folder / arrived.name


def unpack(archive: Path, files: tuple[str, ...], into: Path) -> Path:
    """Write the named files of a zip archive into a folder, whatever folder they are in there, and return it.

    Raises:
        DataError: It is no zip archive, or files are missing.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = {name.rsplit("/", 1)[-1]: name for name in opened.namelist() if not name.endswith("/")}
            missing(archive, [name for name in files if name not in inside])
            for name in files:
                with opened.open(inside[name]) as source, (into / name).open("wb") as target:
                    while block := source.read(_BLOCK):
                        target.write(block)
    except zipfile.BadZipFile as error:
        raise DataError(str(archive), [Problem(archive.name, f"this is no readable zip archive: {error}.")]) from None
    return into


def missing(place: Path, names: list[str]) -> None:
    """Refuse a folder or archive that lacks files.

    Raises:
        DataError: `names` is not empty; all are named.
    """
    if names:
        raise DataError(str(place), [Problem(name, "the file is missing.") for name in names])


def digest(path: Path, algorithm: str) -> str:
    """Return a file's hexadecimal digest."""
    with path.open("rb") as file:
        # MD5 is what the publisher states; it guards against damage, not against an attacker.
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


class _PatientConnection(http.client.HTTPSConnection):
    """Connects within a short time, and then waits longer for data."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT_S)


class _PatientHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PatientConnection, req)


def _download(url: str, target: Path, progress: Callable[[int, int | None], None]) -> None:
    try:
        with urllib.request.build_opener(_PatientHandler).open(url, timeout=CONNECT_TIMEOUT_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0) or None
            done = 0
            with target.open("wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    progress(done, total)
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ServiceError(f"{url} cannot be reached: {reason}") from None


def _pip_download(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        WHEEL,
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    command += ["--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"pip cannot download {WHEEL}: {error}") from None
    if done.returncode or not list(folder.glob("*.whl")):
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ServiceError(f"pip cannot download {WHEEL}: {reason}")
