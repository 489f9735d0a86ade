"""The records of updates, and the right to make one."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from playbill.clock import FixedClock
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.continual.incremental.watermarks import UpdateLease, UpdateRecords, UpdateRow
from playbill.errors import StateError
from playbill.tables.database import open_database

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DEAD = 2**22 - 3  # no process has it


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = ProjectFolder(tmp_path, ProjectSettings()).workspace("shop")
    found.folder.mkdir(parents=True)
    return found


@pytest.fixture
def records(workspace: Workspace) -> UpdateRecords:
    return UpdateRecords(workspace, "home", FixedClock(NOW))


def begun(records: UpdateRecords, lease: UpdateLease, **changes: Any) -> UpdateRow:
    given = {"parent_version": 1, "parent_digest": "p", "window": "w", "definition": "d", "log_state": "s"}
    given |= {"learnt_before": 10, "learnt_after": 15, "late": 2, "folder": "f"}
    return records.begin(lease, **(given | changes))


def test_an_update_goes_from_started_to_published(workspace: Workspace, records: UpdateRecords) -> None:
    with UpdateLease(workspace, "home").held() as lease:
        row = begun(records, lease)
        assert records.open() == row
        assert (row.state, row.events, row.version) == ("started", 5, None)
        records.trained(row, lease, "b")
        assert records.open() is not None
        assert records.of_version("b") is None, "what is not registered has learnt nothing"
        records.published(row, lease, 2, "b")
    made = records.of_version("b")
    assert made is not None
    assert (made.state, made.version, made.learnt_after) == ("published", 2, 15)
    assert records.open() is None
    assert UpdateRecords(workspace, "other").rows() == ()


def test_the_same_events_are_taken_from_one_version_once(workspace: Workspace, records: UpdateRecords) -> None:
    with UpdateLease(workspace, "home").held() as lease:
        records.published(begun(records, lease), lease, 2, "b")
        with pytest.raises(StateError, match="were taken from version 1 by another update"):
            begun(records, lease)
        assert records.open() is None
        assert begun(records, lease, parent_digest="b", parent_version=2).parent_version == 2
        assert begun(records, lease, definition="other").definition == "other"


def test_one_update_is_open_and_one_that_is_given_up_may_be_begun_again(
    workspace: Workspace, records: UpdateRecords
) -> None:
    with UpdateLease(workspace, "home").held() as lease:
        first = begun(records, lease)
        second = begun(records, lease, parent_digest="q", parent_version=2)
        assert records.open() == second
        assert {row.update_id: row.state for row in records.rows()} == {
            first.update_id: "abandoned",
            second.update_id: "started",
        }
        with pytest.raises(StateError, match="was ended by another process"):
            records.published(first, lease, 3, "b")
        assert begun(records, lease).state == "started"
        assert [row.state for row in records.rows()] == ["started", "abandoned"]


def test_folders_of_the_newest_updates_of_the_champion_and_of_one_under_way_are_kept(
    workspace: Workspace, records: UpdateRecords
) -> None:
    with UpdateLease(workspace, "home").held() as lease:
        for number in range(6):
            row = begun(records, lease, window=f"w{number}", folder=f"f{number}")
            records.published(row, lease, 2 + number, f"b{number}")
        begun(records, lease, window="open", folder="open")
    assert records.folders_kept("b0") == {"f0", "f3", "f4", "f5", "open"}
    assert records.folders_kept("trained afresh") == {"f3", "f4", "f5", "open"}
    with UpdateLease(workspace, "home").held() as lease:
        begun(records, lease, window="other", folder="other")
    assert records.folders_kept("b5") == {"f3", "f4", "f5", "other"}, "what was given up is not kept"


def test_a_second_update_is_refused_and_told_who_and_since_when(workspace: Workspace) -> None:
    with UpdateLease(workspace, "home", FixedClock(NOW)).held():
        who = f"process {os.getpid()} on {socket.gethostname()} since 2024-05-01 12:00:00 UTC"
        with pytest.raises(StateError, match=who), UpdateLease(workspace, "home", FixedClock(NOW)).held():
            pass
        with UpdateLease(workspace, "other").held():
            pass
    with UpdateLease(workspace, "home", FixedClock(NOW)).held():
        pass


def test_the_lease_of_a_process_that_died_is_taken_over(workspace: Workspace, records: UpdateRecords) -> None:
    with UpdateLease(workspace, "home", FixedClock(NOW)).held() as lost:
        held_by(workspace, f"{socket.gethostname()}:{DEAD}:x")
        with UpdateLease(workspace, "home", FixedClock(NOW)).held() as lease:
            assert begun(records, lease).state == "started"
            with pytest.raises(StateError, match="another process has taken over the update of 'home'"):
                begun(records, lost, window="other")
            assert len(records.rows()) == 1


def test_the_lease_of_another_machine_is_taken_over_when_it_was_not_renewed(workspace: Workspace) -> None:
    with UpdateLease(workspace, "home", FixedClock(NOW)).held():
        held_by(workspace, f"elsewhere:{DEAD}:x")
        soon = FixedClock(NOW + timedelta(seconds=50))
        with pytest.raises(StateError, match="on elsewhere"), UpdateLease(workspace, "home", soon).held():
            pass
        with UpdateLease(workspace, "home", FixedClock(NOW + timedelta(seconds=70))).held():
            pass


def held_by(workspace: Workspace, holder: str) -> None:
    with open_database(workspace.database_url).begin() as connection:
        connection.execute(sa.text("UPDATE promotion_leases SET holder = :holder"), {"holder": holder})
