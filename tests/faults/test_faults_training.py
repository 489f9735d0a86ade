"""Training that is killed, whose checkpoint is damaged, or whose MLflow cannot be reached."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from mlflow import MlflowClient

from fixtures.small_project import Playbill, few_canvases
from playbill.datasets import TrainingSet
from playbill.evaluation.canvases import model as evaluating
from playbill.features import FeatureDoor
from playbill.training import placement, plan
from playbill.training import run as training
from playbill.versions.tracking import Tracking

TRAIN = ("train", "everycanvas", "--epochs", "3")
WAIT_SECONDS = 120


@pytest.fixture
def project(project):
    """The project of other faults with a model that is evaluated sooner."""
    few_canvases(project)
    return project


class Killed(BaseException):
    """Stands for the end of the process."""


def die(*_arguments, **_more):
    raise Killed


def only_run(shell):
    (folder,) = (shell.home / "runs").glob("everycanvas-*")
    return folder


def run_id(shell):
    return json.loads((only_run(shell) / "run.json").read_text())["run_id"]


def killed(shell, monkeypatch, name, module=training):
    """Train, and die where `name` of a module would be called."""
    with monkeypatch.context() as patched:
        patched.setattr(module, name, die)
        with pytest.raises(Killed):
            shell.type(*TRAIN)
    return run_id(shell)


def runs_of(shell):
    """Return run -> status of every run that MLflow knows."""
    client = MlflowClient(tracking_uri=shell.workspace.mlflow_uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    return {run.info.run_id: run.info.status for run in client.search_runs(experiments)}


def test_a_run_killed_in_a_later_epoch_goes_on_in_the_same_mlflow_run_and_registers_once(project):
    command = Playbill(project.folder).command("train", "everycanvas", "--epochs", "30")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.perf_counter() + WAIT_SECONDS
    while not list((project.home / "runs").glob("*/checkpoints/epoch-000[5-9]")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.perf_counter() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = run_id(project)
    assert runs_of(project) == {first: "RUNNING"}

    outcome = project.json("train", "everycanvas", "--epochs", "30")
    assert outcome["resumed_from"] >= 5
    assert (outcome["run_id"], outcome["version"], outcome["epochs"]) == (first, 1, 30)
    assert runs_of(project) == {first: "FINISHED"}
    assert [item.version for item in Tracking(project.workspace).versions("everycanvas")] == [1]


def test_a_run_killed_after_it_registered_does_not_register_again(project, monkeypatch):
    first = killed(project, monkeypatch, "TrainOutcome")
    state = only_run(project) / "run.json"
    state.write_text(json.dumps({"run_id": first}))
    outcome = project.json(*TRAIN)
    assert (outcome["run_id"], outcome["version"]) == (first, 1)
    assert [item.version for item in Tracking(project.workspace).versions("everycanvas")] == [1]


def test_a_run_killed_before_it_registered_repeats_neither_checks_nor_epochs_nor_evaluations(project, monkeypatch):
    first = killed(project, monkeypatch, "log_evaluation")
    for place, name in (
        (plan, "make_split"),
        (FeatureDoor, "require_no_leaks"),
        (training, "build_training_set"),
        (training, "build_network"),
        (TrainingSet, "epoch"),
    ):
        monkeypatch.setattr(place, name, die)
    measured = {path.name.rpartition("-")[0] for path in (only_run(project) / "evaluation").glob("*.json")}
    evaluate_canvas = evaluating.evaluate_canvas

    def unmeasured(function, split, frames, resolved, canvas, **more):
        assert canvas not in measured
        return evaluate_canvas(function, split, frames, resolved, canvas, **more)

    monkeypatch.setattr(evaluating, "evaluate_canvas", unmeasured)
    outcome = project.json(*TRAIN)
    assert (outcome["run_id"], outcome["version"], outcome["resumed_from"]) == (first, 1, 3)
    assert "home" in measured
    assert outcome["canvases"].keys() == measured
    for name in ("training_set", "checks"):
        assert not (only_run(project) / name).exists()


@pytest.mark.parametrize("name", ["training_set/tokens.npy", "training_set/start.safetensors"])
def test_a_damaged_training_set_of_a_killed_run_is_built_anew(project, monkeypatch, name):
    first = killed(project, monkeypatch, "fit", placement)
    file = only_run(project) / name
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    with monkeypatch.context() as patched:
        patched.setattr(training, "build_training_set", die)
        with pytest.raises(Killed):
            project.type(*TRAIN)
    assert run_id(project) == first


def test_the_training_set_of_a_long_log_is_built_in_parts_and_kept_as_any_other(project, monkeypatch):
    project.edit("playbill.toml", "threads = 1", "threads = 1\nevents_in_memory = 1500")

    def whole(*_arguments, **_more):
        raise AssertionError("the log has more events than are to be in memory")

    monkeypatch.setattr(training, "build_training_set", whole)
    first = killed(project, monkeypatch, "fit", placement)
    assert sorted(path.name for path in only_run(project).iterdir()) == ["checks", "run.json", "training_set"]
    monkeypatch.setattr(training, "build_in_parts", whole)  # What was kept of it is gone on with.
    assert killed(project, monkeypatch, "fit", placement) == first


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(project, monkeypatch, name):
    first = killed(project, monkeypatch, "evaluate_model")
    newest = only_run(project) / "checkpoints" / "epoch-0003"
    (newest / name).write_bytes((newest / name).read_bytes()[:-9])
    result = re.escape(f"checkpoint {newest}")
    project.refused(*TRAIN, match=rf"{result} has .*{name}.*remove this folder")
    assert Tracking(project.workspace).models() == ()

    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    outcome = project.json(*TRAIN)
    assert (outcome["resumed_from"], outcome["run_id"], outcome["version"]) == (2, first, 1)


def test_a_run_whose_state_cannot_be_read_is_named(project, monkeypatch):
    killed(project, monkeypatch, "fit", placement)
    state = only_run(project) / "run.json"
    state.write_text("{")
    message = re.escape(f"remove {only_run(project)} to start afresh")
    project.refused(*TRAIN, match=message)


def unreachable():
    """Return the URI of an MLflow server that nobody runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_an_unreachable_mlflow_is_one_message_before_long_work(project, monkeypatch):
    uri = unreachable()
    with (project.folder / "playbill.toml").open("a") as settings:
        settings.write(f'\n[services]\nmlflow = "{uri}"\n')
    monkeypatch.setattr(training, "build_training_set", die)
    before = project.tree()
    message = rf"MLflow at {uri} cannot be reached: .*Connection refused.*services.mlflow in playbill.toml"
    for command in (TRAIN, ("evaluate", "everycanvas@champion"), ("promote", "everycanvas:1")):
        project.refused(*command, match=message)
    assert project.tree().keys() - before.keys() <= {"playbill.db"}
    assert project.json("recommend", "--member", "m1", "-k", "3")["policy"] == "popular_7d"


def test_a_damaged_mlflow_database_is_one_message(project):
    (project.folder / ".playbill" / "mlflow.db").write_bytes(b"this is no database" * 100)
    before = project.tree()
    project.refused(*TRAIN, match=r"MLflow at sqlite:.*mlflow.db cannot be reached: file is not a database")
    assert project.tree() == before


def test_a_downloaded_bundle_is_served_without_mlflow(served):
    (served.folder / ".playbill" / "mlflow.db").write_bytes(b"this is no database" * 100)
    answer = served.json("recommend", "--member", "m1", "-k", "3")
    assert (answer["policy"], answer["version"]) == ("model", 1)


def test_a_damaged_bundle_is_fetched_again_and_never_served(served):
    (bundle,) = (served.home / "serving").iterdir()
    weights = bundle / "weights.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 0xFF]))
    answer = served.json("recommend", "--member", "m1", "-k", "3")
    assert (answer["policy"], answer["version"]) == ("model", 1)
    assert weights.read_bytes() == right
