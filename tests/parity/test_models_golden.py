"""Golden losses: a refactor must not move them. One file per device, one loss per epoch of the ring problem.

Record again, after a change that is meant to move them, with
`python tests/parity/test_models_golden.py DEVICE`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fixtures import ring_problem as ring
from playbill.training import WorkerPlace, fit

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 2e-3
"""Room for the order of additions on another processor; a changed formula moves losses by far more."""


def losses(device: str) -> list[float]:
    result = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, place=WorkerPlace(device=torch.device(device)))
    return [report["loss"] for report in result.reports]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_losses_are_those_on_record(device: str) -> None:
    record = FOLDER / f"losses_{device}.txt"
    if not record.exists():
        pytest.skip(f"no golden losses recorded for {device}")
    expected = [float(line) for line in record.read_text(encoding="utf-8").split()]
    assert losses(device) == pytest.approx(expected, abs=TOLERANCE)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    text = "".join(f"{loss:.6f}\n" for loss in losses(sys.argv[1]))
    (FOLDER / f"losses_{sys.argv[1]}.txt").write_text(text, encoding="utf-8")
