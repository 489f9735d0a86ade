"""The loss and the gradients of a fixed small network and batch, on every device and in every number type.

They are compared with those of float32 on a processor, which are on record: a card has kernels of its own (fused
attention, sums in another order), and nothing but this says that they compute the same. Record again, after a change
that is meant to move them, with `python tests/parity/test_models_devices.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fixtures import many_heads as problem
from fixtures import ring_problem as ring
from playbill.models import ContextBatch, HistoryBatch, TargetBatch, TitleInputs

RECORD = Path(__file__).parent / "golden" / "gradients.json"
ROOM = {"float32": 1e-4, "bfloat16": 2e-2}
"""Of the loss, and of each gradient over the norm of the whole one. bfloat16 keeps eight bits of a number."""


def learnt(device: str, kind: str) -> dict[str, object]:
    """Return the loss, and of each gradient its norm and its product with a fixed vector."""
    network = problem.many_heads().to(device)
    network.low_precision = kind == "bfloat16"
    batch = next(problem.ManyHeads().epoch(0, 0, 1))
    kinds = (HistoryBatch, ContextBatch, TargetBatch)
    given = [own.from_arrays(part, device) for own, part in zip(kinds, batch, strict=True)]
    loss, _ = network(*given, TitleInputs.from_arrays(ring.ring_titles(), device))
    loss.backward()
    found = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad.double().cpu().flatten()
            waves = torch.cos(torch.arange(len(grad), dtype=torch.float64)) * 2**0.5
            found[name] = [float(grad.norm()), float(grad @ waves)]
    return {"loss": float(loss.detach()), "gradients": found}


@pytest.mark.parametrize("kind", ROOM)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_is_the_one_on_record(device: str, kind: str) -> None:
    record, found = json.loads(RECORD.read_text(encoding="utf-8")), learnt(device, kind)
    assert found["loss"] == pytest.approx(record["loss"], rel=ROOM[kind])
    assert found["gradients"].keys() == record["gradients"].keys()
    whole = sum(norm**2 for norm, _ in record["gradients"].values()) ** 0.5
    for name, (norm, product) in record["gradients"].items():
        own = found["gradients"][name]
        assert own == pytest.approx([norm, product], abs=ROOM[kind] * whole), name


if __name__ == "__main__":
    RECORD.write_text(json.dumps(learnt("cpu", "float32"), indent=1) + "\n", encoding="utf-8")
