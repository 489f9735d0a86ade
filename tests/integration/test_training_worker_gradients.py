"""Two workers step as one process does: the same gradients, losses and weights, whatever rows weigh."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from fixtures import many_heads as problem
from fixtures import ring_problem as ring
from playbill.training import WorkerPlace, fit
from playbill.training.replicas import WholeNetwork

STEPS = ring.MEMBERS // ring.SHARED
ROUNDING = 1e-5
"""Largest difference of a gradient between one process and two workers, over the norm of the whole gradient."""
MOVED = ring.SETTINGS.learning_rate / 50  # Adam moves a weight by its rate however small a gradient, so rounding shows
PROBLEMS = {"every title ranked": problem.HEADS, "named titles alone": problem.NAMED}


def trained(place: WorkerPlace, heads: tuple[object, ...]) -> dict[str, object]:
    """Return the gradients of the steps of one epoch, before they are clipped, and how the run ended."""
    kept, plain = [], WholeNetwork.clip

    def watch(held, largest):
        kept.append({name: one.grad.clone() for name, one in held.parameters.items() if one.grad is not None})
        return plain(held, largest)

    WholeNetwork.clip = watch
    try:
        settings = ring.SETTINGS.model_copy(update={"epochs": 1})
        result = fit(problem.many_heads(heads), problem.ManyHeads(), settings, place=place)
    finally:
        WholeNetwork.clip = plain
    return {"gradients": kept, "reports": result.reports, "weights": result.network.state_dict()}


def worker(rank: int, folder: str) -> None:
    """Train as one of two."""
    torch.set_num_threads(1)
    where = {"init_method": f"file://{folder}/meet", "timeout": timedelta(minutes=2)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **where)
    found = {name: trained(WorkerPlace(rank, 2), heads) for name, heads in PROBLEMS.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(worker, args=(str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", PROBLEMS)
def test_workers_have_the_gradients_of_one_process(workers, name: str) -> None:
    alone = trained(WorkerPlace(), PROBLEMS[name])
    for own in workers:
        together = own[name]
        assert len(alone["gradients"]) == len(together["gradients"]) == STEPS
        for mine, theirs in zip(alone["gradients"], together["gradients"], strict=True):
            assert mine.keys() == theirs.keys(), "what a batch does not reach stands still on every worker"
            room = ROUNDING * norm(mine)
            assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < room
        for key in ("loss", *(f"loss/{head.name}" for head in PROBLEMS[name])):
            assert together["reports"][0][key] == pytest.approx(alone["reports"][0][key], abs=1e-6)
        for key, value in alone["weights"].items():
            torch.testing.assert_close(together["weights"][key], value, rtol=0, atol=MOVED)


def test_the_problem_has_a_head_that_some_batches_do_not_reach() -> None:
    """Else the comparison above would say nothing of such heads."""
    steps = trained(WorkerPlace(), problem.HEADS)["gradients"]
    reached = ["heads.4.query.weight" in step for step in steps]
    assert any(reached)
    assert not all(reached)


def norm(gradients: dict[str, Tensor]) -> float:
    return float(torch.stack([value.norm() for value in gradients.values()]).norm())
