"""Workers that hold a part of the network each learn what workers learn that hold all of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from fixtures import many_heads as problem
from fixtures import ring_problem as ring
from playbill.errors import StateError
from playbill.training import WorkerPlace, fit, replicas, shards
from playbill.training.checkpoint import checkpoints, load_checkpoint

ROUNDING = 1e-4  # of the norm of the whole gradient, relative: rounding adds up over a dozen steps
MOVED = ring.SETTINGS.learning_rate / 25  # where a gradient is nearly zero, Adam makes steps of its rounding
SETTINGS = ring.SETTINGS.model_copy(update={"epochs": 2, "title_rate": 1.5})
PROBLEMS: dict[str, dict[str, Any]] = {
    "every title ranked": {"heads": problem.HEADS},
    "named titles alone": {"heads": problem.NAMED},
    "vectors and trunk frozen": {"heads": problem.NAMED, "frozen": True},
}
WORLD = 3  # nine titles and widths of 16 and 48 in three parts; two heads and two mixed steps, of which one has none


def batches() -> problem.ManyHeads:
    """Return the batches, of titles with more plays from one to the next, so that their biases have different rates."""
    found = problem.ManyHeads()
    found.titles.plays = 50 * np.arange(len(found.titles.plays), dtype=np.float32)
    return found


def trained(place: WorkerPlace, network: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return this worker's parts of the norms that gradients were clipped by, and how the run ended."""
    norms: list[float] = []
    kind = shards.ShardedNetwork if place.sharded else replicas.WholeNetwork
    plain = kind.clip

    def watch(held: Any, largest: float) -> Tensor:
        norms.append(float(plain(held, largest)))
        return torch.tensor(norms[-1])

    kind.clip = watch  # type: ignore[method-assign]
    try:
        result = fit(problem.many_heads(**network), batches(), SETTINGS, place=place, **options)
    finally:
        kind.clip = plain  # type: ignore[method-assign]
    return {"norms": norms, "reports": result.reports, "weights": result.network.state_dict()}


def stop_after_one(numbers: dict[str, float], _: Path | None) -> None:
    if numbers["epoch"] == 1:
        raise StateError("killed")


def killed(place: WorkerPlace, folder: Path) -> None:
    """Train one epoch of two."""
    with pytest.raises(StateError, match="killed"):
        trained(place, {}, folder=folder, report=stop_after_one)


def worker(rank: int, folder: str) -> None:
    """Train as one of several, with parts."""
    torch.set_num_threads(1)
    where = {"init_method": f"file://{folder}/meet", "timeout": timedelta(minutes=2)}
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, **where)
    place = WorkerPlace(rank, WORLD, sharded=True)
    found: dict[str, Any] = {name: trained(place, network) for name, network in PROBLEMS.items()}
    own = shards.ShardedNetwork(problem.many_heads(), place)
    found["held"] = {name: len(own.parameters[name]) for name in own.parts}
    found["best"] = trained_to_best(place)
    killed(place, Path(folder) / "parts")
    found["resumed"] = trained(place, {}, folder=Path(folder) / "alone")
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def trained_to_best(place: WorkerPlace) -> dict[str, Tensor]:
    """Return the weights after the first epoch, which validation likes best."""
    best = SETTINGS.model_copy(update={"keep": "best", "metric": "liked"})
    liked = iter((2.0, 1.0))

    def validate(network: Any) -> dict[str, float]:
        assert not network.training
        assert network.titles.id.weight.shape == (ring.RING + 1, 16)
        return {"liked": next(liked)}

    result = fit(problem.many_heads(), problem.ManyHeads(), best, place=place, validate=validate)
    assert result.best_epoch == (1 if place.rank == 0 else 2)
    return result.network.state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("workers")
    killed(WorkerPlace(), found / "alone")
    multiprocessing.spawn(worker, args=(str(found),), nprocs=WORLD)
    return found


@pytest.fixture(scope="module")
def workers(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=MOVED)


@pytest.mark.parametrize("name", PROBLEMS)
def test_parts_learn_what_one_whole_network_learns(workers: list[dict[str, Any]], name: str) -> None:
    alone = trained(WorkerPlace(), PROBLEMS[name])
    for own in workers:
        assert own[name]["norms"] == pytest.approx(alone["norms"], rel=ROUNDING)
        for mine, theirs in zip(alone["reports"], own[name]["reports"], strict=True):
            for key in ("loss", *(f"loss/{head.name}" for head in PROBLEMS[name]["heads"])):
                assert theirs[key] == pytest.approx(mine[key], abs=1e-4)
    same(workers[0][name]["weights"], alone["weights"])


def test_tables_of_titles_and_the_trunk_are_dealt_out(workers: list[dict[str, Any]]) -> None:
    for name, size in (("titles.id.weight", 9), ("title_bias.weight", 9), ("trunk.blocks.1.up.weight", 64)):
        assert [own["held"][name] for own in workers] == [-(-size // WORLD)] * (WORLD - 1) + [size - 2 * -(-size // 3)]
    assert [own["held"]["trunk.blocks.0.mix"] for own in workers] == [1, 1, 0]


def test_the_best_epoch_is_kept_whole(workers: list[dict[str, Any]]) -> None:
    same(workers[0]["best"], trained_to_best(WorkerPlace()))


def test_checkpoints_are_those_of_one_process_and_either_goes_on_from_the_others(
    folder: Path, workers: list[dict[str, Any]]
) -> None:
    digest = SETTINGS.digest(problem.many_heads().config)
    parts, whole = (load_checkpoint(checkpoints(folder / name)[0], digest) for name in ("parts", "alone"))
    same(parts.weights, whole.weights)
    same(parts.average, whole.average)
    assert parts.optimizer["param_groups"] == whole.optimizer["param_groups"]
    assert parts.optimizer["state"].keys() == whole.optimizer["state"].keys()
    for place, own in whole.optimizer["state"].items():
        for key, value in own.items():
            torch.testing.assert_close(parts.optimizer["state"][place][key], value, rtol=1e-3, atol=1e-6)
    expected = trained(WorkerPlace(), {})["weights"]
    same(workers[0]["resumed"]["weights"], expected)
    resumed = fit(problem.many_heads(), batches(), SETTINGS, folder=folder / "parts")
    assert resumed.resumed_from == 1
    same(resumed.network.state_dict(), expected)
