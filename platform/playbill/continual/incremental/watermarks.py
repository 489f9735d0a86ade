"""Which events every version has learnt from, and the right to make the next version of a model.

An event is learnt from once in a lineage. A version's own split says of each event it knew whether it learnt from it;
an update starts from the champion and takes what the champion has not learnt, whenever that arrived and however old it
is. So an event of a version that never became champion is taken again, by the update that starts from another one.

Updates are recorded in the workspace's database, beside the event journal, in one row each: from which version, which
events (`window`, a digest of their ids), how many the lineage had learnt before and has learnt after, and how far it
came. Its unique keys say that a model has one open update, and that one definition takes the same events from the same
version once. A row becomes `published`, with its version and the lineage's new count, in one statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from playbill.clock import Clock, WallClock, to_microseconds
from playbill.config import Workspace
from playbill.errors import StateError
from playbill.tables.database import create_tables, database_errors, open_database
from playbill.tables.leases import Lease, new_holder

State = Literal["started", "trained", "published", "abandoned"]
KEPT = 3  # newest updates of a model whose folders stay, so that a roll-back to one finds its optimizer
LEASE_SECONDS = 60.0  # how long others wait for an update that does not renew its lease

_metadata = sa.MetaData()
_updates = sa.Table(
    "model_updates",
    _metadata,
    sa.Column("update_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("parent_version", sa.Integer, nullable=False),
    sa.Column("parent_digest", sa.Text, nullable=False),
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("log_state", sa.Text, nullable=False),
    sa.Column("learnt_before", sa.BigInteger, nullable=False),
    sa.Column("learnt_after", sa.BigInteger, nullable=False),
    sa.Column("late", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # 1 while it is under way, else null: null is never equal to null, so a model has one that is.
    sa.Column("open", sa.Integer),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("digest", sa.Text),
    sa.Column("version", sa.Integer),
    sa.Column("started_us", sa.BigInteger, nullable=False),
    sa.Column("ended_us", sa.BigInteger),
    sa.UniqueConstraint("name", "open"),
    sa.UniqueConstraint("name", "parent_digest", "window", "definition"),
    sa.UniqueConstraint("name", "digest"),
)


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """The record of one update."""

    update_id: int
    parent_version: int
    parent_digest: str  # of the version it starts from
    window: str  # digest of the ids of the events it takes
    definition: str  # hash of the definition it was made by
    log_state: str  # digest of the event log that it saw
    learnt_before: int  # events that the lineage had learnt
    learnt_after: int  # and has learnt with this update
    late: int  # of those it takes, how many are older than what the lineage had learnt when they arrived
    state: State
    folder: str  # name of its run's folder
    digest: str | None  # of the bundle it made
    version: int | None

    @property
    def events(self) -> int:
        """The events it takes."""
        return self.learnt_after - self.learnt_before


class UpdateRecords:
    """The updates of one model.

    Every method raises ServiceError where the database does not answer; what it was to write is not written.
    """

    def __init__(self, workspace: Workspace, model: str, clock: Clock | None = None) -> None:
        self.model, self.name = model, workspace.registered_name(model)
        self._clock = clock or WallClock()
        self._engine = open_database(workspace.database_url)
        create_tables(self._engine, _metadata)

    def rows(self) -> tuple[UpdateRow, ...]:
        """Return every update, newest first."""
        query = sa.select(_updates).where(_updates.c.name == self.name).order_by(_updates.c.update_id.desc())
        with database_errors(self._engine), self._engine.connect() as connection:
            return tuple(_row(row) for row in connection.execute(query))

    def open(self) -> UpdateRow | None:
        """Return the update that was begun and has not ended."""
        return next((row for row in self.rows() if row.state in ("started", "trained")), None)

    def of_version(self, digest: str) -> UpdateRow | None:
        """Return the update that made a version, by the digest of its bundle; None for one trained afresh."""
        return next((row for row in self.rows() if row.digest == digest and row.state == "published"), None)

    def folders_kept(self, champion: str) -> set[str]:
        """Return the folders of runs that something goes on from.

        They are those of an update under way, of the newest that have ended, and of the champion, by the digest of its
        bundle: the next update carries its optimizer on.
        """
        rows = self.rows()
        ended = [row for row in rows if row.state == "published"]
        under_way = [row for row in rows if row.state in ("started", "trained")]
        return {row.folder for row in (*under_way, *ended[:KEPT], *(row for row in ended if row.digest == champion))}

    def begin(self, lease: UpdateLease, **values: Any) -> UpdateRow:
        """Write a row for an update that begins, and close one that was begun from another version.

        Raises:
            StateError: Its events were taken from this version before, or another update is under way.
        """
        now = to_microseconds(self._clock.now())
        own = {"name": self.name, "state": "started", "open": 1, "started_us": now} | values
        ended = {"state": "abandoned", "open": None, "ended_us": now}
        under_way = sa.and_(_updates.c.name == self.name, _updates.c.open == 1)
        # What was given up before it had made anything may be begun again: its events were not learnt from.
        keys = ("name", "parent_digest", "window", "definition")
        same = sa.and_(_updates.c.state == "abandoned", *(_updates.c[key] == own[key] for key in keys))
        with database_errors(self._engine), self._engine.begin() as connection:
            lease.confirm(connection)
            connection.execute(sa.update(_updates).where(under_way).values(ended))
            connection.execute(sa.delete(_updates).where(same))
            try:
                connection.execute(sa.insert(_updates).values(own))
            except DatabaseIntegrityError:
                raise StateError(
                    f"the events that '{self.model}' would be updated with were taken from version "
                    f"{own['parent_version']} by another update"
                ) from None
        found = self.open()
        assert found is not None
        return found

    def trained(self, row: UpdateRow, lease: UpdateLease, digest: str) -> None:
        """Say that an update has made its bundle."""
        self._write(row, lease, state="trained", digest=digest)

    def published(self, row: UpdateRow, lease: UpdateLease, version: int, digest: str) -> None:
        """Say that an update's version is registered: from here on its events are learnt in the version's lineage."""
        now = to_microseconds(self._clock.now())
        self._write(row, lease, state="published", digest=digest, version=version, open=None, ended_us=now)

    def _write(self, row: UpdateRow, lease: UpdateLease, **values: Any) -> None:
        own = sa.and_(_updates.c.update_id == row.update_id, _updates.c.open == 1)
        with database_errors(self._engine), self._engine.begin() as connection:
            lease.confirm(connection)
            if connection.execute(sa.update(_updates).where(own).values(values)).rowcount != 1:
                raise StateError(f"update {row.update_id} of '{self.model}' was ended by another process")


def _row(row: sa.Row[Any]) -> UpdateRow:
    return UpdateRow(**{name: getattr(row, name) for name in UpdateRow.__dataclass_fields__})


class UpdateLease(Lease):
    """The right to update one model. It is renewed while its holder works, and ends with it.

    That of a process of this machine that has died is taken over at once, any other when it was not renewed for a
    minute.
    """

    def __init__(self, workspace: Workspace, model: str, clock: Clock | None = None) -> None:
        super().__init__(
            workspace.database_url,
            f"update/{workspace.registered_name(model)}",
            new_holder(),
            clock or WallClock(),
            LEASE_SECONDS,
            purpose=f"the update of '{model}'",
            outlives_process=False,
        )
        self.model = model

    @contextmanager
    def held(self) -> Iterator[UpdateLease]:
        """Hold the lease for the length of the block.

        Raises:
            StateError: Another process holds it; it says which, and since when.
        """
        while not self.acquire():
            if (holder := self.current()) is not None:
                advice = "wait until that has ended, then run the command again"
                raise StateError(f"'{self.model}' is being updated by {holder}; {advice}")
        with self.kept():
            yield self
