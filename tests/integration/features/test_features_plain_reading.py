"""A shell that answers once reads features without Feast, and reads the very same."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

from playbill.config import Workspace
from playbill.errors import ServiceError
from playbill.features import FeatureDoor
from playbill.features.reading_plan import read_note
from playbill.tables import workspace_clock

SERVICES = ["everycanvas_v1", "everycanvas_v2", "everycanvas_v3"]
MEMBERS = [*(f"m{member}" for member in range(12)), None, "nobody", "m3"]
READ = """
import sys
from pathlib import Path
from playbill.config import ProjectFolder, ProjectSettings
from playbill.features import FeatureDoor
from playbill.tables import workspace_clock
workspace = ProjectFolder(Path(sys.argv[1]), ProjectSettings()).workspace("small")
door, now = FeatureDoor(workspace, plain=True), workspace_clock(workspace).now()
assert door.served("everycanvas_v2", ["m1"], now).rows.width > 20
assert door.title_snapshots("everycanvas_v2", [now], ["t1", "t2"]).values.shape[1] == 2
print(sorted({"feast", "pandas", "mlflow", "torch", "fastapi"} & set(sys.modules)))
"""


@pytest.fixture
def plain(door: FeatureDoor, built: Workspace, monkeypatch: pytest.MonkeyPatch) -> FeatureDoor:
    """A door that must not ask Feast, once it knows the registry as other tests left it."""
    FeatureDoor(built, plain=True).served(SERVICES[0], ["m1"], workspace_clock(built).now())
    monkeypatch.setattr("playbill.features.feast_door.FeastDoor", lambda _: pytest.fail("Feast was asked"))
    return FeatureDoor(built, plain=True)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("days", [0, 400], ids=["now", "past_the_ttl"])
def test_served_features_are_those_that_feast_reads(
    door: FeatureDoor, plain: FeatureDoor, built: Workspace, service: str, days: int
) -> None:
    at = workspace_clock(built).now() + timedelta(days=days, seconds=1.5)
    ours, theirs = plain.served(service, MEMBERS, at), door.served(service, MEMBERS, at)
    assert_frame_equal(ours.rows, theirs.rows, check_exact=True)
    assert_frame_equal(ours.values_at, theirs.values_at, check_exact=True)
    assert_series_equal(ours.from_store, theirs.from_store, check_names=False)
    assert ours.rows["request_time__hour_of_day"].null_count() == 0


@pytest.mark.parametrize("service", SERVICES)
def test_title_snapshots_are_those_that_feast_reads(
    door: FeatureDoor, plain: FeatureDoor, built: Workspace, service: str
) -> None:
    now = workspace_clock(built).now()
    moments = [now, now - timedelta(days=10, minutes=7), now - timedelta(days=90_000), now + timedelta(days=3)]
    titles = [*(f"t{title}" for title in range(15)), "unknown"]
    ours, theirs = plain.title_snapshots(service, moments, titles), door.title_snapshots(service, moments, titles)
    assert (ours.moments, ours.columns) == (theirs.moments, theirs.columns)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert np.isfinite(ours.values[0, :15]).any()
    assert_frame_equal(ours.categorical, theirs.categorical)


def test_every_hour_and_day_of_a_request_is_the_same(door: FeatureDoor, plain: FeatureDoor, built: Workspace) -> None:
    now = workspace_clock(built).now()
    for hours in range(0, 7 * 24, 11):
        at = now + timedelta(hours=hours, microseconds=hours)
        ours, theirs = plain.served(SERVICES[1], ["m1"], at), door.served(SERVICES[1], ["m1"], at)
        assert_frame_equal(ours.rows, theirs.rows, check_exact=True)


def test_a_replayed_request_is_read_from_files_by_feast(door: FeatureDoor, built: Workspace) -> None:
    at = workspace_clock(built).now() - timedelta(days=20)
    plain = FeatureDoor(built, plain=True)
    ours, theirs = plain.served(SERVICES[0], ["m1", None], at), door.served(SERVICES[0], ["m1", None], at)
    assert_frame_equal(ours.rows, theirs.rows)
    assert not ours.from_store[0]


def test_neither_feast_nor_pandas_is_imported(door: FeatureDoor, built: Workspace) -> None:
    command = [sys.executable, "-c", READ, str(built.project.root)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_note_counts_while_the_registry_is_what_it_was(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    door.materialize()
    assert read_note(own, SERVICES[0]) is not None
    assert read_note(own, "title_country_v1") is None
    contexts = own.project.feature_repo / "contexts.py"
    assert contexts.is_file()
    door.apply()
    assert read_note(own, SERVICES[0]) is None
    now = workspace_clock(own).now()
    read = FeatureDoor(own, plain=True).served(SERVICES[0], ["m1"], now)
    assert_frame_equal(read.rows, FeatureDoor(own).served(SERVICES[0], ["m1"], now).rows)
    assert read_note(own, SERVICES[0]) is not None


def test_a_store_that_is_gone_is_the_same_error(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    door.materialize()
    assert own.online_store_path is not None
    own.online_store_path.unlink()
    texts = []
    for one in (FeatureDoor(own), FeatureDoor(own, plain=True)):
        with pytest.raises(ServiceError) as error:
            one.served(SERVICES[0], ["m1"], workspace_clock(own).now())
        texts.append(str(error.value))
    assert texts[0] == texts[1]
