"""The audit of decisions and the approved pairs, in the workspace's database.

A decision is one row, written in the transaction that also writes its approval. What it changes in MLflow
(aliases, tags) follows, and only then the row is marked settled: a decision that was cut short is found
unsettled at the next poll and finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from playbill.clock import from_microseconds, to_microseconds
from playbill.config import Workspace
from playbill.tables.database import create_tables, database_errors, open_database
from playbill.tables.leases import Lease
from playbill.versions.promotion.gates import GateResult

Verdict = Literal["approved", "rejected", "alarm", "recovered"]
Kind = Literal["promotion", "rollback", "watch"]

_metadata = sa.MetaData()
_decisions = sa.Table(
    "promotion_decisions",
    _metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Integer),
    sa.Column("digest", sa.Text),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("gates", sa.Text, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False),
)
_approvals = sa.Table(
    "promotion_approvals",
    _metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("decision_id", sa.BigInteger, sa.ForeignKey(_decisions.c.id), nullable=False),
    sa.Column("approved_at_us", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
)
# Every request from Python asks these, so they are put together once.
_OLDEST_FIRST = sa.select(_approvals).where(_approvals.c.name == sa.bindparam("model")).order_by(_approvals.c.id)
_NEWEST = _OLDEST_FIRST.order_by(None).order_by(_approvals.c.id.desc()).limit(1)
_NAMES = {table: sa.select(table.c.name).distinct() for table in (_decisions, _approvals)}


@dataclass(frozen=True, slots=True)
class Approved:
    """The pair of version and digest that servers may load, when it was approved, and the run it came from."""

    version: int
    digest: str
    approved_at: datetime
    run_id: str | None = None

    @property
    def pair(self) -> tuple[int, str]:
        """Version and digest."""
        return self.version, self.digest


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the audit."""

    model: str
    version: int | None  # the version decided on; None when there was none
    digest: str | None
    verdict: Verdict  # `alarm` and `recovered` change nothing, they report
    kind: Kind  # `rollback` when the pair had been approved before
    reason: str  # one sentence for the MLflow UI and the log
    gates: tuple[GateResult, ...]
    at: datetime
    decided_by: str
    id: int = 0  # row number, 0 before it is written
    settled: bool = False  # whether MLflow shows it


class PromotionLog:
    """Decisions and approvals of one workspace. Opens the database when it is first used."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._engine: sa.Engine | None = None

    @property
    def engine(self) -> sa.Engine:
        """The database, with the tables of this room in it.

        Raises:
            ServiceError: It cannot be reached.
        """
        if self._engine is None:
            engine = open_database(self.workspace.database_url)
            create_tables(engine, _metadata)
            self._engine = engine
        return self._engine

    def approved(self, model: str) -> Approved | None:
        """Return the pair that servers may load now, None when nothing was ever approved."""
        rows = self._approvals(model, _NEWEST)
        return rows[0][0] if rows else None

    def was_approved(self, model: str, version: int, digest: str) -> bool:
        """Return whether this very pair was ever approved."""
        return any(row.pair == (version, digest) for row, _ in self._approvals(model))

    def predecessors(self, model: str) -> tuple[Approved, ...]:
        """Return the champions before the present one that a roll-back may go to, nearest first.

        A promotion is put on a stack, a roll-back takes off it what came after its target; so two
        roll-backs go two champions back, not to and fro.
        """
        stack: list[Approved] = []
        for row, kind in self._approvals(model):
            pairs = [item.pair for item in stack]
            if kind == "rollback" and row.pair in pairs:
                del stack[pairs.index(row.pair) :]
            stack.append(row)
        return tuple(reversed(stack[:-1]))

    def _approvals(self, model: str, query: sa.Select[Any] = _OLDEST_FIRST) -> list[tuple[Approved, str]]:
        with database_errors(self.engine), self.engine.connect() as connection:
            rows = connection.execute(query, {"model": self._name(model)}).all()
        return [
            (Approved(row.version, row.digest, from_microseconds(row.approved_at_us), row.run_id), row.kind)
            for row in rows
        ]

    def models(self) -> tuple[str, ...]:
        """Return the models that were ever decided on, sorted."""
        return self._names(_decisions)

    def approved_models(self) -> tuple[str, ...]:
        """Return the models that have an approved version, sorted."""
        return self._names(_approvals)

    def _names(self, table: sa.Table) -> tuple[str, ...]:
        prefix = self._name("")
        with database_errors(self.engine), self.engine.connect() as connection:
            names = connection.execute(_NAMES[table]).scalars().all()
        return tuple(sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix)))

    def record(self, decision: Decision, lease: Lease, run_id: str | None = None) -> Decision:
        """Write a decision, and its approval, in one transaction that also proves the lease it was made under is held.

        `run_id` is the run that trained an approved version; it outlives the version.

        Raises:
            LeaseLostError: Another controller has taken over. Nothing was written.
        """
        values = asdict(decision) | {
            "name": self._name(decision.model),
            "at_us": to_microseconds(decision.at),
            "gates": json.dumps([asdict(gate) for gate in decision.gates]),
        }
        row = {column.name: values[column.name] for column in _decisions.columns if column.name != "id"}
        with database_errors(self.engine), self.engine.begin() as connection:
            lease.confirm(connection)
            insert = sa.insert(_decisions).values(row).returning(_decisions.c.id)
            number = connection.execute(insert).scalar_one()
            if decision.verdict == "approved":
                approval = {name: row[name] for name in ("name", "version", "digest", "kind")}
                approval |= {"decision_id": number, "approved_at_us": row["at_us"], "run_id": run_id}
                connection.execute(sa.insert(_approvals).values(approval))
        return replace(decision, id=int(number))

    def settle(self, decision: Decision) -> None:
        """Mark that MLflow shows a decision."""
        update = sa.update(_decisions).where(_decisions.c.id == decision.id).values(settled=True)
        with database_errors(self.engine), self.engine.begin() as connection:
            connection.execute(update)

    def unsettled(self) -> tuple[Decision, ...]:
        """Return the decisions that were cut short, oldest first."""
        return self._decisions(sa.not_(_decisions.c.settled), _decisions.c.id)

    def history(self, model: str, limit: int | None = None) -> tuple[Decision, ...]:
        """Return the audit of a model, newest first."""
        return self._decisions(_decisions.c.name == self._name(model), _decisions.c.id.desc(), limit)

    def latest(self, model: str) -> Decision | None:
        """Return the newest row of a model's audit."""
        return next(iter(self.history(model, limit=1)), None)

    def _decisions(self, where: sa.ColumnElement[bool], order: Any, limit: int | None = None) -> tuple[Decision, ...]:
        query = sa.select(_decisions).where(where).order_by(order).limit(limit)
        with database_errors(self.engine), self.engine.connect() as connection:
            rows: Sequence[sa.Row[Any]] = connection.execute(query).all()
        prefix = self._name("")
        return tuple(_decision(row, prefix) for row in rows if row.name.startswith(prefix))

    def _name(self, model: str) -> str:
        return self.workspace.registered_name(model)


def _decision(row: sa.Row[Any], prefix: str) -> Decision:
    return Decision(
        model=row.name.removeprefix(prefix),
        version=row.version,
        digest=row.digest,
        verdict=row.verdict,
        kind=row.kind,
        reason=row.reason,
        gates=tuple(_gate(gate) for gate in json.loads(row.gates)),
        at=from_microseconds(row.at_us),
        decided_by=row.decided_by,
        id=row.id,
        settled=row.settled,
    )


def _gate(content: dict[str, Any]) -> GateResult:
    change = content.get("change")
    return GateResult(**content | {"change": tuple(change) if change else None})
