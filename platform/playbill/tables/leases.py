"""The right to do one thing alone, for a limited time after each renewal: a row in the workspace's database.

Clocks are those of real time; those of machines should agree within a few seconds.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from playbill.clock import Clock, from_microseconds, to_microseconds
from playbill.errors import PlaybillError, StateError
from playbill.tables.database import create_tables, database_errors, insert_new, open_database

RENEWALS = 6  # of a lease that is held for the length of a block, in the time that it lasts

_metadata = sa.MetaData()
_leases = sa.Table(
    # Once promotions alone had leases. A controller of an earlier release reads this table too, so the name stays.
    "promotion_leases",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    sa.Column("since_us", sa.BigInteger),
)


class LeaseLostError(StateError):
    """Another process took over while this one was at work. What it was about to write was not written."""


def new_holder() -> str:
    """Return a name for this process that no other one has: machine, process, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lease."""

    name: str
    since: datetime | None  # None for one taken by an earlier release

    def __str__(self) -> str:
        place = _place(self.name)
        who = f"'{self.name}'" if place is None else f"process {place[1]} on {place[0]}"
        return who if self.since is None else f"{who} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Lease:
    """One lease, as one holder sees it.

    Args:
        database_url: Where it is.
        name: What is to be done by one alone. Leases of different names have nothing to do with each other.
        holder: A name that no other process has.
        clock: Real time.
        seconds: How long others wait after the last renewal.
        purpose: What is done under it, for messages.
        outlives_process: Whether others wait for the end of the time too where the holder was a process of this
            machine and has died; else they take over at once.
    """

    def __init__(
        self,
        database_url: str,
        name: str,
        holder: str,
        clock: Clock,
        seconds: float,
        *,
        purpose: str,
        outlives_process: bool = True,
    ) -> None:
        self.database_url, self.name, self.holder = database_url, name, holder
        self.clock, self.seconds = clock, seconds
        self.purpose, self.outlives_process = purpose, outlives_process
        self._named, self._ours = _leases.c.name == name, sa.and_(_leases.c.name == name, _leases.c.holder == holder)
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The database, with the table of leases in it.

        Raises:
            ServiceError: It cannot be reached.
        """
        if self._engine is None:
            engine = open_database(self.database_url)
            create_tables(engine, _metadata)
            self._engine = engine
        return self._engine

    def acquire(self) -> bool:
        """Take or renew the lease; False when another holder's has not run out."""
        with database_errors(self.engine), self.engine.begin() as connection:
            now, end = self._now_and_end()
            if self._renewed(connection):
                return True
            free = _leases.c.expires_at_us <= now
            if not self.outlives_process:
                holder = connection.execute(sa.select(_leases.c.holder).where(self._named)).scalar_one_or_none()
                if holder is not None and _has_died(holder):
                    free = sa.or_(free, _leases.c.holder == holder)
            values = {"holder": self.holder, "expires_at_us": end, "since_us": now}
            # In one statement, so that of several one takes it.
            taken = connection.execute(sa.update(_leases).where(self._named, free).values(values))
            return (
                taken.rowcount == 1 or insert_new(connection, _leases, [{"name": self.name, **values}], ["name"]) == 1
            )

    def confirm(self, connection: sa.Connection) -> None:
        """Renew the lease inside a transaction, so that what it writes is written by the holder.

        Raises:
            LeaseLostError: Another holder has it. One that ran out and was not taken is still ours.
        """
        if not self._renewed(connection):
            raise LeaseLostError(f"another process has taken over {self.purpose}; nothing more was written")

    def release(self) -> None:
        """Give the lease back at once, if it is ours."""
        with database_errors(self.engine), self.engine.begin() as connection:
            connection.execute(sa.delete(_leases).where(self._ours))

    def current(self) -> Holder | None:
        """Return who holds it now, None when nobody does."""
        now, _ = self._now_and_end()
        query = sa.select(_leases).where(self._named, _leases.c.expires_at_us > now)
        with database_errors(self.engine), self.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Holder(row.holder, None if row.since_us is None else from_microseconds(row.since_us))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease, which was acquired, for the length of the block, and give it back at its end."""
        ended = threading.Event()
        renewal = threading.Thread(target=self._keep, args=(ended,), name=f"lease {self.name}", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()
            self.release()

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self.seconds / RENEWALS):
            try:
                with database_errors(self.engine), self.engine.begin() as connection:
                    self.confirm(connection)
            except PlaybillError:
                continue  # An outage, or it was lost: what is written next says so.

    def _renewed(self, connection: sa.Connection) -> bool:
        _, end = self._now_and_end()
        return connection.execute(sa.update(_leases).where(self._ours).values(expires_at_us=end)).rowcount == 1

    def _now_and_end(self) -> tuple[int, int]:
        now = self.clock.now()
        return to_microseconds(now), to_microseconds(now + timedelta(seconds=self.seconds))


def _place(holder: str) -> tuple[str, int] | None:
    """Return machine and process of a holder; None for a name of somebody's own."""
    host, *process = holder.rsplit(":", 2)
    return (host, int(process[0])) if len(process) == 2 and process[0].isdigit() else None


def _has_died(holder: str) -> bool:
    """Return whether a holder was a process of this machine that is no more."""
    place = _place(holder)
    if place is None or place[0] != socket.gethostname():
        return False
    try:
        os.kill(place[1], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # Somebody else's.
    return False
