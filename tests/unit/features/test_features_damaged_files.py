"""Feature files and tables whose bits were flipped on the disk: noticed by whoever reads them, file by file."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.clock import FixedClock
from playbill.config import ProjectFolder
from playbill.errors import DataError, IntegrityError
from playbill.features.labels import STATE
from playbill.features.view_folder import ViewFolder, ViewState
from playbill.tables import TIMESTAMP, Tables
from playbill.tables.generations import GenerationManifest
from playbill_feast.errors import StoreDataError
from playbill_feast.offline.parquet_files import files_digest, parts_of, scan_parts

START = datetime(2024, 1, 1, tzinfo=UTC)
FLIPS = 60


def flipped(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(8 * len(content))
    damaged = bytearray(content)
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


@pytest.fixture
def view(tmp_path) -> ViewFolder:
    values = np.random.default_rng(3).normal(size=(2_000, 4)).astype(np.float32)
    frame = pl.DataFrame(values, schema=["a", "b", "c", "d"])
    folder = ViewFolder(tmp_path / "member_taste.parquet")
    state = folder.replace([frame, frame], ViewState("1", 0, None, "s", {}, {}))
    folder.append(frame.head(5), state, state)
    return folder


def read(view: ViewFolder) -> pl.DataFrame:
    return scan_parts(parts_of(view.path), view.path).collect()


def test_every_flipped_bit_of_a_feature_file_is_noticed(view):
    chance = random.Random(11)
    assert read(view).height == 4_005
    for _ in range(FLIPS):
        path = chance.choice(parts_of(view.path))
        content = path.read_bytes()
        path.write_bytes(flipped(content, chance))
        with pytest.raises(StoreDataError) as caught:
            read(view)
        (problem,) = caught.value.problems
        assert problem.where == str(path)
        assert "content is not what was written" in problem.what
        assert view.state() is not None
        assert view.sound_state() is None
        path.write_bytes(content)
    assert read(view).height == 4_005
    assert view.sound_state() == view.state() is not None


def test_parts_that_are_merged_are_compared_first(view):
    first = parts_of(view.path)[0]
    first.write_bytes(flipped(first.read_bytes(), random.Random(2)))
    state = view.state()
    assert state is not None
    with pytest.raises(DataError, match=first.name):
        view.compact(state, small=1_000_000)
    assert view.state() == state
    with pytest.raises(DataError, match=rf"{first.name}.*Run `playbill features build`"):
        view.scan(state)


def test_merged_and_older_parts_keep_their_digests(view):
    state = view.state()
    assert state is not None
    merged = view.compact(state, small=2_000)
    assert merged.digests.keys() == merged.parts.keys()
    assert read(view).height == 4_005
    path = view.path / next(iter(merged.parts))
    path.write_bytes(flipped(path.read_bytes(), random.Random(4)))
    with pytest.raises(StoreDataError, match=path.name):
        read(view)


def test_parts_of_an_earlier_version_are_read_without_digests(view):
    text = (view.path / STATE).read_text()
    (view.path / STATE).write_text(text.replace('"digests"', '"other"'))
    assert read(view).height == 4_005


def test_one_digest_for_all_files_of_a_view(view):
    before = files_digest(view.path)
    assert before == files_digest(view.path)
    path = parts_of(view.path)[-1]
    path.write_bytes(flipped(path.read_bytes(), random.Random(5)))
    assert files_digest(view.path) != before


def events(first: int, count: int) -> pl.DataFrame:
    moments = [START + timedelta(hours=hour) for hour in range(first, first + count)]
    return pl.DataFrame(
        {
            "event_id": [f"e{hour}" for hour in range(first, first + count)],
            "member_id": [f"m{hour % 3}" for hour in range(first, first + count)],
            "seq": list(range(first, first + count)),
            "event_at": moments,
            "recorded_at": moments,
            "action": "play",
            "title_id": "t",
            "canvas": "home",
            "country": "SE",
        },
        schema_overrides={"event_at": TIMESTAMP, "recorded_at": TIMESTAMP},
    )


@pytest.fixture
def tables(tmp_path) -> Tables:
    made = Tables(ProjectFolder.find(tmp_path).workspace("shop"))
    titles = {"title_id": "t", "valid_from": [START], "recorded_at": [START], "name": "T", "kind": "film"}
    with made.replace(FixedClock(START + timedelta(days=30))) as writer:
        writer.write("titles", pl.DataFrame(titles).cast({"valid_from": TIMESTAMP, "recorded_at": TIMESTAMP}))
        writer.write("interactions", events(0, 100))
    made.append_events(events(100, 10))
    made.append_events(events(110, 90))
    return made


def test_every_flipped_bit_of_the_tables_is_noticed(tables):
    chance = random.Random(7)
    folder = tables.published().folder
    reads = {
        "interactions": lambda: tables.read_log_parts(list(tables.log_parts()), ["event_id"]),
        "by_member": tables.interactions,
        "titles.parquet": tables.titles,
    }
    for _ in range(FLIPS):
        path = chance.choice(sorted(folder.rglob("*.parquet")))
        kind = path.relative_to(folder).parts[0]
        if kind not in reads:
            continue
        content = path.read_bytes()
        path.write_bytes(flipped(content, chance))
        with pytest.raises(IntegrityError, match=rf"{path.name} was changed.*playbill -w shop ingest"):
            reads[kind]()
        path.write_bytes(content)
    assert tables.interactions().height == 200
    assert set(tables.published().manifest.buckets) == {
        path.relative_to(folder).as_posix() for path in (folder / "by_member").iterdir()
    }


def test_a_flipped_digit_of_the_manifest_is_noticed(tables):
    path = tables.published().folder / "manifest.json"
    path.write_text(path.read_text().replace('"interactions": 200', '"interactions": 300'))
    with pytest.raises(IntegrityError, match="is not what was written"):
        GenerationManifest.load(path.parent)
