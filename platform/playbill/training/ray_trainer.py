"""The same loop on several workers: a Ray TorchTrainer with gradients averaged by torch's DDP.

Checkpoints are ours and lie in the run's folder, which every worker must be able to reach; Ray is told of each by
a pointer. A worker that dies is started again and goes on from the newest checkpoint.
The only module of this package that imports Ray.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from playbill.errors import PlaybillError, ServiceError
from playbill.models import Network, NetworkConfig
from playbill.models.weights import load_network, save_weights
from playbill.training.checkpoint import checkpoints, load_checkpoint, read_reports
from playbill.training.contract import BatchSource, FitResult, Place, Report, Validate
from playbill.training.loop import fit
from playbill.training.settings import LoopSettings

START = "start.safetensors"
POINTER = "pointer.json"
SMALLEST_STORE_BYTES = 150 * 2**20
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Cluster:
    """How much of which cluster a run takes."""

    workers: int = 2
    gpu: bool | None = None
    """A GPU for each worker; None = when this machine has one."""
    threads: int = 1
    """torch threads and CPUs per worker."""
    address: str | None = None
    """A running cluster; None starts one on this machine for the run."""
    start_timeout_s: float = 60.0
    """How long to wait for the workers before giving up."""
    retries: int = 2
    """How often workers that died are started again."""


def fit_distributed(
    network: Network,
    batches: BatchSource,
    settings: LoopSettings,
    cluster: Cluster,
    *,
    folder: Path,
    report: Report | None = None,
    validate: Validate | None = None,
) -> FitResult:
    """Train on `cluster.workers` workers; the result equals that of `fit` up to rounding.

    Args:
        network: Started and calibrated; left as it is.
        batches: Training batches; pickled once, then shared by the workers.
        settings: How long and how fast.
        cluster: Workers, their devices, and where they run.
        folder: Of this run's checkpoints, reachable by every worker. An unfinished run in it is resumed.
        report: Called in this process after every epoch with its numbers and its checkpoint.
        validate: Called by rank 0 after every epoch; pickled.

    Raises:
        ServiceError: The cluster cannot be reached, is too small for the request, or workers kept dying.
        PlaybillError: What the loop raised on a worker, such as StateError or IntegrityError.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(network, folder / START)
    with connected(cluster, len(ray.cloudpickle.dumps(batches))):
        config = {
            "folder": str(folder),
            "network": network.config.to_json(),
            "settings": settings.model_dump_json(),
            "threads": cluster.threads,
            "batches": ray.put(batches),
            "validate": validate,
        }
        _run(_trainer(cluster, config, folder, settings.digest(network.config)), cluster, folder, report)
    return _result(network.config, settings, folder)


@contextmanager
def connected(cluster: Cluster, data_bytes: int) -> Iterator[None]:
    """Connect to the cluster, or start one on this machine and stop it afterwards.

    Raises:
        ServiceError: There is none at the address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(cluster.start_timeout_s)
    local: dict[str, Any] = {
        "include_dashboard": False,
        "object_store_memory": SMALLEST_STORE_BYTES + 2 * data_bytes,
    }
    options = {"address": cluster.address} if cluster.address else local
    try:
        if cluster.address:
            knock(cluster.address, cluster.start_timeout_s)
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(f"no Ray cluster at {cluster.address or 'this machine'}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str, timeout_s: float) -> None:
    """Open and close a connection to a cluster, since Ray itself waits ten minutes for one that is not there.

    Args:
        address: `host:port`, `ray://host:port`, or a word such as `auto` that Ray resolves itself.
        timeout_s: How long to wait.

    Raises:
        OSError: Nothing listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=timeout_s).close()


def _trainer(cluster: Cluster, config: dict[str, Any], folder: Path, digest: str) -> ray.train.torch.TorchTrainer:
    gpu = torch.cuda.is_available() if cluster.gpu is None else cluster.gpu
    done = len(read_reports(folder))
    resources = {"CPU": float(cluster.threads), **({"GPU": 1.0} if gpu else {})}
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=cluster.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"{digest[:16]}-{done:04d}",
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=cluster.retries, controller_failure_limit=1),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def train_worker(config: dict[str, Any]) -> None:
    """Run the loop on one worker. Called by Ray."""
    torch.set_num_threads(max(1, config["threads"]))
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    network = load_network(NetworkConfig.from_json(config["network"]), Path(config["folder"]) / START)
    fit(
        network,
        ray.get(config["batches"]),
        LoopSettings.model_validate_json(config["settings"]),
        folder=Path(config["folder"]),
        report=_report_to_ray,
        validate=config["validate"],
        place=place,
    )


def _report_to_ray(numbers: dict[str, float], saved: Path | None) -> None:
    """Tell Ray of an epoch. It keeps only numbers that come with a checkpoint, so a pointer to ours goes along."""
    with tempfile.TemporaryDirectory() as pointer:
        checkpoint = None
        if saved is not None:
            (Path(pointer) / POINTER).write_text(json.dumps({"checkpoint": str(saved)}), encoding="utf-8")
            checkpoint = ray.train.Checkpoint.from_directory(pointer)
        ray.train.report(numbers, checkpoint=checkpoint)


def _run(trainer: ray.train.torch.TorchTrainer, cluster: Cluster, folder: Path, report: Report | None) -> None:
    """Fit in a thread, and hand the epochs on from this one as their checkpoints appear."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failures.append(error)

    told = len(read_reports(folder))
    worker = threading.Thread(target=work, name="ray-train", daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(POLL_SECONDS)
        told = _tell(folder, report, told)
    shutil.rmtree(folder / "ray", ignore_errors=True)
    if failures:
        raise _explained(failures[0], cluster)


def _tell(folder: Path, report: Report | None, told: int) -> int:
    found = read_reports(folder)
    if report is not None:
        for numbers in found[told:]:
            report(numbers, checkpoints(folder)[-1])
    return max(told, len(found))


def _explained(error: BaseException, cluster: Cluster) -> BaseException:
    """Turn Ray's error into ours: the worker's own where it has one, else what to change."""
    if isinstance(error, WorkerGroupError):
        for failure in error.worker_failures.values():
            cause = getattr(failure, "cause", None) or failure
            if isinstance(cause, PlaybillError):
                return cause
    if isinstance(error, ControllerError):
        return ServiceError(
            f"the Ray cluster did not start {cluster.workers} workers of {cluster.threads} CPU(s) in "
            f"{cluster.start_timeout_s:g} s; ask for fewer workers or a larger cluster "
            f"({error.controller_failure})"
        )
    if isinstance(error, TrainingFailedError):
        return ServiceError(f"training on Ray failed: {error}")
    return error


def _result(network: NetworkConfig, settings: LoopSettings, folder: Path) -> FitResult:
    """Read the finished run back from its last checkpoint."""
    saved = load_checkpoint(checkpoints(folder)[-1], settings.digest(network))
    trained = Network(network)
    trained.load_state_dict(saved.weights if saved.best is None else saved.best)
    if saved.best is None:
        trained.load_state_dict({**saved.weights, **saved.average})
    return FitResult(
        network=trained.eval(),
        reports=saved.reports,
        best_epoch=saved.best_epoch or saved.epoch,
        resumed_from=None,
        seconds=sum(numbers["seconds"] for numbers in saved.reports),
    )
