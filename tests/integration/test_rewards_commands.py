"""`playbill rewards`: what is shipped, explained; delayed terms of a simulated service, told by age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from playbill.cli.main import Selection
from playbill.cli.rewards import rewards
from playbill.config import ProjectFolder
from playbill.definitions.specs import reward_version
from playbill.definitions.zoo import load_zoo
from playbill.errors import StateError, UnknownNameError
from playbill.tables import Tables
from playbill_lab.simulator import World, WorldSpec, simulate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the shipped zoo and the log of a small simulated service."""
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "playbill.toml").write_text('workspace = "simulated"\n')
    (folder / "model_zoo").symlink_to(ROOT / "model_zoo")
    with Tables(ProjectFolder.find(folder).workspace("simulated")).replace() as writer:
        simulate(World.make(WorldSpec(members=250, titles=80, days=42, seed=4)), writer=writer)
    return folder


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(rewards, list(words), obj=Selection(project, "simulated"), catch_exceptions=True)


def last(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output + repr(result.exception)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_explain_tells_what_each_term_counts(project: Path) -> None:
    (long_term,) = last(run(project, "explain", "--reward", "long_term", "--json"))["rewards"]
    assert long_term["id"] == reward_version(*load_zoo(ROOT / "model_zoo").reward("long_term"))
    assert long_term["final_after"] == "8d"
    terms = {term["label"].partition(":")[0]: term for term in long_term["terms"]}
    assert terms["completion"]["delayed"]
    assert terms["completion"]["of"] == ["play"]
    assert terms["thumbs_up"]["counts_for"] == "the title's latest play before it within 7 days"
    assert (terms["discovery_play"]["weight"], terms["discovery_play"]["otherwise"]) == (0.0, -0.05)
    shown = run(project, "explain").stdout
    assert "click_like:1:" in shown
    assert "no model uses it" in shown


def test_delayed_terms_are_told_by_age(project: Path, tmp_path: Path) -> None:
    picture = tmp_path / "ages.svg"
    found = last(run(project, "delayed", "long_term", "--json", "--plot", str(picture)))
    assert set(found["improves"]) == {"completion", "quick_abandon", "returned_within_7d"}
    rows = [row for row in found["rows"] if row["term"] == "completion"]
    assert [row["age_h"] for row in rows] == sorted({row["age_h"] for row in rows})
    assert rows[-1]["age_h"] == pytest.approx(0.95 * 8 * 24)
    assert rows[-1]["log_loss"] < 0.5 * rows[0]["log_loss"] < 0.5 * rows[0]["base_log_loss"]
    assert rows[-1]["auc"] > 0.95
    assert picture.read_text().count("calibration error") == 1


def test_mistakes_in_arguments_are_named(project: Path) -> None:
    result = run(project, "delayed", "long_terms")
    assert isinstance(result.exception, UnknownNameError)
    assert "Did you mean 'long_term'" in str(result.exception)
    without = run(project, "delayed", "click_like")
    assert isinstance(without.exception, StateError)
    assert "no delayed term" in str(without.exception)
    late = run(project, "delayed", "long_term", "--split", "2025-02-16T00:00:00Z")
    assert isinstance(late.exception, StateError)
    assert "split earlier" in str(late.exception)
