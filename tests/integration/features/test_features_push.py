"""Single members' values, encoded anew and pushed to the online store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from playbill.cli.main import main
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.errors import ConfigError, StateError
from playbill.features import FeatureDoor, build_features
from playbill.features.feast_door import FeastDoor
from playbill.features.views import EVENT_COLUMNS, encode_member
from playbill.tables import Journal, Tables, workspace_clock

SERVICE = "everycanvas_v2"


@pytest.fixture
def loaded(own: Workspace) -> FeatureDoor:
    door = FeatureDoor(own)
    door.apply()
    door.materialize()
    return door


def happen(workspace: Workspace, member: str, at: datetime, title: str = "t3") -> None:
    journal = Journal(workspace.database_url, FixedClock(at + timedelta(seconds=1)))
    event = {"event_id": f"live-{member}-{at}", "member_id": member, "event_at": at, "action": "play"}
    journal.append([{**event, "title_id": title, "canvas": "home", "country": "US-MN", "progress": 1.0}])


def test_a_play_of_this_minute_counts_in_the_next_request(own: Workspace, loaded: FeatureDoor) -> None:
    now = workspace_clock(own).now() + timedelta(minutes=40)
    happen(own, "m1", now - timedelta(minutes=5))
    before = loaded.online(SERVICE, ["m1", "m2"], now)
    assert before.get_column("member_session__log_plays").to_list() == [None, None]
    report = loaded.push(["m1", "nobody"], now)
    assert (set(report.rows.values()), report.unknown) == ({1}, ("nobody",))
    after = loaded.online(SERVICE, ["m1", "m2"], now)
    row = after.row(0, named=True)
    assert row["member_session__log_plays"] == pytest.approx(0.6931, abs=1e-4)
    assert row["member_session__last_genre"] == "Drama"
    assert row["member_presence__session_minutes"] == 5.0
    assert row["member_activity__log_plays_1h"] == pytest.approx(0.6931, abs=1e-4)
    assert row["member_activity__log_plays_total"] > before.row(0, named=True)["member_activity__log_plays_total"]
    assert_frame_equal(after.tail(1), before.tail(1))


def test_what_is_pushed_is_what_training_sees_once_the_log_has_it(own: Workspace, loaded: FeatureDoor) -> None:
    now = workspace_clock(own).now() + timedelta(hours=2)
    happen(own, "m4", now - timedelta(minutes=20))
    happen(own, "m4", now - timedelta(minutes=20, microseconds=3), "t4")
    loaded.push(["m4"], now)
    served = loaded.online(SERVICE, ["m4"], now)
    tables = Tables(own)
    tables.journal.compact(tables)
    build_features(own, until=now)
    assert_frame_equal(served, loaded.member_features(SERVICE, served.select("member_id", "event_at")))


def test_an_older_push_does_not_win(own: Workspace, loaded: FeatureDoor) -> None:
    now = workspace_clock(own).now()
    before = loaded.online(SERVICE, ["m1"], now)
    loaded.push(["m1"], now - timedelta(days=20))
    assert_frame_equal(loaded.online(SERVICE, ["m1"], now), before)


def test_feasts_own_push_takes_the_same_rows(own: Workspace, loaded: FeatureDoor) -> None:
    now = workspace_clock(own).now() + timedelta(minutes=40)
    happen(own, "m1", now - timedelta(minutes=5))
    tables = Tables(own)
    states = encode_member(tables.member_events("m1").select(EVENT_COLUMNS), tables.titles(), now)
    store = FeastDoor(own).store
    for view, rows in states.items():
        store.push(f"{view}_push", pd.DataFrame(rows.to_dicts()))
    pushed = loaded.online(SERVICE, ["m1"], now)
    loaded.push(["m1"], now)
    assert_frame_equal(pushed, loaded.online(SERVICE, ["m1"], now))
    assert pushed.row(0, named=True)["member_session__log_plays"] is not None


def test_pushing_says_what_is_missing(own: Workspace) -> None:
    with pytest.raises(StateError, match="playbill -w own apply"):
        FeatureDoor(own).push(["m1"])
    door = FeatureDoor(own)
    door.apply()
    with pytest.raises(ConfigError, match="time zone"):
        door.push(["m1"], datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_the_command_pushes_and_says_what_it_wrote(own: Workspace, loaded: FeatureDoor) -> None:
    words = ["--project", str(own.project.root), "-w", "own", "features", "push", "--member", "m1", "--member", "zz"]
    result = CliRunner().invoke(main, [*words, "--json", "--at", "2024-02-20T00:00:00Z"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    assert answer["rows"] == {"member_activity": 1, "member_genres": 1, "member_session": 1}
    assert (answer["unknown"], answer["at"]) == (["zz"], datetime(2024, 2, 20, tzinfo=UTC).isoformat())
    shown = CliRunner().invoke(main, words)
    assert "member_genres" in shown.output
    assert "without events before that: zz" in shown.output
    assert isinstance(loaded.online(SERVICE, ["m1"], workspace_clock(own).now()), pl.DataFrame)
