"""A user's own files and database, through a mapping."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from playbill.errors import ConfigError, DataError, DefinitionError, ServiceError
from playbill.sources import canonicalise as offer
from playbill.sources import ingest
from playbill.tables import Tables

START = datetime(2020, 1, 1, tzinfo=UTC)
NAIVE = START.replace(tzinfo=None)
EPOCH = int(START.timestamp())

FILES = """
titles:
  file: films.csv
  columns:
    title_id: id
    name: {from: title, as: name_of_title}
    kind: {constant: film}
    release_date: {from: title, as: year_in_name}
    genres: {from: tags, split: "/"}
    kids: {from: kids, default: false}
members:
  file: people.dat
  encoding: latin-1
  header: [who, city, zip, years]
  columns:
    member_id: who
    country: {from: zip, as: zip_region}
  profile:
    city: city
    age: {from: years, as: integer}
interactions:
  file: log.parquet
  columns:
    member_id: person
    title_id: film
    event_at: {from: at, as: epoch_seconds}
    action: {from: what, values: {watched: play, liked: thumbs_up}}
    canvas: {constant: home}
  order_by: number
"""


def write_files(folder: Path) -> None:
    (folder / "films.csv").write_text(
        'id,title,tags,kids\n1,"Film, The (1999)",A/B,true\n2,Émile (2001),,\n', encoding="utf-8"
    )
    (folder / "people.dat").write_bytes("7::Malmö::55117::30\n8::Orléans::X::41\n".encode("latin-1"))
    log = {
        "person": [8, 7, 7],
        "film": [1, 1, 2],
        "at": [EPOCH, EPOCH, EPOCH],
        "what": ["watched", "liked", "watched"],
        "number": [1, 2, 1],
    }
    pl.DataFrame(log).write_parquet(folder / "log.parquet")


def mapping(folder: Path, text: str) -> Path:
    path = folder / "mapping.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def from_files(workspace, folder: Path, text: str, **options):
    return ingest(workspace, "parquet", {"path": folder, "mapping": mapping(folder, text)}, **options)


def definition_problems(workspace, folder: Path, text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        from_files(workspace, folder, text)
    return [str(problem) for problem in caught.value.problems]


def test_files_of_several_kinds(workspace, folder):
    write_files(folder)
    report = from_files(workspace, folder, FILES)
    tables = Tables(workspace)
    assert report.rows == {"titles": 2, "availability": 2, "members": 2, "interactions": 3}
    assert tables.titles().select("title_id", "name", "genres", "kids", "release_date").rows() == [
        ("1", "The Film", ["A", "B"], True, datetime(1999, 1, 1, tzinfo=UTC)),
        ("2", "Émile", None, False, datetime(2001, 1, 1, tzinfo=UTC)),
    ]
    assert tables.members().select("member_id", "country", "city", "age").rows() == [
        ("7", "US-MN", "Malmö", 30),
        ("8", "ZZ", "Orléans", 41),
    ]
    assert tables.interactions().select("event_id", "seq", "action", "title_id", "country").rows() == [
        ("e-7-0", 0, "play", "2", "US-MN"),
        ("e-7-1", 1, "thumbs_up", "1", "US-MN"),
        ("e-8-0", 0, "play", "1", "ZZ"),
    ]


def test_small_slices_give_the_same_tables(workspace, folder, monkeypatch):
    write_files(folder)
    whole = from_files(workspace, folder, FILES).snapshot_id
    monkeypatch.setattr(offer, "SLICE_ROWS", 1)
    assert from_files(workspace, folder, FILES).snapshot_id == whole


def test_every_mistake_of_a_mapping_at_once(workspace, folder):
    write_files(folder)
    problems = definition_problems(
        workspace,
        folder,
        """
        title: {}
        titles:
          file: flims.csv
          columns: {title_id: id, name: title, kind: {constant: film, form: x}}
        members:
          file: people.dat
          header: [who, city, zip, years]
          columns: {member_id: woh, contry: zip, joined_at: {from: years, as: epoch_second, zone: Mars}}
          rating: {from: years}
        interactions:
          file: log.parquet
          columns: {member_id: persn, title_id: film, action: what}
          order: number
        """,
    )
    text = "\n".join(problems)
    for expected in (
        "title: unknown table. Did you mean 'titles'?",
        "titles.columns.kind.form: unknown key. Did you mean 'from'?",
        "members.columns.joined_at.as: Input should be",
        "members.columns.joined_at.zone: 'Mars' is no time zone",
        "interactions.order: unknown key. Did you mean 'order_by'?",
    ):
        assert expected in text


def test_every_wrong_column_at_once(workspace, folder):
    write_files(folder)
    problems = definition_problems(
        workspace,
        folder,
        """
        titles:
          file: flims.csv
          columns: {title_id: id, name: title, kind: {constant: film}}
        members:
          file: people.dat
          encoding: latin-1
          header: [who, city, zip, years]
          columns: {member_id: woh, contry: zip}
          profile: {language: city}
          order_by: years
        interactions:
          file: log.parquet
          columns: {member_id: persn, event_at: at, seq: number}
          rating: {from: what}
        """,
    )
    assert problems == [
        "members.columns.contry: unknown canonical column. Did you mean 'country'?",
        "members.order_by: only interactions can have this.",
        "members.profile.language: this is a canonical column.",
        "interactions.columns.seq: the rating block makes this column itself.",
        "interactions.columns.title_id: this column has to be mapped.",
        f"titles.file: there is no file 'flims.csv' in {folder}. Did you mean 'films.csv'?",
        "members.columns.member_id: there is no column 'woh'. Did you mean 'who'?",
        "interactions.columns.member_id: there is no column 'persn'. Did you mean 'person'?",
    ]
    assert not Tables(workspace).exists()


def test_missing_tables_and_unreadable_mappings(workspace, folder):
    problems = definition_problems(workspace, folder, "members: {file: x.csv, columns: {}}")
    assert problems[:2] == [
        "titles: this table has to be mapped.",
        "interactions: this table has to be mapped.",
    ]
    assert "line 3" in definition_problems(workspace, folder, "titles:\n  - {\n")[0]
    assert "top level" in definition_problems(workspace, folder, "just text")[0]
    with pytest.raises(DefinitionError, match="cannot be read"):
        ingest(workspace, "parquet", {"path": folder, "mapping": folder / "nothing.yaml"})


def test_values_that_cannot_be_read_are_named_with_a_row(workspace, folder):
    write_files(folder)
    log = {
        "person": [7, 7, 8, None],
        "film": [1, 2, 1, 1],
        "at": ["1577836800", "yesterday", "x", "1577836800"],
        "what": ["watched", "watched", "eaten", "watched"],
        "number": [1, 2, 3, 4],
    }
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError) as caught:
        from_files(workspace, folder, FILES)
    text = str(caught.value)
    assert "interactions.event_at: column 'at': a value that is no number of seconds since 1970 in 2 rows" in text
    assert "yesterday" in text
    assert "interactions.action: column 'what': a value that is not listed in values in 1 row" in text
    assert "interactions.member_id: null in 1 row" in text
    assert not Tables(workspace).exists()


TIMES = """
titles:
  file: films.csv
  columns: {title_id: id, name: title, kind: {constant: film}}
interactions:
  file: log.parquet
  columns: {member_id: who, title_id: film, event_at: AT, action: {constant: play}, canvas: {constant: home}}
"""


@pytest.mark.parametrize(
    ("at", "spec", "expected"),
    [
        (NAIVE.replace(hour=1), "{from: at, zone: Europe/Paris}", START),
        (START, "at", START),
        ("2020-01-01T00:00:00Z", "{from: at, as: iso_text}", START),
        ("2020-01-01 01:00:00+01", "{from: at, as: iso_text}", START),
        ("2020-01-01 00:00:00", "{from: at, as: iso_text, zone: UTC}", START),
        ("2020-01-01", "{from: at, as: iso_text, zone: UTC}", START),
        (EPOCH * 1000, "{from: at, as: epoch_milliseconds}", START),
        (EPOCH * 1_000_000, "{from: at, as: epoch_microseconds}", START),
        (float(EPOCH), "{from: at, as: epoch_seconds}", START),
        (str(EPOCH), "{from: at, as: epoch_seconds}", START),
        (2020, "{from: at, as: year}", START),
    ],
)
def test_ways_to_write_a_moment(workspace, folder, at, spec, expected):
    write_files(folder)
    pl.DataFrame({"who": ["a"], "film": [1], "at": [at]}).write_parquet(folder / "log.parquet")
    from_files(workspace, folder, TIMES.replace("AT", spec))
    assert Tables(workspace).interactions().get_column("event_at").to_list() == [expected]


@pytest.mark.parametrize(
    ("at", "spec", "complaint"),
    [
        (NAIVE, "at", "a timestamp without time zone in 1 row. Say which with zone: UTC"),
        ("2020-01-01 00:00:00", "{from: at, as: iso_text}", "no ISO 8601 moment with a time zone"),
        ("2020-01-01", "at", "Say how to read it with as: iso_text"),
        (EPOCH, "at", "Perhaps as: epoch_seconds"),
        ("no", "{from: at, as: year}", "no year"),
    ],
)
def test_moments_that_are_refused(workspace, folder, at, spec, complaint):
    write_files(folder)
    pl.DataFrame({"who": ["a"], "film": [1], "at": [at]}).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError, match=complaint) as caught:
        from_files(workspace, folder, TIMES.replace("AT", spec))
    assert len(caught.value.problems) == 1


def test_empty_log_and_duplicate_ids(workspace, folder):
    write_files(folder)
    empty = {"who": pl.String, "film": pl.Int64, "at": pl.Datetime("us", "UTC")}
    pl.DataFrame(schema=empty).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError, match="interactions: the source is empty"):
        from_files(workspace, folder, TIMES.replace("AT", "at"))
    pl.DataFrame({"who": ["a", "b"], "film": [1, 2], "at": [START, START]}).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError, match="event_id=1"):
        from_files(workspace, folder, TIMES.replace("AT", "at, event_id: {constant: 1}"))


def test_ids_that_a_tool_made_floats(workspace, folder):
    write_files(folder)
    pl.DataFrame({"who": [1.0, None], "film": [1.0, 2.0], "at": [START] * 2}).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError) as caught:
        from_files(workspace, folder, TIMES.replace("AT", "at"))
    assert "member_id: null in 1 row" in str(caught.value)
    pl.DataFrame({"who": [1.0, 2.5], "film": [1.0, 2.0], "at": [START] * 2}).write_parquet(folder / "log.parquet")
    with pytest.raises(DataError, match="a number with a fraction"):
        from_files(workspace, folder, TIMES.replace("AT", "at"))
    pl.DataFrame({"who": [1.0, 2.0], "film": [1.0, 2.0], "at": [START] * 2}).write_parquet(folder / "log.parquet")
    from_files(workspace, folder, TIMES.replace("AT", "at"))
    assert Tables(workspace).members().get_column("member_id").to_list() == ["1", "2"]


def test_ratings_with_nulls_and_an_order(workspace, folder):
    """The shipped MovieLens 1M mapping, on made-up rows of the same shape."""
    shipped = Path(__file__).parents[3] / "docs" / "guide" / "mappings" / "ml_1m.yaml"
    films = "1::Film, The (1999)::Animation|Children's\n2::Émile (2001)::Drama\n3::Third (1950)::Drama\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("7::F::1::10::55117\n8::M::56::16::70072\n")
    (folder / "abstracts.json").write_text(json.dumps({"1": "About a film.", "3": "Étude."}))
    log = {
        "user_id": [7, 7, 7, 8],
        "seq_pos": [1, 0, 2, 0],
        "movie_id": [1, 2, 3, 1],
        "rating": [5, None, 2, 3],
        "timestamp": [None, EPOCH, EPOCH, EPOCH],
        "timestamp_filled": [EPOCH, EPOCH, EPOCH, EPOCH],
    }
    pl.DataFrame(log, schema_overrides={"rating": pl.Int8}).write_parquet(folder / "interactions.parquet")
    ingest(workspace, "parquet", {"path": folder, "mapping": shipped})
    tables = Tables(workspace)
    assert tables.member_events("7").select("event_id", "seq").rows() == [
        ("p-7-2", 0),
        ("p-7-1", 2),
        ("t-7-1", 3),
        ("p-7-3", 4),
        ("t-7-3", 5),
    ]
    assert tables.titles().select("name", "synopsis").rows() == [
        ("The Film", "About a film."),
        ("Émile", None),
        ("Third", "Étude."),
    ]
    assert tables.members().select("country", "age", "gender", "occupation").rows() == [
        ("US-MN", 1, "F", "K-12 student"),
        ("US-LA", 56, "M", "self-employed"),
    ]


def test_own_availability_and_joins(workspace, folder):
    write_files(folder)
    (folder / "spans.json").write_text(json.dumps([{"film": 1, "land": "SE", "from": "2019-05-01"}]))
    extra = """
    availability:
      file: spans.json
      columns:
        title_id: film
        country: land
        available_from: {from: from, as: iso_text, zone: UTC}
    """
    from_files(workspace, folder, FILES + dedent(extra))
    assert Tables(workspace).availability().select("title_id", "country", "available_from").rows() == [
        ("1", "SE", datetime(2019, 5, 1, tzinfo=UTC))
    ]
    problems = definition_problems(
        workspace,
        folder,
        FILES.replace("file: films.csv", "file: films.csv\n  join: [{file: spans.json, by: id}]"),
    )
    assert "titles.join.0.by: the joined file has no column 'id'." in problems[0]


def test_dry_run_of_files(workspace, folder):
    write_files(folder)
    report = from_files(workspace, folder, FILES, dry_run=True)
    assert report.actions == {"play": 2, "thumbs_up": 1}
    assert not workspace.folder.exists()


SQL = """
titles:
  table: films
  columns: {title_id: id, name: title, kind: {constant: film}}
members:
  select: select who, zip from people where who <> 9;
  columns: {member_id: who, country: {from: zip, as: zip_region}}
interactions:
  select: SELECT p.who, film, at, stars FROM log JOIN people p ON p.who = log.person
  columns: {member_id: who, title_id: film, event_at: {from: at, as: iso_text, zone: UTC}}
  rating: {from: stars}
"""


@pytest.fixture
def database(folder) -> str:
    path = folder / "shop.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE films (id INTEGER, title TEXT);
        CREATE TABLE people (who INTEGER, zip TEXT);
        CREATE TABLE log (person INTEGER, film INTEGER, at TEXT, stars REAL);
        INSERT INTO films VALUES (1, 'One'), (2, 'Two');
        INSERT INTO people VALUES (7, '55117'), (8, NULL);
        INSERT INTO log VALUES (7, 1, '2020-01-01 00:00:00', 4.5), (7, 2, '2020-01-01 00:00:00', NULL),
                               (8, 2, '2020-01-02 00:00:00', 1);
        """
    )
    connection.close()
    return f"sqlite:///{path}"


def from_database(workspace, folder: Path, url: str, text: str):
    return ingest(workspace, "sql", {"url": url, "mapping": mapping(folder, text)})


@pytest.mark.parametrize("batch_rows", [1, 1000])
def test_rows_of_a_database_are_ingested(workspace, folder, database, monkeypatch, batch_rows):
    monkeypatch.setattr("playbill.sources.tabular.source.BATCH_ROWS", batch_rows)
    report = from_database(workspace, folder, database, SQL)
    assert report.rows == {"titles": 2, "availability": 2, "members": 2, "interactions": 5}
    assert Tables(workspace).interactions().select("event_id", "country").rows() == [
        ("p-7-1", "US-MN"),
        ("t-7-1", "US-MN"),
        ("p-7-2", "US-MN"),
        ("p-8-2", "ZZ"),
        ("t-8-2", "ZZ"),
    ]


def test_every_mistake_of_a_database_mapping(workspace, folder, database):
    broken = SQL.replace("table: films", "table: flims").replace("member_id: who", "member_id: hwo")
    with pytest.raises(DefinitionError) as caught:
        from_database(workspace, folder, database, broken + "  select2: x\n")
    text = str(caught.value)
    assert "titles.table: the database refuses this: no such table: flims." in text
    assert "members.columns.member_id: there is no column 'hwo'. Did you mean 'who'?" in text
    assert "interactions.select2: unknown key. Did you mean 'select'?" in text
    both = SQL.replace("table: films", "table: films\n  select: select 1")
    with pytest.raises(DefinitionError, match="give either 'table' or 'select'"):
        from_database(workspace, folder, database, both)


def test_a_query_without_rows_is_refused(workspace, folder, database):
    with pytest.raises(DataError, match="interactions: the source is empty"):
        from_database(workspace, folder, database, SQL.replace("log.person\n", "log.person WHERE film > 9\n"))


def test_passwords_come_from_the_environment_and_stay_out_of_messages(workspace, folder, database, monkeypatch):
    with pytest.raises(ConfigError, match="SHOP_URL"):
        from_database(workspace, folder, "${SHOP_URL}", SQL)
    monkeypatch.setenv("SHOP_URL", database)
    assert "shop.db" in from_database(workspace, folder, "${SHOP_URL}", SQL).route
    with pytest.raises(ServiceError):
        from_database(workspace, folder, f"sqlite:///{folder}/no/such/place.db", SQL)
    with pytest.raises(ConfigError):
        from_database(workspace, folder, "nothing", SQL)


LOG_ALONE = """
titles:
  file: log.csv
  distinct: true
  columns: {title_id: title, name: title, kind: {constant: film}}
interactions:
  file: log.csv
  columns:
    member_id: member
    title_id: title
    event_at: {from: time, as: iso_text, zone: UTC}
    action: {from: action, values: {watched: play, looked: search}}
    canvas: {constant: home}
"""


def log_alone(folder: Path, mapping: str) -> Path:
    folder.mkdir()
    rows = ["member,title,time,action", "m1,Dune,2020-01-01T10:00:00,watched", "m2,Fargo,2020-01-02T10:00:00,watched"]
    rows += ["m2,,2020-01-02T11:00:00,looked", "m2,Dune,2020-01-03T10:00:00,watched"]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    (folder / "mapping.yaml").write_text(mapping)
    return folder / "mapping.yaml"


def test_titles_are_read_from_a_log_by_their_first_rows(workspace, tmp_path: Path) -> None:
    mapping = log_alone(tmp_path / "own", LOG_ALONE)
    report = ingest(workspace, "parquet", {"path": mapping.parent, "mapping": mapping})
    assert report.rows["interactions"] == 4
    assert Tables(workspace).titles().get_column("name").sort().to_list() == ["Dune", "Fargo"]


def test_without_that_rows_that_are_no_titles_are_refused(workspace, tmp_path: Path) -> None:
    mapping = log_alone(tmp_path / "own", LOG_ALONE.replace("  distinct: true\n", ""))
    with pytest.raises(DataError, match=r"titles\.title_id: null in 1 row"):
        ingest(workspace, "parquet", {"path": mapping.parent, "mapping": mapping})


def test_only_titles_are_distinct(workspace, tmp_path: Path) -> None:
    mapping = log_alone(tmp_path / "own", LOG_ALONE.replace("interactions:", "interactions:\n  distinct: true"))
    with pytest.raises(DefinitionError, match=r"interactions\.distinct: only titles can have this"):
        ingest(workspace, "parquet", {"path": mapping.parent, "mapping": mapping})
