"""`playbill experiment ab`: registered versions in a simulated workspace, by the command, into a real MLflow."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.config import ProjectFolder, shipped_folder
from playbill.datasets import make_split
from playbill.definitions.zoo import load_zoo
from playbill.tables import Tables
from playbill.versions.tracking import Tracking
from playbill_lab.ab import experiment as served_ab
from playbill_lab.ab.experiment import SIMULATED_AB
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.simulated_log import fit_model
from playbill_lab.simulator import World, load_policy, simulate
from playbill_lab.simulator.world.checkpoint import save_world
from playbill_lab.studies.objective.arms import StudyOptions, StudyRecipe, study_model
from playbill_lab.studies.objective.study import write_log


class Simulated:
    """A simulated workspace with three versions of a lean model, and the commands as a user types them."""

    def __init__(self, folder, world: World) -> None:
        self.folder, self.world = folder, world
        self.workspace = ProjectFolder.find(folder).workspace("simulated")

    def type(self, *arguments, workspace="simulated"):
        line = ["--project", str(self.folder), "-w", workspace, "experiment", *map(str, arguments)]
        return CliRunner().invoke(main, line)

    def refused(self, *arguments, **options):
        """Run a command that fails with one message, and return the message."""
        result = self.type(*arguments, **options)
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        return result.stderr.partition("error: ")[2]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, migrated_mlflow):
    folder = tmp_path_factory.mktemp("simulated")
    text = 'workspace = "simulated"\n[workspaces.simulated]\n[workspaces.empty]\n'
    (folder / "playbill.toml").write_text(text)
    log = write_log(StudyOptions(members=80, titles=40, log_days=14), seed=3)
    found = Simulated(folder, log.world)
    workspace = found.workspace
    workspace.folder.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, workspace.mlflow_uri.removeprefix("sqlite:///"))
    with Tables(workspace).replace() as writer:
        simulate(log.world, load_policy(log.world.spec.policy), writer=writer)
    save_world(workspace.folder, log.world.spec)
    tracking, zoo = Tracking(workspace), load_zoo(shipped_folder("model_zoo"))
    split = make_split("global_time_successive", log.interactions())
    for seed, reward in enumerate(("click_like", "long_term")):
        recipe = StudyRecipe(epochs=1, min_steps=2, history=10, seed=seed)
        fit_model(log, study_model(zoo, reward, "small", recipe), split, NoFeatures(), folder / reward)
        with tracking.start_run("lean", reward) as run:
            tracking.register(run, folder / reward, "lean", {})
    tracking.set_alias("lean", "champion", 1)
    return found


@pytest.fixture(autouse=True)
def lean(monkeypatch):
    """The models read no features, so no registry is needed."""
    monkeypatch.setattr(served_ab, "FeastDoor", lambda _workspace: None)
    monkeypatch.setattr(served_ab, "LiveFeatures", lambda *_tables: NoFeatures())


def test_versions_meet_and_the_result_is_kept_with_them(simulated, tmp_path):
    picture, whole = tmp_path / "ab.svg", tmp_path / "ab.json"
    files = ("--plot", picture, "--report", whole)
    result = simulated.type(
        "ab", "lean@champion", "lean:2", "--other-policies", "popular", "--days", 2, "--members", 60, *files, "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert list(found["arms"]) == ["lean@champion", "lean:2", "popular"]
    assert found["versions"]["lean@champion"]["version"] == "lean:1"
    assert found["days"] == 2
    assert found["members"] <= 60
    assert found["arms"]["popular"]["value"]["p_adjusted"] <= 1.0
    assert found["answered"]["lean:2"]["model"] > 0
    assert json.loads(whole.read_text())["arms"] == found["arms"]
    assert "lean:2" in picture.read_text()
    tracking = Tracking(simulated.workspace)
    assert [tracking.version("lean", one).tags[SIMULATED_AB] for one in (1, 2)] == [found["run_id"]] * 2
    run = tracking.start_run("experiments", "again", resume=found["run_id"])
    with run as handle:
        client = handle.connection.client
        kept = client.get_run(handle.run_id).data
        folders = ("tables", "figures", "simulated_ab")
        stored = {item.path for folder in folders for item in client.list_artifacts(handle.run_id, folder)}
    assert kept.tags["playbill.arms"] == "lean@champion, lean:2, popular"
    assert kept.tags["playbill.arm.lean:1"] == found["versions"]["lean@champion"]["digest"]
    assert kept.metrics["lean:1/value"] == pytest.approx(found["arms"]["lean@champion"]["value"]["mean"])
    gap = kept.metrics["lean:2/value/difference"]
    assert gap == pytest.approx(found["arms"]["lean:2"]["value"]["difference"])
    assert stored == {"tables/simulated_ab.json", "figures/simulated_ab.png", "simulated_ab/report.json"}


def test_mistakes_are_named_and_nothing_is_run(simulated, monkeypatch):
    monkeypatch.setattr(served_ab, "simulated_ab", lambda *_a, **_o: pytest.fail("it ran"))
    assert "two policies at least, got 1" in simulated.refused("ab", "lean")
    assert "Did you mean 'lean'?" in simulated.refused("ab", "lean:1", "leen")
    assert "lean@champion and lean:1 are the same version" in simulated.refused("ab", "lean@champion", "lean:1")
    assert "Did you mean 'popular'?" in simulated.refused("ab", "lean:1", "--other-policies", "populr")
    assert "the world has 80 members" in simulated.refused("ab", "lean:1", "lean:2", "--members", 81)
    progress = simulated.refused("ab", "lean:1", "lean:2", workspace="empty")
    assert "'empty' has no simulated world; run `playbill -w empty simulate`" in progress


def test_a_model_whose_features_have_changed_is_refused(simulated, monkeypatch):
    class Changed(NoFeatures):
        def schema(self, service):
            return super().schema(service).__class__(service, (), "another")

    monkeypatch.setattr(served_ab, "LiveFeatures", lambda *_tables: Changed())
    progress = simulated.refused("ab", "lean:1", "lean:2", "--days", 1)
    assert "lean:1 was trained with version without columns of feature service 'none'" in progress


def test_a_study_is_a_command(simulated, tmp_path):
    sizes = ("--members", 60, "--titles", 30, "--log-days", 14, "--test-members", 40, "--test-days", 1)
    models = ("--objectives", "click_like", "--capacities", "small", "--epochs", 1, "--min-steps", 1)
    shutil.copytree(shipped_folder("model_zoo"), simulated.folder / "model_zoo", dirs_exist_ok=True)
    result = simulated.type(
        "objective-before-capacity", *sizes, *models, "--seeds", 4, "--folder", tmp_path / "kept", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert list(found["models"]) == ["click_like_small"]
    assert found["seeds"] == [4]
    assert found["run_id"]
    assert len(list((tmp_path / "kept").glob("*.parquet"))) == 4
    assert "'x' is no number" in simulated.type("objective-before-capacity", "--seeds", "1,x").output
    progress = simulated.refused("objective-before-capacity", "--objectives", "click_lik")
    assert "Did you mean 'click_like'?" in progress
