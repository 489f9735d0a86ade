"""Pushes that go wrong in the middle: killed, no room on the disk, a locked database; and pushes on Postgres."""

import json
import secrets
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import sqlalchemy as sa

from playbill.config import ProjectFolder
from playbill.errors import ServiceError, StateError
from playbill.sources import push_events
from playbill.tables import TIMESTAMP, Journal, Tables, database, open_database

START = datetime(2020, 1, 1, tzinfo=UTC)

PUSHING = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import polars as pl
    from playbill.config import ProjectFolder
    from playbill.errors import PlaybillError
    from playbill.sources import push_events
    {preparation}
    workspace = ProjectFolder.find(Path(sys.argv[1])).workspace("shop")
    try:
        print(push_events(workspace, pl.read_parquet(sys.argv[2]), compact=sys.argv[3] == "compact").rows)
    except PlaybillError as error:
        print(f"{{type(error).__name__}}: {{error}}")
    """
)


def plays(first: int, count: int) -> pl.DataFrame:
    """Make plays of seven members, one a second."""
    return pl.DataFrame({"number": range(first, first + count)}).select(
        event_id=pl.format("x{}", "number"),
        member_id=pl.format("m{}", pl.col("number") % 7),
        event_at=(pl.lit(START) + pl.duration(days=4, seconds=pl.col("number"))).cast(TIMESTAMP),
        action=pl.lit("play"),
        title_id=pl.lit("1"),
        canvas=pl.lit("home"),
        query=pl.format("{}", pl.col("number").hash()),
    )


def start_tables(tables: Tables) -> Tables:
    stamp = {"valid_from": [START], "recorded_at": [START]}
    title = pl.DataFrame({"title_id": ["1"], "name": ["One"], "kind": ["film"], **stamp})
    event = {"event_id": ["e"], "member_id": ["m0"], "seq": [0], "event_at": [START], "recorded_at": [START]}
    event |= {"action": ["play"], "title_id": ["1"], "canvas": ["home"], "country": ["ZZ"]}
    with tables.replace() as writer:
        writer.write("titles", title.with_columns(pl.col(pl.Datetime).cast(TIMESTAMP)))
        writer.write("interactions", pl.DataFrame(event).with_columns(pl.col(pl.Datetime).cast(TIMESTAMP)))
    return tables


@pytest.fixture
def tables(tmp_path) -> Tables:
    return start_tables(Tables(ProjectFolder.find(tmp_path).workspace("shop")))


def push(tables: Tables, first: int, count: int, how: str, preparation: str = "") -> subprocess.CompletedProcess[str]:
    """Push from a process of its own, in which something was prepared to go wrong."""
    root = tables.workspace.project.root
    plays(first, count).write_parquet(root / f"{first}.parquet")
    command = [sys.executable, "-c", PUSHING.format(preparation=preparation)]
    return subprocess.run(
        [*command, str(root), str(root / f"{first}.parquet"), how], capture_output=True, text=True, check=False
    )


def ids(tables: Tables) -> list[str]:
    found = tables.interactions(include_journal=True).get_column("event_id")
    assert found.is_unique().all()
    return sorted(found.to_list())


def die_at(module: str, name: str, call: int = 1) -> str:
    """Make the process kill itself, as a power cut would, when a function is called for the n-th time."""
    return textwrap.dedent(
        f"""
        import os, signal
        import {module} as _module
        _real, _calls = _module.{name}, [0]
        def _dies(*arguments, **options):
            _calls[0] += 1
            if _calls[0] == {call}:
                os.kill(os.getpid(), signal.SIGKILL)
            return _real(*arguments, **options)
        _module.{name} = _dies
        """
    )


@pytest.mark.parametrize(
    "where",
    [
        ("playbill.tables.event_log", "write_day_part"),
        ("playbill.tables.appending", "link_file"),
        ("playbill.tables.appending", "file_digest"),
        ("playbill.tables.appending", "manifest_of"),
        ("playbill.tables.generations", "to_disk"),
        ("playbill.tables.generations.os", "replace", 1),
        ("playbill.tables.generations.os", "replace", 2),
        ("playbill.tables.generations.os", "replace", 3),
        ("playbill.tables.journal.Journal", "forget"),
    ],
    ids=lambda where: "-".join(map(str, where)),
)
def test_killed_in_the_middle_of_an_append(tables, where):
    before = ids(tables)
    assert push_events(tables.workspace, plays(100, 5)).journalled == 5
    preparation = die_at(*where)
    if where[0].endswith("Journal"):
        preparation = preparation.replace(
            f"import {where[0]} as _module", "from playbill.tables import Journal as _module"
        )
    if where[0].endswith(".os"):
        preparation = preparation.replace(f"import {where[0]} as _module", "import os as _module")
    killed = push(tables, 0, 20, "compact", preparation)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    whole = sorted([*before, *(f"x{number}" for number in [*range(20), *range(100, 105)])])
    assert set(before) | {f"x{number}" for number in range(100, 105)} <= set(ids(tables)) <= set(whole)
    push_events(tables.workspace, plays(0, 20), compact=True)
    assert ids(tables) == whole
    assert tables.journal.read().is_empty()
    assert tables.row_counts()["interactions"] == len(whole)
    assert not [path for path in tables.workspace.tables.iterdir() if path.name.startswith("writing-")]


def test_no_room_on_the_disk(tables):
    # The system refuses to let a file grow, which is what a full disk does to a writer.
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))"
    before, snapshot = ids(tables), tables.snapshot_id()
    full = push(tables, 0, 30_000, "compact", limit)
    assert full.stdout.startswith("StorageError: the tables at "), full.stdout + full.stderr
    assert "cannot be written: a limit on the size of files is reached" in full.stdout
    assert "What was there before is unchanged" in full.stdout
    assert (ids(tables), tables.snapshot_id()) == (before, snapshot)
    assert not [path for path in tables.workspace.tables.iterdir() if path.name.startswith("writing-")]
    assert push_events(tables.workspace, plays(0, 30_000), compact=True).compacted == 30_000


def test_no_room_for_the_journal(tables):
    push_events(tables.workspace, plays(0, 1))
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    full = push(tables, 10, 30_000, "journal", limit)
    assert full.stdout.startswith("StorageError: the database "), full.stdout + full.stderr
    assert ids(tables) == ["e", "x0"]
    assert push_events(tables.workspace, plays(10, 30_000)).journalled == 30_000


def test_a_locked_database_is_named(tables, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    open_database.cache_clear()
    assert tables.journal.read().is_empty()
    path = tables.workspace.database_url.removeprefix("sqlite:///")
    batch = pl.DataFrame({"event_id": ["x"], "member_id": ["m1"], "event_at": [START + timedelta(days=1)]})
    batch = batch.with_columns(action=pl.lit("play"), title_id=pl.lit("1"), canvas=pl.lit("home"))
    batch = batch.with_columns(pl.col("event_at").cast(TIMESTAMP))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceError, match="database is locked"):
        push_events(tables.workspace, batch)
    holder.execute("ROLLBACK")
    assert push_events(tables.workspace, batch).journalled == 1
    # Locked between publishing and forgetting: the events are in both, and the next compaction ends it.
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceError, match="database is locked"):
        push_events(tables.workspace, batch.clear(), compact=True)
    holder.execute("ROLLBACK")
    holder.close()
    assert ids(tables) == ["e", "x"]
    assert push_events(tables.workspace, batch, compact=True).compacted == 0
    assert ids(tables) == ["e", "x"]
    assert tables.journal.read().is_empty()
    open_database.cache_clear()


def test_a_second_writer_waits_its_turn(tables, monkeypatch):
    failed: list[Exception] = []

    def write(first: int) -> None:
        done = push(tables, first, 50, "compact")
        if done.stdout.strip() != "{'interactions': 50}":
            failed.append(AssertionError(done.stdout + done.stderr))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(ids(tables)) == 151
    monkeypatch.setattr("playbill.files.LOCK_WAIT_S", 0.1)
    holder = sqlite3.connect(tables.workspace.tables / ".lock", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="another process is writing"):
        tables.append_events(tables.interactions().with_columns(pl.col("event_id") + "-new"))
    holder.close()


def test_pushes_work_on_postgres(tmp_path, postgres_url):
    schema = f"playbill_{secrets.token_hex(6)}"
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    options = {"options": f"-csearch_path={schema}"}
    url = sa.make_url(postgres_url).update_query_dict(options).render_as_string(False)
    try:
        (tmp_path / "playbill.toml").write_text(f"[services]\ndatabase = {json.dumps(url)}\n")
        _push_on(start_tables(Tables(ProjectFolder.find(tmp_path).workspace("shop"))), url)
    finally:
        open_database(url).dispose()
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=True))
        engine.dispose()


def _push_on(tables: Tables, url: str) -> None:
    Journal(url)
    with open_database(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE event_journal DROP COLUMN propensity"))
    numbers = pl.DataFrame({"number": range(100)})
    batch = numbers.select(
        event_id=pl.format("x{}", "number"),
        member_id=pl.format("m{}", pl.col("number") % 7),
        event_at=(pl.lit(START) + pl.duration(hours=pl.col("number") - 50)).cast(TIMESTAMP),
        action=pl.lit("play"),
        title_id=pl.lit("1"),
        canvas=pl.lit("home"),
        propensity=pl.lit(0.5, dtype=pl.Float32),
    )
    first = push_events(tables.workspace, batch)
    assert (first.journalled, first.late) == (100, 51)
    half = batch.head(50).with_columns(event_id=pl.concat_str("event_id", pl.lit("-b")))
    second = push_events(
        tables.workspace, pl.concat([batch, half, batch.tail(1).with_columns(canvas=pl.lit("search"))])
    )
    assert (second.journalled, second.duplicates, second.conflicting) == (
        50,
        {"interactions": 100},
        {"interactions": 1},
    )
    assert push_events(tables.workspace, batch.clear(), compact=True).compacted == 150
    assert tables.interactions().get_column("propensity").drop_nulls().len() == 150
    assert tables.interactions().height == 151
    for member in ("m0", "m3"):
        assert tables.member_events(member).get_column("event_at").is_sorted()
