"""Events, titles and members that arrive later: idempotent, late, conflicting, wrong, and from every kind of file."""

import io
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from playbill.cli.main import main
from playbill.clock import FixedClock
from playbill.config import WorkspaceSettings
from playbill.errors import DataError, DefinitionError, StateError, UnknownNameError
from playbill.sources import Offered, push_events, push_files, push_rows
from playbill.tables import TIMESTAMP, Tables

START = datetime(2020, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)


def utc(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Datetime).cast(TIMESTAMP))


@pytest.fixture
def tables(workspace) -> Tables:
    """Two titles; member a has three plays with the ranks 0, 1 and 2, member b one."""
    made = Tables(workspace)
    days = [START + timedelta(days=day) for day in (0, 1, 2, 5)]
    with made.replace() as writer:
        stamp = {"valid_from": START, "recorded_at": START}
        names = [{"title_id": number, "name": f"Film {number}", "kind": "film", **stamp} for number in ("1", "2")]
        writer.write("titles", utc(pl.DataFrame(names)))
        writer.write("members", utc(pl.DataFrame([{"member_id": "a", "country": "SE", "plan": "free", **stamp}])))
        events = pl.DataFrame(
            {
                "event_id": ["e0", "e1", "e2", "e3"],
                "member_id": ["a", "a", "a", "b"],
                "seq": [0, 1, 2, 0],
                "event_at": days,
                "recorded_at": days,
                "action": ["play"] * 4,
                "title_id": ["1", "2", "1", "1"],
                "canvas": ["home"] * 4,
                "country": ["SE", "SE", "SE", "ZZ"],
            }
        )
        writer.write("interactions", utc(events))
    return made


def events(*rows: dict[str, object]) -> pl.DataFrame:
    """Make a frame of plays; each row needs its id and its day."""
    plain = {"member_id": "a", "action": "play", "title_id": "1", "canvas": "home"}
    return utc(pl.DataFrame([{**plain, **row} for row in rows], infer_schema_length=None))


def on(day: float, event_id: str, **columns: object) -> dict[str, object]:
    return {"event_id": event_id, "event_at": START + timedelta(days=day), **columns}


@pytest.mark.parametrize("compact", [False, True])
def test_pushing_again_changes_nothing(workspace, tables, compact):
    batch = events(on(10, "x"), on(11, "y", member_id="new"))
    first = push_events(workspace, batch, compact=compact)
    assert (first.rows, first.duplicates, first.journalled, first.compacted) == (
        {"interactions": 2},
        {"interactions": 0},
        0 if compact else 2,
        2 if compact else 0,
    )
    before = tables.interactions(include_journal=True)
    for again in (not compact, compact, True):
        report = push_events(workspace, batch, compact=again)
        assert (report.rows, report.duplicates) == ({"interactions": 0}, {"interactions": 2})
        assert_frame_equal(tables.interactions(include_journal=True), before)
    assert tables.journal.read().is_empty()
    assert tables.row_counts()["interactions"] == 6
    assert tables.interactions(members=["a", "new"]).select("event_id", "country").rows() == [
        ("e0", "SE"),
        ("e1", "SE"),
        ("e2", "SE"),
        ("x", "SE"),
        ("y", "ZZ"),
    ]


@pytest.mark.parametrize("compact", [False, True])
def test_another_content_under_a_known_id_is_reported_and_not_kept(workspace, tables, compact):
    push_events(workspace, events(on(10, "x", progress=0.5)))
    # One contradicts the log on another day, one the journal, one a row of its own push; the last says the same.
    batch = events(
        on(20, "e1", title_id="2", progress=None),
        on(10, "x", progress=0.6),
        on(12, "z", progress=0.1),
        on(12, "z", progress=0.2),
        on(12, "z", progress=0.1),
    )
    report = push_events(workspace, batch, compact=compact)
    assert report.rows == {"interactions": 1}
    assert report.conflicting == {"interactions": 3}
    assert report.duplicates == {"interactions": 1}
    assert [text.split(",")[0] for text in report.conflicts] == [
        f"interactions event_id={name}" for name in ("e1", "x", "z")
    ]
    kept = tables.interactions(include_journal=True).filter(pl.col("event_id").is_in(["e1", "x", "z"]))
    assert kept.select("event_id", "event_at").rows() == [
        ("e1", START + timedelta(days=1)),
        ("x", START + timedelta(days=10)),
        ("z", START + timedelta(days=12)),
    ]
    assert kept.get_column("progress").to_list() == [None, 0.5, pytest.approx(0.1)]


def test_a_late_event_goes_to_its_day_and_its_place_in_the_order(workspace, tables):
    clock = FixedClock(NOW)
    late = events(
        on(-3, "before all"),
        on(0.5, "between"),
        on(0.5, "same moment"),
        on(1.5, "no room"),
        on(1, "tie"),
        on(9, "last"),
    )
    report = push_events(workspace, late, compact=True, clock=clock)
    assert report.late == 5
    found = tables.member_events("a")
    assert found.get_column("event_id").to_list() == [
        "before all",
        "e0",
        "between",
        "same moment",
        "e1",
        "tie",
        "no room",
        "e2",
        "last",
    ]
    assert found.get_column("event_at").is_sorted()
    assert_frame_equal(tables.interactions(members=["a"]), found)
    assert_frame_equal(tables.interactions(since=START - timedelta(days=9), until=NOW, members=["a"]), found)
    assert set(found.filter(~pl.col("event_id").str.starts_with("e")).get_column("recorded_at")) == {NOW}
    day = tables.interactions(since=START - timedelta(days=3), until=START - timedelta(days=2))
    assert day.get_column("event_id").to_list() == ["before all"]


def test_the_order_is_the_same_through_the_journal(workspace, tables):
    for row in (on(1.5, "second"), on(0.5, "first"), on(1.7, "third")):
        push_events(workspace, events(row))
    assert tables.member_events("a").get_column("event_id").to_list() == ["e0", "first", "e1", "second", "third", "e2"]
    tables.journal.compact(tables)
    assert tables.member_events("a").get_column("event_id").to_list() == ["e0", "first", "e1", "second", "third", "e2"]


def test_a_seq_of_the_sender_is_kept(workspace, tables):
    push_events(workspace, events(on(10, "x", seq=77), on(11, "y", seq=None)), compact=True)
    seqs = dict(tables.interactions(members=["a"]).select("event_id", "seq").rows())
    assert seqs["x"] == 77
    assert seqs["y"] > 77


def test_recorded_when_it_was_known(workspace, tables):
    # The clock stands at the end of the data: an event after it is known when it happens, a late one now.
    push_events(workspace, events(on(10, "x"), on(3, "late"), on(4, "said", recorded_at=START + timedelta(days=4.5))))
    known = dict(tables.interactions(include_journal=True).select("event_id", "recorded_at").rows())
    assert known["x"] == START + timedelta(days=10)
    assert known["late"] == START + timedelta(days=5, seconds=1)
    assert known["said"] == START + timedelta(days=4.5)


def test_events_from_the_future_are_refused(workspace, tables):
    fixed = type(workspace)(workspace.project, "shop", WorkspaceSettings(clock="2020-01-20T00:00:00Z"))
    push_events(fixed, events(on(10, "x")))
    with pytest.raises(DataError, match="a moment after the clock"):
        push_events(fixed, events(on(21, "y")))
    with pytest.raises(DataError, match="a moment after the clock"):
        push_events(workspace, events(on(40_000, "z")))
    assert tables.journal.read().height == 1


def test_every_mistake_with_its_lines(workspace, tables, folder):
    lines = [
        on(10, "fine"),
        on(10, "a", action="plya"),
        on(10, "b", title_id="99"),
        on(10, "c", progress=1.5),
        on(10, "d", action="plya", member_id=""),
        on(10, "e", title_id=None),
        {**on(10, "f"), "event_at": "yesterday"},
        {**on(10, "g"), "event_at": "2020-01-02T03:04:05"},
    ]
    text = [
        json.dumps({"member_id": "a", "action": "play", "title_id": "1", "canvas": "home", **row}, default=str)
        for row in lines
    ]
    text = [line.replace(" 00:00:00+00:00", "T00:00:00Z") for line in text]
    path = folder / "day.ndjson"
    path.write_text("\n\n".join(text) + "\n")
    with pytest.raises(DataError) as caught:
        push_files(workspace, {"interactions": path})
    message = str(caught.value)
    for expected in (
        "interactions.action: an unknown action in 2 rows (lines 3, 9). Did you mean 'play'?",
        "interactions.title_id: a title that is not in titles in 1 row (line 5)",
        "interactions.progress: a value outside 0 to 1 in 1 row (line 7)",
        "interactions.member_id: an empty string in 1 row (line 9)",
        "interactions.title_id: no title for an action that needs one",
        "interactions.event_at: no ISO 8601 moment with a time zone in 2 rows (lines 13, 15)",
    ):
        assert expected in message
    assert tables.interactions(include_journal=True).height == 4


def test_lines_that_are_no_json(workspace, tables, folder):
    path = folder / "day.ndjson"
    good = json.dumps({"event_id": "x"})
    path.write_text(f"{good}\n{good[:-3]}\n[1]\n{good} {good}\n" + "{\n" * 30)
    with pytest.raises(DataError) as caught:
        push_files(workspace, {"interactions": path})
    message = str(caught.value)
    for expected in (
        "line 2: this is no JSON",
        "line 3: this is no JSON object",
        "line 4",
        "13 more are no JSON objects",
    ):
        assert expected in message


def test_every_format_gives_the_same(workspace, tables, folder):
    rows = [
        {"event_id": "x", "member_id": 7, "action": "play", "title_id": "1", "canvas": "home", "progress": 0.25},
        {"event_id": "y", "member_id": 7, "action": "search", "canvas": "search", "query": "al"},
    ]
    rows = [{**row, "event_at": f"2020-01-11T10:00:0{place}+02:00"} for place, row in enumerate(rows)]
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.ndjson").write_text("\n".join(map(json.dumps, rows)))
    typed = pl.DataFrame(rows).with_columns(pl.col("event_at").str.to_datetime("%+", time_zone="UTC"))
    typed.write_parquet(folder / "a.parquet")
    report = push_files(workspace, {"interactions": folder / "a.ndjson"})
    assert report.rows == {"interactions": 2}
    found = tables.member_events("7")
    assert found.get_column("event_at").to_list() == [
        datetime(2020, 1, 11, 8, tzinfo=UTC),
        datetime(2020, 1, 11, 8, 0, 1, tzinfo=UTC),
    ]
    assert found.get_column("query").to_list() == [None, "al"]
    streams = [folder / "a.json", folder / "a.parquet", io.BytesIO((folder / "a.ndjson").read_bytes())]
    for stream in streams:
        assert push_files(workspace, {"interactions": stream}).duplicates == {"interactions": 2}
    (folder / "a.ndjson").write_text("\n")
    assert push_files(workspace, {"interactions": folder / "a.ndjson"}).rows == {"interactions": 0}


MAPPING = """
interactions:
  file: ignored.csv
  columns:
    event_id: id
    member_id: user
    title_id: film
    event_at: {from: at, as: epoch_seconds}
    action: {from: what, values: {watched: play}}
    canvas: {constant: home}
"""


def test_rows_are_pushed_through_a_mapping(workspace, tables, folder):
    (folder / "map.yaml").write_text(MAPPING)
    (folder / "log.csv").write_text("id,user,film,at,what\nx,a,1,1578700000,watched\ny,a,2,1578700001,watched\n")
    report = push_files(workspace, {"interactions": folder / "log.csv"}, mapping=folder / "map.yaml")
    assert report.rows == {"interactions": 2}
    assert tables.member_events("a").get_column("title_id").to_list() == ["1", "2", "1", "1", "2"]
    (folder / "log.csv").write_text("id,user,film,at,what\nx,a,1,1578700000,watched\nz,a,2,soon,liked\n")
    with pytest.raises(DataError) as caught:
        push_files(workspace, {"interactions": folder / "log.csv"}, mapping=folder / "map.yaml")
    assert "interactions.event_at: a value that is no number of seconds since 1970 in 1 row (row 2)" in str(
        caught.value
    )
    assert "interactions.action: a value that is not listed in values in 1 row (row 2)" in str(caught.value)


def test_ratings_through_a_mapping(workspace, tables, folder):
    text = "interactions:\n  file: x\n"
    text += "  columns: {member_id: user, title_id: film, event_at: {from: at, as: epoch_seconds}}\n"
    (folder / "map.yaml").write_text(text + "  rating: {from: stars}\n")
    (folder / "r.csv").write_text("user,film,at,stars\nc,1,1578700000,5\nc,2,1578700000,3\n")
    report = push_files(workspace, {"interactions": folder / "r.csv"}, mapping=folder / "map.yaml", compact=True)
    assert report.rows == {"interactions": 3}
    assert tables.member_events("c").select("action", "title_id").rows() == [
        ("play", "1"),
        ("play", "2"),
        ("thumbs_up", "1"),
    ]


def test_ratings_of_a_title_again_are_events_of_their_own(workspace, tables, folder):
    text = "interactions:\n  file: x\n"
    text += "  columns: {member_id: user, title_id: film, event_at: {from: at, as: epoch_seconds}}\n"
    (folder / "map.yaml").write_text(text + "  rating: {from: stars}\n")

    def pushed(rows: str, *, compact: bool) -> tuple[int, int]:
        (folder / "r.csv").write_text("user,film,at,stars\n" + rows)
        files = {"interactions": folder / "r.csv"}
        report = push_files(workspace, files, mapping=folder / "map.yaml", compact=compact)
        assert not report.conflicts
        return report.rows["interactions"], report.duplicates["interactions"]

    first = "c,1,1578700000,5\nc,1,1578700000,3\nd,1,1578700000,3\n"
    assert pushed(first, compact=True) == (4, 0)
    assert pushed(first, compact=False) == (0, 4)
    # The same title later, once through the journal and once into the log; what is there already changes nothing.
    assert pushed("c,1,1578700100,4\n", compact=False) == (2, 0)
    assert pushed(first + "c,1,1578700100,4\nc,1,1578700050,1\n", compact=True) == (2, 6)
    events = tables.member_events("c").filter(pl.col("action") == "play").sort("event_at", "event_id")
    assert events.get_column("event_id").to_list() == ["p-c-1", "p-c-1~2", "p-c-1~4", "p-c-1~3"]
    thumbs = tables.member_events("c").filter(pl.col("action") != "play").sort("event_id")
    assert thumbs.select("event_id", "action").rows() == [
        ("t-c-1~2", "thumbs_up"),
        ("t-c-1~3", "thumbs_up"),
        ("t-c-1~4", "thumbs_down"),
    ]


def test_ratings_with_ids_of_ones_own(workspace, tables, folder):
    text = "interactions:\n  file: x\n"
    text += "  columns: {event_id: id, member_id: user, title_id: film, event_at: {from: at, as: epoch_seconds}}\n"
    (folder / "map.yaml").write_text(text + "  rating: {from: stars}\n")
    (folder / "r.csv").write_text("id,user,film,at,stars\nr1,c,1,1578700000,5\nr2,c,1,1578700000,NaN\n")
    for expected in (3, 0):
        report = push_files(workspace, {"interactions": folder / "r.csv"}, mapping=folder / "map.yaml")
        assert report.rows == {"interactions": expected}
    assert sorted(tables.member_events("c").get_column("event_id")) == ["r1", "r2", "t-r1"]


def test_mappings_with_mistakes_are_refused(workspace, tables, folder):
    path = folder / "map.yaml"
    path.write_text(MAPPING.replace("    event_id: id\n", "").replace("film", "movie"))
    (folder / "log.csv").write_text("id,user,film,at,what\n")
    with pytest.raises(DefinitionError, match="what makes pushing again harmless"):
        push_files(workspace, {"interactions": folder / "log.csv"}, mapping=path)
    path.write_text(MAPPING.replace("film", "movie"))
    with pytest.raises(DefinitionError, match="there is no column 'movie'"):
        push_files(workspace, {"interactions": folder / "log.csv"}, mapping=path)
    with pytest.raises(DefinitionError, match="titles: this table has to be mapped"):
        push_files(workspace, {"titles": folder / "log.csv"}, mapping=path)


def test_files_that_cannot_be_used(workspace, tables, folder):
    with pytest.raises(DataError, match="there is no such file"):
        push_files(workspace, {"interactions": folder / "nothing.ndjson"})
    (folder / "log.csv").write_text("id\n")
    with pytest.raises(DataError, match=r"'\.csv' is none of .*--mapping"):
        push_files(workspace, {"interactions": folder / "log.csv"})
    (folder / "half.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        push_files(workspace, {"interactions": folder / "half.parquet"})
    with pytest.raises(UnknownNameError, match="unknown table 'title'"):
        push_rows(workspace, {"title": Offered(pl.DataFrame())})


def test_columns_that_are_missing_or_unknown(workspace, tables):
    with pytest.raises(DataError) as caught:
        push_events(workspace, events(on(10, "x", devise="tv")).drop("member_id"))
    assert "interactions.member_id: the column is missing" in str(caught.value)
    assert "interactions.devise: unknown column. Did you mean 'device'?" in str(caught.value)


def test_an_empty_workspace_names_the_command(workspace):
    with pytest.raises(StateError, match="ingest"):
        push_events(workspace, events(on(1, "x")))


def test_new_titles_and_members_with_their_events(workspace, tables):
    stamp = START + timedelta(days=6)
    titles = utc(
        pl.DataFrame(
            [
                {
                    "title_id": "3",
                    "name": "Film 3",
                    "kind": "film",
                    "release_date": START + timedelta(days=99),
                    "genres": ["Drama"],
                },
                {"title_id": "4", "name": "Film 4", "kind": "film", "release_date": None, "genres": None},
                # Only the name is new: the rest of the row is the newest version's.
                {"title_id": "1", "name": "Film One", "kind": "film", "release_date": None, "genres": None},
            ]
        )
    )
    members = utc(pl.DataFrame([{"member_id": "a", "country": "NO"}, {"member_id": "c", "country": "DK"}]))
    offered = {
        "titles": Offered(titles),
        "members": Offered(members),
        "interactions": Offered(events(on(7, "x", title_id="3", member_id="c"))),
    }
    clock = FixedClock(stamp + timedelta(days=1))
    report = push_rows(workspace, offered, clock=clock)
    assert report.rows == {"titles": 3, "members": 2, "availability": 2, "interactions": 1}
    assert tables.titles().get_column("name").to_list() == ["Film One", "Film 2", "Film 3", "Film 4"]
    assert tables.titles(as_of=stamp).get_column("name").to_list() == ["Film 1", "Film 2"]
    assert tables.members().select("member_id", "country", "plan").rows() == [("a", "NO", "free"), ("c", "DK", None)]
    assert tables.member_versions().get_column("country").to_list() == ["SE", "NO", "DK"]
    assert tables.interactions(include_journal=True, members=["c"]).get_column("country").to_list() == ["DK"]
    spans = tables.availability().select("title_id", "country", "available_from").rows()
    assert spans == [("3", "*", START + timedelta(days=99)), ("4", "*", clock.now())]
    assert set(tables.vocabulary("title").entries) == {"1", "2", "3", "4"}
    again = push_rows(workspace, offered, clock=FixedClock(NOW))
    assert set(again.rows.values()) == {0}
    assert again.duplicates["titles"] == 3
    assert tables.title_versions().height == 5


def test_versions_with_a_date_of_their_own(workspace, tables):
    dated = {"member_id": "a", "country": "NO", "valid_from": START + timedelta(days=3), "plan": "paid"}
    frame = utc(pl.DataFrame([dated]))
    assert push_rows(workspace, {"members": Offered(frame)}).rows["members"] == 1
    assert push_rows(workspace, {"members": Offered(frame)}).duplicates["members"] == 1
    other = push_rows(workspace, {"members": Offered(frame.with_columns(country=pl.lit("DK")))})
    assert other.conflicting["members"] == 1
    assert "members member_id=a" in other.conflicts[0]
    assert tables.members().get_column("country").to_list() == ["NO"]


def test_profiles_with_mistakes_are_refused(workspace, tables):
    titles = pl.DataFrame({"title_id": ["9"], "name": ["Nine"], "kind": ["flim"]})
    spans = utc(pl.DataFrame([{"title_id": "77", "country": "*", "available_from": START}]))
    with pytest.raises(DataError) as caught:
        push_rows(workspace, {"titles": Offered(titles), "members": Offered(pl.DataFrame({"member_id": [""]}))})
    assert "titles.kind: a kind that is none of film, series, game" in str(caught.value)
    assert "members.member_id: an empty string" in str(caught.value)
    with pytest.raises(DataError, match=r"availability\.title_id: a title that is not in titles"):
        push_rows(workspace, {"availability": Offered(spans)})
    with pytest.raises(DataError, match=r"members\.plan: it is stored as string, and the new rows have int64"):
        push_rows(workspace, {"members": Offered(pl.DataFrame({"member_id": ["a"], "country": ["SE"], "plan": [1]}))})
    assert tables.row_counts()["titles"] == 2


def test_the_push_command_reports_what_it_did(workspace, tables, folder):
    row = {"event_at": "2020-01-11T10:00:00Z", "action": "play", "title_id": "3", "canvas": "home"}
    rows = [{"event_id": "x", "member_id": "a", **row}, {"event_id": "e0", "member_id": "b", **row}]
    (folder / "day.ndjson").write_text("\n".join(map(json.dumps, rows)))
    (folder / "titles.json").write_text('[{"title_id": "3", "name": "Film 3", "kind": "film"}]')
    base = ["--project", str(workspace.project.root), "-w", "shop", "ingest", "push"]
    arguments = [str(folder / "day.ndjson"), "--titles", str(folder / "titles.json"), "--json"]
    done = CliRunner().invoke(main, [*base, *arguments])
    assert done.exit_code == 0, done.output
    assert "kept as it was: interactions event_id=e0" in done.output
    report = json.loads(done.output.splitlines()[-1])
    assert (report["accepted"], report["conflicting"]["interactions"], report["rows"]["titles"]) == (1, 1, 1)
    compacted = CliRunner().invoke(main, [*base, "--compact", "--json"])
    assert json.loads(compacted.output.splitlines()[-1])["compacted"] == 1
    piped = CliRunner().invoke(main, [*base, "-", "--json"], input=(folder / "day.ndjson").read_text())
    assert json.loads(piped.output.splitlines()[-1])["duplicates"] == {"interactions": 1}
    nothing = CliRunner().invoke(main, base)
    assert nothing.exit_code == 2
    assert "nothing to push" in nothing.output


def test_help_of_both_commands():
    assert "Usage: main ingest [OPTIONS] SOURCE [PATH]" in CliRunner().invoke(main, ["ingest", "--help"]).output
    assert "[FILE|-]" in CliRunner().invoke(main, ["ingest", "push", "--help"]).output
