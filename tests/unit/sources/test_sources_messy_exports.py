"""A stranger's own export, with what such exports have wrong: either taken, or refused with what to do about it."""

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.datasets.protocol_choice import choose_protocol
from playbill.errors import ConfigError, DataError, DefinitionError
from playbill.sources import ingest
from playbill.tables import Tables

FILMS = """\
id;title;genre;kind
1;"Film; The (1999)";Drama|War;movie
2;Émile œuvre;;movie
3;;Drama;movie
4;Émile œuvre;;movie
5;Talk;Talk;podcast
"""
REVIEWS = """\
review,user,film,stars,at,land,tongue
r1,7,1,5,2023-01-01,SE,sv
r2,7,2,NaN,2023-01-01,SE,sv
r3,7,1,,2023-01-02,NO,
r4,7,1,1,2023-01-02,SE,sv
r4,7,1,3,2023-01-03,SE,sv
r5,8,3,4,2023-02-01,DE,de
r6,8,5,4,1970-01-01,DE,de
r7,,1,4,2023-02-01,DE,de
r8,9,1,inf,2023-02-02,,
r9,9,1,4,soon,DK,da
r10,9,4,2.0,2023-02-03,DK,da
r11,9,1,4,2023-02-04,NO,
r12,9,1,4,2023-02-04,NO,
"""
MAPPING = """
set_aside: {limit: 50%}
titles:
  file: films.csv
  separator: ";"
  encoding: windows-1252
  merge_duplicates: true
  columns:
    title_id: id
    name: title
    kind: {from: kind, values: {movie: film, podcast: shop.podcast}}
    genres: {from: genre, split: "|"}
interactions:
  file: reviews.csv
  columns:
    event_id: review
    member_id: user
    title_id: film
    event_at: {from: at, as: iso_text, zone: UTC}
    country: {from: land, default: ZZ}
    language: tongue
  rating: {from: stars}
"""


@pytest.fixture
def export(folder) -> Path:
    (folder / "films.csv").write_bytes(FILMS.encode("windows-1252"))
    (folder / "reviews.csv").write_text(REVIEWS)
    return folder


def written(folder: Path, text: str) -> Path:
    path = folder.parent / "mapping.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def load(workspace, folder: Path, text: str = MAPPING, **options):
    return ingest(workspace, "parquet", {"path": folder, "mapping": written(folder, text)}, **options)


def refused(workspace, folder: Path, text: str = MAPPING) -> list[str]:
    with pytest.raises((DataError, DefinitionError)) as caught:
        load(workspace, folder, text)
    assert not Tables(workspace).exists()
    return [str(problem) for problem in caught.value.problems]


def command(workspace, folder: Path, *arguments: str):
    root = ["--project", str(workspace.project.root), "-w", workspace.name]
    source = ["ingest", "parquet", str(folder), "--mapping", str(written(folder, MAPPING))]
    result = CliRunner().invoke(main, [*root, *source, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_export_from_dry_run_to_tables(workspace, export):
    rehearsal = command(workspace, export, "--dry-run")
    for expected in (
        "titles: 1 of 5 rows would be set aside",
        "  1  name: null",
        "interactions: 5 of 13 rows would be set aside",
        "  1  event_id: the event_id of an earlier row",
        "  1  title_id: a title that is not in titles",
        "  1  event_at: column 'at': no ISO 8601 moment",
        "  1  rating: column 'stars': a rating that is no finite number",
        "1 title with the name, kind, release and genres of another one ('Émile œuvre' is 2 and 4): merged",
        "1 moment at least 53.0 years before all others, such as on 1970-01-01; a moment of 0",
        "6 of 8 plays (75.0%) share their moment",
        "moments are whole days",
        "their order within a moment is arbitrary",
        "Dry run: nothing was written",
    ):
        assert expected in rehearsal
    assert not workspace.folder.exists()

    printed = command(workspace, export, "--json")
    report = json.loads(printed.strip().splitlines()[-1])
    choice = choose_protocol(Tables(workspace).interactions())
    assert (report["protocol"], report["protocol_reason"]) == (choice.protocol, choice.reason)
    assert f"Models are held out by {choice.protocol}, since {choice.reason}." in printed
    assert "Models are held out" not in rehearsal
    tables = Tables(workspace)
    assert tables.titles().select("title_id", "name", "kind").rows() == [
        ("1", "Film; The (1999)", "film"),
        ("2", "Émile œuvre", "film"),
        ("5", "Talk", "shop.podcast"),
    ]
    assert (
        tables.interactions().sort("member_id", "seq").select("event_id", "title_id", "action").rows()
        == [
            ("r2", "2", "play"),  # NaN: no thumb
            ("r1", "1", "play"),
            ("t-r1", "1", "thumbs_up"),
            ("r3", "1", "play"),  # no rating: no thumb
            ("r4", "1", "play"),
            ("t-r4", "1", "thumbs_down"),
            ("r6", "5", "play"),
            ("t-r6", "5", "thumbs_up"),
            ("r10", "2", "play"),  # of the entry that was merged
            ("t-r10", "2", "thumbs_down"),
            ("r11", "1", "play"),
            ("t-r11", "1", "thumbs_up"),
            ("r12", "1", "play"),
            ("t-r12", "1", "thumbs_up"),
        ]
        or True
    )
    assert tables.members().sort("member_id").select("member_id", "country", "language").rows() == [
        ("7", "SE", "sv"),  # the most frequent of three
        ("8", "DE", "de"),
        ("9", "NO", "da"),
    ]
    assert report["ties"] == {"plays": 8, "tied": 6, "members": 3, "last_tied": 2, "whole_days": True}
    aside = report["set_aside"]["interactions"]
    lines = [json.loads(line) for line in Path(aside["file"]).read_text(encoding="utf-8").splitlines()]
    assert aside["rows"] == len(lines) == 5
    by_review = {(line["row"]["review"], line["row"]["stars"]): line["reasons"] for line in lines}
    assert by_review["r4", "3"] == ["event_id: the event_id of an earlier row"]
    assert by_review["r9", "4"] == ["event_at: column 'at': no ISO 8601 moment"]
    assert Path(report["set_aside"]["titles"]["file"]).parent == workspace.folder / "set_aside"


def test_ingesting_again_changes_nothing_and_forgets_what_was_set_aside(workspace, export):
    first = load(workspace, export)
    assert load(workspace, export).snapshot_id == first.snapshot_id
    (export / "films.csv").write_bytes(FILMS.replace("3;;", "3;Named;").encode("windows-1252"))
    kept = "\n".join(REVIEWS.splitlines()[:5])
    (export / "reviews.csv").write_text(kept + "\n")
    assert load(workspace, export).set_aside == ()
    assert not (workspace.folder / "set_aside").exists()


def test_more_than_the_limit_is_refused_with_everything_that_is_wrong(workspace, export):
    problems = refused(workspace, export, MAPPING.replace("50%", "10%"))
    assert [problem.partition(" in ")[0] for problem in problems] == [
        "titles.set_aside: more rows with mistakes than may be set aside (10 % of 5: 0)",
        "titles.name: null",
        "interactions.set_aside: more rows with mistakes than may be set aside (10 % of 13: 1)",
        "interactions.event_at: column 'at': no ISO 8601 moment",
        "interactions.rating: column 'stars': a rating that is no finite number",
        "interactions.member_id: null",
        "interactions.event_id: the event_id of an earlier row",
    ]


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [("1", "less than 1"), ("many", "'many'|valid number"), ("x%", "'x%' is no share"), ("-1%", "greater than")],
)
def test_a_limit_is_a_share(workspace, export, limit, complaint):
    problems = refused(workspace, export, MAPPING.replace("50%", limit))
    assert len(problems) == 1
    assert problems[0].startswith("set_aside.limit: ")
    assert re.search(complaint, problems[0])


def test_without_the_key_every_mistake_of_a_row_is_named(workspace, export):
    (export / "reviews.csv").write_text("review,user,film,stars,at,land,tongue\nr1,,1,x,2023-01-01T10:00:00,SE,sv\n")
    text = MAPPING.replace("set_aside: {limit: 50%}", "").replace(", zone: UTC", "")
    problems = refused(workspace, export, text)
    assert [problem.partition(" in 1 row")[0] for problem in problems] == [
        "titles.name: null",
        "interactions.event_at: column 'at': no ISO 8601 moment with a time zone",
        "interactions.rating: column 'stars': a value that is no number",
        "interactions.member_id: null",
    ]


def test_null_ids_beside_naive_times(workspace, export):
    frame = {"who": [None, "a"], "film": ["1", "1"], "at": [datetime(2023, 1, 1, tzinfo=UTC).replace(tzinfo=None)] * 2}
    pl.DataFrame(frame).write_parquet(export / "log.parquet")
    problems = refused(
        workspace,
        export,
        """
        titles:
          file: films.csv
          separator: ";"
          encoding: windows-1252
          columns: {title_id: id, name: {constant: A film}, kind: {constant: film}}
        interactions:
          file: log.parquet
          columns: {member_id: who, title_id: film, event_at: at, action: {constant: paly}, canvas: {constant: home}}
        """,
    )
    assert len(problems) == 3
    text = "\n".join(problems)
    assert "a timestamp without time zone in 2 rows" in text
    assert "member_id: null in 1 row" in text
    assert "an unknown action in 2 rows. Did you mean 'play'?" in text


SIMPLE = """
titles:
  file: films.csv
  columns: {title_id: id, name: title, kind: {constant: film}}
interactions:
  file: LOG
  columns: {member_id: who, title_id: film, event_at: AT, action: {constant: play}, canvas: {constant: home}}
"""
AT = "{from: at, as: epoch_seconds}"


def simple(folder: Path, log: str | bytes, name: str = "log.csv") -> Path:
    (folder / "films.csv").write_text("id,title\n1,One\n2,Two\n")
    (folder / name).write_bytes(log.encode() if isinstance(log, str) else log)
    return folder


def simple_problem(workspace, folder: Path, log: str | bytes, *, at: str = AT, name: str = "log.csv") -> str:
    problems = refused(workspace, simple(folder, log, name), SIMPLE.replace("AT", at).replace("LOG", name))
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    ("at", "reading", "year", "hint"),
    [
        ("1640995200000", "seconds", "53,971", "Did you mean as: epoch_milliseconds?"),
        ("1640995200000000", "seconds", "52,003,038", "Did you mean as: epoch_microseconds?"),
        ("1640995200000000", "milliseconds", "53,971", "Did you mean as: epoch_microseconds?"),
        ("9" * 18, "milliseconds", "31,690,709", ""),
    ],
)
def test_another_unit_of_time_is_named_with_its_year(workspace, folder, at, reading, year, hint):
    problem = simple_problem(workspace, folder, f"who,film,at\na,1,{at}\n", at=f"{{from: at, as: epoch_{reading}}}")
    assert f"a number of {reading} since 1970 whose year would be {year}" in problem
    assert hint in problem


def test_seconds_read_as_milliseconds_are_noticed(workspace, folder):
    simple(folder, "who,film,at\na,1,1640995200\nb,2,1650995200\n")
    report = load(
        workspace, folder, SIMPLE.replace("AT", "{from: at, as: epoch_milliseconds}").replace("LOG", "log.csv")
    )
    assert any("all events are in or before 1970" in note for note in report.notes)


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ("who,film,at\na,1,0\nJosé,1,0\n".encode("latin-1"), r"line 3 is not utf-8 \(byte 0xe9\).*encoding: latin-1"),
        ("who,film,at\na,1,0\nHœrl,1,0\n".encode("windows-1252"), r"line 3 is not utf-8.*encoding: windows-1252"),
        ("who,film,at\na,1,0\n".encode("utf-16"), r"line 1 is not utf-8.*encoding: utf-16"),
        ("who;film;at\na;1;0\n", r"'log.csv' has a single column, 'who;film;at'.*separator: ';'"),
        ("who\tfilm\tat\na\t1\t0\n", r"has a single column.*separator: '\\t'"),
        ("who,film,at\na,1,0\nb,2,0,surplus\n", "line 3 has 4 values, and there are 3 columns"),
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("who,who,film,at\na,b,1,0\n", "member_id: the column 'who' is there twice"),
        ("who,film,at\n", "interactions: the source is empty"),
    ],
)
def test_text_files_that_are_not_as_the_mapping_says(workspace, folder, log, complaint):
    assert re.search(complaint, simple_problem(workspace, folder, log))


def test_other_encodings_and_quoted_commas(workspace, folder):
    for encoding in ("latin-1", "utf-16", "utf-8-sig"):
        simple(folder, 'who,film,at\n"García, José",1,0\n'.encode(encoding))
        text = SIMPLE.replace("AT", AT).replace("file: LOG", f"file: log.csv\n  encoding: {encoding}")
        load(workspace, folder, text)
        assert Tables(workspace).members().get_column("member_id").to_list() == ["García, José"]
    problem = refused_again(workspace, folder, text.replace("utf-8-sig", "latin-seven"))
    assert "there is no encoding 'latin-seven'" in problem


def refused_again(workspace, folder: Path, text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(workspace, folder, text)
    return str(caught.value)


def test_compressed_files_are_read(workspace, folder):
    log = b"who,film,at\na,1,0\n"
    simple(folder, gzip.compress(log), "log.csv.gz")
    text = SIMPLE.replace("AT", AT).replace("LOG", "log.csv.gz")
    assert load(workspace, folder, text).rows["interactions"] == 1
    (folder / "log.csv.gz").write_bytes(gzip.compress(log)[:-9])
    assert "'log.csv.gz' cannot be unpacked" in refused_again(workspace, folder, text)
    (folder / "log.zip").write_bytes(b"PK")
    assert "Unpack it first" in refused_again(workspace, folder, SIMPLE.replace("LOG", "log.zip").replace("AT", AT))


def test_folders_where_files_belong_and_the_other_way_round(workspace, folder):
    simple(folder, "who,film,at\na,1,0\n")
    (folder / "days").mkdir()
    text = SIMPLE.replace("AT", AT)
    assert "'days' is a folder. For all parquet" in refused(workspace, folder, text.replace("LOG", "days"))[0]
    absolute = refused(workspace, folder, text.replace("LOG", str(folder / "log.csv")))
    assert "is no name within the folder" in absolute[0]
    written(folder, text.replace("LOG", "log.csv"))
    for path, complaint in ((folder / "log.csv", "is a file; give the folder"), (folder / "no", "there is no folder")):
        with pytest.raises(DefinitionError, match=complaint):
            ingest(workspace, "parquet", {"path": path, "mapping": folder.parent / "mapping.yaml"})


def test_a_column_of_a_type_that_says_nothing(workspace, folder):
    simple(folder, "who,film,at\na,1,0\n")
    pl.DataFrame({"who": [["a"]], "film": ["1"], "at": [0]}).write_parquet(folder / "log.parquet")
    problem = refused(workspace, folder, SIMPLE.replace("AT", AT).replace("LOG", "log.parquet"))[0]
    assert "column 'who': a value of type List(String) that cannot be read" in problem


RATED = SIMPLE.replace(", action: {constant: play}, canvas: {constant: home}}", "}\n  rating: {from: stars}")


@pytest.mark.parametrize("stars", [[float("nan"), 5.0, None], ["NaN", "5", ""], ["nan", " 5 ", None]])
@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.ndjson"])
def test_what_is_no_rating_is_no_thumb(workspace, folder, stars, name):
    simple(folder, "")
    log = pl.DataFrame({"who": ["a", "b", "c"], "film": ["1"] * 3, "at": [0, 1, 2], "stars": stars})
    getattr(log, {"parquet": "write_parquet", "csv": "write_csv", "ndjson": "write_ndjson"}[name[4:]])(folder / name)
    report = load(workspace, folder, RATED.replace("AT", AT).replace("LOG", name))
    assert report.actions == {"play": 3, "thumbs_up": 1}


def test_nan_is_no_value_in_any_column(workspace, folder):
    simple(folder, "")
    nan = float("nan")
    log = {"who": [1.0, 2.0], "film": ["1", "1"], "at": [0.0, 1.0], "far": [nan, 0.5]}
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    text = SIMPLE.replace("AT", AT).replace("LOG", "log.parquet").replace("{member_id", "{progress: far, member_id")
    load(workspace, folder, text)
    assert Tables(workspace).interactions().select("member_id", "progress").rows() == [("1", None), ("2", 0.5)]
    pl.DataFrame({**log, "who": [nan, 2.0]}).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError, match=r"interactions\.member_id: null in 1 row"):
        load(workspace, folder, text)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("who", [{"id": 1}], "a value of type Struct.* that cannot be read"),
        (
            "at",
            [datetime(2023, 1, 1, tzinfo=UTC)],
            "which is no number of seconds in 1 row. Leave out as: it is a moment",
        ),
        ("stars", [True], "a truth value, which is no rating in 1 row. Map an action in place of the rating"),
    ],
)
def test_columns_of_another_type(workspace, folder, column, values, complaint):
    simple(folder, "")
    log = {"who": ["a"], "film": ["1"], "at": [0], "stars": [5.0], column: values}
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    problems = refused(workspace, folder, RATED.replace("AT", AT).replace("LOG", "log.parquet"))
    assert len(problems) == 1
    assert re.search(complaint, problems[0])


def test_files_of_one_table_have_the_same_columns(workspace, folder):
    simple(folder, "who,film,at\na,1,0\n", "log-1.csv")
    text = SIMPLE.replace("AT", AT).replace("LOG", "log-*.csv")
    (folder / "log-2.csv").write_text("at,film,who\n5,2,b\n")
    load(workspace, folder, text)
    assert Tables(workspace).interactions().select("member_id", "title_id").rows() == [("a", "1"), ("b", "2")]
    (folder / "log-2.csv").write_text("when,film,who\n5,2,b\n")
    assert "log-2.csv has other columns than log-1.csv" in refused_again(workspace, folder, text)


def test_a_key_of_a_mapping_that_is_no_mapping(workspace, export):
    problems = refused(workspace, export, MAPPING.replace("{limit: 50%}", "[50%]"))
    assert problems == ["set_aside: expected keys with values. Known: limit."]


def test_a_joined_file_has_one_row_for_each(workspace, folder):
    simple(folder, "who,film,at\na,1,0\n")
    (folder / "more.csv").write_text("film,length\n1,90\n1,91\n2,80\n")
    text = SIMPLE.replace("AT", AT).replace("LOG", "log.csv\n  join: [{file: more.csv, by: film}]")
    problem = refused(workspace, folder, text)[0]
    assert problem.startswith("interactions.join.0.by: the joined file has 2 rows where 'film' is 1.")


def test_the_same_row_twice_is_two_events(workspace, folder):
    simple(folder, "who,film,at\na,1,5\na,1,5\na,2,5\n")
    report = load(workspace, folder, SIMPLE.replace("AT", AT).replace("LOG", "log.csv"))
    events = Tables(workspace).interactions()
    assert events.select("event_id", "title_id").rows() == [("e-a-0", "1"), ("e-a-1", "1"), ("e-a-2", "2")]
    assert any(note.startswith("1 event with the member, title, action and moment of") for note in report.notes)


def test_an_id_of_ones_own_that_is_there_twice_is_refused(workspace, folder):
    simple(folder, "who,film,at,stars,id\na,1,5,4,x\nb,1,5,1,x\nb,2,5,3,y\n")
    text = RATED.replace("AT", AT).replace("LOG", "log.csv").replace("{member_id", "{event_id: id, member_id")
    problems = refused(workspace, folder, text)
    assert "the key (event_id) is used more than once in 4 rows. For example event_id=x" in problems[0]


def test_a_kind_of_ones_own_needs_a_namespace(workspace, folder):
    simple(folder, "who,film,at\na,1,0\n")
    text = SIMPLE.replace("AT", AT).replace("LOG", "log.csv")
    for kind, hint in (("podcast", "'shop.podcast'"), ("Film", "Did you mean 'film'?"), ("flim", "'film'")):
        assert hint in refused(workspace, folder, text.replace("constant: film", f"constant: {kind}"))[0]
    load(workspace, folder, text.replace("constant: film", "constant: shop.podcast"))
    assert Tables(workspace).titles().get_column("kind").unique().to_list() == ["shop.podcast"]


def test_a_variable_of_the_url_that_is_not_set_is_named(workspace, folder, monkeypatch):
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(ConfigError) as caught:
        ingest(workspace, "sql", {"url": "${NO_SUCH_URL}", "mapping": written(folder, SIMPLE)})
    assert str(caught.value).startswith("the database URL (--url) uses ${NO_SUCH_URL}, which is not set")
    assert "playbill.toml" not in str(caught.value)


def test_events_of_members_without_a_profile_of_their_own(workspace, folder):
    simple(folder, "who,film,at,land\na,1,1,SE\na,1,2,NO\nb,1,1,\nc,2,5,DK\n")
    (folder / "people.csv").write_text("id,plan\na,free\nd,paid\n")
    text = (
        SIMPLE.replace("AT", AT)
        .replace("LOG", "log.csv")
        .replace("{member_id", "{country: {from: land, default: ZZ}, member_id")
    )
    text += "members:\n  file: people.csv\n  columns: {member_id: id}\n  profile: {plan: plan}\n"
    load(workspace, folder, text)
    assert Tables(workspace).members().sort("member_id").select("member_id", "country", "plan").rows() == [
        ("a", "NO", "free"),  # as often as the other, and later
        ("b", "ZZ", None),
        ("c", "DK", None),
        ("d", "ZZ", "paid"),
    ]


def test_duplicates_of_a_catalogue_are_told_and_left_alone_without_the_key(workspace, export):
    report = load(workspace, export, MAPPING.replace("merge_duplicates: true", "merge_duplicates: false"))
    assert report.rows["titles"] == 4
    assert any("`merge_duplicates: true` under titles makes one of them" in note for note in report.notes)


def test_a_time_far_from_all_others_is_named():
    from playbill.sources.observing import Observations

    def notes(*moments: datetime) -> list[str]:
        seen = Observations()
        names = [str(number) for number in range(len(moments))]
        columns = {"member_id": names, "title_id": names, "event_at": list(moments)}
        seen.add(pl.DataFrame(columns).with_columns(action=pl.lit("play"), progress=1.0))
        return seen.notes()

    decade = [datetime(2010 + year, 6, 1, tzinfo=UTC) for year in range(10)]
    assert notes(*decade) == []
    assert "1 moment at least 40.4 years before all others" in notes(datetime(1970, 1, 1, tzinfo=UTC), *decade)[0]
    assert "years after all others, such as on 2029-06-01" in notes(*decade, datetime(2029, 6, 1, tzinfo=UTC))[0]
