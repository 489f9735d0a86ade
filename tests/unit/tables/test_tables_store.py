"""Reading, atomic replacement, and what a killed writer leaves."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.clock import FixedClock, WallClock
from playbill.config import ProjectFolder, WorkspaceSettings
from playbill.errors import IntegrityError, StateError
from playbill.tables import TIMESTAMP, Tables, event_log, generations, polars_schema, published, workspace_clock
from playbill.tables.generations import Generations

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=10)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_reads_what_was_written(filled, events):
    log = filled.interactions()
    assert log.schema == polars_schema("interactions")
    assert log.select("member_id", "seq").rows() == [(member, seq) for member in "abc" for seq in (0, 1)]
    expected = events.sort("member_id", "seq").with_columns(pl.col("progress").cast(pl.Float32))
    assert_frame_equal(log.select(events.columns), expected)
    assert filled.row_counts() == {"titles": 3, "availability": 0, "members": 0, "interactions": 6}
    assert filled.data_end() == START + timedelta(days=5, seconds=1)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 100], ids="pages of {} rows".format)
def test_a_member_on_several_pages_is_read_as_a_filter_reads_them(filled, events, monkeypatch, rows):
    monkeypatch.setattr(published, "PAGE_ROWS", rows)
    monkeypatch.setattr(published, "member_pages", published.MemberPages())
    generation = published.Published(filled.published().folder)
    for member in ("a", "b", "c", "", "aa", "z"):
        for _ in ("read", "from memory"):
            assert_frame_equal(generation.of_member(member), generation.log(None, None, [member]).collect())
    later = events.with_columns(pl.col("event_id") + "x", pl.col("seq") + 2, pl.col("event_at", "recorded_at") + DAY)
    filled.append_events(later)
    assert filled.member_events("b")["event_id"].to_list() == ["e1", "e4", "e1x", "e4x"]
    assert_frame_equal(filled.member_events("b"), filled.interactions(members=["b"]))


def test_pages_asked_for_last_stay_in_memory():
    page = pl.DataFrame({"member_id": ["a", "a", "b"], "seq": [0, 1, 0]})
    reads = []
    pages = published.MemberPages(most=2 * int(page.estimated_size()))
    for key in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, as 1 was asked for since
        pages.page(key, lambda key=key: reads.append(key) or page)
    assert reads == [1, 2, 3, 2]
    assert pages.page(4, lambda: pl.concat([page] * 9)).of("b") is not None, "too large to keep, and read all the same"
    assert pages.page(1, lambda: pytest.fail("it was dropped for one that is too large")).of("z") is None


def test_log_is_partitioned_by_day(filled, workspace):
    days = sorted(path.name for path in (Generations(workspace.tables).current() / "interactions").iterdir())
    assert days == [f"day=2020-01-0{day}" for day in range(1, 7)]
    hive = pl.read_parquet(Generations(workspace.tables).current() / "interactions", hive_partitioning=True)
    assert hive.height == 6
    assert "day" in hive.columns


def test_filters_match_a_plain_filter(filled):
    whole = filled.interactions()
    moments = [None, *(START + timedelta(days=day, hours=hour) for day in (0, 2, 5, 9) for hour in (0, 1))]
    for since, until, members in product(moments, moments, [None, ["a"], ["b", "nobody"], []]):
        expected = whole.filter(
            pl.lit(True) if since is None else pl.col("event_at") >= since,
            pl.lit(True) if until is None else pl.col("event_at") < until,
            pl.lit(True) if members is None else pl.col("member_id").is_in(members),
        )
        found = filled.interactions(since=since, until=until, members=members)
        assert_frame_equal(found, expected)


def test_small_slices_give_the_same_tables(filled, titles, events, tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "SLICE_ROWS", 2)
    other = Tables(ProjectFolder.find(tmp_path).workspace("sliced"))
    with other.replace() as writer:
        writer.write("titles", titles)
        for batch in events.iter_slices(2):
            writer.write("interactions", batch)
    assert_frame_equal(other.interactions(), filled.interactions())
    assert other.snapshot_id() == filled.snapshot_id()
    for member in ("a", "b", "c", "d", "0"):
        assert_frame_equal(other.member_events(member), filled.interactions(members=[member]))


def test_the_newest_row_as_of_a_moment_is_read(workspace, titles, events):
    later = START + timedelta(days=3)
    renamed = titles.head(1).with_columns(name=pl.lit("Alpha II"), valid_from=pl.lit(later, dtype=TIMESTAMP))
    tables = Tables(workspace)
    with tables.replace() as writer:
        writer.write("titles", titles)
        writer.write("titles", renamed)
        writer.write("interactions", events)
    assert tables.titles().get_column("name").to_list() == ["Alpha II", "Gamma", "Beta"]
    assert tables.titles(as_of=START + timedelta(days=1)).get_column("name").to_list() == [
        "Alpha",
        "Gamma",
        "Beta",
    ]
    assert tables.titles(as_of=START - timedelta(days=1)).is_empty()


def test_every_version_of_a_row_is_read_in_order(workspace, titles, events):
    later = pl.lit(START + timedelta(days=3), dtype=TIMESTAMP)
    renamed = titles.head(1).with_columns(name=pl.lit("Alpha II"), valid_from=later)
    tables = Tables(workspace)
    with tables.replace() as writer:
        writer.write("titles", renamed)
        writer.write("titles", titles)
        writer.write("interactions", events)
        members = titles.select("valid_from", "recorded_at", member_id="title_id", country=pl.lit("ZZ"))
        writer.write("members", members.with_columns(valid_from=later))
        writer.write("members", members)
    assert tables.title_versions().get_column("name").to_list() == ["Alpha", "Alpha II", "Gamma", "Beta"]
    assert tables.member_versions().get_column("member_id").to_list() == ["1", "1", "10", "10", "2", "2"]
    assert tables.member_versions().get_column("valid_from").to_list()[:2] == [START, START + timedelta(days=3)]


def test_members_keep_the_sources_own_columns(workspace, titles, events):
    members = pl.DataFrame(
        {"member_id": ["a"], "valid_from": [START], "recorded_at": [START], "country": ["SE"], "age": [30]},
        schema_overrides={"valid_from": TIMESTAMP, "recorded_at": TIMESTAMP},
    )
    tables = Tables(workspace)
    with tables.replace() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events)
        writer.write("members", members)
    assert tables.members().select("member_id", "age").rows() == [("a", 30)]


def test_error_in_the_middle_leaves_the_old_content(filled, workspace, titles, events):
    before, files = filled.snapshot_id(), files_below(workspace.tables)

    def load_half() -> None:
        with filled.replace() as writer:
            writer.write("titles", titles)
            writer.write("interactions", events.head(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_half()
    assert filled.snapshot_id() == before
    assert filled.interactions().height == 6
    assert files_below(workspace.tables) == files


def test_replacement_is_seen_by_open_instances(filled, workspace, titles, events):
    reader = Tables(workspace)
    before = reader.snapshot_id()
    with filled.replace() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events.head(2))
    assert reader.interactions().height == 2
    assert reader.member_events("c").is_empty()
    assert reader.snapshot_id() != before


def test_a_workspace_that_was_made_anew_is_read_anew(filled, workspace, titles, events):
    """Its first generation has the name that the removed one had."""
    first = Generations(workspace.tables).current()
    assert filled.interactions().height == 6
    shutil.rmtree(workspace.tables)
    with Tables(workspace).replace() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events.head(2))
    assert Generations(workspace.tables).current() == first
    assert filled.interactions().height == 2


def test_same_content_has_the_same_snapshot_id(filled, titles, events):
    before = filled.snapshot_id()
    with filled.replace() as writer:
        writer.write("titles", titles.reverse())
        writer.write("interactions", events.reverse())
    assert filled.snapshot_id() == before


def test_killed_writer_leaves_the_old_content_and_its_leftovers_go(filled, workspace, titles, events):
    before = filled.snapshot_id()
    titles.write_parquet(workspace.folder / "titles.parquet")
    events.write_parquet(workspace.folder / "events.parquet")
    script = f"""
        import os, polars as pl
        from pathlib import Path
        from playbill.config import ProjectFolder
        from playbill.tables import Tables
        workspace = ProjectFolder.find(Path({str(workspace.project.root)!r})).workspace("shop")
        with Tables(workspace).replace() as writer:
            writer.write("titles", pl.read_parquet(workspace.folder / "titles.parquet"))
            writer.write("interactions", pl.read_parquet(workspace.folder / "events.parquet").head(3))
            os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert [path.name for path in workspace.tables.glob("writing-*")]
    assert filled.snapshot_id() == before
    assert filled.interactions().height == 6
    with filled.replace() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events)
    assert not list(workspace.tables.glob("writing-*"))


def test_kill_before_the_pointer_moves_leaves_the_old_content(load, filled, titles, events, monkeypatch):
    before = filled.snapshot_id()
    replace = os.replace

    def dies(source, target):
        if Path(target).name == generations.CURRENT:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(generations.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        load(filled, titles, events.head(1))
    monkeypatch.undo()
    assert filled.snapshot_id() == before
    with filled.replace() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events.head(2))
    assert filled.interactions().height == 2


def test_the_replaced_generation_stays_for_readers_in_it(filled, workspace, titles, events):
    old = Generations(workspace.tables).current()
    for rows in (5, 4):
        with filled.replace() as writer:
            writer.write("titles", titles)
            writer.write("interactions", events.head(rows))
        kept = old.exists()
        assert kept == (rows == 5)


def test_second_writer_is_refused(filled, workspace, monkeypatch):
    monkeypatch.setattr("playbill.files.LOCK_WAIT_S", 0.1)
    holder = sqlite3.connect(workspace.tables / ".lock", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="another process is writing"), filled.replace():
        raise AssertionError("the lock was not respected")
    holder.close()


def test_empty_workspace_names_the_command(workspace):
    tables = Tables(workspace)
    assert not tables.exists()
    for read in (tables.require, tables.titles, tables.interactions, tables.data_end, tables.snapshot_id):
        with pytest.raises(StateError, match="playbill -w shop ingest"):
            read()
    with pytest.raises(StateError):
        tables.member_events("a")


def test_damaged_manifest_is_named(filled, workspace):
    (Generations(workspace.tables).current() / "manifest.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        filled.snapshot_id()


def test_the_workspace_clock_is_the_end_of_the_log_unless_set(filled, workspace):
    assert workspace_clock(workspace).now() == filled.data_end()
    project = workspace.project
    fixed = type(workspace)(project, "shop", WorkspaceSettings(clock="2020-01-03T00:00:00Z"))
    assert workspace_clock(fixed) == FixedClock(datetime(2020, 1, 3, tzinfo=UTC))
    assert workspace_clock(type(workspace)(project, "shop", WorkspaceSettings(clock="wall"))) == WallClock()


@pytest.mark.parametrize("events_at_a_time", [1, 3, 4, 100])
@pytest.mark.parametrize("bucket", [2, 4, 1_000])
def test_ranges_of_members_together_are_the_log(workspace, titles, events, load, monkeypatch, events_at_a_time, bucket):
    monkeypatch.setattr(event_log, "SLICE_ROWS", bucket)
    tables = Tables(workspace)
    load(tables, titles, events)
    late = events.tail(2).with_columns(
        event_id="late-" + pl.col("event_id"), member_id=pl.Series(["aa", "c"]), seq=pl.lit(7, pl.Int64)
    )
    assert tables.append_events(late) == 2
    ranges = tables.member_ranges(events_at_a_time)
    parts = [tables.interactions_of(members) for members in ranges]
    assert_frame_equal(pl.concat(parts), tables.interactions())
    assert [part["member_id"][0] for part in parts] == [first for first, _ in ranges]
    assert [part["member_id"][-1] for part in parts] == [last for _, last in ranges]
    most = max(tables.interactions()["member_id"].value_counts()["count"])
    assert all(part.height < events_at_a_time + most for part in parts)
    assert tables.event_count() == 8
    narrow = tables.interactions_of(ranges[0], ["seq"])
    assert narrow.columns == ["seq"]
