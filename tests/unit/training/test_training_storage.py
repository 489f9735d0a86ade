"""Files that driver and workers share, in a folder and behind a URL, and checkpoints that come from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fixtures import ring_problem as ring
from playbill.errors import IntegrityError, ServiceError, StateError
from playbill.training import fit
from playbill.training.checkpoint import adopt_checkpoint, checkpoints, load_checkpoint
from playbill.training.storage import Storage


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder, or a file system that only fsspec knows: it stands for an object store."""
    return Storage(str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path.name}")


def test_an_uploaded_folder_is_downloaded_whole(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "a.npy").write_bytes(b"a" * 10)
    storage.put(source, "input/data")
    storage.put(source / "a.npy", "input/start")
    found = storage.fetch("input", tmp_path / "cache")
    assert (found / "data" / "a.npy").read_bytes() == b"a" * 10
    assert (found / "start").read_bytes() == b"a" * 10
    assert (found == tmp_path / "cache") == (storage.local is None)
    assert storage.fetch("input", tmp_path / "cache") == found
    storage.remove()
    assert storage.newest("run") is None


def test_the_newest_checkpoint_of_a_run_is_a_folder_of_rays(storage: Storage, tmp_path: Path) -> None:
    assert storage.reports("run") == []
    for day, epochs in (("2026-01-02", 2), ("2026-01-01", 1)):
        folder = tmp_path / day
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"reports": [{"epoch": n} for n in range(epochs)]}))
        storage.put(folder, f"run/checkpoint_{day}")
    (tmp_path / "snapshot").write_text("{}")
    storage.put(tmp_path / "snapshot", "run/checkpoint_manager_snapshot.json")
    assert storage.newest("run") == "run/checkpoint_2026-01-02"
    assert len(storage.reports("run")) == 2


def test_a_folder_that_a_node_does_not_have_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"not on this node; set training\.storage"):
        Storage(str(tmp_path / "elsewhere")).fetch("input", tmp_path / "cache")


def test_a_url_that_nothing_opens_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"training\.storage shelf://x cannot be opened"):
        Storage("shelf://x").put(tmp_path, "input")


def test_a_checkpoint_from_elsewhere_takes_the_place_of_its_epoch(tmp_path: Path) -> None:
    done = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path / "there")
    here = tmp_path / "here"
    here.mkdir()
    for _ in range(2):
        shutil.copytree(checkpoints(tmp_path / "there")[-1], here / "incoming")
        assert adopt_checkpoint(here / "incoming", here) == here / "epoch-0004"
        assert [path.name for path in here.iterdir()] == ["epoch-0004"]
    digest = ring.SETTINGS.digest(ring.CONFIG)
    assert load_checkpoint(here / "epoch-0004", digest).reports == done.reports
    (here / "incoming").mkdir()
    with pytest.raises(IntegrityError, match=r"state\.json"):
        adopt_checkpoint(here / "incoming", here)
