"""What a training set asks of the feature door: title features of single rows, and which features there were."""

import shutil
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fixtures.small_project import Shell
from playbill.errors import DataError, UnknownNameError
from playbill.features import FeatureDoor, build_features
from playbill.features.registration import render
from playbill.tables import Tables

SERVICE = "everycanvas_v1"


@pytest.fixture
def shell(tmp_path, filled):
    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, tmp_path / "project", ignore=left)
    made = Shell(tmp_path / "project")
    render(made.workspace)
    return made


def views_of(shell):
    return {view.view: view for view in FeatureDoor(shell.workspace).provenance(SERVICE).views}


def test_a_titles_own_row_is_the_one_of_the_dense_snapshot(shell):
    tables, door = Tables(shell.workspace), FeatureDoor(shell.workspace)
    played = tables.interactions().filter(pl.col("action") == "play").sample(300, seed=3)
    requested = played.select("title_id", pl.col("event_at").dt.truncate("1d"))
    requested = pl.concat(
        [requested, requested[:5], pl.DataFrame({"title_id": ["unknown"], "event_at": requested["event_at"][:1]})]
    )
    found = door.title_features(SERVICE, requested)
    assert found.select(requested.columns).equals(requested), "the same rows in the same order"

    moments, titles = sorted(set(requested["event_at"])), sorted(set(requested["title_id"]))
    dense = door.title_snapshots(SERVICE, moments, titles)
    at = {moment: place for place, moment in enumerate(moments)}
    of = {title: place for place, title in enumerate(titles)}
    expected = np.stack([dense.values[at[moment], of[title]] for title, moment in requested.iter_rows()])
    own = found.select(dense.columns).fill_null(float("nan")).to_numpy()
    np.testing.assert_array_equal(own, expected)
    assert np.isfinite(own).mean() > 0.5
    assert found["title_profile__kind"].null_count() == 1
    with pytest.raises(DataError, match="title_id: column is missing"):
        door.title_features(SERVICE, requested.drop("title_id"))


def test_provenance_names_definitions_values_and_what_they_were_built_from(shell):
    found = FeatureDoor(shell.workspace).provenance(SERVICE)
    schema = FeatureDoor(shell.workspace).schema(SERVICE)
    assert (found.service_version, found.project) == (schema.version, "small")
    assert found.registry_updated.tzinfo is not None
    views = {view.view: view for view in found.views}
    assert {column.view for column in schema.columns} <= views.keys()
    activity, tables = views["member_activity"], Tables(shell.workspace)
    assert activity.snapshot_id == tables.snapshot_id()
    assert activity.built_until == tables.data_end()
    assert activity.created_until == tables.interactions()["event_at"].max()
    assert activity.rows > tables.row_counts()["members"]
    assert (views["request_time"].kind, views["request_time"].files) == ("on_demand", None)
    with pytest.raises(UnknownNameError, match="Did you mean 'everycanvas_v1'"):
        FeatureDoor(shell.workspace).provenance("everycanvas_v11")


def test_only_what_decides_values_changes_it(shell):
    before = views_of(shell)
    shell.type("materialize")
    shell.type("apply")
    build_features(shell.workspace, full=True)
    assert views_of(shell) == before, "built anew from the same tables, the values are the same"

    shell.edit("feature_repo/members.py", "ttl=timedelta(days=365)", "ttl=timedelta(days=100)")
    shell.type("apply")
    changed = views_of(shell)
    assert {name for name in before if changed[name].definition != before[name].definition} == {"member_activity"}

    build_features(shell.workspace, full=True, until=datetime(2024, 3, 1, tzinfo=UTC))
    earlier = views_of(shell)
    assert earlier["member_activity"].files != before["member_activity"].files
    assert earlier["member_activity"].built_until == datetime(2024, 3, 1, tzinfo=UTC)
