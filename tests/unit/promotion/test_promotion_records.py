from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from playbill.clock import FixedClock
from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.errors import ServiceError
from playbill.tables.leases import Lease, LeaseLostError
from playbill.versions.promotion.gates import GateResult
from playbill.versions.promotion.records import Decision, PromotionLog, Verdict

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
GATE = GateResult("ndcg@10 on home", "home/ndcg@10", 0.2, 0.1, 0.1, True)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return ProjectFolder(tmp_path, ProjectSettings()).workspace("ml")


@pytest.fixture
def log(workspace: Workspace) -> PromotionLog:
    return PromotionLog(workspace)


def lease(workspace: Workspace, holder: str = "a", at: datetime = NOON) -> Lease:
    return Lease(workspace.database_url, "promotion/ml", holder, FixedClock(at), 30, purpose="promotions")


def decision(
    version: int,
    verdict: Verdict = "approved",
    kind: Literal["promotion", "rollback"] = "promotion",
    model: str = "everycanvas",
) -> Decision:
    return Decision(model, version, f"d{version}", verdict, kind, "why", (GATE,), NOON, "a")


def write(log: PromotionLog, *decisions: Decision) -> None:
    held = lease(log.workspace)
    assert held.acquire()
    for item in decisions:
        log.record(item, held, run_id=f"run{item.version}")


def test_an_approval_is_what_servers_may_load(log: PromotionLog) -> None:
    assert log.approved("everycanvas") is None
    write(log, decision(1), decision(2, "rejected"), decision(3, "alarm"))
    approved = log.approved("everycanvas")
    assert approved is not None
    assert (approved.version, approved.digest, approved.approved_at, approved.run_id) == (1, "d1", NOON, "run1")
    assert log.was_approved("everycanvas", 1, "d1")
    assert not log.was_approved("everycanvas", 1, "other")
    assert not log.was_approved("everycanvas", 2, "d2")


def test_the_audit_is_kept_whole_and_newest_first(log: PromotionLog) -> None:
    write(log, decision(1), decision(2, "rejected"))
    newest, oldest = log.history("everycanvas")
    assert (newest.verdict, oldest.verdict) == ("rejected", "approved")
    assert newest.gates == (GATE,)
    assert newest.at == NOON
    assert log.models() == ("everycanvas",)


def test_unsettled_decisions_are_found_until_they_are_settled(log: PromotionLog) -> None:
    write(log, decision(1), decision(2, "rejected"))
    first, second = log.unsettled()
    log.settle(first)
    assert log.unsettled() == (second,)


def test_workspaces_and_models_in_one_database_stay_apart(tmp_path: Path) -> None:
    services = ServicesSettings(database="sqlite:///shared.db")
    project = ProjectFolder(tmp_path, ProjectSettings(services=services))
    ours, theirs = PromotionLog(project.workspace("ml")), PromotionLog(project.workspace("kuairand"))
    write(ours, decision(1))
    assert theirs.approved("everycanvas") is None
    assert theirs.unsettled() == ()
    assert theirs.models() == ()
    assert ours.approved("other") is None


def test_predecessors_are_a_stack(log: PromotionLog) -> None:
    def before() -> list[int]:
        return [item.version for item in log.predecessors("everycanvas")]

    assert before() == []
    write(log, decision(1), decision(2), decision(3))
    assert before() == [2, 1]
    write(log, decision(2, kind="rollback"))
    assert before() == [1]
    write(log, decision(3, kind="rollback"))
    assert before() == [2, 1]
    write(log, decision(1, kind="rollback"))
    assert before() == []


def test_a_controller_that_lost_its_lease_writes_nothing(log: PromotionLog) -> None:
    late = lease(log.workspace, "a")
    assert late.acquire()
    assert lease(log.workspace, "b", NOON + timedelta(minutes=1)).acquire()
    with pytest.raises(LeaseLostError):
        log.record(decision(1), late)
    assert log.approved("everycanvas") is None
    assert log.history("everycanvas") == ()


def test_a_lease_that_ran_out_and_was_not_taken_still_counts(log: PromotionLog) -> None:
    slow = lease(log.workspace, "a")
    assert slow.acquire()
    slow.clock = FixedClock(NOON + timedelta(minutes=5))
    log.record(decision(1), slow)
    assert log.approved("everycanvas") is not None


def test_a_database_that_is_none_is_a_service_error(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database" * 100)
    services = ServicesSettings(database="sqlite:///broken.db")
    workspace = ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace("ml")
    with pytest.raises(ServiceError, match=r"broken\.db"):
        PromotionLog(workspace).approved("everycanvas")
