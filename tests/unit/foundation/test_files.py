"""Writes that appear whole or not at all, and what the disk refuses in plain words."""

import errno
import os
import sqlite3
import sys
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from playbill import files
from playbill.errors import DataError, StateError, StorageError
from playbill.files import (
    exclusive,
    make_folder,
    put_in_place,
    remove_leftovers,
    replaced_file,
    replaced_folder,
    storage_error,
    storage_errors,
    write_text,
)

WORDS = {
    errno.ENOSPC: "the disk is full. Free space",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "the operation is not permitted",
    errno.EFBIG: "a limit on the size of files",
    errno.EIO: "the disk reports an input/output error",
}


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", WORDS)
def test_a_refusal_says_what_where_why_and_what_to_do(tmp_path, number):
    write_text(tmp_path / "a.txt", "before")

    def write_half():
        with replaced_file(tmp_path / "a.txt", "the lock") as beside:
            beside.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as caught:
        write_half()
    assert str(caught.value).startswith(f"the lock at {tmp_path / 'a.txt'} cannot be written: {WORDS[number]}")
    assert "then try again. What was there before is unchanged." in str(caught.value)
    assert (tmp_path / "a.txt").read_text() == "before"
    assert only(tmp_path) == ["a.txt"]


def test_disk_errors_that_libraries_pass_on_as_text_are_recognised():
    full = pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")
    assert "the disk is full" in str(storage_error(full))
    wrapped = RuntimeError("MLflow failed")
    wrapped.__cause__ = OSError(errno.EROFS, "Read-only file system", "/data/x")
    assert str(storage_error(wrapped)).startswith("a file at /data/x cannot be written: the file system is read-only")
    assert storage_error(FileNotFoundError(errno.ENOENT, "No such file", "/a")) is None
    assert storage_error(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None
    assert storage_error(ValueError("position 28 (os error is a word)")) is None


def test_disk_errors_of_sqlite_are_recognised(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
        connection.execute("pragma max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.executemany("insert into t values (?)", [("x" * 4000,)] * 10)
    assert "the disk is full" in str(storage_error(full.value))
    engine = sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(sa.exc.OperationalError) as readonly, engine.begin() as connection:
        connection.execute(sa.text("insert into t values (1)"))
    assert "read-only" in str(storage_error(readonly.value))
    with pytest.raises(sqlite3.OperationalError) as nowhere:
        sqlite3.connect(tmp_path / "no" / "b.db")
    refused = storage_error(nowhere.value, "the database", tmp_path / "no" / "b.db")
    assert "the folder does not exist" in str(refused)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(sqlite3.OperationalError) as folder:
        sqlite3.connect(tmp_path / "folder.db")
    assert "cannot be opened or made" in str(storage_error(folder.value, "the database", tmp_path / "folder.db"))
    with pytest.raises(sqlite3.OperationalError) as wrong:
        sqlite3.connect(path).execute("select nothing from nowhere")
    assert storage_error(wrong.value) is None


def test_other_errors_pass_as_they_are(tmp_path):
    def fail(error):
        with replaced_folder(tmp_path / "set") as folder:
            (folder / "half").write_text("half")
            raise error

    for error in (ValueError("x"), DataError("x", []), FileNotFoundError(errno.ENOENT, "No such file", "/x")):
        with pytest.raises(type(error)) as caught:
            fail(error)
        assert caught.value is error
    assert only(tmp_path) == []


def test_a_folder_replaces_a_folder_whole(tmp_path, monkeypatch):
    for swap in ("exchange", "two renames"):
        if swap == "two renames":
            monkeypatch.setattr(sys, "platform", "darwin")
        for name in ("a", "b"):
            with replaced_folder(tmp_path / "set") as folder:
                (folder / name).write_text(name)
            assert only(tmp_path) == ["set"]
            assert only(tmp_path / "set") == [name]


def test_a_swap_that_fails_halfway_brings_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    real, calls = os.replace, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        put_in_place(tmp_path / "new", tmp_path / "old")
    assert only(tmp_path / "old") == ["old"]


def test_everything_is_forced_to_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (order.append(os.readlink(f"/proc/self/fd/{number}")), real_sync(number))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("rename"), real_replace(*names)))
    write_text(tmp_path / "a.txt", "x")
    file, rename, folder = order
    assert (file.endswith(".writing"), rename, folder) == (True, "rename", str(tmp_path))
    order.clear()
    with replaced_folder(tmp_path / "set") as beside:
        (beside / "part").mkdir()
        (beside / "part" / "rows").write_text("x")
    before, after = order[: order.index("rename")], order[order.index("rename") + 1 :]
    assert {Path(name).name for name in before} >= {"part", "rows", beside.name}
    assert after == [str(tmp_path)]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    for name in (".a.txt.12345678.writing", ".set.12345678.writing"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "set")
    assert only(tmp_path) == [".a.txt.12345678.writing"]


def test_a_folder_at_or_below_a_file_is_refused(tmp_path):
    (tmp_path / "home").write_text("a file")
    for place in (tmp_path / "home", tmp_path / "home" / "small"):
        with pytest.raises(StorageError, match="a file is where a folder is needed"):
            make_folder(place)


def test_a_lock_that_cannot_be_made_is_not_taken_for_a_busy_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    with (
        exclusive(tmp_path / ".lock", "busy"),
        pytest.raises(StateError, match="busy"),
        exclusive(tmp_path / ".lock", "busy"),
    ):
        pass
    (tmp_path / "held").mkdir()
    with pytest.raises(StorageError, match=r"the lock file at .* cannot be"), exclusive(tmp_path / "held", "busy"):
        pass


def test_errors_inside_the_block_keep_their_cause(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError) as caught, storage_errors("rows", tmp_path):
        raise error
    assert caught.value.__cause__ is error
