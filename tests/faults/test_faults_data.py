"""Data that must not enter the tables: every mistake is one message, and the tables stay as they were."""

import shutil
import sqlite3
from datetime import timedelta

import polars as pl
import pytest

from playbill.tables import Tables

ROW = pl.int_range(pl.len())
PLAYS, TITLES = "ratings.parquet", "catalogue.parquet"


def nulled(column, row):
    return pl.when(row == ROW).then(None).otherwise(column).alias(column)


FRAMES = {
    "missing column": (
        PLAYS,
        lambda frame: frame.rename({"item": "items"}),
        r"title_id: there is no column 'item'. Did you mean 'items'",
    ),
    "null member": (
        PLAYS,
        lambda frame: frame.with_columns(nulled("user", 5)),
        r"member_id: null in 1 row",
    ),
    "null title": (PLAYS, lambda frame: frame.with_columns(nulled("item", 6)), r"interactions.title_id: no title for"),
    "null title id": (TITLES, lambda frame: frame.with_columns(nulled("id", 5)), r"titles.title_id: null in 1 row"),
    "infinite ratings": (
        PLAYS,
        lambda frame: frame.with_columns(stars=pl.lit(float("inf"))),
        r"column 'stars': a rating that is no finite number in 3840 rows",
    ),
    "duplicate titles": (
        TITLES,
        lambda frame: pl.concat([frame, frame.head(2)]),
        r"\(title_id, valid_from\) is used more than once in 4 rows",
    ),
    "no zone": (
        PLAYS,
        lambda frame: frame.with_columns(pl.col("at").dt.replace_time_zone(None)),
        r"column 'at': a timestamp without time zone in 3840 rows. Say which with zone: UTC",
    ),
    "after the clock": (
        PLAYS,
        lambda frame: frame.with_columns(pl.col("at") + timedelta(days=40_000)),
        r"interactions.event_at: a moment after the clock",
    ),
    "no events": (PLAYS, lambda frame: frame.clear(), r"interactions: the source is empty: there is not a single row"),
    "no titles": (TITLES, lambda frame: frame.clear(), r"titles: the source is empty"),
}

MAPPINGS = {
    "malformed YAML": (("columns:", "columns: ["), r"line 6, column 9: this is no YAML"),
    "unknown table": (("members:", "membres:"), r"membres: unknown table. Did you mean 'members'"),
    "unknown key": (("rating:", "ratting:"), r"ratting: unknown key. Did you mean 'rating'"),
    "unknown file": ((PLAYS, "rating.parquet"), r"no file 'rating.parquet' .*Did you mean 'ratings.parquet'"),
}


@pytest.fixture
def data(tmp_path, small_data):
    """A copy of the right data, to be spoilt."""
    return shutil.copytree(small_data, tmp_path / "own")


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]], ids=["write", "dry run"])
def test_rows_with_mistakes_leave_the_tables_as_they_were(project, data, name, rehearsal):
    file, spoil, message = FRAMES[name]
    spoil(pl.read_parquet(data / file)).write_parquet(data / file)
    before = project.tree()
    project.refused("ingest", "parquet", data, "--mapping", data / "mapping.yaml", *rehearsal, match=message)
    assert project.tree() == before


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_mapping_with_mistakes_is_pointed_at(project, data, name):
    change, message = MAPPINGS[name]
    mapping = data / "mapping.yaml"
    mapping.write_text(mapping.read_text().replace(*change, 1))
    before = project.tree()
    project.refused("ingest", "parquet", data, "--mapping", mapping, match=message)
    assert project.tree() == before


def test_a_first_load_that_is_refused_leaves_a_workspace_without_tables(project, data):
    (data / PLAYS).write_bytes(b"PAR1 is not enough")
    load = ("-w", "new", "ingest", "parquet", data, "--mapping", data / "mapping.yaml")
    project.refused(*load, match=r"'ratings.parquet' cannot be read")
    assert not Tables(project.workspace.project.workspace("new")).exists()
    project.refused("-w", "new", "train", "everycanvas", match="Run `playbill -w new ingest")


def test_a_source_without_its_mapping_or_file_says_so(project, data, tmp_path):
    mapping = tmp_path / "sql.yaml"
    mapping.write_text("titles: {table: titles, columns: {title_id: id, name: name}}\n")
    project.refused("ingest", "parquet", data, match="it needs 'mapping': YAML file")
    absent = tmp_path / "absent.db"
    project.refused("ingest", "sql", "--url", f"sqlite:///{absent}", "--mapping", mapping, match="there is no file")
    assert not absent.exists()
    sqlite3.connect(absent).execute("CREATE TABLE title (id TEXT)")
    project.refused("ingest", "sql", "--url", f"sqlite:///{absent}", "--mapping", mapping, match="titles")
