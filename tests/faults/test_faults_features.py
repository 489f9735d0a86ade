"""Feast's registry, the feature files and the online store: missing, damaged, or without a view."""

import re
import shutil
import sqlite3
from datetime import timedelta

import polars as pl
import pytest

from playbill.features.registration import render
from playbill.tables import Tables

TRAIN = ("train", "everycanvas", "--epochs", "1")
APPLY, BUILD, LOAD = (f"playbill -w small {name}" for name in ("apply", "features build", "materialize"))
GARBAGE = b"this is neither a database nor parquet" * 40
ASK = ("recommend", "--member", "m1", "--canvas", "home", "-k", "3")


def remove_view(shell):
    with sqlite3.connect(shell.home / "feast_registry.db") as database:
        database.execute("DELETE FROM feature_views WHERE feature_view_name = 'member_activity'")


def garble(name):
    def spoil(shell):
        for path in files(shell.home / name):
            path.write_bytes(GARBAGE)

    return spoil


def remove(name):
    def spoil(shell):
        path = shell.home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def files(path):
    return list(path.glob("part-*.parquet")) if path.is_dir() else [path]


def nobody_listens(shell):
    with (shell.folder / "playbill.toml").open("a") as settings:
        settings.write('\n[services]\nfeast_registry = "postgresql+psycopg://nobody@127.0.0.1:9/registry"\n')
    render(shell.workspace)


def drop_column(shell):
    view = shell.home / "features" / "member_activity.parquet"
    for path in files(view):
        pl.read_parquet(path).drop("distinct_genres").write_parquet(path)
    # Files that someone wrote by other means have no digests beside them.
    (view / "_state.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(remove_view, rf"needs 'member_activity', not in the registry. Run `{APPLY}`", id="no view"),
        pytest.param(remove("feast_registry.db"), rf"registry.db does not exist. Run `{APPLY}`", id="no registry"),
        pytest.param(garble("feast_registry.db"), rf"remove it and run `{APPLY}`", id="damaged registry"),
        pytest.param(
            remove("features/member_activity.parquet"),
            rf"'member_activity' has no values.*Run `{BUILD}`",
            id="no file",
        ),
        pytest.param(
            garble("features/title_popularity.parquet"),
            rf"(?s)title_popularity.parquet.*: cannot be read.*Run `{BUILD}`",
            id="damaged file",
        ),
        pytest.param(nobody_listens, r"does not answer.*refused.*correct services.feast_registry", id="unreachable"),
        pytest.param(drop_column, r"member_activity.distinct_genres: column is missing", id="no column"),
    ],
)
def test_training_names_the_command_and_leaves_no_run(project, spoil, message):
    spoil(project)
    before = project.tree()
    project.refused(*TRAIN, match=message)
    assert project.tree() == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(remove("features/member_activity.parquet"), rf"has no values.*Run `{BUILD}`", id="no file"),
        pytest.param(garble("features/member_activity.parquet"), rf"cannot be read.*Run `{BUILD}`", id="damaged file"),
        pytest.param(drop_column, r"distinct_genres.*not a column", id="no column"),
        pytest.param(garble("online_store.db"), rf"`{LOAD}`; if .*online_store.db is damaged", id="store"),
    ],
)
def test_materialize_writes_nothing_of_what_is_damaged(project, spoil, message):
    spoil(project)
    before = project.tree()
    project.refused("materialize", match=message)
    assert project.tree() == before


def test_a_build_repairs_what_is_damaged(project):
    garble("features/member_activity.parquet")(project)
    built = {view["view"]: view for view in project.json("features", "build")["views"]}
    assert (built["member_activity"]["how"], built["member_session"]["how"]) == ("built", "unchanged")
    assert "a file was damaged" in built["member_activity"]["why"]
    project.json("materialize")


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        pytest.param(remove("online_store.db"), rf"online_store.db is gone. Run `{LOAD}`", id="no store"),
        pytest.param(garble("online_store.db"), rf"does not answer.*Run `{LOAD}`", id="damaged store"),
        pytest.param(remove("feast_registry.db"), rf"registry .* does not exist. Run `{APPLY}`", id="no registry"),
        pytest.param(nobody_listens, r"does not answer.*refused", id="unreachable"),
        pytest.param(remove_view, rf"'member_activity', not in the registry. Run `{APPLY}`", id="no view"),
        pytest.param(garble("features/title_popularity.parquet"), "title features are imputed as missing", id="file"),
    ],
)
def test_a_request_is_answered_by_the_model_with_a_note(served, spoil, note):
    spoil(served)
    answer = served.json(*ASK)
    assert (answer["policy"], answer["version"]) == ("model", 1)
    assert len(answer["items"]) == 3
    assert re.search(note, "\n".join(answer["notes"])), answer["notes"]


MOOD = """
from datetime import timedelta

from feast import FeatureView, Field, FileSource
from feast.types import Float32
from members import member
from playbill.features.own import extend
from services import everycanvas_v3

member_years = FeatureView(
    name="member_years",
    entities=[member],
    ttl=timedelta(0),
    schema=[Field(name="mean_year", dtype=Float32)],
    source=FileSource(name="member_years", path="member_years.parquet", timestamp_field="at"),
)
everycanvas_leaky = extend(everycanvas_v3, "everycanvas_leaky", member_years)
"""


def test_a_feature_stamped_at_its_own_event_stops_training_with_the_views_name(project):
    tables = Tables(project.workspace)
    years = tables.titles().select("title_id", pl.col("release_date").dt.year().cast(pl.Float64).alias("year"))
    plays = tables.interactions().filter(pl.col("action") == "play").join(years, on="title_id").sort("member_id", "seq")
    mean = (pl.col("year").cum_sum() / pl.col("year").cum_count()).over("member_id")
    values = plays.select("member_id", pl.col("event_at").alias("at"), mean.alias("mean_year"))
    values.write_parquet(project.home / "features" / "member_years.parquet")
    (project.folder / "feature_repo" / "own.py").write_text(MOOD)
    project.edit("model_zoo/models/everycanvas/model.yaml", "features: everycanvas_v3", "features: everycanvas_leaky")
    project.type("apply")
    before = set(project.tree())
    project.refused(*TRAIN, match=r"(?s)member_years\.mean_year: is the mean of release year.*Example: member_id m\d")
    project.refused("features", "build", match=r"member_years\.mean_year: is the mean of release year")
    assert set(project.tree()) == before
    stamped = values.with_columns(pl.col("at") + timedelta(microseconds=1))
    stamped.write_parquet(project.home / "features" / "member_years.parquet")
    assert project.type("features", "build").exit_code == 0
