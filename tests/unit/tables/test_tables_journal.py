"""The event journal: acknowledged after commit, idempotent, compacted without loss or doubles."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from playbill.clock import FixedClock, to_microseconds
from playbill.errors import ConfigError, DataError, ServiceError, StateError
from playbill.schema import ACTIONS, EARLIEST, LATEST
from playbill.sources import push_events
from playbill.tables import AppendResult, Journal, Tables, open_database, polars_schema
from playbill.tables.live_events import checked_events
from playbill.tables.validation import row_problems

START = datetime(2020, 1, 1, tzinfo=UTC)
_EVENT = {
    "event_id": "x",
    "member_id": "a",
    "event_at": START,
    "action": "play",
    "title_id": "1",
    "canvas": "home",
    "country": "SE",
}
_moments = st.integers(0, 3_000_000).map(
    lambda day: datetime(1, 1, 3, tzinfo=UTC) + timedelta(days=day)
) | st.sampled_from(
    [START, EARLIEST, LATEST, EARLIEST - timedelta(microseconds=1), START + timedelta(days=20, microseconds=1)]
)
_texts = st.text(st.sampled_from("aé1.\0"), min_size=1, max_size=3)
_columns = st.fixed_dictionaries(
    {},
    optional={
        "event_at": _moments,
        "recorded_at": _moments,
        "action": st.sampled_from([*ACTIONS, "plya", "shop.buy", "", "Shop.buy", "a.b\0"]),
        "title_id": st.none() | _texts,
        "member_id": _texts | st.just(""),
        "canvas": _texts,
        "query": st.none() | _texts,
        "progress": st.none() | st.floats(width=32),
        "duration_s": st.none() | st.floats(width=32),
    },
)


@pytest.fixture
def journal(workspace) -> Journal:
    return Journal(workspace.database_url)


def test_appending_again_changes_nothing(journal, live):
    batch = [live("x"), live("y", member_id="b")]
    assert journal.append(batch) == AppendResult(2, 0)
    before = journal.read()
    assert journal.append(batch) == AppendResult(0, 2)
    assert journal.append([live("x", action="thumbs_up"), live("z")]) == AppendResult(1, 1)
    assert_frame_equal(journal.read().filter(pl.col("event_id") != "z"), before)
    assert journal.append([]) == AppendResult(0, 0)


def test_an_event_twice_in_one_call_is_stored_once(journal, live):
    assert journal.append([live("x"), live("x")]) == AppendResult(1, 1)


def test_events_come_back_as_they_were_appended(journal, live, workspace):
    journal.append([live("x", device="tv", progress=0.25, event_at="2020-01-11T10:00:00.000001+02:00")])
    row = Journal(workspace.database_url).read()
    assert row.schema == polars_schema("interactions")
    assert row.get_column("event_at").to_list() == [datetime(2020, 1, 11, 8, 0, 0, 1, tzinfo=UTC)]
    assert row.get_column("progress").to_list() == [0.25]
    assert row.get_column("query").to_list() == [None]
    assert row.get_column("recorded_at").null_count() == 0


def test_reads_one_member_since_a_moment(journal, live):
    journal.append([live(str(day), event_at=START + timedelta(days=day), member_id="ab"[day % 2]) for day in range(6)])
    assert journal.read("a").get_column("event_id").to_list() == ["0", "2", "4"]
    assert journal.read("a", since=START + timedelta(days=2)).get_column("event_id").to_list() == ["2", "4"]
    assert journal.read("nobody").is_empty()


def test_order_of_arrival_breaks_ties(journal, live):
    for event_id in "cab":
        journal.append([live(event_id)])
    journal.append([live("e"), live("d")])
    assert journal.read("a").get_column("event_id").to_list() == ["c", "a", "b", "e", "d"]
    assert journal.read("a").get_column("seq").is_unique().all()


def test_every_mistake_of_every_event_is_reported(workspace, live):
    journal = Journal(workspace.database_url, FixedClock(START + timedelta(days=20)))
    bad = [
        live("ok"),
        live("", country=None),
        live("z", event_at=START.replace(tzinfo=None)),
        live("t", event_at=START + timedelta(days=21)),
        live("a", action="plya"),
        live("p", progress=1.5, tilte_id="1"),
        live("n", title_id=None),
        {"event_id": "m"},
        live("s", query="half \ud800"),
        live("0", device="tv\0"),
        live("year 1", event_at="0001-01-01T00:00:00+14:00"),
        live("year 9999", recorded_at="9999-12-31T23:59:59-14:00"),
    ]
    with pytest.raises(DataError) as caught:
        journal.append(bad)
    text = str(caught.value)
    for expected in (
        "events[1].event_id",
        "events[1].country: null. Write 'ZZ'",
        "events[2].event_at: the timestamp has no time zone",
        "events[3].event_at: a moment after the clock (2020-01-21T00:00:00+00:00): 2020-01-22T00:00:00+00:00.",
        "events[4].action: an unknown action: plya. Did you mean 'play'?",
        "events[5].tilte_id: unknown column. Did you mean 'title_id'?",
        "events[6].title_id: no title for an action that needs one (play,",
        "events[7].member_id: missing",
        "events[8].query: the text has half a surrogate pair (U+D800) at position 5",
        "events[9].device: the text has a NUL character at position 2",
        "events[10].event_at: 0001-01-01T00:00:00+14:00 is outside 1700-01-01 to 2200-01-01.",
        "events[11].recorded_at: 9999-12-31T23:59:59-14:00 is outside 1700-01-01 to 2200-01-01.",
    ):
        assert expected in text
    assert "events[0]" not in text
    assert journal.read().is_empty()


def test_many_writers_lose_nothing(journal, live):
    def write(worker: int) -> int:
        return sum(journal.append([live(f"{worker % 4}-{index}")]).accepted for index in range(10))

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(write, range(8)))
    assert accepted == 40
    assert journal.read().height == 40


def test_history_holds_ingested_and_live_events(filled, live):
    filled.journal.append([live("x"), live("y", member_id="new")])
    assert filled.member_events("a").get_column("event_id").to_list() == ["e0", "e3", "x"]
    assert filled.member_events("a", include_journal=False).get_column("event_id").to_list() == ["e0", "e3"]
    assert filled.member_events("new").get_column("event_id").to_list() == ["y"]
    assert filled.interactions().height == 6
    assert filled.interactions(include_journal=True).height == 8
    until = START + timedelta(days=3)
    assert filled.interactions(until=until, include_journal=True).height == 3


def test_compaction_moves_events_into_day_partitions(filled, live):
    before = filled.snapshot_id()
    filled.journal.append([live("x"), live("y", member_id="new", title_id="1", device="tv")])
    live_view = filled.interactions(include_journal=True)
    assert filled.journal.compact(filled) == 2
    assert filled.journal.read().is_empty()
    assert_frame_equal(filled.interactions(), live_view)
    assert filled.member_events("new").get_column("event_id").to_list() == ["y"]
    assert filled.snapshot_id() != before
    assert filled.row_counts()["interactions"] == 8
    assert filled.data_end() == START + timedelta(days=10, seconds=1)
    assert filled.vocabulary("member").entries == ("a", "b", "c", "new")
    assert filled.vocabulary("device").entries == ("tv",)
    assert filled.journal.compact(filled) == 0


def test_a_compaction_killed_before_the_journal_is_emptied_doubles_nothing(filled, live):
    filled.journal.append([live("x"), live("y", event_at=START)])
    filled.append_events(filled.journal.read())  # what a compaction does before it is killed
    assert filled.interactions(include_journal=True).height == 8
    assert filled.member_events("a").get_column("event_id").is_unique().all()
    assert filled.journal.compact(filled) == 0
    assert filled.interactions().height == 8
    assert filled.journal.read().is_empty()


def test_event_retried_after_compaction_is_not_doubled(filled, live):
    filled.journal.append([live("x")])
    filled.journal.compact(filled)
    filled.journal.append([live("x")])
    assert filled.member_events("a").height == 3
    assert filled.journal.compact(filled) == 0
    assert filled.interactions().height == 7


def test_compaction_adds_to_a_day_that_exists(filled, live):
    filled.journal.append([live("x", event_at=START + timedelta(hours=1))])
    filled.journal.compact(filled)
    assert filled.interactions(until=START + timedelta(days=1)).get_column("event_id").to_list() == ["e0", "x"]


def test_compaction_needs_an_ingest(workspace, journal, live):
    journal.append([live("x")])
    with pytest.raises(StateError, match="ingest"):
        journal.compact(Tables(workspace))
    assert journal.read().height == 1


def test_unusable_databases_are_named(tmp_path):
    with pytest.raises(ConfigError):
        Journal("nonsense")
    with pytest.raises(ServiceError, match=r"the database at .* cannot be written: the folder does not exist"):
        Journal(f"sqlite:///{tmp_path}/no/such/folder/x.db")


@given(changes=_columns)
def test_what_the_journal_accepts_passes_the_checks_of_compaction(changes):
    """One law for both doors: rules of single events and of whole frames refuse the same rows."""
    event = {**_EVENT, **changes}
    now = START + timedelta(days=20)
    try:
        accepted = checked_events([event], now)
    except DataError:
        accepted = []
    row = pl.DataFrame([{"recorded_at": now, "seq": 0, **event}], schema=polars_schema("interactions"), strict=False)
    assert bool(accepted) == (not row_problems("interactions", row, now))


def seqs_of(journal):
    return journal.read("a").get_column("seq")


def test_threads_that_append_at_once_get_numbers_of_their_own(workspace, live):
    def write(worker: int) -> None:
        own = Journal(workspace.database_url)
        for index in range(100):
            own.append([live(f"{worker}-{index}")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    numbers = seqs_of(Journal(workspace.database_url))
    assert (len(numbers), numbers.n_unique()) == (800, 800)


def test_a_number_that_a_stored_event_has_is_raised(filled, live):
    for event_id in "xyz":
        filled.journal.append([live(event_id)])
        assert filled.journal.compact(filled) == 1
    stored = filled.member_events("a")
    assert stored.get_column("event_id").to_list() == ["e0", "e3", "x", "y", "z"]
    assert stored.get_column("seq").is_unique().all()


def plant(workspace, event_id, **columns):
    """Change a row of the journal to what an earlier version accepted."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    with open_database(workspace.database_url).begin() as connection:
        statement = sa.text(f"UPDATE event_journal SET {changes} WHERE event_id = :event_id")
        connection.execute(statement, {**columns, "event_id": event_id})


def test_rows_that_cannot_be_stored_are_set_aside_and_block_nothing(filled, live, workspace):
    year_one = to_microseconds(datetime(1, 1, 1, tzinfo=UTC)) - 14 * 3_600_000_000
    filled.journal.append([live(name) for name in ("good", "year 1", "nul", "action", "year 99999")])
    plant(workspace, "year 1", event_at=year_one)
    plant(workspace, "year 99999", recorded_at=2**61)
    plant(workspace, "nul", query="a\0b")
    plant(workspace, "action", action="plya")
    assert set(filled.member_events("a").get_column("event_id")) >= {"good", "nul", "action"}
    report = push_events(workspace, filled.interactions().head(0), compact=True)
    reasons = dict(sorted(line.split(": ", 1) for line in report.set_aside))
    assert reasons == {
        "action": "action: an unknown action: plya. Did you mean 'play'?",
        "nul": "query: text with a NUL character.",
        "year 1": "event_at: a moment outside 1700-01-01 to 2200-01-01.",
        "year 99999": "recorded_at: a moment outside 1700-01-01 to 2200-01-01.",
    }
    assert (report.compacted, report.to_dict()["set_aside"], filled.journal.rejected()) == (1, 4, 4)
    assert "good" in filled.member_events("a").get_column("event_id")
    assert filled.journal.compact(filled) == 0
    with open_database(workspace.database_url).connect() as connection:
        kept = connection.execute(sa.text("SELECT event_id, event_at, reason FROM event_journal_rejected")).all()
    assert {row.event_id for row in kept} == {"action", "nul", "year 1", "year 99999"}
    assert (year_one, reasons["year 1"]) in {(row.event_at, row.reason) for row in kept}
