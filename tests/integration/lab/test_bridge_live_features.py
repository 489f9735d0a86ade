"""Features of a running simulation are those of the feature files, to the last value."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.config import ProjectFolder
from playbill.errors import ProblemsError
from playbill.features import FeatureDoor
from playbill.features.feast_door import FeastDoor
from playbill.tables import Tables
from playbill_lab.bridge.live_features import LiveFeatures, NoFeatures


@pytest.fixture(scope="module")
def workspace(filled):
    return ProjectFolder.find(filled.folder).workspace(filled.workspace)


@pytest.fixture(scope="module")
def tables(workspace):
    return Tables(workspace)


@pytest.fixture(scope="module")
def live(workspace, tables):
    found = LiveFeatures(FeastDoor(workspace), tables.titles(), tables.availability(), tables.member_versions())
    log = tables.interactions()
    found.follow(log, log)
    return found


@pytest.mark.parametrize("service", ["everycanvas_v1", "everycanvas_v2", "everycanvas_v3"])
def test_members_have_the_values_of_the_files(workspace, tables, live, service):
    log = tables.interactions().sample(300, seed=1)
    columns = ["member_id", "event_at", "canvas", "country", "device", "language", "query", "source_title_id"]
    requested = log.select(columns).sort("member_id", "event_at")
    of_files = FeatureDoor(workspace).member_features(service, requested)
    of_log = live.member_features(service, requested)
    assert of_log.columns == of_files.columns
    assert len(of_log.columns) > len(columns) + 10
    assert of_log.equals(of_files)


def test_what_happens_later_changes_nothing(tables, live):
    requested = tables.interactions().sort("event_at").select("member_id", "event_at")[100:120]
    whole = live.member_features("everycanvas_v2", requested)
    log = tables.interactions().filter(pl.col("event_at") < requested["event_at"].max())
    live.follow(log, log)
    assert live.member_features("everycanvas_v2", requested).equals(whole)
    live.follow(tables.interactions(), tables.interactions())


def test_titles_have_the_values_of_the_files(workspace, tables, live):
    moments = tables.interactions()["event_at"].sort().gather([50, 400]).to_list()
    titles = tables.titles()["title_id"].to_list()
    of_files = FeatureDoor(workspace).title_snapshots("everycanvas_v1", moments, titles)
    of_log = live.title_snapshots("everycanvas_v1", moments, titles)
    assert of_log.columns == of_files.columns
    assert of_log.values.shape == (2, len(titles), len(of_files.columns))
    np.testing.assert_array_equal(of_log.values, of_files.values)
    assert of_log.categorical.equals(of_files.categorical)


def test_the_schema_is_the_registered_one(workspace, live):
    assert live.schema("everycanvas_v1") == FeatureDoor(workspace).schema("everycanvas_v1")


def test_a_service_that_no_log_gives_is_refused(live):
    with pytest.raises(ProblemsError, match="title_country"):
        live.schema("title_country_v1")


def test_a_lean_model_has_no_columns_at_all():
    lean = NoFeatures()
    frame = pl.DataFrame({"member_id": ["m"], "event_at": [None]})
    assert lean.schema("none").columns == ()
    assert lean.member_features("none", frame) is frame
    assert lean.title_snapshots("none", [], ["a", "b"]).values.shape == (0, 2, 0)
