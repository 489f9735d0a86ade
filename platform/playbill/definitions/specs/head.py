"""Heads: what a model predicts."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from playbill.definitions.specs.base import Reference, Spec
from playbill.definitions.specs.losses import LOSSES, loss_options, loss_plugin
from playbill.definitions.specs.negatives import Negatives, ShownOptions
from playbill.definitions.specs.plugins import LossName

HistoryTerm = Literal["transitions", "ease", "recent_ease", "item_knn", "popular_7d"]
HISTORY_TERMS: tuple[HistoryTerm, ...] = get_args(HistoryTerm)
"""What may be added to a head's scores: see `playbill.models.history_terms`."""


class HeadSpec(Spec):
    """One thing the model predicts."""

    label: Reference | None = None
    """The label it learns; or use `auxiliary`."""
    auxiliary: Literal["next_genres"] | None = None
    """A self-supervised target instead of a label."""
    loss: LossName | None = None
    """`softmax` over every title, `sampled_softmax` or `pairwise` over drawn ones, `bce` over labelled events, or
    `huber` for a label that is a number."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The loss's options."""
    negatives: Negatives | None = None
    """What positives are told apart from: for `sampled_softmax` and `pairwise`, and beside the label's own zeros for
    `bce`."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Multiplier on this head's loss. Weights are not normalised to sum to one; `balance` may learn others beside."""
    level: bool | None = None
    """Give scores a term of the member's state alone, the same for every title: how likely they are to do it at all.
    Absent is yes, unless titles compete."""
    reward: Reference | None = None
    """A reward that weighs its examples."""
    terms: tuple[HistoryTerm, ...] = ()
    """Sums over the member's history, and popularity, that are added to its scores, where titles compete in its loss.
    Training learns their weights by canvas and history length on the validation fold, 0 where they do not help."""
    optional: bool = False
    """Leave the head out, with a note, where its label teaches nothing: it has no positive row, is the same for every
    event of a head that does not rank, or waits for events that the protocol holds out."""

    @property
    def draws(self) -> bool:
        """Whether its positives are told apart from titles that its label says nothing of.

        A `bce` head with `shown_not_played` only reads fewer of the label's own zeros.
        """
        own_zeros = self.loss == "bce" and isinstance(self.negatives, ShownOptions)
        return self.negatives is not None and not own_zeros

    @property
    def leveled(self) -> bool:
        """Whether its scores have a term of the state alone."""
        if self.loss is None or loss_plugin(self.loss).meaning == "competing":
            return False
        return self.level is not False

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.label is None) == (self.auxiliary is None):
            raise ValueError("a head needs either 'label' or 'auxiliary'")
        if self.label is not None and self.loss is None:
            raise ValueError("a head with a label needs a 'loss'")
        self._check_loss()
        return self

    def _check_loss(self) -> None:
        if self.loss is None:
            for own in ("options", "terms"):
                if getattr(self, own):
                    raise ValueError(f"'{own}' belong to a 'loss'")
            return
        loss_options(self.loss, self.options)
        wanted = loss_plugin(self.loss).negatives
        if self.negatives is not None and wanted == "none":
            others = [f"'{name}'" for name in LOSSES.names() if loss_plugin(name).negatives != "none"]
            what = "ranks against every title" if self.loss == "softmax" else "learns from labelled events only"
            raise ValueError(f"'{self.loss}' {what}; 'negatives' belong to {', '.join(others[:-1])} or {others[-1]}")
        if self.negatives is None and wanted == "required":
            raise ValueError(f"'{self.loss}' needs 'negatives', such as {{policy: mixed, count: 512}}")
        if self.level and loss_plugin(self.loss).meaning == "competing":
            raise ValueError(f"titles compete in '{self.loss}', so a 'level' that all of them share says nothing")
        if self.terms and loss_plugin(self.loss).meaning != "competing":
            raise ValueError(f"titles do not compete in '{self.loss}', so 'terms' cannot be added to its scores")
        if len(set(self.terms)) < len(self.terms):
            raise ValueError("'terms' names one of them twice")
        if self.reward is not None and loss_plugin(self.loss).meaning == "value":
            raise ValueError(f"a reward says how much a choice teaches; '{self.loss}' learns a number and takes none")
