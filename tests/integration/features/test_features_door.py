"""The feature door on a real Feast registry, offline store and online store."""

from __future__ import annotations

import math
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.errors import (
    ConfigError,
    DataError,
    DefinitionError,
    ServiceError,
    StateError,
    UnknownNameError,
)
from playbill.features import FeatureDoor, build_features
from playbill.tables import Tables, workspace_clock

SERVICE = "everycanvas_v1"
START = datetime(2024, 1, 1, tzinfo=UTC)


def f32(value: float) -> float:
    return float(np.float32(value))


def test_the_schema_says_whose_and_what_kind_every_column_is(door: FeatureDoor) -> None:
    schema = door.schema(SERVICE)
    columns = {column.name: column for column in schema.columns}
    assert columns["member_profile__country"].kind == "categorical"
    assert columns["member_activity__log_plays_7d"].entity == "member"
    assert columns["member_recency__days_since_last_play"].entity == "request"
    assert columns["request_time__hour_of_day"].entity == "request"
    assert columns["title_popularity__log_plays_30d"].entity == "title"
    assert columns["title_age__age_days"].entity == "title"
    assert {column.name for column in schema.of("title")} == {n for n, c in columns.items() if c.entity == "title"}
    assert door.schema(SERVICE).version == schema.version


def test_member_features_hold_only_what_is_strictly_earlier(door: FeatureDoor, built: Workspace) -> None:
    events = Tables(built).interactions()
    rows = events.select("member_id", "event_at").sample(fraction=1, shuffle=True, seed=3)
    found = door.member_features(SERVICE, rows)
    assert_frame_equal(found.select(rows.columns), rows)
    plays = events.filter(pl.col("action") == "play")
    for row in found.to_dicts():
        earlier = plays.filter(
            (pl.col("member_id") == row["member_id"]) & (pl.col("event_at") < row["event_at"])
        ).get_column("event_at")
        if earlier.is_empty():
            assert row["member_activity__log_plays_total"] is None
            assert row["member_recency__days_since_last_play"] is None
            continue
        assert row["member_activity__log_plays_total"] == f32(math.log1p(earlier.len()))
        week = (earlier >= row["event_at"] - timedelta(days=7)).sum()
        assert row["member_activity__log_plays_7d"] == f32(math.log1p(week))
        since = (row["event_at"] - earlier.max()).total_seconds() / 86_400
        assert row["member_recency__days_since_last_play"] == f32(since)
        assert row["request_time__hour_of_day"] == row["event_at"].hour
        assert row["member_profile__age"] == 31.0
        assert row["member_profile__gender"] is None


def test_what_happens_at_or_after_a_moment_does_not_change_its_features(
    own: Workspace, door: FeatureDoor, built: Workspace
) -> None:
    cut = START + timedelta(days=30)
    events = Tables(built).interactions()
    with Tables(own).replace() as writer:
        for name in ("titles", "availability", "members"):
            writer.write(name, getattr(Tables(built), name)())
        writer.write("interactions", events.filter(pl.col("event_at") < cut))
    build_features(own, until=cut)
    shorter = FeatureDoor(own)
    shorter.apply()
    rows = pl.DataFrame({"member_id": [f"m{i}" for i in range(12)]}).with_columns(
        pl.lit(cut, dtype=pl.Datetime("us", "UTC")).alias("event_at")
    )
    assert_frame_equal(shorter.member_features(SERVICE, rows), door.member_features(SERVICE, rows))
    titles = [f"t{i}" for i in range(15)]
    moments = [cut - timedelta(days=3), cut]
    np.testing.assert_array_equal(
        shorter.title_snapshots(SERVICE, moments, titles).values,
        door.title_snapshots(SERVICE, moments, titles).values,
    )


def test_anonymous_and_unknown_members_get_the_requests_features_only(door: FeatureDoor) -> None:
    at = START + timedelta(days=5, hours=7)
    rows = pl.DataFrame({"member_id": [None, "nobody"], "event_at": [at, at]})
    found = door.member_features(SERVICE, rows)
    assert found.get_column("member_activity__log_plays_total").to_list() == [None, None]
    assert found.get_column("member_profile__country").to_list() == [None, None]
    assert found.get_column("request_time__hour_of_day").to_list() == [7.0, 7.0]
    none = door.member_features(SERVICE, rows.head(0))
    assert none.schema == found.schema
    assert none.is_empty()


def test_snapshots_are_dense_and_agree_with_the_log(door: FeatureDoor, built: Workspace) -> None:
    moments = [START + timedelta(days=45), START, START + timedelta(days=10, hours=1, minutes=30)]
    titles = ["t3", "unknown", "t0"]
    found = door.title_snapshots(SERVICE, moments, titles)
    assert found.values.shape == (3, 3, len(found.columns))
    assert found.values.dtype == np.float32
    assert np.isnan(found.values[:, 1]).all()
    total = found.columns.index("title_popularity__log_plays_total")
    assert np.isnan(found.values[1, :, total]).all()
    plays = Tables(built).interactions().filter(pl.col("action") == "play")
    for s, moment in enumerate(moments):
        hour = moment.replace(minute=0)
        for t in (0, 2):
            count = plays.filter((pl.col("title_id") == titles[t]) & (pl.col("event_at") < hour)).height
            if count:
                assert found.values[s, t, total] == f32(math.log1p(count))
    age = found.columns.index("title_age__age_days")
    assert found.values[:, 0, age].tolist() == [20_045.0, 20_000.0, f32(20_010 + 1.5 / 24)]
    assert found.categorical.get_column("title_id").to_list() == titles
    assert found.categorical.get_column("title_profile__kind").to_list() == ["film", None, "film"]


def test_a_snapshot_within_an_hour_sees_nothing_of_that_hour(door: FeatureDoor, built: Workspace) -> None:
    plays = Tables(built).interactions().filter((pl.col("action") == "play") & (pl.col("title_id") == "t0"))
    played = plays.get_column("event_at").sort()
    moments = [at + timedelta(microseconds=1) for at in played]
    found = door.title_snapshots(SERVICE, moments, ["t0"])
    total = found.values[:, 0, found.columns.index("title_popularity__log_plays_total")]
    hours = played.dt.truncate("1h")
    expected = [f32(math.log1p(count)) if (count := (played < hour).sum()) else math.nan for hour in hours]
    np.testing.assert_array_equal(total, expected)


def test_a_log_in_which_nobody_asks_for_a_title_serves_missing_values(door: FeatureDoor, built: Workspace) -> None:
    found = door.title_snapshots("everycanvas_v3", [START + timedelta(days=45)], ["t0", "t3"])
    requested = [place for place, name in enumerate(found.columns) if name.startswith("title_anticipation__")]
    assert len(requested) == 9
    assert np.isnan(found.values[:, :, requested]).all()
    rest = door.title_snapshots("everycanvas_v1", [START + timedelta(days=45)], ["t0", "t3"])
    kept = [found.columns.index(name) for name in rest.columns]
    np.testing.assert_array_equal(found.values[:, :, kept], rest.values)
    at = workspace_clock(built).now()
    served = door.online("everycanvas_v3", ["m1"], at)
    assert_frame_equal(served, door.member_features("everycanvas_v3", served.select("member_id", "event_at")))


def test_snapshots_in_many_small_steps_are_the_same(door: FeatureDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [START + timedelta(days=day) for day in range(20)]
    whole = door.title_snapshots(SERVICE, moments, ["t0", "t1"])
    monkeypatch.setattr("playbill.features.snapshots.ROWS_PER_CALL", 6)
    np.testing.assert_array_equal(door.title_snapshots(SERVICE, moments, ["t0", "t1"]).values, whole.values)
    assert door.title_snapshots(SERVICE, [], ["t0"]).values.shape == (0, 1, len(whole.columns))
    with pytest.raises(DataError, match="has no time zone"):
        door.title_snapshots(SERVICE, [moments[0].replace(tzinfo=None)], ["t0"])


def test_served_features_are_the_regenerated_ones(door: FeatureDoor, built: Workspace) -> None:
    members = [f"m{i}" for i in range(12)] + [None, "nobody", "m3"]
    served = door.online(SERVICE, members, workspace_clock(built).now())
    assert_frame_equal(served, door.member_features(SERVICE, served.select("member_id", "event_at")))


def test_an_idle_members_windows_empty_when_materialized_again(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    members = [f"m{i}" for i in range(12)]
    for days in (0, 3, 31, 360):
        at = workspace_clock(own).now() + timedelta(days=days)
        build_features(own, until=at)
        door.materialize(at)
        served = door.online(SERVICE, members, at)
        assert_frame_equal(served, door.member_features(SERVICE, served.select("member_id", "event_at")))
    assert served.get_column("member_activity__log_plays_30d").drop_nulls().to_list() == [0.0] * 12


def test_a_replayed_request_sees_nothing_later_than_itself(door: FeatureDoor, built: Workspace) -> None:
    members = ["m1", None, "nobody", "m2", "m1"]
    last = Tables(built).interactions(members=["m1"]).get_column("event_at").max()
    for at in (START + timedelta(days=20), START - timedelta(days=400), last, last + timedelta(microseconds=1)):
        served = door.online(SERVICE, members, at)
        assert_frame_equal(served, door.member_features(SERVICE, served.select("member_id", "event_at")))


def test_a_value_beyond_its_ttl_is_null_online(door: FeatureDoor, built: Workspace) -> None:
    at = workspace_clock(built).now() + timedelta(days=366)
    served = door.online(SERVICE, ["m1"], at).row(0, named=True)
    assert served["member_activity__log_plays_total"] is None
    assert served["member_recency__days_since_last_play"] is None
    assert served["member_profile__country"] == "US-MN"
    assert served["member_recency__tenure_days"] > 366


def test_materialize_reports_rows_of_every_view(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    seen: list[str] = []
    report = door.materialize(progress=seen.append)
    rows = {view.view: view.rows for view in report.views}
    assert rows["member_activity"] == rows["member_session"] == rows["member_profile"] == 12
    assert rows["title_profile"] == 15
    assert seen == list(rows)
    assert report.until == workspace_clock(own).now()
    early = door.materialize(START + timedelta(days=1))
    assert {view.view: view.rows for view in early.views}["member_activity"] < 12
    with pytest.raises(ConfigError, match="time zone"):
        door.materialize(START.replace(tzinfo=None))


def test_applying_again_changes_nothing(own: Workspace) -> None:
    first, second = FeatureDoor(own), FeatureDoor(own)
    report = first.apply()
    version = first.schema(SERVICE).version
    again = second.apply()
    assert (again.views, again.services) == (report.views, report.services)
    assert second.schema(SERVICE).version == version


def test_features_before_apply_and_unknown_services_name_what_to_do(own: Workspace, door: FeatureDoor) -> None:
    with pytest.raises(StateError, match="playbill -w own apply"):
        FeatureDoor(own).schema(SERVICE)
    with pytest.raises(UnknownNameError, match=r"everycanvas_v11.*Did you mean 'everycanvas_v1'"):
        door.schema("everycanvas_v11")


def test_a_view_that_left_the_registry_is_named(own: Workspace) -> None:
    FeatureDoor(own).apply()
    path = own.feast_registry_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    connection.execute("delete from feature_views where feature_view_name = 'title_popularity'")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match=r"'title_popularity', not in the registry.*playbill -w own apply"):
        FeatureDoor(own).schema(SERVICE)


def test_files_that_were_never_built_name_the_command(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    shutil.rmtree(own.features / "member_activity.parquet")
    rows = pl.DataFrame({"member_id": ["m1"], "event_at": [START]})
    with pytest.raises(StateError, match=r"member_activity.*playbill -w own features build"):
        door.member_features(SERVICE, rows)
    with pytest.raises(StateError, match="playbill -w own features build"):
        door.materialize()


def test_rows_without_their_columns_are_refused_at_once(door: FeatureDoor) -> None:
    with pytest.raises(DataError, match=r"(?s)event_at: column is missing.*member_id: column is missing"):
        door.member_features(SERVICE, pl.DataFrame({"who": ["m1"]}))
    nulls = pl.DataFrame(
        {"member_id": ["m1"], "event_at": [None]}, schema_overrides={"event_at": pl.Datetime("us", "UTC")}
    )
    with pytest.raises(DataError, match="event_at: has nulls"):
        door.member_features(SERVICE, nulls)
    with pytest.raises(DataError, match="has no time zone"):
        door.online(SERVICE, ["m1"], START.replace(tzinfo=None))


def test_an_online_store_that_is_missing_empty_or_broken_is_a_service_error(own: Workspace) -> None:
    door = FeatureDoor(own)
    door.apply()
    now = workspace_clock(own).now()
    with pytest.raises(
        ServiceError, match=r"no values of member_activity, member_profile.*playbill -w own materialize"
    ):
        door.online(SERVICE, ["m1"], now)
    door.materialize()
    assert door.online(SERVICE, ["m1"], now).height == 1
    with closing(sqlite3.connect(own.online_store_path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else all of it may still be in the log beside the file
    own.online_store_path.write_bytes(b"this is no database" * 100)
    with pytest.raises(ServiceError, match="online store of workspace 'own' does not answer"):
        FeatureDoor(own).online(SERVICE, ["m1"], now)
    own.online_store_path.unlink()
    gone = FeatureDoor(own)
    with pytest.raises(ServiceError, match=r"online_store.db is gone.*playbill -w own materialize"):
        gone.online(SERVICE, ["m1"], now)
    gone.materialize()
    assert gone.online(SERVICE, ["m1"], now).height == 1


def test_a_registry_that_cannot_be_reached_is_a_service_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    services = ServicesSettings(feast_registry=f"sqlite:////{tmp_path}/taken")
    workspace = ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace("own")
    with pytest.raises(ServiceError, match=r"the feature registry at .*taken cannot be written"):
        FeatureDoor(workspace).apply()


TWICE = """
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Int64

member = Entity(name="member", join_keys=["member_id"])
ages = FeatureView(
    name="ages",
    entities=[member],
    schema=[Field(name="age", dtype=Int64), Field(name="size", dtype=Int64)],
    source=FileSource(name="ages", path="ages.parquet", timestamp_field="at"),
)
chosen = ages[["age"]]
"""


def test_mistakes_in_feature_repo_say_where(tmp_path: Path) -> None:
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("own")
    with pytest.raises(DefinitionError, match="has no Python files"):
        FeatureDoor(workspace).apply()
    (repo / "types.py").write_text("x = 1\n")
    with pytest.raises(DefinitionError, match=r"types\.py: a module of this name is installed"):
        FeatureDoor(workspace).apply()
    (repo / "types.py").rename(repo / "members.py")
    (repo / "members.py").write_text("from feast import Entity\n\nmember = Entity(nam='member')\n")
    with pytest.raises(DefinitionError, match=r"members\.py:3: TypeError"):
        FeatureDoor(workspace).apply()
    (repo / "members.py").write_text(TWICE)
    workspace.features.mkdir(parents=True)
    values = {"member_id": ["m"], "at": [datetime(2024, 1, 1, tzinfo=UTC)], "age": [30], "size": [2]}
    pl.DataFrame(values).write_parquet(workspace.features / "ages.parquet")
    with pytest.raises(DefinitionError, match=r"name 'ages' found.*holds `view\[\[...\]\]` counts as one more"):
        FeatureDoor(workspace).apply()
    (repo / "members.py").write_text("def broken(:\n")
    with pytest.raises(DefinitionError, match=r"members\.py:1: SyntaxError"):
        FeatureDoor(workspace).apply()


def test_many_threads_get_their_own_answers(door: FeatureDoor, built: Workspace) -> None:
    now = workspace_clock(built).now()
    moments = [now, START + timedelta(days=20)] * 12
    members = [f"m{i % 12}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda pair: door.online(SERVICE, [pair[0]], pair[1]), zip(members, moments, strict=True))
        )
    for answer in answers:
        assert_frame_equal(answer, door.member_features(SERVICE, answer.select("member_id", "event_at")))
