"""Heads: what a model predicts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveFloat, model_validator

from playbill.specs.base import Reference, Spec
from playbill.specs.negatives import Negatives, ShownOptions
from playbill.specs.plugins import LossName


class HeadSpec(Spec):
    """One thing the model predicts."""

    label: Reference | None = None
    """The label it learns; or use `auxiliary`."""
    auxiliary: Literal["next_genres"] | None = None
    """A self-supervised target instead of a label."""
    loss: LossName | None = None
    """`softmax` over every title, `sampled_softmax` over drawn ones, or `bce` over labelled events."""
    negatives: Negatives | None = None
    """What positives are told apart from: for `sampled_softmax`, and beside the label's own zeros for `bce`."""
    weight: PositiveFloat = 1.0
    """Multiplier on this head's loss. Weights are not normalised to sum to one."""
    reward: Reference | None = None
    """A reward that weighs its examples."""
    optional: bool = False
    """Leave the head out, with a note, where its label has no positive row to learn from, instead of failing."""

    @property
    def draws(self) -> bool:
        """Whether its positives are told apart from titles that its label says nothing of.

        A `bce` head with `shown_not_played` only reads fewer of the label's own zeros.
        """
        own_zeros = self.loss == "bce" and isinstance(self.negatives, ShownOptions)
        return self.negatives is not None and not own_zeros

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.label is None) == (self.auxiliary is None):
            raise ValueError("a head needs either 'label' or 'auxiliary'")
        if self.label is not None and self.loss is None:
            raise ValueError("a head with a label needs a 'loss'")
        if self.loss == "softmax" and self.negatives is not None:
            raise ValueError("'softmax' ranks against every title; 'negatives' belong to 'sampled_softmax' or 'bce'")
        if self.loss == "sampled_softmax" and self.negatives is None:
            raise ValueError("'sampled_softmax' needs 'negatives', such as {policy: mixed, count: 512}")
        return self
