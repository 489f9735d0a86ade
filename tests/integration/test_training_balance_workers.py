"""Two workers balance heads as one does: the same weights, from the same global numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from fixtures import ring_problem as ring
from playbill.definitions.specs import BALANCERS
from playbill.definitions.specs.network import read_balance
from playbill.training import WorkerPlace, fit

LEARNED = [name for name in BALANCERS.names() if name != "static"]


def reports(place: WorkerPlace) -> dict[str, list[dict[str, float]]]:
    """Return what a run of every balance reports."""
    found = {}
    for name in LEARNED:
        settings = ring.SETTINGS.model_copy(update={"balance": read_balance(name).model_dump()})
        found[name] = fit(ring.ring_network(), ring.RingBatches(), settings, place=place).reports
    return found


def worker(rank: int, folder: str) -> None:
    """Train as one of two."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = reports(WorkerPlace(rank=rank, world=2))
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def test_two_workers_find_the_weights_that_one_finds(tmp_path: Path) -> None:
    multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=2)
    shared = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    alone = reports(WorkerPlace())
    for name in LEARNED:
        for key in ("weight/play", "weight/thumb", "loss/play", "loss/thumb"):
            own = [[report[key] for report in found[name]] for found in (*shared, alone)]
            assert own[0] == own[1]
            assert own[0] == pytest.approx(own[2], rel=1e-3)
