"""Features that a request decides: of a member on its canvas, by its country, on its device. Trained as served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, Workspace, shipped_folder
from playbill.errors import DataError
from playbill.features import FeatureDoor, build_features
from playbill.tables import RequestLog, Tables, workspace_clock

OWN = '''
"""Ours."""

from contexts import canvas, request_device, request_local_time
from members import member
from playbill.features.own import Count, event_view, extend
from services import everycanvas_v1

member_here = event_view(
    name="member_here",
    entity=[member, canvas],
    actions=["play"],
    values={"log_plays": Count(log=True), "log_plays_7d": Count(within="7d", log=True)},
)
everycanvas_here = extend(everycanvas_v1, "everycanvas_here", member_here, request_local_time, request_device)
'''
SERVICE = "everycanvas_here"
READS = ("canvas", "country", "device")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, ingest: Callable[[Workspace], None]) -> Workspace:
    """A log in which every other event is on `search`, with a view of members on a canvas."""
    folder: Path = tmp_path_factory.mktemp("here")
    shutil.copytree(shipped_folder("feature_repo"), folder / "feature_repo")
    (folder / "feature_repo" / "own.py").write_text(OWN)
    workspace = ProjectFolder(folder, ProjectSettings()).workspace("own")
    ingest(workspace)
    tables = Tables(workspace)
    frames = {name: getattr(tables, name)() for name in ("titles", "availability", "interactions")}
    frames["members"] = tables.member_versions()
    second = pl.int_range(pl.len()) % 2 == 0
    frames["interactions"] = frames["interactions"].with_columns(
        canvas=pl.when(second).then(pl.lit("search")).otherwise(pl.lit("home"))
    )
    with tables.replace() as writer:
        for name, frame in frames.items():
            writer.write(name, frame)
    build_features(workspace)
    door = FeatureDoor(workspace)
    door.apply()
    door.materialize()
    return workspace


def test_a_service_says_what_of_a_request_it_reads(here: Workspace) -> None:
    door = FeatureDoor(here)
    schema = door.schema(SERVICE)
    assert schema.reads == READS
    assert {column.entity for column in schema.columns if column.view == "member_here"} == {"member"}
    assert door.schema("everycanvas_v1").reads == ()


def test_values_are_of_the_member_on_the_canvas_strictly_before_each_event(here: Workspace) -> None:
    events = Tables(here).interactions().with_columns(device=pl.lit("tv"))
    found = FeatureDoor(here).member_features(SERVICE, events.select("member_id", "event_at", *READS))
    for place in range(0, events.height, 11):
        event = events.row(place, named=True)
        same = (pl.col("member_id") == event["member_id"]) & (pl.col("canvas") == event["canvas"])
        plays = events.filter(same & (pl.col("event_at") < event["event_at"]) & (pl.col("action") == "play")).height
        value = found["member_here__log_plays"][place]
        assert (value or 0.0) == pytest.approx(float(pl.Series([plays]).log1p()[0]), abs=1e-6)
    assert found["member_here__log_plays"].n_unique() > 3


def test_what_is_served_is_what_training_sees_on_each_canvas(here: Workspace) -> None:
    door, now = FeatureDoor(here), workspace_clock(here).now()
    members = ["m1", "m5", None, "nobody"]
    of_canvas = {}
    for canvas in ("home", "search"):
        request = {"canvas": canvas, "country": "JP", "device": "tablet"}
        served = door.served(SERVICE, members, now, request).rows
        assert_frame_equal(served, door.member_features(SERVICE, served.select("member_id", "event_at", *READS)))
        of_canvas[canvas] = served["member_here__log_plays"][0]
        assert served["request_device__in_hand"].to_list() == [1.0] * 4
    assert of_canvas["home"] != of_canvas["search"]


def test_local_time_is_that_of_the_country_and_null_where_none_is_known(here: Workspace) -> None:
    at = datetime(2024, 1, 5, 18, tzinfo=UTC)  # a Friday: 3 o'clock on Saturday morning in Japan
    frame = pl.DataFrame(
        {"member_id": [None] * 3, "event_at": [at] * 3, "canvas": ["home"] * 3, "country": ["JP", "GB", "ZZ"]},
        schema_overrides={"member_id": pl.String, "event_at": pl.Datetime("us", "UTC")},
    ).with_columns(device=pl.Series(["Phone", "tv", None]))
    found = FeatureDoor(here).member_features(SERVICE, frame)
    assert found["request_local_time__local_weekend"].to_list() == [1.0, 0.0, None]
    assert found["request_local_time__local_hour_sin"][0] == pytest.approx(2**-0.5, abs=1e-6)
    assert found["request_local_time__local_hour_sin"][1] == pytest.approx(-1.0, abs=1e-6)
    assert found["request_device__in_hand"].to_list() == [1.0, 0.0, None]
    assert found["request_device__leant_back"].to_list() == [0.0, 1.0, None]


def test_a_request_that_does_not_say_what_is_read_is_refused(here: Workspace) -> None:
    door, now = FeatureDoor(here), workspace_clock(here).now()
    with pytest.raises(DataError, match=r"canvas.*request field is missing"):
        door.served(SERVICE, ["m1"], now, {"country": "NL", "device": "tv"})
    rows = pl.DataFrame({"member_id": ["m1"], "event_at": [now], "country": ["NL"], "device": ["tv"]})
    with pytest.raises(DataError, match=r"canvas.*column is missing"):
        door.member_features(SERVICE, rows)


def test_a_push_writes_a_row_for_each_canvas_of_the_member(here: Workspace) -> None:
    door, now = FeatureDoor(here), workspace_clock(here).now()
    later = now + timedelta(hours=1)
    report = door.push(["m1"], later)
    assert report.rows["member_here"] == 2
    for canvas in ("home", "search"):
        request = {"canvas": canvas, "country": "NL", "device": "tv"}
        served = door.served(SERVICE, ["m1"], later, request).rows
        assert served["member_here__log_plays"][0] is not None


def test_parity_reads_logged_requests_as_they_were_asked(here: Workspace) -> None:
    door, now = FeatureDoor(here), workspace_clock(here).now()
    log = RequestLog(here.database_url)
    for number, canvas in enumerate(("home", "search")):
        request = {"canvas": canvas, "country": "JP", "device": "tv"}
        served = door.served(SERVICE, ["m5"], now, request)
        values = {name: value for name, value in served.rows.row(0, named=True).items() if "__" in name}
        times = {
            view: None if at is None else at.isoformat() for view, at in served.values_at.row(0, named=True).items()
        }
        facts = {"service": SERVICE, "features": values, "values_at": times, "request": request}
        row = {"request_id": f"r{number}", "at": now, "member_id": "m5", "canvas": canvas, "context": "{}"}
        row |= {"model": "m", "model_version": "1", "policy": "model", "seed": None, "facts_version": "1"}
        log.write(row | {"facts": json.dumps(facts)}, [])
    report = door.parity()
    assert (report.requests, report.requests_different) == (2, 0)
    assert {view.view for view in report.views} >= {"member_here", "request_local_time", "request_device"}
    facts["request"]["canvas"] = "home"
    log.write({**row, "request_id": "r9", "facts": json.dumps(facts)}, [])
    assert door.parity().requests_different == 1
