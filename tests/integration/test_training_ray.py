"""The loop on real Ray workers: the same losses as in one process, resume, and requests that cannot be met."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from fixtures import ring_problem as ring
from playbill.continual.incremental.growth import OptimizerState
from playbill.errors import IntegrityError, ServiceError, StateError
from playbill.models import Network
from playbill.ray_cluster import HERE, connected
from playbill.training import fit
from playbill.training.checkpoint import checkpoints, load_checkpoint
from playbill.training.ray_trainer import OBJECT_STORE_BYTES, Cluster, fit_distributed

ray.cloudpickle.register_pickle_by_value(ring)  # Workers have no tests on their path.

TOLERANCE = 1e-4
"""Largest difference of a reported loss between one process and two workers, in float32."""


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    """One cluster on this machine for every test; a command starts one of its own where none runs."""
    with connected(HERE, local={"num_cpus": 2, "object_store_memory": OBJECT_STORE_BYTES}):
        yield


@pytest.mark.parametrize("sharded", [False, True])
def test_two_workers_learn_what_one_process_learns(tmp_path: Path, sharded: bool) -> None:
    alone = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)
    progress: list[tuple[dict[str, float], Path | None]] = []
    together = fit_distributed(
        ring.ring_network(),
        ring.RingBatches(),
        ring.SETTINGS,
        Cluster(workers=2, gpu=False, sharded=sharded),
        folder=tmp_path,
        report=lambda numbers, path: progress.append((numbers, path)),
    )
    for mine, theirs in zip(alone.reports, together.reports, strict=True):
        for name in ("loss", "loss/play", "loss/thumb"):
            assert theirs[name] == pytest.approx(mine[name], abs=TOLERANCE)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(together.network.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert [numbers["epoch"] for numbers, _ in progress] == [1, 2, 3, 4]
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0004"]
    assert not (tmp_path / "ray").exists() or not list((tmp_path / "ray").iterdir())
    assert not together.network.training


def test_workers_begin_with_an_optimizer_that_another_run_ended_with(tmp_path: Path) -> None:
    first = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path / "first")
    carried = OptimizerState.read(tmp_path / "first")
    assert carried is not None
    settings = ring.SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-4})
    for place in ("alone", "together"):
        carried.begin(tmp_path / place, first.network, ring.RingBatches(), settings, workers=2)
    alone = fit(copy.deepcopy(first.network), ring.RingBatches(), settings, folder=tmp_path / "alone")
    cluster, folder = Cluster(workers=2, gpu=False), tmp_path / "together"
    together = fit_distributed(first.network, ring.RingBatches(), settings, cluster, folder=folder)
    assert together.reports[0]["loss"] == pytest.approx(alone.reports[0]["loss"], abs=TOLERANCE)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(together.network.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    steps = [
        load_checkpoint(checkpoints(tmp_path / place)[-1], None).optimizer["state"][0]["step"]
        for place in ("first", "together")
    ]
    assert steps[1] - steps[0] == ring.RingBatches().steps(2)


def test_workers_leave_frozen_parts_as_they_are(tmp_path: Path) -> None:
    settings = ring.SETTINGS.model_copy(update={"epochs": 1})
    started = Network(ring.CONFIG.model_copy(update={"frozen": True}))
    started.load_state_dict(ring.ring_network().state_dict())
    before = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    found = fit_distributed(started, ring.RingBatches(), settings, Cluster(workers=2, gpu=False), folder=tmp_path)
    alone = fit(started, ring.RingBatches(), settings)
    assert found.reports[0]["loss"] == pytest.approx(alone.reports[0]["loss"], abs=TOLERANCE)
    for name, tensor in found.network.state_dict().items():
        if name.startswith(("titles.", "events.", "trunk.")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(found.network.heads[0].query.weight, before["heads.0.query.weight"])


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path) -> None:
    class Killed(ring.RingBatches):  # type: ignore[name-defined, misc]
        def epoch(self, epoch: int, rank: int, world: int) -> Iterator[object]:
            import os
            import signal
            import time

            before = list(tmp_path.glob("2-1-*"))
            (tmp_path / f"{epoch}-{rank}-{os.getpid()}").touch()
            if epoch == 2 and rank == 1 and not before:
                time.sleep(3)  # Ray keeps the checkpoint of the epoch before.
                os.kill(os.getpid(), signal.SIGKILL)
            yield from super().epoch(epoch, rank, world)

    alone = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)
    result = fit_distributed(
        ring.ring_network(), Killed(), ring.SETTINGS, Cluster(workers=2, gpu=False), folder=tmp_path / "run"
    )
    begun = [len(list(tmp_path.glob(f"{epoch}-1-*"))) for epoch in range(4)]
    assert begun == [1, 1, 2, 1], "the epoch in which the worker died was begun twice, and no other"
    for mine, theirs in zip(alone.reports, result.reports, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=TOLERANCE)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(result.network.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_too_large_a_request_fails_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="did not start 300 workers"):
        fit_distributed(
            ring.ring_network(),
            ring.RingBatches(),
            ring.SETTINGS,
            Cluster(workers=300, gpu=False, start_timeout_s=3),
            folder=tmp_path,
        )


def test_a_workers_own_error_comes_back(tmp_path: Path) -> None:
    class Broken(ring.RingBatches):  # type: ignore[name-defined, misc]
        def epoch(self, epoch: int, rank: int, world: int) -> Iterator[object]:
            raise StateError("the third shelf is empty")

    with pytest.raises(StateError, match="the third shelf"):
        fit_distributed(
            ring.ring_network(), Broken(), ring.SETTINGS, Cluster(workers=1, gpu=False, retries=0), folder=tmp_path
        )


def test_a_damaged_checkpoint_is_named_before_a_cluster_starts(tmp_path: Path) -> None:
    (tmp_path / "epoch-0001").mkdir()
    (tmp_path / "epoch-0001" / "state.json").write_text("[]", encoding="utf-8")
    started = Cluster(workers=1, gpu=False, address="127.0.0.1:1")
    with pytest.raises(IntegrityError, match="epoch-0001"):
        fit_distributed(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, started, folder=tmp_path)


def test_a_finished_run_needs_no_cluster(tmp_path: Path) -> None:
    alone = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    nowhere = Cluster(workers=2, gpu=False, address="127.0.0.1:1")
    again = fit_distributed(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, nowhere, folder=tmp_path)
    assert again.reports == alone.reports
    assert again.resumed_from == 4
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0, atol=0)


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    ray.shutdown()
    with pytest.raises(ServiceError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        fit_distributed(
            ring.ring_network(),
            ring.RingBatches(),
            ring.SETTINGS,
            Cluster(workers=1, gpu=False, address="127.0.0.1:1"),
            folder=tmp_path,
        )
