"""MovieLens files shaped like the real ones; every name and rating in them is made up."""

import hashlib
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from playbill.cli.main import main
from playbill.errors import ConfigError, DataError, IntegrityError, ServiceError, UnknownNameError
from playbill.sources import SOURCES, download, ingest
from playbill.sources.movielens import MovieLens100K
from playbill.tables import Tables

RATINGS = [(1, 10, 5, 880000000), (1, 9, 2, 880000000), (2, 9, 3, 890000000), (2, 11, 4, 890000005)]
UNNAMED = (2, 12, 5, 890000009)
"""A rating of a title of which nothing is known, as the real set has one."""
FLAGS = {"unknown": "1" + 18 * "0", "Children's": "00001" + 14 * "0", "Comedy|Drama": "00000100100" + 8 * "0"}


def write_100k(folder: Path) -> Path:
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in [*RATINGS, UNNAMED]))
    lines = [
        "9|Invented Café, Le (1996)|01-Jan-1996||http://example.org/?a,b|" + "|".join(FLAGS["Comedy|Drama"]),
        '10|Made "Up", The (1998)|23-Jan-1998||http://example.org|' + "|".join(FLAGS["Children's"]),
        "11|Plain||||" + "|".join(FLAGS["unknown"]),
        "12|unknown||||" + "|".join(FLAGS["unknown"]),
    ]
    (folder / "u.item").write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|55117\n2|53|F|other|T8H1N\n")
    return folder


def write_atomic(folder: Path) -> Path:
    rows = "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in [*RATINGS, UNNAMED])
    (folder / "ml-100k.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + rows)
    items = [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        "9\tInvented Café, Le\t1996\tComedy Drama",
        '10\tMade "Up", The (1998)\tV\tChildren\'s',
        "11\tPlain\t\tunknown",
        "12\tunkonwn\tunkonwn\tunknown",
    ]
    (folder / "ml-100k.item").write_text("\n".join(items) + "\n", encoding="utf-8")
    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    users += "1\t24\tM\ttechnician\t55117\n2\t53\tF\tother\tT8H1N\n"
    (folder / "ml-100k.user").write_text(users)
    return folder


def write_1m(folder: Path) -> Path:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS))
    films = '9::Invented: Café, Le (1996)::Comedy|Drama\n10::Made "Up", The (1998)::Children\'s\n11::Plain (1990)::\n'
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::55117\n2::M::56::16::98107-2117\n")
    return folder


def write_csv(folder: Path) -> Path:
    rows = "".join(f"{u},{i},{r - 0.5},{t}\n" for u, i, r, t in RATINGS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    films = 'movieId,title,genres\n9,"Invented, Café, Le (1996)",Comedy|Drama\n'
    films += '10,"Made ""Up"", The (1998)",Children\n11,Plain,(no genres listed)\n'
    (folder / "movies.csv").write_text(films, encoding="utf-8")
    return folder


def test_movielens_100k_is_ingested(workspace, folder):
    report = ingest(workspace, "movielens_100k", {"path": write_100k(folder)})
    tables = Tables(workspace)
    assert report.rows == {"titles": 3, "availability": 3, "members": 2, "interactions": 7}
    assert report.actions == {"play": 4, "thumbs_down": 1, "thumbs_up": 2}
    assert report.snapshot_id == tables.snapshot_id()
    assert "GroupLens" in report.terms
    assert tables.titles().select("title_id", "name", "genres", "kids").rows() == [
        ("10", 'The Made "Up"', ["Children's"], True),
        ("11", "Plain", [], False),
        ("9", "Le Invented Café", ["Comedy", "Drama"], False),
    ]
    assert tables.members().select("member_id", "country", "age", "gender", "occupation").rows() == [
        ("1", "US-MN", 24, "M", "technician"),
        ("2", "ZZ", 53, "F", "other"),
    ]
    events = tables.interactions()
    assert events.select("event_id", "seq", "action", "country").rows() == [
        ("p-1-9", 0, "play", "US-MN"),
        ("t-1-9", 1, "thumbs_down", "US-MN"),
        ("p-1-10", 2, "play", "US-MN"),
        ("t-1-10", 3, "thumbs_up", "US-MN"),
        ("p-2-9", 0, "play", "ZZ"),
        ("p-2-11", 2, "play", "ZZ"),
        ("t-2-11", 3, "thumbs_up", "ZZ"),
    ]
    assert events.get_column("recorded_at").equals(events.get_column("event_at"))


def test_a_title_without_a_name_is_left_out_with_its_ratings(workspace, folder):
    report = ingest(workspace, "movielens_100k", {"path": write_100k(folder)})
    assert "unknown" not in Tables(workspace).titles().get_column("name").to_list()
    assert Tables(workspace).interactions().filter(pl.col("title_id") == "12").is_empty()
    assert report.notes[0] == "title 12 is called 'unknown' and has no release or genre: it is left out with 1 rating"


def test_two_entries_of_one_film_are_one_title(workspace, folder):
    write_100k(folder)
    with (folder / "u.item").open("a", encoding="latin-1") as file:
        flags = "|".join(FLAGS["Comedy|Drama"])
        file.write(f"20|Invented Café, Le (1996)|01-Jan-1996||http://example.org|{flags}\n")
        file.write(f"21|Invented Café, Le (1990)|01-Jan-1990||http://example.org|{flags}\n")
    with (folder / "u.data").open("a") as file:
        file.write("1\t20\t5\t880000001\n2\t21\t3\t890000001\n")
    report = ingest(workspace, "movielens_100k", {"path": folder})
    tables = Tables(workspace)
    assert tables.titles().get_column("title_id").to_list() == ["10", "11", "21", "9"]
    assert tables.member_events("1").select("event_id", "title_id").rows() == [
        ("p-1-9", "9"),
        ("t-1-9", "9"),
        ("p-1-10", "10"),
        ("t-1-10", "10"),
        ("p-1-9~2", "9"),
        ("t-1-9~2", "9"),
    ]
    assert any("1 title with the name" in note and "'Le Invented Café' is 9 and 20" in note for note in report.notes)


def test_launches_and_what_was_known_when(workspace, folder):
    ingest(workspace, "movielens_100k", {"path": write_100k(folder)})
    tables = Tables(workspace)
    start = datetime.fromtimestamp(880000000, UTC)
    launches = dict(tables.availability().select("title_id", "available_from").rows())
    assert launches["9"] == datetime(1996, 1, 1, tzinfo=UTC)  # its release
    assert launches["10"] == start  # rated before its release
    assert launches["11"] == datetime.fromtimestamp(890000005, UTC)  # no release known
    assert tables.availability().get_column("country").unique().to_list() == ["*"]
    assert tables.titles(as_of=start).height == 3
    assert tables.members().get_column("joined_at").to_list() == [start, datetime.fromtimestamp(890000000, UTC)]


def test_both_routes_to_100k_give_the_same_tables(workspace, folder, tmp_path):
    ingest(workspace, "movielens_100k", {"path": write_100k(folder)})
    tables = Tables(workspace)
    publisher = tables.interactions(), tables.titles(), tables.members(), tables.availability()
    atomic = tmp_path / "atomic"
    atomic.mkdir()
    report = ingest(workspace, "movielens_100k", {"path": write_atomic(atomic)})
    assert "atomic" in report.route
    wheel = tables.interactions(), tables.titles(), tables.members(), tables.availability()
    for expected, found in zip(publisher, wheel, strict=True):
        assert_frame_equal(found, expected)


def test_movielens_1m_is_ingested(workspace, folder):
    ingest(workspace, "movielens_1m", {"path": write_1m(folder)})
    tables = Tables(workspace)
    assert tables.titles().get_column("name").to_list() == ['The Made "Up"', "Plain", "Le Invented: Café"]
    assert tables.titles().get_column("genres").to_list() == [["Children's"], [], ["Comedy", "Drama"]]
    assert tables.members().select("country", "age", "occupation").rows() == [
        ("US-MN", 1, "K-12 student"),
        ("US-WA", 56, "self-employed"),
    ]


@pytest.mark.parametrize("source", ["movielens_20m", "movielens_32m"])
def test_csv_sets_with_half_stars(workspace, folder, source):
    report = ingest(workspace, source, {"path": write_csv(folder)})
    tables = Tables(workspace)
    assert report.actions == {"play": 4, "thumbs_down": 1, "thumbs_up": 1}  # 4.5, 1.5, 2.5, 3.5
    assert tables.titles().get_column("name").to_list() == ['The Made "Up"', "Plain", "Le Invented, Café"]
    assert tables.titles().get_column("genres").to_list() == [["Children"], [], ["Comedy", "Drama"]]
    assert tables.members().get_column("country").to_list() == ["ZZ", "ZZ"]


def zipped(folder: Path, name: str, inside: str) -> Path:
    archive = folder.parent / name
    with zipfile.ZipFile(archive, "w") as opened:
        for path in folder.iterdir():
            opened.write(path, f"{inside}/{path.name}")
    return archive


def test_a_zip_archive_is_read(workspace, folder):
    archive = zipped(write_100k(folder), "ml-100k.zip", "ml-100k")
    report = ingest(workspace, "movielens_100k", {"path": archive})
    assert "not the publisher's archive" in report.route
    assert report.rows["interactions"] == 7


def test_missing_files_are_all_named(workspace, folder):
    (folder / "u.data").write_text("")
    with pytest.raises(DataError) as caught:
        ingest(workspace, "movielens_100k", {"path": folder})
    assert [problem.where for problem in caught.value.problems] == ["u.item", "u.user"]
    with pytest.raises(DataError, match="no such file"):
        ingest(workspace, "movielens_100k", {"path": folder / "nothing"})
    (folder / "broken.zip").write_text("no zip")
    with pytest.raises(DataError, match="no readable zip"):
        ingest(workspace, "movielens_100k", {"path": folder / "broken.zip"})


def test_a_file_without_ratings_is_refused(workspace, folder):
    write_100k(folder)
    (folder / "u.data").write_text("")
    with pytest.raises(DataError) as caught:
        ingest(workspace, "movielens_100k", {"path": folder})
    assert "empty" in str(caught.value)
    assert len(caught.value.problems) == 1
    assert not Tables(workspace).exists()


@pytest.mark.parametrize("line", ["1\tx\t5\tsoon\n", "1,10,5,880000000\n"])
def test_damaged_ratings_are_named(workspace, folder, line):
    write_100k(folder)
    (folder / "u.data").write_text(line)
    with pytest.raises(DataError):
        ingest(workspace, "movielens_100k", {"path": folder})
    assert not Tables(workspace).exists()


def test_rating_twice_and_rating_an_unknown_title(workspace, folder):
    write_100k(folder)
    with (folder / "u.data").open("a") as file:
        file.write("1\t10\t5\t880000000\n1\t99\t3\t880000001\n")
    with pytest.raises(DataError, match="a title that is not in titles in 1 row"):
        ingest(workspace, "movielens_100k", {"path": folder})
    with (folder / "u.item").open("a", encoding="latin-1") as file:
        file.write("99|Later (1997)|01-Jan-1997|||" + "|".join(FLAGS["unknown"]) + "\n")
    report = ingest(workspace, "movielens_100k", {"path": folder})
    ids = Tables(workspace).member_events("1").get_column("event_id").to_list()
    assert ids == ["p-1-9", "t-1-9", "p-1-10", "t-1-10", "p-1-10~2", "t-1-10~2", "p-1-99"]
    assert any(note.startswith("2 events with the member, title, action and moment") for note in report.notes)
    snapshot = Tables(workspace).snapshot_id()
    assert ingest(workspace, "movielens_100k", {"path": folder}).snapshot_id == snapshot


@pytest.mark.parametrize("rating", ["NaN", ""])
def test_a_rating_that_is_missing_is_no_thumb(workspace, folder, rating):
    write_csv(folder)
    with (folder / "ratings.csv").open("a") as file:
        file.write(f"1,11,{rating},880000009\n")
    report = ingest(workspace, "movielens_32m", {"path": folder})
    assert report.actions == {"play": 5, "thumbs_down": 1, "thumbs_up": 1}


def test_an_infinite_rating_is_refused(workspace, folder):
    write_csv(folder)
    with (folder / "ratings.csv").open("a") as file:
        file.write("1,11,inf,880000009\n")
    with pytest.raises(DataError, match="an infinite number is no rating"):
        ingest(workspace, "movielens_20m", {"path": folder})


@pytest.fixture
def publisher(folder, tmp_path, monkeypatch):
    """A publisher that answers with a made-up archive, and a cache of its own."""
    archive = zipped(write_100k(folder), "published.zip", "ml-100k")
    known = MovieLens100K.archive
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(MovieLens100K, "archive", type(known)(known.name, md5, known.files))
    monkeypatch.setattr(download.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PUBLISHER", archive.parent.as_uri() + "/")
    archive.rename(archive.with_name("ml-100k.zip"))
    return archive.with_name("ml-100k.zip")


def test_download_is_verified_and_cached(workspace, publisher):
    stages = []
    report = ingest(workspace, "movielens_100k", progress=lambda *texts: stages.append(texts))
    assert report.route == "the publisher's ml-100k.zip, MD5 verified"
    assert stages[0][0] == "download ml-100k.zip"
    publisher.unlink()
    assert ingest(workspace, "movielens_100k").rows == report.rows


def test_damaged_download_and_no_wheel_says_both(workspace, publisher, monkeypatch):
    publisher.write_bytes(b"damaged")
    monkeypatch.setattr(download, "WHEEL", "no-such-wheel==0")
    monkeypatch.setattr(download.sys, "executable", "/no/such/python")
    with pytest.raises(ServiceError, match=r"publisher states .* pip cannot download .* Give the path"):
        ingest(workspace, "movielens_100k")
    assert not Tables(workspace).exists()
    assert not [path for path in download.cache_folder().rglob("*") if path.is_file()]


def test_other_sets_have_no_second_route(workspace, publisher):
    with pytest.raises(ServiceError, match=r"ml-1m\.zip cannot be reached"):
        ingest(workspace, "movielens_1m")


def test_wheel_that_is_not_the_known_one(tmp_path, monkeypatch):
    monkeypatch.setattr(download.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    pip = tmp_path / "python"
    pip.write_text('#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\necho other > "$2/recbole-9.whl"\n')
    pip.chmod(0o755)
    monkeypatch.setattr(download.sys, "executable", str(pip))
    with pytest.raises(IntegrityError, match="It was not used"):
        download.fetch_wheel(lambda *_: None)


def test_unknown_sources_and_options_suggest_the_nearest(workspace):
    assert set(SOURCES.names()) >= {"movielens_100k", "parquet", "sql"}
    with pytest.raises(UnknownNameError, match="Did you mean 'movielens_100k'"):
        ingest(workspace, "movielens_10k")
    with pytest.raises(ConfigError, match=r"takes no 'pth', did you mean 'path'\?"):
        ingest(workspace, "movielens_100k", {"pth": "x"})


def test_dry_run_writes_nothing(workspace, folder):
    report = ingest(workspace, "movielens_100k", {"path": write_100k(folder)}, dry_run=True)
    assert report.rows["interactions"] == 7
    assert report.first_event == datetime.fromtimestamp(880000000, UTC)
    assert report.snapshot_id is None
    assert set(report.samples) == {"titles", "availability", "members", "interactions"}
    assert not workspace.folder.exists()


def run(workspace, *arguments: str):
    root = ["--project", str(workspace.project.root), "-w", workspace.name]
    return CliRunner().invoke(main, [*root, "ingest", *arguments])


def test_the_ingest_command_reads_movielens(workspace, folder):
    write_100k(folder)
    result = run(workspace, "movielens_100k", str(folder), "--json")
    assert result.exit_code == 0, result.output
    texts = json.loads(result.stdout.strip().splitlines()[-1])
    assert texts["rows"]["interactions"] == 7
    assert texts["snapshot_id"] == Tables(workspace).snapshot_id()
    assert "Terms: MovieLens" in result.stdout
    dry = run(workspace, "movielens_100k", str(folder), "--dry-run")
    assert "nothing was written" in dry.stdout
    assert "Invented Café" in dry.stdout


def test_command_says_what_is_wrong(workspace, folder):
    result = run(workspace, "parquet", str(folder))
    assert result.exit_code == 1
    assert "it needs 'mapping'" in result.output
    help_text = CliRunner().invoke(main, ["ingest", "--help"]).output
    assert "Example: playbill -w ml_100k ingest movielens_100k" in help_text


def test_clock_is_the_wall_clock(workspace, folder):
    write_100k(folder)
    (folder / "u.data").write_text("1\t9\t5\t32503680000\n")
    with pytest.raises(DataError, match="after the clock"):
        ingest(workspace, "movielens_100k", {"path": folder})


def test_reports_are_frames_and_json(workspace, folder):
    report = ingest(workspace, "movielens_100k", {"path": write_100k(folder)})
    assert isinstance(report.samples["titles"], pl.DataFrame)
    assert json.loads(json.dumps(report.to_dict()))["dry_run"] is False
