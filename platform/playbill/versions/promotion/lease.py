"""Which of several controllers decides: a row with a holder and an end, taken in one statement."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import timedelta

import sqlalchemy as sa

from playbill.clock import Clock
from playbill.errors import StateError
from playbill.tables.database import create_tables, database_errors, insert_new, open_database
from playbill.tables.event_log import to_microseconds

LEASE_SECONDS = 30.0

_metadata = sa.MetaData()
_leases = sa.Table(
    "promotion_leases",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False),
)


class LeaseLostError(StateError):
    """Another controller took over while this one was deciding. Its decision was dropped."""


def new_holder() -> str:
    """Return a name for this controller that no other one has: host, process, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Lease:
    """The right to decide, for a limited time.

    Args:
        database_url: The workspace's database.
        name: What it is about, one per workspace.
        holder: Who wants it.
        clock: Real time; the clocks of controllers should agree within a few seconds.
        seconds: How long it lasts after each renewal.
    """

    def __init__(self, database_url: str, name: str, holder: str, clock: Clock, seconds: float = LEASE_SECONDS) -> None:
        self.database_url, self.name, self.holder = database_url, name, holder
        self.clock, self.seconds = clock, seconds
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The database, with the lease's table in it."""
        if self._engine is None:
            engine = open_database(self.database_url)
            create_tables(engine, _metadata)
            self._engine = engine
        return self._engine

    def acquire(self) -> bool:
        """Take or renew the lease; False when another holder's has not run out."""
        with database_errors(self.engine), self.engine.begin() as connection:
            now, end = self._now_and_end()
            free = sa.or_(_leases.c.holder == self.holder, _leases.c.expires_at_us <= now)
            values = {"holder": self.holder, "expires_at_us": end}
            update = sa.update(_leases).where(_leases.c.name == self.name, free).values(values)
            if connection.execute(update).rowcount == 1:
                return True
            return insert_new(connection, _leases, [{"name": self.name, **values}], ["name"]) == 1

    def confirm(self, connection: sa.Connection) -> None:
        """Renew the lease inside a transaction, so that what it writes is written by the holder.

        Raises:
            LeaseLostError: Another holder has it. One that ran out and was not taken is still ours.
        """
        _, end = self._now_and_end()
        ours = sa.and_(_leases.c.name == self.name, _leases.c.holder == self.holder)
        update = sa.update(_leases).where(ours).values(expires_at_us=end)
        if connection.execute(update).rowcount != 1:
            raise LeaseLostError(f"controller {self.holder} lost the lease '{self.name}' while deciding")

    def release(self) -> None:
        """Give the lease back at once, if it is ours."""
        ours = sa.and_(_leases.c.name == self.name, _leases.c.holder == self.holder)
        with database_errors(self.engine), self.engine.begin() as connection:
            connection.execute(sa.delete(_leases).where(ours))

    def current_holder(self) -> str | None:
        """Return who holds it now, None when nobody does."""
        now, _ = self._now_and_end()
        query = sa.select(_leases.c.holder).where(_leases.c.name == self.name, _leases.c.expires_at_us > now)
        with database_errors(self.engine), self.engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def _now_and_end(self) -> tuple[int, int]:
        now = self.clock.now()
        return to_microseconds(now), to_microseconds(now + timedelta(seconds=self.seconds))
