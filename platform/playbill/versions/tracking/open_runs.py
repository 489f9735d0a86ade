"""Runs that are under way on this machine, so that one whose process is gone does not stay RUNNING in MLflow for ever.

A process holds a lock on a file named by its run. The kernel lets go of it however the process ends, so a file whose
lock can be taken is of a process that is gone: no process id that was given anew, and no clock, can mislead. Runs of
other machines have no file here, and are never touched.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = "open"


@contextmanager
def held_open(runs: Path, run_id: str) -> Iterator[None]:
    """Mark a run as under way inside the block, in the workspace's folder of runs."""
    folder = runs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    unlocked = folder / f".{run_id}.{os.getpid()}"
    file = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        # It gets its name once it is locked: nobody finds it free in between.
        unlocked.replace(folder / run_id)
        yield
    finally:
        (folder / run_id).unlink(missing_ok=True)
        os.close(file)


def abandoned(runs: Path) -> Iterator[str]:
    """Yield the runs of a workspace's folder whose process is gone, and forget each after it was dealt with."""
    folder = runs / FOLDER
    for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else []:
        with suppress(FileNotFoundError):
            file = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                yield path.name
                path.unlink(missing_ok=True)
            finally:
                os.close(file)
