"""A world is kept beside its log and made again, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.errors import IntegrityError, StateError
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.checkpoint import FILE, read_world, save_world
from playbill_lab.simulator.world.real_catalogue import read_catalogue
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

SPEC = WorldSpec(seed=3, members=20, titles=30, days=40)


def real() -> WorldCatalogue:
    titles = [f"t{number}" for number in range(25)]
    frame = pl.DataFrame({"title_id": titles, "name": titles, "kind": ["film", "series"] * 12 + ["game"]})
    return read_catalogue(frame, None, np.random.default_rng(9))


def assert_same(one: World, other: World) -> None:
    assert one.spec == other.spec
    assert one.titles.equals(other.titles)
    assert one.availability.equals(other.availability)
    assert one.members.equals(other.members)
    for name, values in vars(one.truth).items():
        np.testing.assert_array_equal(values, getattr(other.truth, name))
    np.testing.assert_array_equal(one.catalogue.episodes, other.catalogue.episodes)


def test_a_generated_world_comes_back(tmp_path: Path) -> None:
    save_world(tmp_path / "service", SPEC)
    assert_same(read_world(tmp_path / "service"), World.make(SPEC))


def test_a_world_of_real_titles_comes_back(tmp_path: Path) -> None:
    save_world(tmp_path, SPEC, real())
    assert_same(read_world(tmp_path), World.make(SPEC, real()))


def test_a_newer_world_leaves_nothing_of_an_older_one(tmp_path: Path) -> None:
    save_world(tmp_path, SPEC, real())
    save_world(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert_same(read_world(tmp_path), World.make(SPEC))


def test_a_workspace_with_a_log_of_its_own_has_no_world(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no simulated world; run `playbill -w shop simulate`"):
        read_world(tmp_path / "shop")


@pytest.mark.parametrize("text", ["{", '{"spec": {"memberz": 3}, "catalogue": null}', '{"catalogue": null}'])
def test_a_damaged_world_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(IntegrityError, match="simulate the workspace again"):
        read_world(tmp_path)
