"""A home on a disk that is full or read-only: every command says so in one sentence, and leaves what was there."""

import contextlib
import json
import shutil
import subprocess

import pytest
from small_project import Playbill, Shell

from playbill.features.rendering import render

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
REASONS = {"full": "the disk is full", "read-only": "the file system is read-only"}


@pytest.fixture
def disk(tmp_path):
    """A home on a small file system of its own."""
    home = tmp_path / "project" / ".playbill"
    home.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("this user cannot mount a small disk")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def spoil(home, how):
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        return
    with (home / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


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
    spoil(disk, how)
    before = shell.tree()
    names = {"DATA": str(small_data), "EVENTS": str(folder / "events.ndjson"), "HOME": str(disk)}
    for arguments in COMMANDS.values():
        for name, value in names.items():
            arguments = [argument.replace(name, value) for argument in arguments]
        shell.refused(*arguments, match=rf"cannot be written: {REASONS[how]}\..*unchanged")
    assert {name: size for name, size in shell.tree().items() if name in before} == before
    assert not [name for name in shell.tree() if "writing" in name]


def test_a_read_only_home_in_a_process_of_its_own(disk, filled):
    folder = disk.parent
    shutil.copyfile(filled.folder / "playbill.toml", folder / "playbill.toml")
    spoil(disk, "read-only")
    project = Playbill(folder)
    answer = project.run("simulate", "--members", "20", "--days", "2", code=1)
    assert answer.stderr.strip().splitlines()[-1].startswith("error: the folder at ")
    assert "the file system is read-only" in answer.stderr
