"""A new column needs no rebuild: old files read null, appends go on, and a changed type is an error that names it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import sqlalchemy as sa
from polars.testing import assert_frame_equal

from playbill import schema
from playbill.errors import DataError, IntegrityError
from playbill.schema import Column
from playbill.tables import TIMESTAMP, Journal, RequestLog, Tables, event_log, published

START = datetime(2020, 1, 1, tzinfo=UTC)
OWN = "kuairand.comment_ms"


@pytest.fixture
def grown(monkeypatch):
    """Return a maker of a next version of Playbill, in which a table has other columns."""

    def grow(table: str, *columns: Column, without: str = "") -> None:
        kept = tuple(column for column in schema.TABLES[table].columns if column.name != without)
        monkeypatch.setitem(schema.TABLES, table, replace(schema.TABLES[table], columns=(*kept, *columns)))
        published.opened.cache_clear()

    yield grow
    published.opened.cache_clear()


def later(events: pl.DataFrame, suffix: str, days: int = 0) -> pl.DataFrame:
    """Return the same events under other ids, some days later and next in their members' order."""
    shift = timedelta(days=days)
    return events.with_columns(
        pl.col("event_id") + suffix, pl.col("seq") + 10 * (days + 1), pl.col("event_at", "recorded_at") + shift
    )


def test_a_new_canonical_column_is_null_in_old_rows(filled, events, titles, grown):
    before = filled.interactions()
    grown("interactions", Column("mood", "string"))
    grown("titles", Column("studio", "string"))
    assert filled.interactions().get_column("mood").null_count() == 6
    assert_frame_equal(filled.interactions().drop("mood"), before)
    assert filled.titles().get_column("studio").to_list() == [None] * 3
    filled.append_events(later(events, "-b").with_columns(mood=pl.lit("calm")))
    renamed = titles.head(1).with_columns(studio=pl.lit("Own"), valid_from=pl.lit(START + timedelta(days=1), TIMESTAMP))
    filled.append_rows("titles", renamed)
    moods = filled.interactions().sort("event_id").get_column("mood").to_list()
    assert moods == [None, "calm"] * 6
    for member in "abc":
        assert (
            filled.member_events(member, include_journal=False).get_column("mood").to_list()
            == [None] * 2 + ["calm"] * 2
        )
    one_day = filled.interactions(since=START, until=START + timedelta(days=1), columns=["event_id", "mood"])
    assert one_day.rows() == [("e0", None), ("e0-b", "calm")]
    assert filled.read_log_parts(sorted(filled.log_parts()), ["mood"]).get_column("mood").null_count() == 6
    assert filled.title_versions().get_column("studio").to_list() == [None, "Own", None, None]


def test_a_sources_own_column_comes_later(filled, events):
    assert OWN not in filled.interactions().columns
    filled.append_events(later(events, "-b").with_columns(pl.Series(OWN, [5, None, 7, 8, 9, 10], dtype=pl.Int16)))
    filled.append_events(later(events, "-c", days=30))
    log = filled.interactions()
    assert log.schema[OWN] == pl.Int64
    assert log.get_column(OWN).drop_nulls().sort().to_list() == [5, 7, 8, 9, 10]
    assert filled.member_events("a").get_column(OWN).to_list() == [None, None, 5, 8, None, None]
    filled.journal.append([{**later(events, "-d").row(0, named=True), "event_at": START + timedelta(days=40)}])
    assert filled.interactions(include_journal=True).height == 19
    assert OWN not in schema.INTERACTIONS.names("request")


def test_own_columns_of_some_batches_are_null_in_the_others(workspace, titles, events, load):
    tables = Tables(workspace)
    load(tables, titles, events.head(2), events.tail(4).with_columns(pl.lit("x").alias("shop.note")))
    assert tables.interactions().get_column("shop.note").to_list().count("x") == 4
    with pytest.raises(DataError, match=r"shop\.note: it is stored as string, and the new rows have int64"):
        load(
            tables,
            titles,
            events.head(2).with_columns(pl.lit("x").alias("shop.note")),
            events.tail(4).with_columns(pl.lit(1).alias("shop.note")),
        )


def test_own_columns_need_a_namespace_and_a_plain_type(workspace, titles, events, load):
    with pytest.raises(DataError) as caught:
        load(Tables(workspace), titles, events.with_columns(note=pl.lit("x"), **{"shop.pair": pl.struct("seq")}))
    assert "interactions.note: unknown column" in str(caught.value)
    assert "interactions.shop.pair: a column of its own cannot hold Struct" in str(caught.value)


def test_a_changed_type_names_column_and_both_types(filled, events):
    filled.append_events(later(events, "-b").with_columns(pl.lit(5).alias(OWN)))
    snapshot = filled.snapshot_id()
    with pytest.raises(DataError, match=rf"{OWN}: it is stored as int64, and the new rows have string"):
        filled.append_events(later(events, "-c").with_columns(pl.lit("five").alias(OWN)))
    assert filled.snapshot_id() == snapshot


def test_a_changed_canonical_type_is_refused(filled, events, grown):
    grown("interactions", Column("season", "int64"), without="season")
    assert filled.interactions().schema["season"] == pl.Int64
    filled.append_events(later(events, "-b").with_columns(season=pl.lit(3, dtype=pl.Int64)))
    assert filled.interactions().get_column("season").to_list() == [None, None, 3, 3] * 3
    grown("interactions", Column("season", "string"), without="season")
    with pytest.raises(
        IntegrityError, match=r"column 'season' of interactions is stored as int64, this version reads string"
    ):
        filled.interactions()
    grown("interactions", Column("season", "int64"), Column("mood", "string", nullable=False), without="season")
    with pytest.raises(IntegrityError, match="stored without column 'mood'"):
        filled.interactions()


def test_generations_without_a_list_of_columns_are_read_and_grow(filled, events, monkeypatch):
    expected = filled.interactions()
    path = filled.published().folder / "manifest.json"
    text = path.read_text()
    path.write_text(text[: text.index(',\n "columns"')] + "\n}")
    assert_frame_equal(filled.interactions(), expected)
    filled.append_events(later(events, "-b").with_columns(pl.lit(5).alias(OWN)))
    assert filled.interactions().height == 12


def test_readers_stay_in_their_generation(filled, events):
    old = filled.published()
    filled.append_events(later(events, "-b").with_columns(pl.lit(5).alias(OWN)))
    assert OWN not in old.log(None, None, None).collect().columns
    assert old.log(None, None, None).collect().height == 6


@pytest.mark.parametrize("added_files", [2, 8])
def test_appends_share_files_and_merge_now_and_then(filled, events, monkeypatch, added_files):
    monkeypatch.setattr(event_log, "ADDED_FILES", added_files)
    monkeypatch.setattr(event_log, "ADDED_SHARE", 100)
    for round_number in range(5):
        filled.append_events(later(events, f"-{round_number}", days=round_number))
    assert filled.row_counts()["interactions"] == filled.interactions().height == 36
    assert filled.interactions().select("member_id", "seq").is_unique().all()
    files = sorted(path.name for path in (filled.published().folder / "by_member").iterdir())
    assert files == (
        ["00000-0001.parquet", "00000.parquet"]
        if added_files == 2
        else [*(f"00000-000{number}.parquet" for number in range(1, 6)), "00000.parquet"]
    )
    whole = filled.interactions()
    for member in "abc":
        assert_frame_equal(filled.member_events(member), whole.filter(pl.col("member_id") == member))
    assert whole.select("member_id", "seq").equals(whole.select("member_id", "seq").sort("member_id", "seq"))


def old_journal(url: str, *, action: str = "TEXT", without: str = "propensity") -> None:
    """Make the journal's table as an earlier version did, with one event in it."""
    columns = [column for column in schema.INTERACTIONS.columns if column.name != without]
    kinds = {"string": "TEXT", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT", "timestamp": "BIGINT"}
    listed = ", ".join(
        f"{column.name} {action if column.name == 'action' else kinds[column.type]}" for column in columns
    )
    with sa.create_engine(url).begin() as connection:
        connection.execute(
            sa.text(f"CREATE TABLE event_journal (journal_id INTEGER PRIMARY KEY, {listed}, UNIQUE (event_id))")
        )
        values = "'old', 'a', 1, 1577836800000000, 1577836800000000, 'play', '1', 'home', 'SE'"
        names = "event_id, member_id, seq, event_at, recorded_at, action, title_id, canvas, country"
        connection.execute(sa.text(f"INSERT INTO event_journal ({names}) VALUES ({values})"))


def test_the_journal_grows_a_column(tmp_path, live):
    url = f"sqlite:///{tmp_path}/old.db"
    old_journal(url)
    journal = Journal(url)
    assert journal.read().get_column("propensity").to_list() == [None]
    journal.append([live("new", propensity=0.5)])
    assert Journal(url).read().sort("event_id").get_column("propensity").to_list() == [0.5, None]


def test_a_journal_of_other_types_is_named(tmp_path):
    url = f"sqlite:///{tmp_path}/old.db"
    old_journal(url, action="INTEGER")
    with pytest.raises(IntegrityError, match=r"table event_journal: column 'action' is INTEGER, expected TEXT"):
        Journal(url)
    url = f"sqlite:///{tmp_path}/older.db"
    old_journal(url, without="canvas, country")
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE event_journal DROP COLUMN canvas"))
    with pytest.raises(IntegrityError, match="column 'canvas' is missing and may not be null"):
        Journal(url)


def test_the_request_log_grows_a_column(tmp_path):
    url = f"sqlite:///{tmp_path}/old.db"
    RequestLog(url)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE requests DROP COLUMN facts"))
    request = {"request_id": "r", "at": START, "canvas": "home", "context": "{}", "policy": "model", "facts": "{}"}
    RequestLog(url).write(request, [])
    assert RequestLog(url).requests().get_column("facts").to_list() == ["{}"]
