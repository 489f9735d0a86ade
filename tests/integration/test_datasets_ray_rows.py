"""A training set on disk read by real Ray workers."""

import os

import polars as pl
import pytest
import ray

from fixtures.small_dataset import write_small_dataset
from playbill.datasets.export.ray_rows import to_ray_dataset
from playbill.datasets.export.stored import StoredDataset
from playbill.errors import IntegrityError, StateError, UnknownNameError


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=150 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("day=what") / "set")


def frame_of(dataset):
    return pl.from_arrow(pl.concat([pl.from_arrow(ray.get(ref)) for ref in dataset.to_arrow_refs()]).to_arrow())


@pytest.mark.parametrize("fold", ["train", "test", None])
def test_workers_read_what_polars_reads(folder, fold):
    expected = StoredDataset.open(folder).scan(fold).collect()
    found = frame_of(to_ray_dataset(folder, fold))
    assert found.height == expected.height > 0
    text = expected.with_columns(pl.col("fold", "day").cast(pl.String))
    assert found.select(text.columns).sort("event_id").equals(text.sort("event_id"))


def test_rows_are_read_by_workers_and_shared_out_among_them(folder):
    rows = StoredDataset.open(folder).manifest.folds["train"].rows

    def where(batch):
        return {"pid": [os.getpid()], "rows": [len(batch["event_id"])]}

    seen = to_ray_dataset(folder, "train").map_batches(where, batch_size=None).take_all()
    assert os.getpid() not in {one["pid"] for one in seen}
    assert sum(one["rows"] for one in seen) == rows
    halves = ray.get([count.remote(shard) for shard in to_ray_dataset(folder, "train").streaming_split(2, equal=True)])
    assert halves == [rows // 2, rows // 2]


@ray.remote(num_cpus=0)
def count(shard):
    return sum(len(batch["event_id"]) for batch in shard.iter_batches(batch_format="numpy"))


def test_only_the_columns_asked_for_are_read(folder):
    found = to_ray_dataset(folder, "validation").select_columns(["event_id", "label__play"])
    assert found.schema().names == ["event_id", "label__play"]
    assert found.count() == StoredDataset.open(folder).manifest.folds["validation"].rows


def test_an_unknown_fold_an_empty_one_and_a_changed_file_are_named(folder, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        to_ray_dataset(folder, "trian")
    half = write_small_dataset(tmp_path / "half", folds=("train", "test"))
    with pytest.raises(StateError, match="has no rows in fold 'validation'"):
        to_ray_dataset(half, "validation")
    first = StoredDataset.open(half).files("train")[0]
    first.write_bytes(first.read_bytes()[:-1] + b"X")
    with pytest.raises(IntegrityError, match=r"part-0000\.parquet was changed"):
        to_ray_dataset(half, "train", verify=True)
