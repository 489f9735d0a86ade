"""`playbill parity`: faithful serving passes, and every fault that is put in is found, with its cause."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from fixtures.parity_world import DAY, HOUR, LIVE, MEMBERS, START, answer, live, new_workspace, random_events, record
from fixtures.rewritten_parts import rewrite_part
from playbill.cli.main import main
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.errors import DataError, StateError
from playbill.features import FeatureDoor, ParityReport, build_features, members
from playbill.tables import RequestLog

SERVICE = "everycanvas_v2"
REQUESTED = START + 30 * DAY
LATER = REQUESTED + 10 * DAY
EVENTS = random_events(seed=4, count=150)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that lived up to ASKED and answered a request of every member, one unknown and nobody."""
    root = tmp_path_factory.mktemp("answered")
    workspace = new_workspace(root)
    door = live(workspace, EVENTS, REQUESTED)
    answer(workspace, door, SERVICE, [*MEMBERS, "nobody", None], REQUESTED)
    return root


@pytest.fixture
def workspace(answered: Path, tmp_path: Path) -> Workspace:
    """The same, of the test's own."""
    shutil.copytree(answered, tmp_path / "own")
    settings = ProjectSettings(workspaces=LIVE)
    (tmp_path / "own" / "playbill.toml").write_text('[workspaces.live]\nclock = "wall"\n')
    return ProjectFolder(tmp_path / "own", settings).workspace("live")


def parity(workspace: Workspace, *options: str) -> Result:
    return CliRunner().invoke(main, ["--project", str(workspace.project.root), "-w", "live", "parity", *options])


def causes(report: ParityReport) -> dict[str, set[str]]:
    return {view.view: set(view.causes) for view in report.views if view.different}


def one_play(member: str, event_at, recorded_at) -> pl.DataFrame:
    moments = pl.DataFrame({"event_at": [event_at], "recorded_at": [recorded_at]}).cast(pl.Datetime("us", "UTC"))
    given = {"event_id": "extra", "member_id": member, "action": "play", "title_id": "t3", "progress": 1.0}
    columns = [pl.lit(value).alias(name) for name, value in given.items()]
    row = moments.with_columns(*columns, pl.lit(10_000).alias("seq"), canvas=pl.lit("home"), country=pl.lit("DE"))
    return row.select(pl.col(name).cast(kind) for name, kind in EVENTS.schema.items())


def test_what_was_served_is_regenerated_from_a_log_that_has_grown(workspace: Workspace) -> None:
    live(workspace, EVENTS, LATER)
    done = parity(workspace, "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, report["requests"], report["different"]) == (0, 5, 0)
    views = {view["view"]: view for view in report["views"]}
    assert {"member_activity", "member_profile", "member_genres", "member_session", "request_time"} <= views.keys()
    assert all(view["equal"] == view["compared"] > 0 for view in views.values())
    assert "different" in parity(workspace).stdout


def test_an_event_that_is_recorded_after_serving_is_found(workspace: Workspace) -> None:
    late = one_play("42", REQUESTED - 2 * HOUR, REQUESTED + HOUR)
    live(workspace, pl.concat([EVENTS, late]), LATER)
    report = FeatureDoor(workspace).parity()
    assert report.requests_different == 1
    assert causes(report)["member_activity"] == {"recorded later"}
    found = next(view for view in report.views if view.view == "member_activity").examples[0]
    assert (found.member_id, found.at.date()) == ("42", REQUESTED.date())
    assert found.served != found.regenerated
    done = parity(workspace)
    assert done.exit_code == 1
    assert "recorded later" in " ".join(done.stdout.split())


def test_a_row_that_is_stamped_before_its_event_is_found(workspace: Workspace) -> None:
    soon = one_play("7", REQUESTED + 2 * HOUR, REQUESTED + 2 * HOUR)
    live(workspace, pl.concat([EVENTS, soon]), LATER)
    assert FeatureDoor(workspace).parity().different == 0
    for path in (workspace.features / "member_activity.parquet").glob("[!_.]*.parquet"):
        leaking = pl.read_parquet(path).with_columns(pl.col("event_timestamp") - timedelta(hours=3))
        rewrite_part(path, leaking)
    report = FeatureDoor(workspace).parity()
    assert "member_activity" in causes(report)
    by_member = {found.member_id: found for view in report.views for found in view.examples}
    assert "7" in by_member
    assert by_member["7"].cause == "recorded later"


@pytest.mark.parametrize("change", ["window", "formula"])
def test_an_encoder_that_computes_something_else_is_found(
    workspace: Workspace, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "window":
        shorter = replace(members.ACTIVITY_WINDOWS["plays_30d"], length=timedelta(days=4))
        monkeypatch.setitem(members.ACTIVITY_WINDOWS, "plays_30d", shorter)
    else:
        monkeypatch.setattr(members, "log_count", lambda column: pl.col(column).cast(pl.Float32).sqrt())
    record(workspace, EVENTS, LATER)
    build_features(workspace, full=True, until=LATER)
    report = FeatureDoor(workspace).parity()
    assert causes(report)["member_activity"] == {"unexplained"}
    assert report.requests_different == len(MEMBERS)


def test_values_that_were_loaded_too_long_ago_are_stale(workspace: Workspace) -> None:
    record(workspace, EVENTS, LATER)
    build_features(workspace, until=LATER)
    answer(workspace, FeatureDoor(workspace), SERVICE, MEMBERS, LATER)
    report = FeatureDoor(workspace).parity()
    assert set().union(*causes(report).values()) == {"stale"}
    assert report.requests_different == len(MEMBERS)
    earlier = FeatureDoor(workspace).parity(until=LATER)
    assert (earlier.requests, earlier.different) == (5, 0)
    assert FeatureDoor(workspace).parity(since=LATER).requests == 3
    assert FeatureDoor(workspace).parity(sample=2, seed=1).requests == 2


def test_a_value_from_after_its_request_is_found(workspace: Workspace) -> None:
    log = RequestLog(workspace.database_url)
    logged = log.requests().filter(pl.col("member_id") == "42").row(0, named=True)
    log.write({**logged, "request_id": "clock-set-back", "at": REQUESTED - 10 * DAY}, [])
    report = FeatureDoor(workspace).parity(until=REQUESTED)
    assert report.requests == 1
    assert set().union(*causes(report).values()) == {"from the future"}


def test_requests_without_features_are_counted_and_nothing_to_compare_is_an_error(workspace: Workspace) -> None:
    log = RequestLog(workspace.database_url)
    logged = log.requests().row(0, named=True)
    empty = json.dumps({"service": None, "features": {}, "values_at": None})
    log.write({**logged, "request_id": "by-fallback", "facts": empty, "facts_version": None}, [])
    assert FeatureDoor(workspace).parity().unanswered == 1
    with pytest.raises(StateError, match="0 logged requests of that time"):
        FeatureDoor(workspace).parity(since=LATER + 100 * DAY)
    assert parity(workspace, "--since", "2030-01-01T00:00:00Z").exit_code == 1


def test_columns_that_came_or_went_since_are_named_and_not_compared(workspace: Workspace) -> None:
    log = RequestLog(workspace.database_url)
    logged = log.requests().filter(pl.col("member_id") == "42").row(0, named=True)
    facts = json.loads(logged["facts"])
    facts["features"]["member_activity__mood"] = facts["features"].pop("member_activity__log_plays_7d")
    changed = {**logged, "request_id": "older", "facts": json.dumps(facts), "facts_version": "f0"}
    log.write({**changed, "at": LATER}, [])
    report = FeatureDoor(workspace).parity(since=LATER)
    assert report.only_logged == ("member_activity__mood",)
    assert report.only_registered == ("member_activity__log_plays_7d",)


def test_facts_that_cannot_be_read_are_named(workspace: Workspace) -> None:
    log = RequestLog(workspace.database_url)
    logged = log.requests().row(0, named=True)
    log.write({**logged, "request_id": "torn", "facts": logged["facts"][:-40]}, [])
    with pytest.raises(DataError, match=r"logged requests(?s:.*)torn: its facts cannot be read as JSON"):
        FeatureDoor(workspace).parity()
