"""Feature files that are half-written or damaged inside, and a disk that is full in the middle of a write."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage

from fixtures.asof_store import HOUR, START, ask, at, open_store, taste, values
from playbill_feast.errors import StoreDataError, StoreServiceError
from playbill_feast.offline import writes as atomic
from playbill_feast.offline.writes import append_batch, write_logs

BUILD = "Run `make features`, or write that file"


@pytest.fixture
def store(tmp_path):
    frame = pl.concat([values((f"m{number}", START, START, number, "y" * number)) for number in range(200)])
    (tmp_path / "taste.parquet").mkdir()
    frame.write_parquet(tmp_path / "taste.parquet" / "part-0.parquet", compression="zstd")
    return open_store(tmp_path, taste())


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".db"
    }


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -9])
def test_a_half_written_file_is_named(store, tmp_path, kept):
    whole = (tmp_path / "taste.parquet" / "part-0.parquet").read_bytes()
    (tmp_path / "taste.parquet" / "part-1.parquet").write_bytes(whole[:kept])
    with pytest.raises(StoreDataError, match=rf"part-1.parquet: cannot be read.*{BUILD}"):
        ask(store, at(("m1", START)))


def test_a_damaged_page_names_its_file_and_no_other(store, tmp_path):
    whole = bytearray((tmp_path / "taste.parquet" / "part-0.parquet").read_bytes())
    column = pq.ParquetFile(tmp_path / "taste.parquet" / "part-0.parquet").metadata.row_group(0).column(4)
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (tmp_path / "taste.parquet" / "part-1.parquet").write_bytes(whole)
    with pytest.raises(StoreDataError, match=rf"part-1.parquet: cannot be read.*{BUILD}") as caught:
        ask(store, at(("m1", START)), "taste:y")
    assert "part-0.parquet" not in str(caught.value)
    assert ask(store, at(("m1", START))).get_column("x").to_list() == [1.0], "the damaged column is not needed"


def full_disk(monkeypatch, after: int) -> None:
    """Let the disk be full once some bytes are written, as a real one is: half of a file stays."""

    def write(table, stream):
        whole = io.BytesIO()
        write_table(table, whole)
        stream.write(whole.getvalue()[:after])
        stream.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_table = pq.write_table
    monkeypatch.setattr(atomic.pq, "write_table", write)


ADVICE = r"No space left on device. What was there before is unchanged; free disk space"
MORE = values(("m1", START, START + HOUR, 99.0, "new"))


def append(store):
    append_batch(store.config, store.get_feature_view("taste"), MORE.to_arrow(), None)


def log(store):
    by_member = FileLoggingDestination(path="logs", partition_by=["member_id"])
    table = pl.concat([MORE, MORE.with_columns(member_id=pl.lit("m2"))]).to_arrow()
    write_logs(store.config, table, LoggingConfig(by_member))


def save(path):
    def run(store):
        job = store.get_historical_features(at(("m1", START)), features=["taste:x"])
        job.persist(SavedDatasetFileStorage(path=path), allow_overwrite=True)

    return run


@pytest.mark.parametrize(
    "action", [append, log, save("saved.parquet"), save("saved")], ids=["append", "log", "file", "folder"]
)
@pytest.mark.parametrize("after", [0, 300])
def test_a_full_disk_leaves_everything_as_it_was(store, tmp_path, monkeypatch, action, after):
    action(store)
    before = tree(tmp_path)
    with monkeypatch.context() as patched:
        full_disk(patched, after)
        with pytest.raises(StoreServiceError, match=ADVICE):
            action(store)
    assert tree(tmp_path) == before
    assert ask(store, at(("m2", START))).get_column("x").to_list() == [2.0]
    action(store)


def test_a_log_that_fails_half_way_through_its_partitions_leaves_none(store, tmp_path, monkeypatch):
    replace, done = Path.replace, []

    def second_fails(self, target):
        done.append(target)
        if len(done) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(StoreServiceError, match="Input/output error"):
        log(store)
    assert len(done) == 2
    assert not [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]


def test_a_writer_that_was_killed_leaves_nothing_that_is_read(store, tmp_path):
    half = (tmp_path / "taste.parquet" / "part-0.parquet").read_bytes()[:200]
    (tmp_path / "taste.parquet" / ".part-000001-ab.parquet.0f").write_bytes(half)
    (tmp_path / "taste.parquet.appended").mkdir()
    (tmp_path / "taste.parquet.appended" / ".part-000000-ab.parquet").write_bytes(half)
    assert ask(store, at(("m1", START))).get_column("x").to_list() == [1.0]
    append(store)
    assert ask(store, at(("m1", START))).get_column("x").to_list() == [99.0]
