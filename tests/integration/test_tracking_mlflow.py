from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.errors import (
    ConfigError,
    IntegrityError,
    ServiceError,
    StateError,
    UnknownNameError,
)
from playbill.versions.tracking import Lineage, Tracking

Bundle = Callable[..., Path]
LINEAGE = Lineage(
    spec_hash="abc",
    data_snapshot="snap",
    feature_service="everycanvas_v1",
    feature_service_version="f1",
    protocol="leave_one_out",
    split_digest="s1",
    watermark=datetime(1998, 4, 22, tzinfo=UTC),
    labels={"thumbs_up": 1, "discovery_play": 2},
)


@pytest.fixture
def tracking(mlflow_workspace: Workspace, tracking_of: Callable[[Workspace], Tracking]) -> Tracking:
    return tracking_of(mlflow_workspace)


def register(tracking: Tracking, bundle: Path, model: str = "everycanvas", **metrics: float) -> int:
    with tracking.start_run(model, "fit") as run:
        return tracking.register(run, bundle, model, LINEAGE.tags(), metrics)


def plain_client(workspace: Workspace) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=workspace.mlflow_uri, registry_uri=workspace.mlflow_uri)


def test_a_run_keeps_parameters_curves_tables_figures_and_tags(tracking: Tracking, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    note = tmp_path / "note.txt"
    note.write_text("hello")
    params = {"trunk": {"dim": 64, "layers": 2}, "canvases": ["home", "search"], "seed": 17}
    with tracking.start_run("everycanvas", "fit", LINEAGE.tags(), params) as run:
        for epoch in range(3):
            run.log_metrics({"loss": 1.0 / (epoch + 1), "home/ndcg@10": 0.1 * epoch, "gap": float("nan")}, epoch)
        run.log_artifact(note, "notes")
        run.log_table(pl.DataFrame({"canvas": ["home"], "ndcg": [0.2]}), "canvases")
        run.log_dict({"a": 1}, "resolved.json")
        run.log_figure(Figure(), "slices")
    client = plain_client(tracking.workspace)
    kept = client.get_run(run.run_id)
    assert kept.info.status == "FINISHED"
    assert client.get_experiment(kept.info.experiment_id).name == "ml/everycanvas"
    assert kept.data.params == {
        "trunk.dim": "64",
        "trunk.layers": "2",
        "canvases": '["home", "search"]',
        "seed": "17",
    }
    assert kept.data.tags["playbill.labels"] == "discovery_play:2,thumbs_up:1"
    assert kept.data.tags["playbill.watermark"] == "1998-04-22T00:00:00+00:00"
    assert [point.step for point in client.get_metric_history(run.run_id, "home/ndcg_at_10")] == [0, 1, 2]
    assert "gap" not in kept.data.metrics
    folders = {item.path for item in client.list_artifacts(run.run_id)}
    assert {"notes", "tables", "figures", "resolved.json"} <= folders
    assert kept.info.artifact_uri.startswith(tracking.workspace.artifacts)


def test_inside_the_block_it_is_mlflows_active_run_and_afterwards_nothing_global_is_left(
    tracking: Tracking,
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    with tracking.start_run("everycanvas", "fit") as run:
        assert mlflow.active_run().info.run_id == run.run_id
        assert mlflow.get_tracking_uri() == tracking.workspace.mlflow_uri
        mlflow.set_tag("feast.project", "ml")
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
    assert plain_client(tracking.workspace).get_run(run.run_id).data.tags["feast.project"] == "ml"


def test_a_run_that_fails_is_marked_and_can_be_resumed(tracking: Tracking) -> None:
    with pytest.raises(ValueError, match="boom"), tracking.start_run("everycanvas", "fit", params={"a": 1}) as run:
        raise ValueError("boom")
    client = plain_client(tracking.workspace)
    assert client.get_run(run.run_id).info.status == "FAILED"
    with tracking.start_run("everycanvas", "fit", params={"a": 2}, resume=run.run_id) as again:
        again.log_metrics({"loss": 1.0})
    assert again.run_id == run.run_id
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert client.get_run(run.run_id).data.params == {"a": "1"}


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from playbill.config import ProjectFolder, ProjectSettings
from playbill.versions.tracking import Tracking

workspace = ProjectFolder(Path(sys.argv[1]), ProjectSettings()).workspace("ml")
with Tracking(workspace).start_run("everycanvas", "fit") as run:
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_process_was_killed_is_closed_at_the_next_start_and_a_live_one_is_not(tracking: Tracking) -> None:
    folder = str(tracking.workspace.project.root)
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, folder], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_id = killed.stdout.strip()
    client = plain_client(tracking.workspace)
    elsewhere = client.create_run(client.get_run(run_id).info.experiment_id)
    assert client.get_run(run_id).info.status == "RUNNING"
    with tracking.start_run("everycanvas", "first") as live, Tracking(tracking.workspace).start_run("other", "second"):
        assert client.get_run(run_id).info.status == "KILLED"
        assert client.get_run(live.run_id).info.status == "RUNNING"
        assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING", "it may be of another machine"
    assert client.get_run(live.run_id).info.status == "FINISHED"
    with tracking.start_run("everycanvas", "again", resume=run_id):
        assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).info.status == "FINISHED"


ENDED_TRAINING = """
import sys, time
from playbill.cli.main import main
from playbill.versions.tracking import Tracking
import playbill.training.run

def train(workspace, *_):
    with Tracking(workspace).start_run("everycanvas", "fit") as run:
        print(run.run_id, flush=True)
        time.sleep(120)

playbill.training.run.train = train
main(["--project", sys.argv[1], "-w", "ml", "train", "everycanvas"])
"""


def test_a_training_that_is_asked_to_end_closes_its_run_at_once(tracking: Tracking) -> None:
    root = tracking.workspace.project.root
    (root / "playbill.toml").write_text('workspace = "ml"\n[workspaces.ml]\n')
    process = subprocess.Popen([sys.executable, "-c", ENDED_TRAINING, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert plain_client(tracking.workspace).get_run(run_id).info.status == "KILLED"


def test_a_run_takes_more_parameters_and_metrics_than_one_call_allows(tracking: Tracking) -> None:
    with tracking.start_run("everycanvas", "fit", params={f"p{i}": i for i in range(150)}) as run:
        run.log_metrics({f"m{i}": float(i) for i in range(1200)})
    kept = plain_client(tracking.workspace).get_run(run.run_id)
    assert (len(kept.data.params), len(kept.data.metrics)) == (150, 1200)


def test_a_version_carries_lineage_digest_and_bundle(
    tracking: Tracking, tiny_bundle: Bundle, tiny_digest: Callable[[Path], str]
) -> None:
    bundle = tiny_bundle()
    assert register(tracking, bundle, **{"home/ndcg@10": 0.2}) == 1
    (version,) = tracking.versions("everycanvas")
    assert version.digest == tiny_digest(bundle)
    assert version.tags["playbill.spec_hash"] == "abc"
    assert version.source.startswith("models:/m-")
    (evaluation,) = tracking.evaluations(version)
    assert (evaluation.protocol, evaluation.split_digest) == ("leave_one_out", "s1")
    assert evaluation.metrics == {"home/ndcg@10": 0.2}


def test_the_logged_model_is_code_and_a_bundle_without_pickles(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle())
    names = {path.name for path in Path(tracking.workspace.artifacts).rglob("*") if path.is_file()}
    assert {"MLmodel", "pyfunc_model.py", "manifest.json", "weights.safetensors", "requirements.txt"} <= names
    assert not any(name.endswith((".pkl", ".pickle")) for name in names)
    requirements = next(Path(tracking.workspace.artifacts).rglob("requirements.txt")).read_text()
    assert "./artifacts/package/playbill-" in requirements


def test_a_bundle_that_differs_from_its_manifest_is_not_registered(tracking: Tracking, tiny_bundle: Bundle) -> None:
    bundle = tiny_bundle()
    (bundle / "weights.safetensors").write_text("other")
    with pytest.raises(IntegrityError, match="weights"):
        register(tracking, bundle)
    assert tracking.models() == ()


def test_download_is_verified_kept_and_repaired(tracking: Tracking, tiny_bundle: Bundle) -> None:
    version = register(tracking, tiny_bundle())
    folder = tracking.download("everycanvas", version)
    assert folder.parent == tracking.workspace.serving
    assert folder.name.startswith("everycanvas-1-")
    (folder / "weights.safetensors").write_text("corrupt")
    assert tracking.download("everycanvas", version) == folder
    assert (folder / "weights.safetensors").read_text() == "w"
    assert [path.name for path in tracking.workspace.serving.iterdir()] == [folder.name]


def stored(workspace: Workspace, name: str) -> Path:
    (found,) = Path(workspace.artifacts).rglob(f"artifacts/bundle/{name}")
    return found


def test_a_tampered_artifact_is_refused_and_leaves_nothing(tracking: Tracking, tiny_bundle: Bundle) -> None:
    version = register(tracking, tiny_bundle())
    stored(tracking.workspace, "weights.safetensors").write_text("tampered")
    with pytest.raises(IntegrityError, match="everycanvas:1"):
        tracking.download("everycanvas", version)
    assert list(tracking.workspace.serving.iterdir()) == []


def test_a_bundle_swapped_with_its_manifest_is_refused(tracking: Tracking, tiny_bundle: Bundle) -> None:
    version = register(tracking, tiny_bundle())
    stored(tracking.workspace, "weights.safetensors").write_text("x")
    manifest = (tiny_bundle("x") / "manifest.json").read_text()
    stored(tracking.workspace, "manifest.json").write_text(manifest)
    with pytest.raises(IntegrityError, match="its record says"):
        tracking.download("everycanvas", version)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_a_missing_file_is_an_integrity_error(tracking: Tracking, tiny_bundle: Bundle, name: str) -> None:
    version = register(tracking, tiny_bundle())
    stored(tracking.workspace, name).unlink()
    with pytest.raises(IntegrityError, match="everycanvas:1"):
        tracking.download("everycanvas", version)


def test_a_missing_bundle_is_an_integrity_error(tracking: Tracking, tiny_bundle: Bundle) -> None:
    import shutil

    version = register(tracking, tiny_bundle())
    shutil.rmtree(stored(tracking.workspace, "manifest.json").parent)
    with pytest.raises(IntegrityError, match="missing in the artifact store"):
        tracking.download("everycanvas", version)


def test_a_version_of_someone_else_has_no_digest(tracking: Tracking, tiny_bundle: Bundle) -> None:
    version = register(tracking, tiny_bundle())
    tracking.delete_version_tag("everycanvas", version, "playbill.digest")
    with pytest.raises(IntegrityError, match="not registered by Playbill"):
        tracking.download("everycanvas", version)


def test_references_resolve_to_versions(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle("a"))
    register(tracking, tiny_bundle("b"))
    tracking.set_alias("everycanvas", "champion", 1)
    assert tracking.resolve("everycanvas@champion").version == 1
    assert tracking.resolve("everycanvas@champion").aliases == ("champion",)
    assert tracking.resolve("everycanvas:2").version == 2
    assert tracking.resolve("everycanvas").version == 2
    assert tracking.models() == ("everycanvas",)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("everycanvas@champoin", UnknownNameError, "Did you mean 'champion'"),
        ("everycanvs", UnknownNameError, "Did you mean 'everycanvas'"),
        ("everycanvas:7", UnknownNameError, "Known: 1"),
        ("Every Canvas", ConfigError, "no model reference"),
        ("everycanvas:1@champion", ConfigError, "no model reference"),
    ],
)
def test_wrong_references_name_the_nearest_right_one(
    tracking: Tracking, tiny_bundle: Bundle, reference: str, error: type[Exception], message: str
) -> None:
    register(tracking, tiny_bundle())
    tracking.set_alias("everycanvas", "champion", 1)
    with pytest.raises(error, match=message):
        tracking.resolve(reference)


def test_an_empty_registry_says_what_to_run(tracking: Tracking) -> None:
    with pytest.raises(StateError, match="playbill -w ml train everycanvas"):
        tracking.resolve("everycanvas@champion")


def test_workspaces_do_not_see_each_other(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle())
    for name in ("m_", "mx"):
        other = Tracking(tracking.workspace.project.workspace(name))
        assert other.models() == ()
        assert other.aliases("everycanvas") == {}
        assert other.versions("everycanvas") == ()


def test_aliases_move_and_go(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle("a"))
    register(tracking, tiny_bundle("b"))
    tracking.set_alias("everycanvas", "champion", 1)
    tracking.set_alias("everycanvas", "champion", 2)
    assert tracking.alias("everycanvas", "champion") == 2
    tracking.delete_alias("everycanvas", "champion")
    tracking.delete_alias("everycanvas", "champion")
    assert tracking.alias("everycanvas", "champion") is None
    with pytest.raises(UnknownNameError):
        tracking.set_alias("everycanvas", "champion", 9)


def test_a_later_evaluation_comes_before_that_of_the_training_run(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle(), **{"home/ndcg@10": 0.2})
    version = tracking.resolve("everycanvas")
    with tracking.log_evaluation(version, "global_time", "s2", {"home/ndcg@10": 0.3}) as run:
        run.log_table(pl.DataFrame({"a": [1]}), "slices")
    first, second = tracking.evaluations(version)
    assert (first.protocol, first.split_digest, first.metrics["home/ndcg@10"]) == ("global_time", "s2", 0.3)
    assert second.protocol == "leave_one_out"


def test_one_client_serves_many_threads(tracking: Tracking) -> None:
    failures: list[BaseException] = []
    with tracking.start_run("everycanvas", "fit") as run:

        def work(part: int) -> None:
            try:
                run.log_metrics({f"m{part}": float(part)})
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(plain_client(tracking.workspace).get_run(run.run_id).data.metrics) == 8


def test_a_deleted_experiment_says_how_to_bring_it_back(tracking: Tracking) -> None:
    with tracking.start_run("everycanvas", "fit") as run:
        pass
    plain_client(tracking.workspace).delete_experiment(run.experiment_id)
    with (
        pytest.raises(StateError, match=f"restore --experiment-id {run.experiment_id}"),
        tracking.start_run("everycanvas", "fit"),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("http://127.0.0.1:9", ServiceError, "cannot be reached"),
        ("sqlite:///{root}/garbage.db", ServiceError, "not a database"),
        ("sqlite:///{root}", ServiceError, "cannot be (reached|opened)"),
        ("nonsense://x", ConfigError, "Expected an http"),
    ],
)
def test_an_unreachable_mlflow_fails_within_seconds(
    tmp_path: Path, uri: str, error: type[Exception], message: str
) -> None:
    import time

    (tmp_path / "garbage.db").write_text("this is no database" * 100)
    services = ServicesSettings(mlflow=uri.format(root=tmp_path))
    workspace = ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace("ml")
    started = time.perf_counter()
    with pytest.raises(error, match=message):
        Tracking(workspace).resolve("everycanvas@champion")
    assert time.perf_counter() - started < 8


def test_mlflow_prints_and_logs_nothing(
    tracking: Tracking, tiny_bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    version = register(tracking, tiny_bundle())
    register(tracking, tiny_bundle("b"))
    tracking.download("everycanvas", version)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_the_model_says_what_it_takes(tracking: Tracking, tiny_bundle: Bundle) -> None:
    register(tracking, tiny_bundle())
    example = next(Path(tracking.workspace.artifacts).rglob("serving_input_example.json"))
    columns = json.loads(example.read_text())["dataframe_split"]["columns"]
    assert columns == ["canvas", "k", "history", "query", "source_title_id", "country", "at"]


def test_a_run_exists_until_it_is_deleted(tracking: Tracking) -> None:
    with tracking.start_run("everycanvas", "fit") as run:
        assert tracking.has_run(run.run_id)
    plain_client(tracking.workspace).delete_run(run.run_id)
    assert not tracking.has_run(run.run_id)
    assert not tracking.has_run("0" * 32)


def test_an_approved_pair_that_was_fetched_needs_no_mlflow(
    tracking: Tracking, tiny_bundle: Bundle, tiny_digest: Callable[[Path], str]
) -> None:
    version = register(tracking, tiny_bundle())
    digest = tracking.version("everycanvas", version).digest
    folder = tracking.download("everycanvas", version)
    services = ServicesSettings(mlflow="http://127.0.0.1:9")
    offline = ProjectFolder(tracking.workspace.project.root, ProjectSettings(services=services)).workspace("ml")
    away = Tracking(offline, verify=tiny_digest)
    assert away.download("everycanvas", version, digest) == folder
    with pytest.raises(ServiceError):
        away.download("everycanvas", version)


def test_a_pair_whose_digest_the_bundle_has_not_is_refused(tracking: Tracking, tiny_bundle: Bundle) -> None:
    version = register(tracking, tiny_bundle())
    with pytest.raises(IntegrityError, match="its record says"):
        tracking.download("everycanvas", version, "another")


def test_a_run_can_be_logged_to_from_another_process(tracking: Tracking) -> None:
    with tracking.start_run("everycanvas", "fit") as run:
        pickle.loads(pickle.dumps(run)).log_metrics({"loss": 1.0}, step=3)
    assert plain_client(tracking.workspace).get_run(run.run_id).data.metrics == {"loss": 1.0}
