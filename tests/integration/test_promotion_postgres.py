"""Lease and records on Postgres."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from playbill.clock import FixedClock
from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.tables.leases import Lease, LeaseLostError
from playbill.versions.promotion.records import Decision, PromotionLog

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path, postgres_url: str) -> Workspace:
    services = ServicesSettings(database=postgres_url)
    return ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace(f"w{uuid4().hex[:8]}")


def lease(workspace: Workspace, holder: str) -> Lease:
    return Lease(
        workspace.database_url, f"promotion/{workspace.name}", holder, FixedClock(NOON), 30, purpose="promotions"
    )


def test_decisions_and_approvals_round_trip(workspace: Workspace) -> None:
    log, held = PromotionLog(workspace), lease(workspace, "a")
    assert held.acquire()
    written = log.record(Decision("m", 1, "d", "approved", "promotion", "why", (), NOON, "a"), held, "run")
    approved = log.approved("m")
    assert approved is not None
    assert (approved.pair, approved.approved_at, approved.run_id) == ((1, "d"), NOON, "run")
    assert log.unsettled() == (written,)
    log.settle(written)
    assert log.unsettled() == ()
    with pytest.raises(LeaseLostError):
        log.record(written, lease(workspace, "b"))


def test_one_of_many_takes_the_lease(workspace: Workspace) -> None:
    taken: list[str] = []
    gate = threading.Barrier(8)

    def work(holder: str) -> None:
        mine = lease(workspace, holder)
        gate.wait()
        if mine.acquire():
            taken.append(holder)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
