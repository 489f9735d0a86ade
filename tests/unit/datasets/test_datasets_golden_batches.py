"""Batches of a model without negatives, strata or rewards: a refactor must not move a bit of them.

The digests were recorded before rows could come from impressions, be drawn, or weigh differently.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import numpy as np

LATER = ("weights", "available", "group", "negatives", "row", "row_position", "by_name")
"""Fields of contexts and targets that the record does not know."""
GOLDEN = ("a7f574719c522ce8", "e76d64996427d1f5")


def digest(batches: list[Any]) -> str:
    found = hashlib.sha256()
    for part in (part for batch in batches for part in batch):
        for name in sorted(own.name for own in fields(part) if own.name not in LATER):
            values = getattr(part, name)
            for head, array in sorted(values.items()) if isinstance(values, dict) else [("", values)]:
                found.update(f"{name} {head} {array.dtype} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def test_batches_are_those_on_record(training_set) -> None:
    assert tuple(digest(list(training_set.epoch(epoch))) for epoch in range(2)) == GOLDEN


def test_rows_weigh_alike_and_are_told_apart_from_nothing_drawn(training_set) -> None:
    batch = next(training_set.epoch(0))
    assert (batch.targets.weight == 1).all()
    assert batch.targets.weights == batch.targets.negatives == training_set.batch_weights == {}
