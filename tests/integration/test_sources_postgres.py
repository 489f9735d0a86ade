"""The journal, the request log and the source `sql` on Postgres.

Everything is made in a schema of its own, which is dropped at the end.
"""

import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from playbill.config import ProjectFolder
from playbill.sources import ingest
from playbill.tables import AppendResult, Journal, RequestLog, Tables

EVENT = {
    "event_id": "x",
    "member_id": "a",
    "event_at": datetime(2020, 1, 1, tzinfo=UTC),
    "action": "play",
    "title_id": "1",
    "canvas": "home",
    "country": "SE",
}


@pytest.fixture
def url(postgres_url):
    """A URL whose search path is a fresh schema."""
    schema = f"playbill_{secrets.token_hex(6)}"
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    yield sa.make_url(postgres_url).update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))
    engine.dispose()


def test_the_journal_works_on_postgres(url):
    journal = Journal(url)
    assert journal.append([EVENT, {**EVENT, "event_id": "y"}]) == AppendResult(2, 0)
    assert Journal(url).append([EVENT]) == AppendResult(0, 1)
    assert journal.read("a").get_column("event_id").to_list() == ["x", "y"]
    assert journal.read("a").get_column("event_at").to_list() == [EVENT["event_at"]] * 2


def test_many_writers_lose_nothing(url):
    def write(worker: int) -> int:
        journal = Journal(url)
        return sum(journal.append([{**EVENT, "event_id": f"{worker % 4}-{n}"}]).accepted for n in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 80
    assert Journal(url).read().height == 80


def test_the_request_log_works_on_postgres(url):
    log = RequestLog(url)
    request = {"request_id": "r", "at": EVENT["event_at"], "canvas": "home", "context": "{}", "policy": "model"}
    for _ in range(2):
        log.write(request, [{"row_position": 0, "position": 0, "title_id": "1", "score": 0.5}])
    assert log.requests().height == 1
    assert log.slates().get_column("score").to_list() == [0.5]


def test_a_source_reads_from_postgres(url, tmp_path: Path):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE films (id INTEGER, title TEXT, tags TEXT[])",
            "CREATE TABLE log (who INTEGER, film INTEGER, at TIMESTAMPTZ, stars NUMERIC(2, 1))",
            "INSERT INTO films VALUES (1, 'One', '{A,B}'), (2, 'Two', NULL)",
            "INSERT INTO log SELECT n, 1 + n % 2, '2020-01-01 01:00+01', NULLIF(n % 6, 0)"
            " FROM generate_series(1, 120) n",
        ):
            connection.execute(sa.text(statement))
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("""
titles:
  table: films
  columns: {title_id: id, name: title, kind: {constant: film}, genres: tags}
interactions:
  table: log
  columns: {member_id: who, title_id: film, event_at: at}
  rating: {from: stars}
""")
    workspace = ProjectFolder.find(tmp_path).workspace("shop")
    report = ingest(workspace, "sql", {"url": url, "mapping": mapping})
    assert report.actions == {"play": 120, "thumbs_down": 40, "thumbs_up": 40}
    assert report.first_event == EVENT["event_at"]
    assert Tables(workspace).titles().get_column("genres").to_list() == [["A", "B"], None]
    engine.dispose()


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from playbill.tables import Journal

url, process = sys.argv[1:]
def write(worker):
    own = Journal(url)
    for index in range(25):
        event = {"event_id": f"{process}-{worker}-{index}", "member_id": "racer", "action": "details_view",
                 "canvas": "home", "country": "SE", "event_at": datetime(2024, 1, 1, tzinfo=UTC)}
        own.append([event])
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(4)))
"""


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_servers_that_append_at_once_give_numbers_of_their_own(database, tmp_path, request):
    url = f"sqlite:///{tmp_path}/journal.db" if database == "sqlite" else request.getfixturevalue("url")
    journal = Journal(url)
    servers = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(number)]) for number in range(2)]
    assert [server.wait(60) for server in servers] == [0, 0]
    numbers = journal.read("racer").get_column("seq")
    assert (len(numbers), numbers.n_unique()) == (200, 200)
