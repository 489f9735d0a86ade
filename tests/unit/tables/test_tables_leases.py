"""The right to do one thing alone."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from playbill.clock import FixedClock, to_microseconds
from playbill.tables.database import open_database
from playbill.tables.leases import Lease, LeaseLostError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEAD = f"{socket.gethostname()}:{2**22 - 3}:x"  # no process has the number


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'leases.db'}"


def lease(url: str, holder: str = "a", at: datetime = NOON, *, outlives_process: bool = True) -> Lease:
    given = (url, "work", holder, FixedClock(at), 30)
    return Lease(*given, purpose="the work", outlives_process=outlives_process)


def test_a_lease_is_held_by_one(url: str) -> None:
    first, second = lease(url, "a"), lease(url, "b")
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    assert str(second.current()) == "'a' since 2026-01-01 12:00:00 UTC"
    first.release()
    assert second.current() is None
    assert second.acquire()
    with pytest.raises(LeaseLostError, match="another process has taken over the work"), first.engine.begin() as opened:
        first.confirm(opened)


def test_a_lease_runs_out(url: str) -> None:
    assert lease(url, "a").acquire()
    assert not lease(url, "b", NOON + timedelta(seconds=29)).acquire()
    assert lease(url, "b", NOON + timedelta(seconds=30)).acquire()


def test_who_renews_a_lease_has_it_since_it_was_taken(url: str) -> None:
    assert lease(url, "here:7:x").acquire()
    later = lease(url, "here:7:x", NOON + timedelta(seconds=20))
    assert later.acquire()
    assert str(later.current()) == "process 7 on here since 2026-01-01 12:00:00 UTC"
    assert not lease(url, "b", NOON + timedelta(seconds=49)).acquire()


def test_that_of_a_process_that_died_is_taken_at_once_where_it_does_not_outlive_it(url: str) -> None:
    assert lease(url, DEAD).acquire()
    assert not lease(url, "b").acquire()
    assert lease(url, "b", outlives_process=False).acquire()
    assert not lease(url, "c", outlives_process=False).acquire(), "a holder that names no process may be alive"


def test_a_table_of_an_earlier_release_goes_on(url: str) -> None:
    end = to_microseconds(NOON + timedelta(seconds=5))
    with open_database(url).begin() as connection:
        columns = "name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, expires_at_us BIGINT NOT NULL"
        connection.execute(sa.text(f"CREATE TABLE promotion_leases ({columns})"))
        connection.execute(sa.text("INSERT INTO promotion_leases VALUES ('work', 'old:7:x', :end)"), {"end": end})
    assert not lease(url).acquire()
    assert str(lease(url).current()) == "process 7 on old"
    assert lease(url, at=NOON + timedelta(seconds=5)).acquire()
