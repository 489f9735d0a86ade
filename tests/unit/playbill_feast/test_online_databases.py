"""What the packed store's databases do when they are missing, damaged, locked or silent."""

import asyncio
import itertools
import sqlite3
import threading
from pathlib import Path

import pytest
import redis

from playbill_feast.errors import StoreConfigError, StoreServiceError, StoreStateError
from playbill_feast.online.backend import ReadRequest, RowBatch
from playbill_feast.online.redis_backend import RedisBackend, redis_options
from playbill_feast.online.sqlite_backend import SqliteBackend


def row(event_us: int, created_us: int = 0, text: bytes = b"") -> bytes:
    header = bytes(8) + event_us.to_bytes(8, "little", signed=True) + created_us.to_bytes(8, "little", signed=True)
    return header + text


def batch(*rows: tuple[bytes, int, int, bytes]) -> RowBatch:
    return RowBatch(
        7,
        "[]",
        [key for key, *_ in rows],
        [row(event, created, text) for _, event, created, text in rows],
        [event for _, event, _, _ in rows],
        [created for _, _, created, _ in rows],
    )


@pytest.fixture(params=["sqlite", "redis"])
def backend(request, tmp_path):
    if request.param == "sqlite":
        found = SqliteBackend(tmp_path / "online.db")
    else:
        found = RedisBackend(request.getfixturevalue("redis_url"))
    for view in ("p/a", "p/b", "p/*"):
        found.drop(view)
        found.create(view)
    yield found
    for view in ("p/a", "p/b", "p/*"):
        found.drop(view)
    found.close()


TIMES = [
    -(2**63),
    -(2**62) - 1,
    -1,
    0,
    1,
    2**32 - 1,
    2**32,
    2**53,
    2**53 + 1,
    2**63 - 1,
]


def test_order_in_time_is_exact_to_the_last_microsecond(backend):
    for number, (earlier, later) in enumerate(itertools.pairwise(TIMES)):
        by_event, by_created = f"e{number}".encode(), f"c{number}".encode()
        backend.write("p/a", [batch((by_event, later, 0, b"kept"), (by_event, earlier, 0, b"late"))], None)
        backend.write("p/a", [batch((by_created, 5, later, b"kept"), (by_created, 5, earlier, b"late"))], None)
        backend.write("p/a", [batch((by_event, earlier, 9, b"late"))], None)
        rows = backend.read([ReadRequest("p/a", [by_event, by_created])])[0]
        assert [found[24:] for found in rows] == [b"kept", b"kept"], (earlier, later)
        backend.write("p/a", [batch((by_event, later, 0, b"again"))], None)
        assert backend.read([ReadRequest("p/a", [by_event])])[0][0][24:] == b"again"


def test_several_views_are_read_at_once_and_aligned(backend):
    backend.write("p/a", [batch((b"1", 1, 0, b"a1"), (b"2", 1, 0, b"a2"))], None)
    backend.write("p/b", [batch((b"1", 1, 0, b"b1"))], None)
    asks = [
        ReadRequest("p/a", [b"2", None, b"1", b"2", b"3"]),
        ReadRequest("p/b", [b"1", b"2"]),
        ReadRequest("p/*", []),
    ]
    found = backend.read(asks)
    assert [[None if one is None else one[24:] for one in rows] for rows in found] == [
        [b"a2", None, b"a1", b"a2", None],
        [b"b1", None],
        [],
    ]
    if isinstance(backend, SqliteBackend):
        assert asyncio.run(backend.read_async(asks)) == found


def test_dropping_a_view_leaves_the_others(backend):
    for view in ("p/a", "p/b", "p/*"):
        backend.write(view, [batch((b"1", 1, 0, view.encode()))], None)
    backend.drop("p/*")
    backend.create("p/*")
    assert backend.read([ReadRequest("p/*", [b"1"])]) == [[None]]
    assert backend.schemas("p/*") == {}
    assert backend.schemas("p/a") == {7: "[]"}
    assert backend.scan("p/a")[0] == [b"1"]


def test_the_version_changes_with_writes_to_the_view_alone(backend):
    backend.write("p/a", [batch((b"1", 1, 0, b""))], None)
    before = backend.version("p/a")
    backend.write("p/b", [batch((b"1", 1, 0, b""))], None)
    assert backend.version("p/a") == before
    backend.write("p/a", [batch((b"1", 2, 0, b""))], None)
    assert backend.version("p/a") != before


def test_a_failing_write_to_sqlite_keeps_the_old_rows(tmp_path):
    backend = SqliteBackend(tmp_path / "online.db")
    backend.write("p/a", [batch((b"1", 1, 0, b"old"))], None)

    def batches():
        yield batch((b"1", 2, 0, b"new"), (b"2", 2, 0, b"new"))
        raise MemoryError

    with pytest.raises(MemoryError):
        backend.write("p/a", batches(), None)
    assert [found and found[24:] for found in backend.read([ReadRequest("p/a", [b"1", b"2"])])[0]] == [b"old", None]


def test_a_locked_file_is_tried_twice_then_named(tmp_path, caplog):
    path = tmp_path / "online.db"
    backend = SqliteBackend(path, busy_timeout_s=0.05)
    backend.write("p/a", [batch((b"1", 1, 0, b"old"))], None)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(
            StoreServiceError, match=r"online\.db stayed locked .* for 0\.1 s \(tried twice\).*busy_timeout_s"
        ):
            backend.write("p/a", [batch((b"1", 2, 0, b"new"))], None)
        assert "trying once more" in caplog.text
        assert backend.read([ReadRequest("p/a", [b"1"])])[0][0][24:] == b"old"
    finally:
        other.execute("ROLLBACK")
        other.close()
    backend.write("p/a", [batch((b"1", 2, 0, b"new"))], None)
    assert backend.read([ReadRequest("p/a", [b"1"])])[0][0][24:] == b"new"


def test_a_lock_that_passes_is_waited_for(tmp_path):
    path = tmp_path / "online.db"
    backend = SqliteBackend(path, busy_timeout_s=5)
    backend.create("p/a")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, lambda: other.execute("COMMIT")).start()
    backend.write("p/a", [batch((b"1", 2, 0, b"new"))], None)
    assert backend.read([ReadRequest("p/a", [b"1"])])[0][0] is not None
    other.close()


def test_a_missing_file_and_a_missing_table_say_what_to_run(tmp_path):
    backend = SqliteBackend(tmp_path / "online.db")
    with pytest.raises(StoreStateError, match=r"online\.db does not exist.*feast apply.*feast materialize"):
        backend.read([ReadRequest("p/a", [b"1"])])
    assert not Path(backend.path).exists()
    backend.create("p/a")
    with pytest.raises(StoreStateError, match="no table of p/b"):
        backend.read([ReadRequest("p/a", [b"1"]), ReadRequest("p/b", [b"1"])])


def test_a_file_removed_under_the_store_is_noticed(tmp_path):
    backend = SqliteBackend(tmp_path / "online.db")
    backend.write("p/a", [batch((b"1", 1, 0, b"old"))], None)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(StoreStateError, match="does not exist"):
        backend.read([ReadRequest("p/a", [b"1"])])
    backend.write("p/a", [batch((b"1", 1, 0, b"new"))], None)
    assert backend.read([ReadRequest("p/a", [b"1"])])[0][0][24:] == b"new"


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be a page" * 100])
def test_a_garbled_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "online.db"
    path.write_bytes(content)
    with pytest.raises(StoreServiceError, match=r"(?s)online\.db cannot be read.*remove it"):
        SqliteBackend(path).read([ReadRequest("p/a", [b"1"])])
    assert path.read_bytes() == content


def test_every_thread_has_its_own_connection(tmp_path):
    backend = SqliteBackend(tmp_path / "online.db")
    backend.write("p/a", [batch((b"1", 1, 0, b"x"))], None)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(backend.read([ReadRequest("p/a", [b"1"])])[0][0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert None not in answers


def test_a_silent_redis_is_named_with_what_to_start():
    backend = RedisBackend("127.0.0.1:1,db=3", timeout_s=0.2)
    for work in (
        lambda: backend.read([ReadRequest("p/a", [b"1"])]),
        lambda: backend.write("p/a", [batch((b"1", 1, 0, b""))], None),
        lambda: asyncio.run(backend.read_async([ReadRequest("p/a", [b"1"])])),
    ):
        with pytest.raises(
            StoreServiceError, match=r"(?s)Redis at 127\.0\.0\.1:1 does not answer.*redis-server --port 1"
        ):
            work()


def test_rows_of_redis_expire_when_asked_to(redis_url):
    backend = RedisBackend(redis_url, key_ttl_seconds=60)
    backend.write("p/ttl", [batch((b"1", 1, 0, b""))], None)
    client = redis.Redis(**redis_options(redis_url))
    (left_s,) = [seconds for seconds in map(client.ttl, client.scan_iter()) if seconds >= 0]
    assert 0 < left_s <= 60
    backend.drop("p/ttl")
    assert backend.read([ReadRequest("p/ttl", [b"1"])]) == [[None]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "cache:6380,db=2,ssl=true,password=a=b",
            {"host": "cache", "port": 6380, "db": 2, "ssl": True, "password": "a=b"},
        ),
        ("cache", {"host": "cache", "port": 6379}),
        ("redis://:secret@cache:6380/2", {"host": "cache", "port": 6380, "db": 2, "password": "secret"}),
        ("rediss://cache", {"host": "cache", "port": 6379, "ssl": True}),
        ("${CACHE_HOST}:6380", {"host": "elsewhere", "port": 6380}),
    ],
)
def test_connection_strings_of_both_forms(text, wanted, monkeypatch):
    monkeypatch.setenv("CACHE_HOST", "elsewhere")
    assert redis_options(text) == wanted


@pytest.mark.parametrize("text", ["a:1,b:2", "db=3", "${NO_SUCH_NAME}:1", "http://cache", "cache:port"])
def test_bad_connection_strings_are_named(text, monkeypatch):
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    with pytest.raises(StoreConfigError, match=r"online_store\.connection_string"):
        redis_options(text)
