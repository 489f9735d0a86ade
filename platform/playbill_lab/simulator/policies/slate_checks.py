"""What a policy's answers must be before anybody sees them.

Axis letters: N questions, K places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from playbill.errors import IntegrityError
from playbill_lab.simulator.policies.policy_request import Asked, Slates


def check_slates(asked: Asked, slates: Slates, name: str) -> None:
    """Check a policy's answers.

    Raises:
        IntegrityError: Wrong types or shapes, titles that are no candidates or come twice, holes, a propensity that is
            missing or outside (0, 1]; everything that is wrong with these answers is named.
    """
    faults = _shape_faults(asked, slates) or _content_faults(asked, slates.titles, slates.propensity)
    if faults:
        raise IntegrityError(f"policy '{name}' answered what cannot be shown: {'; '.join(faults)}.")


def _shape_faults(asked: Asked, slates: Any) -> list[str]:
    if not isinstance(slates, Slates):
        return [f"a {type(slates).__name__} instead of Slates"]
    faults, size = [], (len(asked), asked.places)
    given: tuple[tuple[str, Any, str], ...] = (
        ("titles", slates.titles, "i"),
        ("propensities", slates.propensity, "f"),
    )
    for what, values, kind in given:
        if not isinstance(values, np.ndarray):
            faults.append(f"no array of {what}: {values!r}"[:80])
        elif values.dtype.kind != kind:
            faults.append(f"{what} of type {values.dtype}, expected {'whole' if kind == 'i' else 'floating'} numbers")
        elif values.ndim != 2 or len(values) != size[0] or values.shape[1] < size[1]:
            faults.append(f"{what} of shape {values.shape}, expected {size}")
    if not faults and slates.titles.shape != slates.propensity.shape:
        faults.append(f"propensities of shape {slates.propensity.shape}, titles of shape {slates.titles.shape}")
    return faults


def _content_faults(asked: Asked, titles: NDArray[np.int32], propensity: NDArray[np.float32]) -> list[str]:
    filled, size = titles >= 0, len(asked.world.catalogue)
    if (titles >= size).any():
        return [f"title number {titles.max()} of {size} titles"]
    strangers = filled & ~np.take_along_axis(asked.candidates(), np.maximum(titles, 0), axis=1)
    ordered = np.sort(titles, axis=1)
    told = {
        "titles that are no candidates": strangers,
        "a title twice in one list": (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0),
        "a missing propensity": filled & np.isnan(propensity),
        "a propensity outside (0, 1]": filled & ((propensity <= 0) | (propensity > 1)),
        "an empty place before a filled one": ~filled[:, :-1] & filled[:, 1:],
        "more titles than places asked for": filled & (np.arange(titles.shape[1]) >= asked.size[:, None]),
    }
    return [
        f"{what} in {int(wrong.any(axis=1).sum())} of {len(asked)} lists"
        f" (question {int(asked.number[wrong.any(axis=1)][0])})"
        for what, wrong in told.items()
        if wrong.any()
    ]
