"""A job for a Ray cluster: train the ring problem on two workers of the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

sys.path.insert(0, str(Path(__file__).parent))

import ring_problem

from playbill.models.weights import save_weights
from playbill.training.ray_trainer import Cluster, fit_distributed

MARKED_EPOCH, PAUSE_S = 1, 0.5


class MarkedBatches(ring_problem.RingBatches):
    """Leaves a file for each epoch that a worker begins, named by its process, and takes its time over one epoch."""

    def __init__(self, marks: str) -> None:
        super().__init__()
        self.marks = marks

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "marks.json").write_text(json.dumps(self.marks))

    @classmethod
    def load(cls, folder: Path) -> MarkedBatches:
        return cls(json.loads((folder / "marks.json").read_text()))

    def epoch(self, epoch: int, rank: int, world: int) -> Iterator[tuple[Any, Any, Any]]:
        (Path(self.marks) / f"{epoch}-{rank}-{os.getpid()}").touch()
        for batch in super().epoch(epoch, rank, world):
            time.sleep(PAUSE_S if epoch == MARKED_EPOCH else 0.0)
            yield batch


if __name__ == "__main__":
    out = Path(sys.argv[1])
    ray.cloudpickle.register_pickle_by_value(ring_problem)
    trained = fit_distributed(
        ring_problem.ring_network(),
        MarkedBatches(str(out / "marks")),
        ring_problem.SETTINGS,
        Cluster(workers=2, gpu=False),
        folder=out / "run",
        storage=sys.argv[2],
    )
    save_weights(trained.network, out / "weights.safetensors")
    (out / "reports.json").write_text(json.dumps(trained.reports))
