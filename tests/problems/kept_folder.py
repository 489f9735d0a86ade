"""Folders that several test processes share: whichever asks first makes one, and the others wait for it.

With pytest-xdist a session's fixtures are made once in each process. What is slow to make, is always the same and is
only read belongs in a kept folder; a test that changes it takes a copy.
"""

import fcntl
import os
import shutil
from pathlib import Path


def kept_folder(factory, name, make):
    """Return folder `name` of this run of tests.

    Args:
        factory: pytest's `tmp_path_factory`.
        name: Of the folder; one name for one content.
        make: Called with the folder, which is not there yet, by the first process alone.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = shared / "kept" / name, shared / "kept" / f"{name}.made"
    folder.parent.mkdir(exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder
