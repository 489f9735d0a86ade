"""What a slate is worth, exactly: the expectation of its outcome under the law.

Axis letters: N questions, K places.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from playbill.errors import UnknownNameError
from playbill_lab.simulator.engine.choices import leanings
from playbill_lab.simulator.policies.policy_request import Asked, Slates
from playbill_lab.simulator.world.behaviour_model import LAW, logistic
from playbill_lab.simulator.world.effects import look_of

Outcomes = Literal["click", "play", "completion", "satisfaction"]
OUTCOMES: tuple[Outcomes, ...] = ("click", "play", "completion", "satisfaction")


def expected(asked: Asked, slates: Slates, outcome: Outcomes) -> NDArray[np.float64]:
    """Return [N] the expectation of each slate's outcome, given what the member wants at that moment.

    `click`: places clicked. `play`: plays begun (0 or 1). `completion`: plays whose sitting went to its end (the
    film, or the episode). `satisfaction`: change of the member's satisfaction by the play, before it is clipped.

    With p_k and q_k of the law, place k is looked at with probability look^(k-1) prod_{j<k} (1 - p_j q_j).

    Raises:
        UnknownNameError: There is no such outcome.
    """
    if outcome not in OUTCOMES:
        raise UnknownNameError("outcome", outcome, OUTCOMES)
    per_place = expected_by_place(asked, slates, outcome)
    total: NDArray[np.float64] = per_place.sum(axis=1)
    return total


def expected_by_place(asked: Asked, slates: Slates, outcome: Outcomes) -> NDArray[np.float64]:
    """Return [N, K] the part of each place in `expected`."""
    leaning = leanings(asked, slates.titles)
    plays = leaning.click * leaning.play
    reached = np.cumprod(np.concatenate([np.ones((len(plays), 1)), 1.0 - plays[:, :-1]], axis=1), axis=1)
    looked = look_of(asked)[:, None] ** np.arange(plays.shape[1]) * reached
    if outcome == "click":
        worth = leaning.click
    elif outcome == "play":
        worth = plays
    else:
        after = logistic(leaning.gladness) if outcome == "completion" else LAW.satisfying(leaning.gladness)
        worth = plays * after
    part: NDArray[np.float64] = looked * worth
    return part
