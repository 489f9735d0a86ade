"""A home on a disk that is full or read-only: every command says so in one sentence, and leaves what was there."""

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile

import pytest

from fixtures.small_project import Playbill, Shell
from playbill.features import feast_door
from playbill.features.registration import render

assert feast_door  # Feast writes a file of measures where it is first imported, which no limit may meet

COMMANDS = {
    "ingest": ("ingest", "parquet", "DATA", "--mapping", "DATA/mapping.yaml"),
    "push": ("ingest", "push", "EVENTS"),
    "compact": ("ingest", "push", "EVENTS", "--compact"),
    "apply": ("apply",),
    "build": ("features", "build", "--full"),
    "materialize": ("materialize",),
    "export": ("dataset", "build", "everycanvas", "--out", "HOME/set"),
    "train": ("train", "everycanvas", "--epochs", "1"),
    "recommend": ("recommend", "--member", "m1", "--canvas", "home"),
}
BY_MOUNTING = {"full": "the disk is full", "read-only": "the file system is read-only"}
"""A small disk of its own refuses; whoever may mount one has these too."""
BY_RIGHTS = {
    "limited": "(a limit on the size of files is reached|the disk reports an input/output error)",
    "locked": "no permission",
}
"""What the system refuses anybody: a byte past a limit, and a file in a folder that is not theirs to change."""
CAPABILITIES = 0x20080522  # version 3 of the interface: two words of each kind
OVERRIDES = 1 << 1  # CAP_DAC_OVERRIDE, by which root writes where nobody may


def mounted(folder, *options):
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    known = shutil.which("mount") is not None
    return known and subprocess.run(command, check=False, capture_output=True).returncode == 0


def can_mount():
    with tempfile.TemporaryDirectory() as folder:
        found = mounted(folder, "size=1m")
        if found:
            subprocess.run(["umount", "-l", folder], check=True)
        return found


REASONS = (BY_MOUNTING if can_mount() else {}) | BY_RIGHTS


@pytest.fixture
def disk(tmp_path):
    """A home, on a small file system of its own where that can be had."""
    home = tmp_path / "project" / ".playbill"
    home.mkdir(parents=True)
    own = mounted(home, "size=8m")
    yield home
    if own:
        subprocess.run(["umount", "-l", str(home)], check=True)


@contextlib.contextmanager
def spoilt(home, how):
    """Have the system refuse what is written into a home, for a while."""
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        yield
    elif how == "full":
        with (home / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    elif how == "limited":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    else:
        with locked(home), without_overrides():
            yield


@contextlib.contextmanager
def locked(home):
    modes = {path: path.stat().st_mode for path in (home, *home.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextlib.contextmanager
def without_overrides():
    """Bind this thread by the rights of files, also where it is root's."""
    if os.geteuid():
        yield
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    fewer = (ctypes.c_uint32 * 6)(held[0] & ~OVERRIDES, *held[1:])
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


@pytest.mark.parametrize("how", REASONS)
def test_every_command_says_what_is_wrong_with_the_disk(disk, filled, small_data, how):
    folder = disk.parent
    shutil.copytree(
        filled.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pyc", "runs", "mlflow*")
    )
    shell = Shell(folder)
    render(shell.workspace)
    event = {"event_at": "2024-03-02T10:00:00Z", "action": "details_view", "canvas": "home", "country": "SE"}
    lines = (json.dumps({"event_id": f"n{place}", "member_id": "m1", **event}) for place in range(3_000))
    (folder / "events.ndjson").write_text("\n".join(lines))
    names = {"DATA": str(small_data), "EVENTS": str(folder / "events.ndjson"), "HOME": str(disk)}
    with spoilt(disk, how):
        before = shell.tree()
        for arguments in COMMANDS.values():
            for name, value in names.items():
                arguments = [argument.replace(name, value) for argument in arguments]
            shell.refused(*arguments, match=rf"cannot be written: {REASONS[how]}\..*unchanged")
        assert {name: size for name, size in shell.tree().items() if name in before} == before
        assert not [name for name in shell.tree() if "writing" in name]


@pytest.mark.parametrize("how", sorted(REASONS.keys() & {"read-only", "limited"}))
def test_a_home_that_cannot_be_written_is_one_message_in_a_process_of_its_own(disk, filled, how):
    folder = disk.parent
    shutil.copyfile(filled.folder / "playbill.toml", folder / "playbill.toml")
    with spoilt(disk, how):
        answer = Playbill(folder).run("simulate", "--members", "20", "--days", "2", code=1)
    refusal = answer.stderr.strip().splitlines()[-1]
    assert re.match(
        rf"error: the (folder|lock file) at {re.escape(str(disk))}.* cannot be written: {REASONS[how]}", refusal
    )
