"""Policies that read the truth, for studies: click-optimal and satisfaction-optimal oracles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import Floats32
from playbill_lab.simulator.engine.choices import Leanings, leanings
from playbill_lab.simulator.policies.policies import ScoredPolicy, best, same_list
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world.behaviour_model import LAW


class _Oracle(ScoredPolicy):
    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T] the truth about every title."""
        every = np.broadcast_to(
            np.arange(len(request.world.catalogue), dtype=np.int32), (len(request), len(request.world.catalogue))
        )
        return np.asarray(self.worth(leanings(request, every)), np.float32)

    def worth(self, leaning: Leanings) -> NDArray[np.float64]:
        """Return [N, T] what the policy seeks."""
        raise NotImplementedError

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Return the best of each question; every propensity is 1."""
        return best(request, self.logits)

    def probabilities(self, request: PolicyRequest, titles: NDArray[np.int32]) -> Floats32:
        """Return 1 where a list is the policy's own so far, else 0."""
        return same_list(request, best(request, self.logits).titles, titles)


class BestAppeal(_Oracle):
    """What the member would click most surely."""

    name = "best_appeal"

    def worth(self, leaning: Leanings) -> NDArray[np.float64]:
        """Return the probability of a click."""
        return leaning.click


class BestValue(_Oracle):
    """What adds most to the member's satisfaction, in the mean."""

    name = "best_value"

    def worth(self, leaning: Leanings) -> NDArray[np.float64]:
        """Return the expected change of satisfaction if it is looked at."""
        return leaning.click * leaning.play * LAW.satisfying(leaning.satisfaction_logit)
