"""An ensemble of registered versions: learnt, registered, measured, promoted and asked like a model."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from fixtures.small_project import Shell
from playbill.continual.ensembles.members import unchanged_ensemble
from playbill.definitions.specs import EnsembleSpec
from playbill.features.registration import render
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables
from playbill.versions.promotion.members import judge_members
from playbill.versions.tracking import Evaluation, Tracking

MODEL = {
    "kind": "Model",
    "version": 1,
    "features": "everycanvas_v3",
    "canvases": ["home"],
    "rows": ["popular"],
    "history": {"length": 50},
    "trunk": {"dim": 16, "layers": 1, "heads": 2},
    "heads": {
        "discovery_play": {"label": "discovery_play", "loss": "softmax", "terms": ["popular_7d"]},
        "thumbs_up": {"label": "thumbs_up", "loss": "bce", "optional": True},
        "thumbs_down": {"label": "thumbs_down", "loss": "bce", "optional": True},
    },
    "training": {"epochs": 1},
    "evaluate": {"baselines": ["popular"], "slices": ["country"], "minimum_members": 5},
}
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "countries.md"


def ensemble_of_the_guide():
    """Return the definition that the guide prints, over the models that are here."""
    (block,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "Ensemble" in block
    ]
    for printed, here in (("everycanvas", "global"), ("foundation@champion", "taste:1"), ("next_play", "home")):
        assert printed in block
        block = block.replace(printed, here)
    return yaml.safe_load(block.replace("foundation:", "taste:"))


ENSEMBLE = ensemble_of_the_guide()


class SpoiltEvaluation(Evaluation):
    """The same requests with a tenth of the metric on each."""

    def __init__(self, own):
        metrics = {name: value / 10 for name, value in own.metrics.items()}
        values = {field.name: getattr(own, field.name) for field in fields(own)}
        super().__init__(**{**values, "metrics": metrics})

    def requests(self, canvas):
        frame = Evaluation.requests(self, canvas)
        return None if frame is None else frame.with_columns(frame["ndcg@10"] / 10)


def define(shell, name, **changes):
    folder = shell.folder / "model_zoo" / "models" / name
    folder.mkdir(exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump({**MODEL, "name": name, **changes}))


def define_ensemble(shell, **changes):
    folder = shell.folder / "model_zoo" / "ensembles"
    folder.mkdir(exist_ok=True)
    (folder / "everywhere.yaml").write_text(yaml.safe_dump({**ENSEMBLE, **changes}))


@pytest.fixture(scope="module")
def members(tmp_path_factory, filled, migrated_mlflow):
    """A project with two registered models, one of which is champion, and an ensemble's definition over them."""
    folder = tmp_path_factory.mktemp("ensemble") / "project"
    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, folder, ignore=left)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    shell = Shell(folder)
    render(shell.workspace)
    define(shell, "global")
    define(shell, "taste", trunk={"dim": 8, "layers": 1, "heads": 2})
    for name in ("global", "taste"):
        shell.json("train", name)
    Tracking(shell.workspace).set_alias("global", "champion", 1)
    define_ensemble(shell)
    return shell


def test_everything_wrong_with_members_is_named_together_and_nothing_is_registered(members):
    named = {
        "global": "global@champion",
        "taste": "taste@champion",
        "later": "global:7",
        "trending": {"term": "popular_7d"},
    }
    define_ensemble(members, members=named)
    result = members.type("ensemble", "everywhere")
    assert result.exit_code == 1
    message = result.stderr.partition("error: ")[2]
    assert message.startswith("ensemble 'everywhere': 2 problems"), message
    assert "members.taste: taste@champion: unknown alias of model 'taste' 'champion'" in message
    assert "members.later: global:7: unknown version of model 'global' '7'" in message
    assert Tracking(members.workspace).versions("everywhere") == ()
    named = {
        "global": "global@champion",
        "taste": {"model": "taste", "countries": ["NL", "BE"]},
        "local": {"term": "popularity", "countries": ["JPN"]},
    }
    define_ensemble(members, members=named)
    result = members.type("ensemble", "everywhere")
    assert "members.taste.countries: global:1 knows no country 'BE'." in result.stderr
    assert "members.local.countries: global:1 knows no country 'JPN'. Did you mean 'JP'?" in result.stderr
    define_ensemble(members, members={"global": "global@champion", "odd": "everywere"})
    members.refused("ensemble", "everywhere", match="unknown model 'everywere'")
    members.refused("ensemble", "everywere", match="unknown ensemble 'everywere'. Did you mean 'everywhere'")
    members.refused("ensemble", "everywhere:2", match="names a registered version")
    define_ensemble(members)


def test_an_ensemble_is_registered_measured_promoted_and_asked_like_a_model(members):
    found = members.json("ensemble", "everywhere")
    assert found["members"]["global"] == "global:1"
    assert found["members"]["local"] == "popularity"
    assert [one["role"] for one in found["folded"]] == ["taste"]
    assert found["canvases"]["home"]["ndcg@10"] > 0
    assert {one["group"] for one in found["gains"]} >= {"home", "all"}

    tracking = Tracking(members.workspace)
    version = tracking.resolve("everywhere")
    bundle = read_bundle(tracking.download("everywhere", 1), version.digest)
    pinned = {role: tracking.version(role, 1).digest for role in ("global", "taste")}
    assert {role: one["digest"] for role, one in bundle.extra["members"].items()} == pinned
    assert version.tags["playbill.members"] == "global=global:1,taste=taste:1"
    assert version.tags["playbill.parent_version"] == "global:1"
    weights = bundle.network().ensemble.weights
    assert weights.min() >= 0
    assert not weights[:, :, 0].any(), "an unknown country has the base"

    again = members.json("ensemble", "everywhere")
    assert (again["status"], again["version"]) == ("nothing to do", 1)
    assert again["members"] == found["members"]
    changed = ENSEMBLE | {"description": "Another one."}
    spec = EnsembleSpec.model_validate({key: value for key, value in changed.items() if key != "kind"})
    snapshot = Tables(members.workspace).snapshot_id()
    assert unchanged_ensemble(spec, tracking, snapshot) is None
    assert unchanged_ensemble(bundle.resolved.ensemble, tracking, "other data") is None
    tracking.describe("everywhere", 1, "")  # as it is where the run was killed before its end
    assert unchanged_ensemble(bundle.resolved.ensemble, tracking, snapshot) is None
    tracking.describe("everywhere", 1, version.description)

    promoted = members.json("promote", "everywhere:1")
    assert promoted["verdict"] == "approved", promoted
    against = {gate["gate"].partition(" against ")[2] for gate in promoted["gates"]}
    assert {"global (global:1), +0%, significant", "global (global:1), -2%, significant"} <= against
    answer = members.json("recommend", "--member", "m1", "--canvas", "home", "--no-rows", "-k", "3")
    assert (answer["model"], len(answer["items"])) == ("everywhere", 3)


def test_a_version_that_is_worse_than_a_member_is_refused(members):
    tracking = Tracking(members.workspace)
    folder, own = tracking.download("everywhere", 1), tracking.evaluations(tracking.version("everywhere", 1))
    spoilt = [SpoiltEvaluation(one) for one in own]
    failed = [one for one in judge_members(folder, spoilt, tracking) if not one.passed]
    assert {one.gate.partition(" against ")[2] for one in failed} >= {"global (global:1), +0%, significant"}
    assert "significantly below" in failed[0].reason
    assert all(one.passed for one in judge_members(folder, own, tracking))
