"""Saved datasets and feature logs: written whole, read back equal, replaced only when asked."""

from __future__ import annotations

from datetime import date

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.bigquery_source import SavedDatasetBigQueryStorage
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage

from fixtures.asof_store import HOUR, START, at, open_store, taste, values
from playbill_feast.errors import StoreDataError
from playbill_feast.offline.writes import write_logs

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental feature:RuntimeWarning")


@pytest.fixture
def store(tmp_path):
    values(("a", START, START, 1.0, "one"), ("b", START, START, 2.0, "two")).write_parquet(tmp_path / "taste.parquet")
    return open_store(tmp_path, taste())


def job(store, *pairs, **options):
    rows = at(*(pairs or (("b", START + HOUR), ("zz", START + HOUR), ("a", START)))).with_columns(label=pl.lit(1))
    return store.get_historical_features(rows, features=["taste:x", "taste:y"], **options)


@pytest.mark.parametrize("path", ["saved/train.parquet", "saved/train"])
@pytest.mark.parametrize("full", [True, False])
def test_a_saved_dataset_is_read_back_as_it_was_saved(store, tmp_path, path, full):
    given = job(store, full_feature_names=full)
    storage = SavedDatasetFileStorage(path=path)
    saved = store.create_saved_dataset(given, "train", storage)
    again = store.get_saved_dataset("train").to_df()
    expected = given.to_df().drop(columns="label")
    assert again[expected.columns].equals(expected)
    assert saved.to_df()[expected.columns].equals(expected)
    assert pl.read_parquet(tmp_path / path).columns == given.to_df().columns.tolist()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("path", ["train.parquet", "train", "memory://saved/train", "memory://saved/train.parquet"])
def test_a_saved_dataset_is_replaced_only_when_asked(store, path):
    fsspec.filesystem("memory").store.clear()
    storage = SavedDatasetFileStorage(path=path)
    store.create_saved_dataset(job(store), "train", storage)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(job(store, ("a", START)), "train", storage)
    assert len(store.get_saved_dataset("train").to_df()) == 3
    store.create_saved_dataset(job(store, ("a", START)), "train", storage, allow_overwrite=True)
    assert store.get_saved_dataset("train").to_df()["x"].to_list() == [1.0]


def test_an_empty_folder_is_no_saved_dataset_and_a_full_one_is_never_cleared(store, tmp_path):
    (tmp_path / "train").mkdir()
    job(store).persist(SavedDatasetFileStorage(path="train"))
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job(store).persist(SavedDatasetFileStorage(path="taste.parquet"))
    with pytest.raises(StoreDataError, match="needs a SavedDatasetFileStorage, got SavedDatasetBigQueryStorage"):
        job(store).persist(SavedDatasetBigQueryStorage(table="t"))


def logs(*days: int) -> pa.Table:
    return pa.table(
        {
            "member_id": [f"m{day}" for day in days],
            "code": ["007"] * len(days),
            "at": pa.array([START.replace(day=day) for day in days], pa.timestamp("us", tz="UTC")),
            "log_date": pa.array([date(2024, 5, day) for day in days]),
        }
    )


@pytest.mark.parametrize("by", [None, ["log_date"], ["log_date", "code"]])
@pytest.mark.parametrize("path", ["logs", "memory://logs/served"])
def test_logs_are_appended_and_read_back_with_their_types(store, tmp_path, path, by):
    fsspec.filesystem("memory").store.clear()
    destination = FileLoggingDestination(path=path, partition_by=by)
    folder = tmp_path / "flushed"
    folder.mkdir()
    pq.write_table(logs(3), folder / "0.parquet")
    for data in (logs(1, 2), folder):
        write_logs(store.config, data, LoggingConfig(destination))
    offline = store.provider.offline_store
    pulled = offline.pull_all_from_table_or_query(
        store.config,
        destination.to_data_source(),
        [],
        ["member_id", "code", "log_date"],
        "at",
        None,
        START.replace(day=1),
    ).to_arrow()
    rows = zip(*(pulled[name].to_pylist() for name in ("member_id", "code", "log_date")), strict=True)
    assert sorted(rows) == [(f"m{day}", "007", date(2024, 5, day)) for day in (1, 2, 3)]
    if by and path == "logs":
        assert (tmp_path / "logs" / "log_date=2024-05-01").is_dir()


def test_logs_that_cannot_be_written_say_why(store, tmp_path):
    nameless = LoggingConfig(FileLoggingDestination(path="logs", partition_by=["country"]))
    with pytest.raises(StoreDataError, match="country: column to partition by is missing"):
        write_logs(store.config, logs(1), nameless)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreDataError, match="half: cannot be read"):
        write_logs(store.config, tmp_path / "half", LoggingConfig(FileLoggingDestination(path="logs")))
    assert not (tmp_path / "logs").exists()


def test_feast_logs_through_a_feature_service(store, tmp_path):
    destination = FileLoggingDestination(path="served")
    service = FeatureService(
        name="s", features=[store.get_feature_view("taste")], logging_config=LoggingConfig(destination)
    )
    store.apply([service])
    store.write_logged_features(logs(1), source=service)
    assert pl.read_parquet(tmp_path / "served").height == 1
