"""A view added in a copy of feature_repo/ and named in the service reaches the door; the package is untouched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, Workspace, shipped_folder
from playbill.errors import DefinitionError
from playbill.features import FeatureDoor, build_features
from playbill.tables import workspace_clock

START = datetime(2024, 1, 1, tzinfo=UTC)
SERVICE = "everycanvas_v1"

MOODS = '''
"""How members have felt lately, from a team's own survey."""

from datetime import timedelta

import pandas as pd
from contexts import request
from feast import FeatureView, Field, FileSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, String
from members import member
from titles import title

member_mood = FeatureView(
    name="member_mood",
    entities=[member],
    ttl=timedelta(days=2),
    schema=[Field(name="mood", dtype=String), Field(name="energy", dtype=Float32)],
    source=FileSource(path="member_mood.parquet", timestamp_field="asked_at"),
)
title_awards = FeatureView(
    name="title_awards",
    entities=[title],
    ttl=timedelta(0),
    schema=[Field(name="awards", dtype=Float32)],
    source=FileSource(path="title_awards.parquet", timestamp_field="given_at"),
)


@on_demand_feature_view(sources=[member_mood, request], schema=[Field(name="night_energy", dtype=Float32)])
def member_night(inputs: pd.DataFrame) -> pd.DataFrame:
    night = pd.to_datetime(inputs["request_at"], utc=True).dt.hour >= 20
    return pd.DataFrame({"night_energy": (inputs["energy"] * night).astype("float32")})
'''


@pytest.fixture
def workspace(tmp_path: Path, ingest: Callable[[Workspace], None]) -> Workspace:
    """A project with its own copy of feature_repo, whose service also names three new views."""
    repo = tmp_path / "feature_repo"
    shutil.copytree(shipped_folder("feature_repo"), repo)
    (repo / "moods.py").write_text(MOODS)
    services = (repo / "services.py").read_text()
    services = services.replace(
        "from titles import", "from moods import member_mood, member_night, title_awards\nfrom titles import"
    )
    (repo / "services.py").write_text(
        services.replace("*TITLE, title_age],", "*TITLE, title_age, member_mood, member_night, title_awards],")
    )
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("own")
    ingest(workspace)
    build_features(workspace)
    pl.DataFrame({"member_id": ["m1"], "asked_at": [START], "mood": ["merry"], "energy": [0.5]}).write_parquet(
        workspace.features / "member_mood.parquet"
    )
    pl.DataFrame({"title_id": ["t2"], "given_at": [START], "awards": [3.0]}).write_parquet(
        workspace.features / "title_awards.parquet"
    )
    return workspace


def test_new_views_reach_schema_rows_snapshots_and_serving(workspace: Workspace, door: FeatureDoor) -> None:
    mine = FeatureDoor(workspace)
    report = mine.apply()
    assert {"member_mood", "title_awards"} <= set(report.views)

    schema = mine.schema(SERVICE)
    added = {c.name: (c.entity, c.kind) for c in schema.columns} | {}
    assert added["member_mood__mood"] == ("member", "categorical")
    assert added["member_mood__energy"] == ("member", "numeric")
    assert added["member_night__night_energy"] == ("request", "numeric")
    assert added["title_awards__awards"] == ("title", "numeric")
    assert schema.version != door.schema(SERVICE).version

    night = START + timedelta(hours=21)
    rows = pl.DataFrame({"member_id": ["m1", "m2", "m1"], "event_at": [night, night, night + timedelta(days=2)]})
    found = mine.member_features(SERVICE, rows)
    assert found.get_column("member_mood__mood").to_list() == ["merry", None, None]
    assert found.get_column("member_night__night_energy").to_list() == [0.5, None, None]

    snapshots = mine.title_snapshots(SERVICE, [START - timedelta(days=1), START], ["t1", "t2"])
    awards = snapshots.values[:, :, snapshots.columns.index("title_awards__awards")]
    np.testing.assert_array_equal(awards, [[np.nan, np.nan], [np.nan, 3.0]])

    mine.materialize()
    now = workspace_clock(workspace).now()
    served = mine.online(SERVICE, ["m1"], now)
    assert_frame_equal(served, mine.member_features(SERVICE, served.select("member_id", "event_at")))
    assert served.get_column("member_mood__mood").to_list() == [None]


def test_the_shipped_repository_is_not_affected(workspace: Workspace, door: FeatureDoor) -> None:
    FeatureDoor(workspace).apply()
    names = {column.view for column in door.schema(SERVICE).columns}
    assert "member_mood" not in names
    assert "member_mood" not in door.apply().views


def test_a_column_that_no_model_can_use_is_refused_by_name(workspace: Workspace) -> None:
    path = workspace.project.feature_repo / "services.py"
    text = path.read_text().replace('"country", "kids_profile"', '"country", "joined_at", "kids_profile"')
    path.write_text(text)
    door = FeatureDoor(workspace)
    door.apply()
    with pytest.raises(
        DefinitionError, match=r"member_profile\.joined_at: is UnixTimestamp, neither a number nor a string"
    ):
        door.schema(SERVICE)


def test_a_removed_view_leaves_the_registry(workspace: Workspace) -> None:
    FeatureDoor(workspace).apply()
    repo = workspace.project.feature_repo
    (repo / "moods.py").unlink()
    shutil.copy(shipped_folder("feature_repo") / "services.py", repo / "services.py")
    assert "member_mood" not in FeatureDoor(workspace).apply().views


WEATHER = '''
"""What it is like outside, for everybody."""

from datetime import timedelta

from feast import FeatureService, FeatureView, Field, FileSource
from feast.types import Float32

weather = FeatureView(
    name="weather",
    entities=[],
    ttl=timedelta(hours=6),
    schema=[Field(name="rain", dtype=Float32)],
    source=FileSource(path="weather.parquet", timestamp_field="seen_at"),
)
outside_v1 = FeatureService(name="outside_v1", features=[weather])
'''


def test_a_view_of_nobody_whose_times_have_no_zone_is_served(workspace: Workspace) -> None:
    (workspace.project.feature_repo / "weather.py").write_text(WEATHER)
    now = workspace_clock(workspace).now()
    seen = [(now - timedelta(hours=hours)).replace(tzinfo=None) for hours in (30, 5)]
    pl.DataFrame({"seen_at": seen, "rain": [0.5, 0.25]}).write_parquet(workspace.features / "weather.parquet")
    door = FeatureDoor(workspace)
    door.apply()
    assert {view.view: view.rows for view in door.materialize().views}["weather"] == 1
    served = door.online("outside_v1", ["m1", None], now)
    assert served.get_column("weather__rain").to_list() == [0.25, 0.25]
    assert_frame_equal(served, door.member_features("outside_v1", served.select("member_id", "event_at")))
    later = door.online("outside_v1", ["m1"], now + timedelta(hours=2))
    assert later.get_column("weather__rain").to_list() == [None]
