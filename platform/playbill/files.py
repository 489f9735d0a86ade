"""Files and folders that appear whole or not at all and survive a crash, and the system's refusals in plain words.

Everything is written beside its place, forced to the disk, and renamed; then the folder's names are forced to the disk
too. A kill leaves what was there, and at most a hidden leftover (`.NAME.xxxxxxxx.writing`) that no reader opens.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

from playbill.errors import PlaybillError, StateError, StorageError

LOCK_WAIT_S = 30.0
_FILE_URL = "sqlite:///"
_HOME = "or set `home` in playbill.toml to a folder"
_REASONS = {
    errno.ENOSPC: ("the disk is full", f"Free space on it, {_HOME} on another disk"),
    errno.EDQUOT: ("the disk quota is used up", f"Free space, {_HOME} on another disk"),
    errno.EROFS: ("the file system is read-only", f"Mount it writable, {_HOME} that can be written"),
    errno.EACCES: ("no permission", f"Give this user the right to it, {_HOME} that can be written"),
    errno.EFBIG: ("a limit on the size of files is reached", "Raise it (`ulimit -f`)"),
    errno.EPERM: ("the operation is not permitted", f"Give this user the right to it, {_HOME} that can be written"),
    errno.EIO: ("the disk reports an input/output error", f"Check the disk, {_HOME} on another one"),
}
_FOLDER_REASONS = {
    errno.ENOENT: ("the folder does not exist", f"Make it, {_HOME} that can be written"),
    errno.ENOTDIR: ("a file is where a folder is needed", f"Move the file away, {_HOME} elsewhere"),
    errno.EEXIST: ("a file is where a folder is needed", f"Move the file away, {_HOME} elsewhere"),
}
_UNOPENED = ("it cannot be opened or made", "Look at the folder and its rights")
_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_VAGUE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
# polars and safetensors hand on what the system said as text of their own errors.
_NUMBER = re.compile(r"\(os error (\d+)\)|\[[Ee]rrno (\d+)\]")
_HERE, _EXCHANGE = -100, 2


def storage_error(error: BaseException, what: str = "a file", place: Path | None = None) -> StorageError | None:
    """Return what the disk refused in plain words, or None where an error is about something else.

    `what` was being written at `place`, unless the system names the file itself. What `error` wraps is looked at too.
    """
    for cause in _causes(error):
        number = _number(cause)
        vague = isinstance(cause, sqlite3.Error) and _primary(cause) in _VAGUE
        if vague:
            number = _state_of(place) or number
        if number in _REASONS or vague:
            name = getattr(cause, "filename", None) or place
            return _refused((_REASONS | _FOLDER_REASONS).get(number, _UNOPENED), what, name)
    return None


@contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Turn a refusal of the disk inside the block into one clear error; other errors pass.

    Raises:
        StorageError: The disk is full or read-only, there is no permission, or it fails.
    """
    try:
        yield
    except PlaybillError:
        raise
    except Exception as error:
        refused = storage_error(error, what, place)
        if refused is None:
            raise
        raise refused from error


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are missing, and return it.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (_REASONS | _FOLDER_REASONS).get(error.errno or 0)
        if reason is None:
            raise
        raise _refused(reason, "the folder", path) from error
    return path


@contextmanager
def replaced_file(path: Path, what: str = "the file") -> Iterator[Path]:
    """Lend a hidden path beside `path`; what is written there takes its place at the end of the block.

    Raises:
        StorageError: The disk refused. What was there before still is, and nothing is left beside it.
    """
    make_folder(path.parent)
    beside = _beside(path)
    with storage_errors(what, path):
        try:
            yield beside
            to_disk(beside)
            os.replace(beside, path)
            _names_to_disk(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, what: str = "the file") -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        StorageError: The disk refused; what was there before still is.
    """
    with replaced_file(path, what) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def replaced_folder(path: Path, what: str = "the folder") -> Iterator[Path]:
    """Lend an empty hidden folder beside `path`; it takes the place of `path` at the end of the block.

    Raises:
        StorageError: The disk refused. What was there before still is, and nothing is left beside it.
    """
    make_folder(path.parent)
    beside = _beside(path)
    with storage_errors(what, path):
        try:
            beside.mkdir()
            yield beside
            to_disk(beside)
            put_in_place(beside, path)
        finally:
            remove(beside)


def put_in_place(folder: Path, path: Path) -> None:
    """Put a finished folder in the place of another; what was there is left at `folder`, where there was something.

    On Linux both swap in one step. Elsewhere there is a moment between two renames in which `path` is missing.
    """
    if not path.exists():
        os.replace(folder, path)
    elif not _exchange(folder, path):
        old = _beside(path)
        os.replace(path, old)
        try:
            os.replace(folder, path)
        except OSError:
            os.replace(old, path)
            raise
        os.replace(old, folder)
    _names_to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Force a file, or everything below a folder, to the disk: what is renamed afterwards survives a crash."""
    if path.is_file():
        _sync(path, os.O_RDONLY)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            # A file that another finished folder shares was forced out when that one was published.
            if file.stat().st_nlink == 1:
                _sync(file, os.O_RDONLY)
        _names_to_disk(Path(folder))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content. Of the hashes that Python ships, processors help this one most."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return `file_digest`, read once for each version of a file (by size and time) in this process."""
    state = path.stat()
    return _content_digest(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=65_536)
def _content_digest(path: Path, _size: int, _changed_ns: int, _inode: int) -> str:
    return file_digest(path)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of a file or folder left beside it. Only one process may write it now."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which stays, for the length of the block; it ends with the process.

    Raises:
        StateError: Another process holds it for long; `busy` is the message.
        StorageError: The file cannot be made or read.
    """
    make_folder(lock.parent)
    with storage_errors("the lock file", lock):
        # An SQLite transaction is a lock on every platform, and the system drops it when its process dies.
        connection = sqlite3.connect(lock, timeout=LOCK_WAIT_S, isolation_level=None)
    with closing(connection):
        with storage_errors("the lock file", lock):
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if _primary(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                raise StateError(busy) from None
        yield


def require_writable(folder: Path) -> None:
    """Write a little into a folder, which is made, before something starts that would fail late and in other words.

    Raises:
        StorageError: Nothing can be written there.
    """
    make_folder(folder)
    with storage_errors("the folder", folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(4096))
        probe.flush()


def database_file(url: str) -> Path | None:
    """Return the file of an SQLite URL, None for other databases."""
    return Path(url.removeprefix(_FILE_URL)) if url.startswith(_FILE_URL) else None


def _state_of(place: Path | None) -> int:
    """Return what is wrong with a disk, where SQLite only says that it failed: an error number, 0 for nothing."""
    if place is None or os.name != "posix":
        return 0
    folder = next(path for path in (place.parent, *place.parent.parents) if path.exists())
    if folder != place.parent:
        return errno.ENOENT
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if not disk.f_bavail:
        return errno.ENOSPC
    rights = {"effective_ids": os.access in os.supports_effective_ids}
    return 0 if all(os.access(path, os.W_OK, **rights) for path in (folder, place) if path.exists()) else errno.EACCES


def _refused(reason: tuple[str, str], what: str, place: object) -> StorageError:
    words, advice = reason
    where = f" at {os.fsdecode(place)}" if isinstance(place, str | bytes | os.PathLike) else ""
    return StorageError(
        f"{what}{where} cannot be written: {words}. {advice}, then try again. What was there before is unchanged."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        context = None if cause.__suppress_context__ else cause.__context__
        # SQLAlchemy keeps the driver's error in `orig`.
        waiting += [getattr(cause, "orig", None), cause.__cause__, context]


def _number(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, sqlite3.Error):
        return _SQLITE.get(_primary(error), 0)
    found = _NUMBER.search(str(error))
    return int(found[1] or found[2]) if found else 0


def _primary(error: sqlite3.Error) -> int:
    # Extended codes have the primary one in their lowest byte.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")


def _names_to_disk(folder: Path) -> None:
    # Windows cannot open a folder; there a rename is as durable as the file system makes it.
    if os.name == "posix":
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    number = os.open(path, flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step where the system can (Linux); otherwise say so by False."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    return bool(call(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0)
