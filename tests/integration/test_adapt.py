"""`playbill adapt` in a real project: what is registered, what it answers, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest
import yaml

from fixtures.small_project import Shell
from playbill.continual import pooling
from playbill.continual.countries import adapted_version
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.features import FeatureDoor
from playbill.features.registration import render
from playbill.ranking.scoring.bundle import read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables
from playbill.versions.tracking import Tracking

MODEL = {
    "kind": "Model",
    "name": "lean",
    "version": 1,
    "features": "everycanvas_v3",
    "canvases": ["home"],
    "rows": ["popular"],
    "history": {"length": 50},
    "trunk": {"dim": 16, "layers": 1, "heads": 2},
    "heads": {
        "discovery_play": {"label": "discovery_play", "loss": "softmax"},
        "thumbs_up": {"label": "thumbs_up", "loss": "bce", "optional": True},
        "thumbs_down": {"label": "thumbs_down", "loss": "bce", "optional": True},
    },
    "training": {"epochs": 1},
    "evaluate": {"baselines": ["popular"], "slices": ["country"]},
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory, filled, migrated_mlflow):
    """A project with a small champion."""
    folder = tmp_path_factory.mktemp("adapt") / "project"
    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, folder, ignore=left)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    shell = Shell(folder)
    render(shell.workspace)
    place = folder / "model_zoo" / "models" / "lean"
    place.mkdir()
    (place / "model.yaml").write_text(yaml.safe_dump(MODEL))
    shell.json("train", "lean")
    Tracking(shell.workspace).set_alias("lean", "champion", 1)
    return shell


def scorer(shell, version):
    workspace, tables = shell.workspace, Tables(shell.workspace)
    frames = EvaluationTables.read(tables)
    bundle = read_bundle(Tracking(workspace).download("lean", version))
    given = (frames.titles, frames.availability, FeatureDoor(workspace))
    return Scorer(bundle, *given, as_of=frames.end)


def test_countries_that_are_not_ahead_change_nothing(shell, monkeypatch):
    monkeypatch.setattr(pooling, "SIGNIFICANT", 1e9)
    found = shell.json("adapt", "lean", "--countries", "BR,NL", "--workers", "0")
    assert (found["version"], found["kept"], found["parent"]) == (None, [], "lean:1")
    reasons = {row["country"]: row["reason"] for row in found["countries"]}
    assert reasons.pop("JP") == "not asked for"
    assert set(reasons.values()) == {"no gain to expect by the validation fold"}
    assert found["change"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert [one.version for one in Tracking(shell.workspace).versions("lean")] == [1]


def test_what_is_ahead_is_one_version_that_is_the_champion_elsewhere(shell, monkeypatch):
    monkeypatch.setattr(pooling, "SIGNIFICANT", -1e9)  # what is ahead here is for others to test
    found = shell.json("adapt", "lean", "--workers", "0")
    assert (found["version"], sorted(found["kept"])) == (2, ["BR", "JP", "NL"])
    assert found["after"] != found["before"]
    tracking = Tracking(shell.workspace)
    version = tracking.version("lean", 2)
    assert version.tags["playbill.parent_version"] == "lean:1"
    assert "Weights of their own beside lean:1: " in version.description
    before, after = scorer(shell, 1), scorer(shell, 2)
    assert after.bundle.config.adaptation.type == "low_rank"
    assert after.bundle.resolved.model.adaptation.country == "low_rank"
    requests = [request_of(shell, country) for country in (None, "XX", "BR", "JP", "NL")]
    old, new = (one.score(requests)["discovery_play"] for one in (before, after))
    assert np.array_equal(old[:2], new[:2])
    assert np.abs(old[2:] - new[2:]).max(axis=1).min() > 1e-4
    numbers = tracking.evaluations(version)[0].metrics
    assert numbers["home/ndcg@10"] == pytest.approx(found["after"], abs=1e-6)


def test_run_again_there_is_nothing_to_do_until_something_changes(shell, monkeypatch):
    monkeypatch.setattr(pooling, "SIGNIFICANT", -1e9)
    versions = [one.version for one in Tracking(shell.workspace).versions("lean")]
    found = shell.json("adapt", "lean", "--workers", "0")
    reason = "lean:2 was adapted from lean:1 with the same data and options"
    assert (found["status"], found["version"]) == ("nothing to do", 2)
    assert f"nothing to do: {reason}" in shell.type("adapt", "lean", "--workers", "0").stdout
    assert [one.version for one in Tracking(shell.workspace).versions("lean")] == versions
    assert shell.json("adapt", "lean", "--workers", "0", "--rank", "2")["version"] == 3
    with monkeypatch.context() as broken:
        broken.setattr(adapted_version, "describe_version", _die)
        assert shell.type("adapt", "lean", "--workers", "0", "--rank", "3").exit_code != 0
    assert not Tracking(shell.workspace).version("lean", 4).description  # registered, and not finished
    assert shell.json("adapt", "lean", "--workers", "0", "--rank", "3")["version"] == 5
    assert shell.json("adapt", "lean", "--workers", "0", "--again")["version"] == 6


def _die(*_given):
    raise OSError("no space left on device")


def test_an_adapted_version_is_adapted_in_the_same_way_or_not_at_all(shell):
    assert "has weights of rank 4" in shell.type("adapt", "lean:2", "--rank", "2").stderr
    assert "--rank 4" in shell.type("adapt", "lean:2", "--arm", "fine_tune").stderr


def request_of(shell, country):
    from playbill.datasets import Request

    events = Tables(shell.workspace).interactions().filter(pl.col("member_id") == "m1").head(9)
    return Request("home", events["event_at"].max(), "m1", country, None, None, history=events)


def test_every_country_that_cannot_be_adapted_is_named_at_once(shell):
    result = shell.type("adapt", "lean", "--countries", "br,ZQ,JP,NX")
    assert result.exit_code != 0
    assert "lean:1 cannot be adapted: 3 problems" in result.stderr
    assert "country 'br': lean:1 knows no such country. Did you mean 'BR'?" in result.stderr
    assert "country 'ZQ': lean:1 knows no such country. Known: BR, JP, NL." in result.stderr
    assert "country 'NX'" in result.stderr


def test_other_mistakes_say_what_to_do(shell):
    assert "Did you mean 'lean'?" in shell.type("adapt", "leen").stderr
    assert "unknown version" in shell.type("adapt", "lean:9").stderr
    assert "alias" in shell.type("adapt", "lean@challenger").stderr
