"""The same loop on several workers: a Ray TorchTrainer with gradients averaged by DDP, or a network in parts by FSDP.

Files go by a storage that every node reaches, a folder or a URL: the training set to the workers, which map it into
memory, and checkpoints through Ray's own reports, so that a worker that dies goes on from the newest one, on whatever
node it is started again. The only module of this package that imports Ray.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import ray.train
import ray.train.torch
import torch
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)

from playbill.errors import PlaybillError, ServiceError
from playbill.models import Network, NetworkConfig
from playbill.models.weights import load_network, save_weights
from playbill.ray_cluster import START_TIMEOUT_S, connected
from playbill.training.checkpoint import adopt_checkpoint, checkpoints, load_checkpoint
from playbill.training.contract import FitResult, LoopSettings, Report, StoredBatches, Validate, WorkerPlace
from playbill.training.loop import fit
from playbill.training.storage import Storage

INPUT, START, DATA, EARLIER = "input", "start.safetensors", "data", "earlier"
OBJECT_STORE_BYTES = 150 * 2**20
"""Of a cluster that is started here. Neither training set nor checkpoints go through it."""
POLL_SECONDS, REMOTE_POLL_SECONDS = 0.5, 5.0

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


@dataclass(frozen=True, slots=True)
class Cluster:
    """How much of which cluster a run takes."""

    workers: int = 2
    gpu: bool | None = None  # a GPU for each worker; None = when this machine has one
    threads: int = 1  # torch threads and CPUs per worker
    address: str | None = None
    """As configured; None = that of RAY_ADDRESS, else one is started on this machine for the run."""
    start_timeout_s: float = START_TIMEOUT_S  # how long to wait for the workers before giving up
    retries: int = 2  # how often workers that died are started again
    sharded: bool = False  # whether each worker holds a part of the network, see `training.shards`


def fit_distributed(
    network: Network,
    batches: StoredBatches,
    settings: LoopSettings,
    cluster: Cluster,
    *,
    folder: Path,
    storage: str | None = None,
    saved: Path | None = None,
    report: Report | None = None,
    validate: Validate | None = None,
) -> FitResult:
    """Train on `cluster.workers` workers; the result equals that of `fit` up to rounding.

    Args:
        network: Started and calibrated; left as it is.
        batches: Training batches; workers read them from files.
        settings: How long and how fast.
        cluster: Workers, their devices, and where they run.
        folder: Of this run's last checkpoint, on this machine. One of an unfinished run in it is gone on from.
        storage: Folder or URL of this run alone that every node reaches; emptied when the run has finished. An
            unfinished run in it is resumed, from whichever machine. None = a folder in `folder`.
        saved: Where `batches.save` has written them already.
        report: Called in this process after every epoch with its numbers.
        validate: Called by rank 0 after every epoch; pickled.

    Raises:
        ConfigError: The cluster's address is one of Ray Client.
        ServiceError: The cluster or the storage cannot be reached, the cluster is too small, or workers kept dying.
        PlaybillError: What the loop raised on a worker, such as StateError or IntegrityError.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    place = Storage(storage or str(folder / "ray"))
    name = hashlib.sha256(place.url.encode("utf-8")).hexdigest()[:16]
    found = checkpoints(folder)
    earlier = found[-1] if found else None
    done = len(load_checkpoint(earlier, settings.digest(network.config)).reports) if earlier else 0
    if done < settings.total_epochs(batches.steps(cluster.workers)):
        done = max(done, len(place.reports(name)))
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(cluster.start_timeout_s)
        local = {"object_store_memory": OBJECT_STORE_BYTES}
        with connected(cluster.address, start_timeout_s=cluster.start_timeout_s, local=local):
            config = {
                "storage": place,
                "token": uuid.uuid4().hex,
                "network": network.config.to_json(),
                "settings": settings.model_dump_json(),
                "threads": cluster.threads,
                "sharded": cluster.sharded,
                "batches": type(batches),
                "saved": _put_inputs(place, network, batches, earlier, saved),
                "validate": validate,
            }
            last = _run(_trainer(cluster, config, place, name), cluster, place, name, report, done)
        _keep(place, last or place.newest(name), folder)
        place.remove()
    return _result(network.config, settings, folder, done)


def _put_inputs(
    place: Storage, network: Network, batches: StoredBatches, earlier: Path | None, saved: Path | None
) -> str | None:
    """Write what workers start from into the storage; return where batches lie if they need not be copied there."""
    in_place = str(saved.resolve()) if saved is not None and place.local is not None else None
    with tempfile.TemporaryDirectory() as scratch:
        beside = Path(scratch)
        save_weights(network, beside / START)
        place.put(beside / START, f"{INPUT}/{START}")
        if in_place is None and saved is None:
            batches.save(beside / DATA)
        if in_place is None:
            place.put(saved or beside / DATA, f"{INPUT}/{DATA}")
    if earlier is not None:
        place.put(earlier, f"{INPUT}/{EARLIER}")
    return in_place


def _trainer(cluster: Cluster, config: dict[str, Any], place: Storage, name: str) -> ray.train.torch.TorchTrainer:
    gpu = torch.cuda.is_available() if cluster.gpu is None else cluster.gpu
    resources = {"CPU": float(cluster.threads), **({"GPU": 1.0} if gpu else {})}
    system, path = place.opened
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=cluster.workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=cluster.retries, controller_failure_limit=1),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def train_worker(config: dict[str, Any]) -> None:
    """Run the loop on one worker. Called by Ray, in a folder of the run's that workers of one node share."""
    torch.set_num_threads(max(1, config["threads"]))
    context = ray.train.get_context()
    rank, world, device = context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device()
    place = WorkerPlace(rank, world, device, sharded=config["sharded"])
    storage: Storage = config["storage"]
    inputs = storage.fetch(INPUT, Path.cwd() / f"{INPUT}-{config['token']}")
    network = load_network(NetworkConfig.from_json(config["network"]), inputs / START)
    data = Path(config["saved"]) if config["saved"] else inputs / DATA
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _take_up(folder, inputs / EARLIER)
        fit(
            network,
            config["batches"].load(data),
            LoopSettings.model_validate_json(config["settings"]),
            folder=folder,
            report=_report_to_ray,
            validate=config["validate"],
            place=place,
        )


def _take_up(folder: Path, earlier: Path) -> None:
    """Put what to go on from into a worker's own folder: Ray's newest checkpoint, and the one the run came with."""
    newest, incoming = ray.train.get_checkpoint(), folder / "incoming"
    if earlier.is_dir():
        adopt_checkpoint(Path(shutil.copytree(earlier, incoming)), folder)
    if newest is not None:
        # Ray's own download takes a lock in a folder under /tmp that belongs to whichever user trained there first.
        incoming.mkdir(exist_ok=True)
        pyarrow.fs.copy_files(newest.path, str(incoming), source_filesystem=newest.filesystem)
        adopt_checkpoint(incoming, folder)


def _report_to_ray(numbers: dict[str, float], saved: Path | None) -> None:
    """Hand an epoch and its checkpoint to Ray, which keeps it. Every rank calls it; rank 0 has the files."""
    checkpoint = None if saved is None else ray.train.Checkpoint.from_directory(str(saved))
    ray.train.report(numbers, checkpoint=checkpoint)


def _run(
    trainer: ray.train.torch.TorchTrainer, cluster: Cluster, place: Storage, name: str, report: Report | None, done: int
) -> str | None:
    """Fit in a thread, and hand epochs on from this one as their checkpoints appear. Returns the last one's name."""
    failures: list[BaseException] = []
    results: list[ray.train.Result] = []

    def work() -> None:
        try:
            results.append(trainer.fit())
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work, name="ray-train", daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(POLL_SECONDS if place.local is not None else REMOTE_POLL_SECONDS)
        numbers = place.reports(name)
        if report is not None:
            for epoch in numbers[done:]:
                report(epoch, None)
        done = max(done, len(numbers))
    if failures:
        raise _explained(failures[0], cluster)
    last = results[0].checkpoint
    return None if last is None else f"{name}/{last.path.rstrip('/').rpartition('/')[2]}"


def _keep(place: Storage, last: str | None, folder: Path) -> None:
    if last is None:
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
        place.download(last, Path(scratch) / "incoming")
        adopt_checkpoint(Path(scratch) / "incoming", folder)


def _explained(error: BaseException, cluster: Cluster) -> BaseException:
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


def _result(network: NetworkConfig, settings: LoopSettings, folder: Path, done: int) -> FitResult:
    saved = load_checkpoint(checkpoints(folder)[-1], settings.digest(network))
    trained = Network(network)
    trained.load_state_dict(saved.weights if saved.best is None else saved.best)
    if saved.best is None:
        trained.load_state_dict({**saved.weights, **saved.average})
    return FitResult(
        network=trained.eval(),
        reports=saved.reports,
        best_epoch=saved.best_epoch or saved.epoch,
        resumed_from=done or None,
        seconds=sum(numbers["seconds"] for numbers in saved.reports),
    )
