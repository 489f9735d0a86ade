"""Views of one's own over the event log: built, grown, pushed, registered, extended, and refused when they leak."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, Workspace, shipped_folder
from playbill.errors import DataError, DefinitionError
from playbill.features import FeatureDoor, build_features
from playbill.features.own_views import own_event_views, own_feature_views
from playbill.schema import INTERACTIONS
from playbill.tables import Tables, workspace_clock
from playbill_feast.asof_join import ViewValues, as_of_join

START = datetime(2024, 1, 1, tzinfo=UTC)

OWN = '''
"""Ours."""

import polars as pl
from feast import Field
from feast.types import Float32
from members import member, member_genres
from playbill.features.own import Count, Mean, event_function, event_view, extend
from services import everycanvas_v1
from titles import title

LIKED = pl.col("action") == "thumbs_up"

member_taste = event_view(
    name="member_taste",
    entity=member,
    values={"likes_20": Mean(LIKED, last=20), "likes_7d": Count(LIKED, within="7d", log=True)},
)
title_taste = event_view(name="title_taste", entity=title, values={"likes_28d": Mean(LIKED, within="28d")})


@event_function(entity=member, actions=["play"], schema=[Field(name="gap_days", dtype=Float32)])
def member_rhythm(plays: pl.DataFrame) -> pl.DataFrame:
    """Days between the last two plays."""
    return plays.with_columns(gap_days=pl.col("event_at").diff().over("member_id").dt.total_seconds() / 86_400)


everycanvas_own = extend(
    everycanvas_v1, "everycanvas_own", member_taste, title_taste, member_rhythm, member_genres[["first_genre"]]
)
'''
OWN_VIEWS = {"member_taste": ("member_id",), "title_taste": ("title_id",), "member_rhythm": ("member_id",)}


def project(folder: Path, text: str = OWN) -> ProjectFolder:
    shutil.copytree(shipped_folder("feature_repo"), folder / "feature_repo")
    (folder / "feature_repo" / "own.py").write_text(text)
    return ProjectFolder(folder, ProjectSettings())


def rows(workspace: Workspace, view: str) -> pl.DataFrame:
    return pl.read_parquet(workspace.features / f"{view}.parquet" / "part-*.parquet")


def believed(frame: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    ordered = frame.sort(*keys, "event_timestamp", "created_timestamp", maintain_order=True)
    return ordered.unique([*keys, "event_timestamp"], keep="last", maintain_order=True).drop("created_timestamp")


def arrive(workspace: Workspace, source: pl.DataFrame, days: int) -> None:
    columns = [column.name for column in INTERACTIONS.columns]
    later = source.with_columns(
        pl.format("later-{}", "event_id").alias("event_id"),
        pl.col("event_at", "recorded_at") + timedelta(days=days),
        pl.col("seq") + 10_000,
    )
    Tables(workspace).append_events(later.select(columns))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, ingest: Callable[[Workspace], None]) -> Workspace:
    """A project with views of its own, built, registered and materialized."""
    workspace = project(tmp_path_factory.mktemp("mine")).workspace("own")
    ingest(workspace)
    report = build_features(workspace)
    assert set(OWN_VIEWS) <= {view.view for view in report.views}
    door = FeatureDoor(workspace)
    assert set(OWN_VIEWS) <= set(door.apply().views)
    door.materialize()
    return workspace


def test_values_are_those_strictly_before_each_event(mine: Workspace) -> None:
    events = Tables(mine).interactions()
    found = FeatureDoor(mine).member_features("everycanvas_own", events.select("member_id", "event_at"))
    for place in range(0, events.height, 7):
        event = events.row(place, named=True)
        past = events.filter((pl.col("member_id") == event["member_id"]) & (pl.col("event_at") < event["event_at"]))
        likes = (past["action"] == "thumbs_up").tail(20)
        expected = likes.cast(pl.Float32).mean() if likes.len() else None
        assert found["member_taste__likes_20"][place] == pytest.approx(expected)


def test_what_is_served_is_what_training_sees(mine: Workspace) -> None:
    door, now = FeatureDoor(mine), workspace_clock(mine).now()
    members = ["m1", "m5", None, "nobody"]
    served = door.online("everycanvas_own", members, now)
    assert_frame_equal(served, door.member_features("everycanvas_own", served.select("member_id", "event_at")))
    assert served["member_taste__likes_20"][0] is not None
    assert served["member_genres__first_genre"].null_count() == 2


def test_an_extended_service_has_all_of_the_other_and_more(mine: Workspace) -> None:
    door = FeatureDoor(mine)
    old = [column.name for column in door.schema("everycanvas_v1").columns]
    new = [column.name for column in door.schema("everycanvas_own").columns]
    assert new[: len(old)] == old
    assert new[len(old) :] == [
        "member_taste__likes_20",
        "member_taste__likes_7d",
        "title_taste__likes_28d",
        "member_rhythm__gap_days",
        "member_genres__first_genre",
    ]


def test_increments_end_where_a_whole_build_does_and_a_push_is_the_next_build(
    tmp_path: Path, ingest: Callable[[Workspace], None]
) -> None:
    grown = project(tmp_path).workspace("grown")
    ingest(grown)
    build_features(grown, until=START + timedelta(days=40))
    first = Tables(grown).interactions()
    arrive(grown, first.filter(pl.col("member_id").is_in(["m1", "m2"])), days=30)
    door = FeatureDoor(grown)
    door.apply()
    now = workspace_clock(grown).now()
    pushed = door.push(["m1"], now)
    assert {"member_taste", "member_rhythm"} <= set(pushed.rows)
    report = {view.view: view.how for view in build_features(grown).views}
    assert {report[name] for name in OWN_VIEWS} == {"increment"}
    after = {name: believed(rows(grown, name), keys) for name, keys in OWN_VIEWS.items()}
    for name, keys in OWN_VIEWS.items():
        build_features(grown, full=True) if name == "member_taste" else None
        assert_frame_equal(after[name], believed(rows(grown, name), keys))
    question = pl.DataFrame({"member_id": ["m1"], "at": [now]})
    keys = {"member_id": "member_id"}
    view = ViewValues("v", rows(grown, "member_taste").lazy(), keys, "event_timestamp", None, {"likes_20": "likes_20"})
    built = as_of_join(question, "at", view)["likes_20"][0]
    again = FeatureDoor(grown)
    again.materialize()
    assert again.online("everycanvas_own", ["m1"], now)["member_taste__likes_20"][0] == built


def test_another_definition_builds_the_view_anew(tmp_path: Path, ingest: Callable[[Workspace], None]) -> None:
    workspace = project(tmp_path).workspace("own")
    ingest(workspace)
    build_features(workspace)
    file = tmp_path / "feature_repo" / "own.py"
    file.write_text(OWN.replace('== "thumbs_up"', '== "thumbs_down"').replace('"""Ours."""', '"""Ours, as before."""'))
    report = {view.view: (view.how, view.why) for view in build_features(workspace).views}
    assert report["member_taste"] == ("built", "its encoder has changed")
    assert report["member_rhythm"][0] == "unchanged"


LEAKING = """
from datetime import timedelta

import polars as pl
from feast import FeatureView, Field, FileSource
from feast.types import Float32
from members import member
from playbill.features.own import event_function, extend
from services import everycanvas_v1

member_mood = FeatureView(
    name="member_mood",
    entities=[member],
    ttl=timedelta(0),
    schema=[Field(name="plays", dtype=Float32)],
    source=FileSource(name="member_mood", path="member_mood.parquet", timestamp_field="at"),
    tags={},
)
everycanvas_mood = extend(everycanvas_v1, "everycanvas_mood", member_mood)
"""
PEEK = """

@event_function(entity=member, actions=["play"], schema=[Field(name="ahead", dtype=Float32)])
def member_ahead(plays: pl.DataFrame) -> pl.DataFrame:
    return plays.with_columns(ahead=pl.col("event_at").shift(-1).over("member_id").dt.hour())
"""


@pytest.fixture
def leaking(tmp_path: Path, ingest: Callable[[Workspace], None]) -> Workspace:
    """A project whose file of plays is stamped at the plays themselves."""
    workspace = project(tmp_path, LEAKING).workspace("own")
    ingest(workspace, members=40)  # type: ignore[call-arg]
    build_features(workspace)
    plays = Tables(workspace).interactions().filter(pl.col("action") == "play").sort("member_id", "seq")
    counts = plays.select(
        "member_id", pl.col("event_at").alias("at"), plays=pl.int_range(1, pl.len() + 1).over("member_id")
    )
    counts.write_parquet(workspace.features / "member_mood.parquet")
    return workspace


def test_a_file_that_knows_its_events_is_refused_with_an_example(leaking: Workspace) -> None:
    with pytest.raises(DataError) as error:
        build_features(leaking)
    text = str(error.value)
    assert "member_mood.plays: is the number of 'play' up to and including the event" in text
    assert "Example: member_id m" in text
    assert "event_at + 1 microsecond" in text
    door = FeatureDoor(leaking)
    door.apply()
    with pytest.raises(DataError, match=r"member_mood\.plays"):
        door.require_no_leaks("everycanvas_mood")
    assert door.require_no_leaks("everycanvas_v1") == ()


def test_a_file_stamped_after_its_events_is_built(leaking: Workspace) -> None:
    path = leaking.features / "member_mood.parquet"
    pl.read_parquet(path).with_columns(pl.col("at") + timedelta(microseconds=1)).write_parquet(path)
    assert build_features(leaking).notes == ()


def test_a_stated_reason_lifts_the_refusal_and_is_quoted(leaking: Workspace) -> None:
    file = leaking.project.feature_repo / "own.py"
    file.write_text(file.read_text().replace("tags={}", 'tags={"playbill.leaks_accepted": "counted by the till."}'))
    (note,) = build_features(leaking).notes
    assert note.startswith("view 'member_mood': is the number of 'play'")
    assert note.endswith("Accepted by its owner: counted by the till.")


def test_code_that_looks_ahead_is_refused_before_anything_is_written(
    tmp_path: Path, ingest: Callable[[Workspace], None]
) -> None:
    workspace = project(tmp_path, LEAKING + PEEK).workspace("own")
    ingest(workspace)
    with pytest.raises(DataError, match=r"member_ahead\.ahead: changes with events after its moment"):
        build_features(workspace)
    assert not (workspace.features / "member_ahead.parquet").exists()


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (
            'within="28d"',
            'within="90m"',
            r"own\.py:19: likes_28d: counts by the hour, so `within` has to be whole hours",
        ),
        ('within="7d"', 'within="soon"', "'soon' is no duration"),
        ("Mean(LIKED, last=20)", "20", r"likes_20: is int, expected Count, Sum or Mean"),
        ('pl.col("action") == "thumbs_up"', 'pl.col("acton") == "thumbs_up"', "Did you mean 'action'"),
        ('name="title_taste"', 'name="title_popularity"', "is the name of a shipped view"),
        ("everycanvas_v1, ", "everycanvas_v1, 1 + ", "TypeError"),
    ],
)
def test_a_wrong_definition_is_reported_before_anything_is_built(
    tmp_path: Path, old: str, new: str, match: str
) -> None:
    assert old in OWN
    project(tmp_path, OWN.replace(old, new))
    with pytest.raises(DefinitionError, match=match):
        own_event_views(tmp_path / "feature_repo")


def test_the_shipped_folder_has_no_views_of_its_own() -> None:
    assert own_feature_views(shipped_folder("feature_repo")) == {}


def test_columns_of_one_name_need_full_names_as_the_guide_says(mine: Workspace) -> None:
    from feast import FeatureStore
    from feast.errors import FeatureNameCollisionError

    store = FeatureStore(fs_yaml_file=mine.feature_store_yaml, repo_path=str(mine.project.feature_repo))
    service = store.get_feature_service("everycanvas_v3")
    at = workspace_clock(mine).now()
    requested = pl.DataFrame({"member_id": ["m1"], "title_id": ["t1"], "event_timestamp": [at], "request_at": [at]})
    with pytest.raises(FeatureNameCollisionError):
        store.get_historical_features(requested.to_pandas(), features=service)
    found = store.get_historical_features(requested.to_pandas(), features=service, full_feature_names=True).to_df()
    assert {"member_activity__thumbs_up_share", "title_popularity__thumbs_up_share"} <= set(found.columns)
