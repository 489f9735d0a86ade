"""One id of a reward, from the weights of a loss to the gate: a real training on a small simulated service."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from fixtures.small_project import Shell, start
from playbill.definitions.specs import LabelSpec, RewardSpec, reward_version
from playbill.definitions.zoo import load_zoo
from playbill.evaluation import EvaluationReport
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.off_policy.evaluate import reward_outcome
from playbill.tables import Tables
from playbill.versions.tracking import Tracking
from playbill_lab.simulator import World, WorldSpec, simulate

HEAD = "label: discovery_play\n    loss: softmax\n"
GATE = "- {metric: ndcg@10, canvas: home, against: champion, tolerance: -1%}"
EDITS = {
    HEAD: f"{HEAD}    reward: long_term\n",
    "evaluate:\n": "evaluate:\n  protocol: leave_one_out\n  reward: long_term\n",
    GATE: "- {metric: reward_ndcg@10, canvas: home, against: champion, tolerance: -90%}",
    "dim: 32": "dim: 8",
    "min_steps: 80": "min_steps: 10",
    "epochs: 6": "epochs: 1",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A project whose model learns from, is judged by and is promoted by the reward `long_term`."""
    made = Shell(start(tmp_path_factory.mktemp("rewarded") / "project").folder)
    world = World.make(WorldSpec(members=120, titles=80, days=28, seed=3))
    with Tables(made.workspace).replace() as writer:
        simulate(world, writer=writer)
    text = made.model.read_text()
    for old, new in EDITS.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    made.model.write_text(text)
    assert made.type("apply").exit_code == 0
    assert made.type("features", "build").exit_code == 0
    return made


def the_reward(shell: Shell) -> tuple[RewardSpec, dict[str, LabelSpec]]:
    return load_zoo(shell.folder / "model_zoo", shell.folder / "feature_repo").reward("long_term")


def test_every_number_of_a_reward_carries_its_id(shell: Shell, tmp_path: Path) -> None:
    """Then a label changes although no version does: the id is another one, and the gate compares nothing."""
    tracking = Tracking(shell.workspace)
    first = shell.json("train", "everycanvas")
    version = reward_version(*the_reward(shell))
    (registered,) = tracking.versions("everycanvas")
    assert registered.tags["playbill.rewards"] == version
    client = MlflowClient(tracking_uri=shell.workspace.mlflow_uri)
    run = client.get_run(first["run_id"])
    assert run.data.tags["playbill.rewards"] == version
    assert version in run.data.params["examples.rewards.discovery_play"]
    path = client.download_artifacts(first["run_id"], "evaluation/home/report.json", str(tmp_path))
    report = EvaluationReport.from_json(Path(path).read_text())
    assert report.reward == version
    assert report.result.metrics["reward_ndcg@10"].value > 0
    (evaluation,) = tracking.evaluations(registered)
    assert f"{int(evaluation.metrics['home/reward_fingerprint']):012x}" == version[-12:]
    tables = EvaluationTables.read(Tables(shell.workspace))
    assert reward_outcome(*the_reward(shell))(tables).version == version
    assert shell.type("promote", "everycanvas:1").exit_code == 0

    shell.edit("model_zoo/labels/completion.yaml", "progress >= 0.9 or", "progress >= 0.8 or")
    changed = reward_version(*the_reward(shell))
    assert changed.rpartition(":")[0] == version.rpartition(":")[0]
    assert changed != version
    shell.json("train", "everycanvas")
    assert tracking.versions("everycanvas")[0].tags["playbill.rewards"] == changed
    refused = shell.type("promote", "everycanvas:2")
    assert refused.exit_code == 1
    texts = " ".join(refused.output.split())
    assert "another version of the reward" in texts
    assert changed[-12:] in texts
    assert version[-12:] in texts


def test_a_published_reward_that_changes_is_refused(shell: Shell) -> None:
    """Whoever publishes definitions cannot change one and keep its version, nor train with it."""
    assert shell.type("check", "--lock").exit_code == 0
    shell.edit("model_zoo/rewards/long_term.yaml", "completion: 0.6", "completion: 0.7")
    shell.refused(
        "train", "everycanvas", match=r"long_term.yaml:\d+:\d+: version: Reward long_term:1 is published.*version 2"
    )
    shell.edit("model_zoo/rewards/long_term.yaml", "version: 1", "version: 2")
    assert the_reward(shell)[0].reference == "long_term:2"
