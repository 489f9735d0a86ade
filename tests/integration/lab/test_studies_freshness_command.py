"""`playbill freshness` on a small log: the replay, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from playbill.cli.main import Selection
from playbill.errors import ProblemsError, StateError
from playbill.tables import Tables
from playbill_lab.cli.freshness import freshness
from playbill_lab.studies.freshness import versions

if TYPE_CHECKING:
    from fixtures.small_project import Playbill

SMALL = (
    "--dim",
    "8",
    "--epochs",
    "1",
    "--min-steps",
    "10",
    "--resamples",
    "100",
    "--threads",
    "1",
    "--no-log",
    "--json",
)
DAYS = 6


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of finished versions."""
    return tmp_path_factory.mktemp("freshness")


def study(project: Playbill, folder: Path, *arguments: str) -> Result:
    selection = Selection(project.folder, project.workspace)
    given = ["everycanvas", *SMALL, "--days", str(DAYS), "--cadences", "never,3d,1d", "--folder", str(folder)]
    return CliRunner().invoke(freshness, [*given, *arguments], obj=selection)


def found(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def first(filled: Playbill, kept: Path) -> dict[str, Any]:
    return found(study(filled, kept, "--plots", str(kept / "plots")))


def test_cadences_answer_the_same_requests_and_learn_every_event_once(first: dict[str, Any], filled: Playbill) -> None:
    whole = first["cadences"][0]
    assert list(whole["quality"]) == ["never", "3d", "1d"]  # the slowest first
    assert whole["requests"] == sum(day["requests"] for day in first["by_day"])
    costs = {cost["cadence"]: cost for cost in first["costs"]}
    assert [costs[name]["updates"] for name in ("never", "3d", "1d")] == [0, 1, DAYS - 1]
    events = Tables(workspace_of(filled)).interactions()["event_at"]
    start = pl.Series([first["start"]]).str.to_datetime(time_zone="UTC")[0]
    for name, days in (("3d", 3), ("1d", DAYS - 1)):
        assert costs[name]["events"] == ((events >= start) & (events < start + timedelta(days=days))).sum()


def test_before_the_first_update_every_cadence_answers_alike(first: dict[str, Any]) -> None:
    day = first["by_day"][0]
    assert day["day"] == 0
    assert day["never"] == day["1d"] == day["3d"]
    assert any(row["never"] != row["1d"] for row in first["by_day"][1:])


def test_ages_are_compared_on_the_days_that_all_of_them_reach(first: dict[str, Any]) -> None:
    whole = first["staleness"][0]
    assert list(whole["quality"]) == ["0", "1", "2", "4"]
    assert whole["requests"] == sum(day["requests"] for day in first["by_day"] if day["day"] >= 4)
    steps = [step["value"] for step in whole["step"].values()]
    gap = whole["quality"]["0"]["value"] - whole["quality"]["4"]["value"]
    assert np.isclose(sum(steps), gap)
    assert first["monotone"] == all(step["interval"][1] >= 0 for step in whole["step"].values())


def test_what_is_finished_is_not_trained_again(first: dict[str, Any], filled: Playbill, kept: Path) -> None:
    result = study(filled, kept, "--plots", str(kept / "plots"))
    assert "trained-" not in result.stderr
    assert "updated-" not in result.stderr
    assert found(result) == first
    assert {path.name for path in (kept / "plots").iterdir()} == {"freshness_staleness.png", "freshness_cadences.png"}


def test_the_long_tail_before_and_after_updates_and_a_title_that_surges(
    filled: Playbill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day is a step or two of this log, which moves no title past another: ten passes do.
    own, longer = versions.update_settings, {"learning_rate": 1e-3, "title_rate": 300.0, "epochs": 10}
    monkeypatch.setattr(versions, "update_settings", lambda *given: own(*given).model_copy(update=longer))
    parts = ("--parts", "forgetting,launches,surge", "--updates", "2", "--replays", "0,0.5")
    result = found(study(filled, tmp_path, *parts, "--cadences", "never,3d"))
    courses = {one["cadence"]: one for one in result["surge"]}
    assert courses["never"]["hours"] == [0.0]
    assert courses["3d"]["hours"] == [0.0, 72.0]
    assert courses["3d"]["places"][0] == courses["never"]["places"][0]
    assert courses["3d"]["places"][1] < courses["3d"]["places"][0]  # it rises
    assert result["launches"] == {}
    assert "no title that launched" in result["skipped"][0]
    assert [one["replay"] for one in result["forgotten"]] == [0.0, 0.5]
    for one in result["forgotten"]:
        sizes = {group["group"]: group["requests"] for group in one["groups"]}
        assert sizes["all"] >= sizes.get("tail", 0) >= sizes.get("untouched", 0)


def test_what_makes_no_study_is_refused_with_every_mistake(filled: Playbill, tmp_path: Path) -> None:
    wrong = ("--parts", "cadence", "--cadences", "5x,30d,1d,1d", "--replays", "1.5")
    error = study(filled, tmp_path, *wrong).exception
    assert isinstance(error, ProblemsError)
    for text in ("no part 'cadence'", "'5x' is no cadence", "'30d' must be", "'1d' is there twice", "1.5 is no share"):
        assert text in str(error), text
    short = study(filled, tmp_path, "--days", "400").exception
    assert isinstance(short, StateError)
    assert "400 of them are replayed" in str(short)
    assert "each must be a number" in study(filled, tmp_path, "--replays", "a").output
    assert list(tmp_path.iterdir()) == []


def workspace_of(project: Playbill) -> Any:
    return Selection(project.folder, project.workspace).workspace
