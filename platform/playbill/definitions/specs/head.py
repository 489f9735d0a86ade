"""Heads: what a model predicts, by which loss, and what its positive rows are told apart from. Free of torch.

A loss is registered with an objective, `objective(settings, head, scene, targets, weight_N) -> Tensor`: the weighted
sum of the losses of N rows; see `playbill.models.objectives`. Outside packages add some under `playbill.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from playbill.definitions.specs.base import (
    Duration,
    Reference,
    Spec,
    added_later,
    plugin_options,
    read_options,
    registered,
    require_registered,
)
from playbill.registry import Plugin, Registry

Meaning = Literal["competing", "probability", "value"]
"""What logits are: scores of titles of which one wins, log odds of each title apart, or a number."""


@dataclass(frozen=True, slots=True)
class LossPlugin(Plugin):
    """A registered loss."""

    ranks: bool = False
    """It tells a row's title from others, so rows with a label of 0 teach nothing, and one of 2 counts twice."""
    meaning: Meaning = "probability"
    """What the logits of a head trained by it are."""
    negatives: Literal["none", "optional", "required"] = "none"
    """Whether a head has `negatives`: never, if it likes, or always."""
    sets: bool = False
    """It can have several titles as the targets of one row."""
    absolute: bool = False
    """Titles compete, and yet a constant added to all logits changes the loss."""

    @property
    def leveled(self) -> bool:
        """Whether a term of the state alone, the same for every title, changes the loss."""
        return self.meaning != "competing" or self.absolute


class HuberOptions(Spec):
    """How a number is learnt (Huber 1964): squared errors near the truth, absolute ones far from it."""

    scale: PositiveFloat = 1.0
    """Label value that the head calls 1: minutes over 60 make hours."""
    cap: PositiveFloat | None = None
    """Labels above it count as this much, so that one long evening does not outweigh a hundred short ones."""
    delta: PositiveFloat = Field(default=1.0)
    """Errors above it count by their size and no more by their square; in units of `scale`."""


class GbceOptions(Spec):
    """Generalised binary cross-entropy (Petrov and Macdonald, "gSASRec", RecSys 2023, arXiv 2308.07192)."""

    calibration: float = Field(default=0.75, ge=0, le=1)
    """How far probabilities are corrected for being learnt from few negatives (t of the paper): 0 is plain `bce` of the
    title and its negatives, under which they come out too high, 1 makes them those of the whole catalogue."""


LOSSES = Registry(
    "loss",
    "playbill.losses",
    {
        "softmax": LossPlugin("playbill.models.objectives:softmax_sum", ranks=True, meaning="competing", sets=True),
        "sampled_softmax": LossPlugin(
            "playbill.models.objectives:sampled_sum", ranks=True, meaning="competing", negatives="required", sets=True
        ),
        "pairwise": LossPlugin(
            "playbill.models.objectives:pairwise_sum", ranks=True, meaning="competing", negatives="required"
        ),
        "gbce": LossPlugin(
            "playbill.models.objectives:gbce_sum",
            "playbill.definitions.specs.head:GbceOptions",
            ranks=True,
            meaning="competing",
            negatives="required",
            sets=True,
            absolute=True,
        ),
        "bce": LossPlugin("playbill.models.objectives:binary_sum", negatives="optional"),
        "huber": LossPlugin(
            "playbill.models.objectives:huber_sum", "playbill.definitions.specs.head:HuberOptions", meaning="value"
        ),
    },
)


def loss_plugin(name: str) -> LossPlugin:
    """Return a registered loss; a plain `Plugin` of an outside package says nothing of itself."""
    found = LOSSES[name]
    return found if isinstance(found, LossPlugin) else LossPlugin(found.implementation, found.options)


def loss_options(name: str, options: dict[str, Any]) -> Any | None:
    """Return a loss's options, checked by the spec it registers, or None where it takes none.

    Raises:
        pydantic.ValidationError: An option is wrong; its place begins with `options`.
        PydanticCustomError: The loss takes no options and is given some.
    """
    return plugin_options(loss_plugin(name), options, f"loss '{name}'")


def ranks(loss: str | None) -> bool:
    """Return whether a loss ranks a target: rows whose label is not above 0 train nothing in it."""
    return loss is not None and loss_plugin(loss).ranks


LossName = Annotated[str, registered(LOSSES)]

NEGATIVES = Registry(
    "negatives policy",
    "playbill.negatives",
    {
        "shown_not_played": Plugin(
            "playbill.datasets.examples.negatives:Shown", "playbill.definitions.specs.head:ShownOptions"
        ),
        "uniform": Plugin(
            "playbill.datasets.examples.negatives:Uniform", "playbill.definitions.specs.head:DrawnOptions"
        ),
        "popularity": Plugin(
            "playbill.datasets.examples.negatives:Popularity", "playbill.definitions.specs.head:PopularityOptions"
        ),
        "in_batch": Plugin(
            "playbill.datasets.examples.negatives:InBatch", "playbill.definitions.specs.head:DrawnOptions"
        ),
        "mixed": Plugin("playbill.datasets.examples.negatives:Mixed", "playbill.definitions.specs.head:MixedOptions"),
    },
)
"""How a head's negatives are chosen; see `playbill.datasets.examples.negatives.NegativePolicy`."""


class NegativesOptions(Spec):
    """What a head learns its positives apart from. Only titles that the member could have seen there and then."""

    policy: str
    """`shown_not_played`, `uniform`, `popularity`, `in_batch`, `mixed`, or one that an outside package adds."""


class ShownOptions(NegativesOptions):
    """Titles that were shown in the request and not played."""

    count: PositiveInt | None = None
    """Of each request at most so many, drawn at random; absent is all. A `bce` head weighs them up to their number."""


class DrawnOptions(NegativesOptions):
    """Titles drawn anew for every batch. Also the options of `uniform`."""

    count: int = Field(default=256, ge=1, le=100_000)
    """Titles drawn for a batch; its rows share them."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """For `bce`: what the drawn titles of a row weigh together, where the row itself weighs 1."""


class PopularityOptions(DrawnOptions):
    """Titles drawn by how much they were played."""

    exponent: float = Field(default=0.75, ge=0, le=2)
    """A title's chance is `(plays + 1) ** exponent`; 0 is uniform."""


class MixedOptions(DrawnOptions):
    """Several policies, each with its share of `count` (Yang et al. 2020, mixed negative sampling)."""

    shares: dict[str, PositiveFloat] = Field(default={"in_batch": 0.5, "uniform": 0.5}, min_length=1)
    """Policy -> its share of `count`; they add up to 1."""
    exponent: float = Field(default=0.75, ge=0, le=2)
    """Of `popularity`."""

    @model_validator(mode="after")
    def _shares_of_others(self) -> Self:
        for name in self.shares:
            if name == "mixed":
                raise ValueError("'mixed' cannot be a share of itself")
            require_registered(NEGATIVES, name)
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares add up to {sum(self.shares.values()):g}, not 1")
        if few := [name for name, share in self.shares.items() if round(share * self.count) < 1]:
            raise ValueError(f"count {self.count} leaves nothing for the share of '{few[0]}'")
        return self


def read_negatives(value: Any) -> Any:
    """Check the options of a policy by the spec it registers; a bare name takes its defaults."""
    return read_options(value, NEGATIVES, NegativesOptions, key="policy")


Negatives = Annotated[SerializeAsAny[NegativesOptions], BeforeValidator(read_negatives)]
"""A policy's options, checked by the spec it registers."""


HistoryTerm = Literal["transitions", "ease", "recent_ease", "item_knn", "popular_7d"]
HISTORY_TERMS: tuple[HistoryTerm, ...] = get_args(HistoryTerm)
"""What may be added to a head's scores: see `playbill.models.history_terms`."""


Auxiliary = Literal["next_genres", "next_kind"]
AUXILIARY_TARGETS: dict[Auxiliary, Literal["genres", "kind"]] = {"next_genres": "genres", "next_kind": "kind"}
"""What auxiliary heads predict of the next title, by column of `titles`."""


class HorizonSpec(Spec):
    """What a member chose in the time after a request, as the targets of it: a set, not the one next title."""

    within: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=48)
    """How long after a request what is chosen still answers it."""
    half_life: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=12)
    """The time after which a choice counts half as much: about how long lists are kept before they are made anew."""
    most: int = Field(default=8, ge=2, le=64)
    """Titles of one request at most, the first ones."""


class HeadSpec(Spec):
    """One thing the model predicts."""

    label: Reference | None = None
    """The label it learns."""
    auxiliary: Auxiliary | None = None
    """An attribute of the next title instead of a label, predicted from each state of training: `next_genres` or
    `next_kind`. It shapes what heads share and is not served, so nothing blends it."""
    loss: LossName | None = None
    """`softmax` over every title, `sampled_softmax`, `pairwise` or `gbce` over drawn ones, `bce` over labelled events,
    or `huber` for a label that is a number."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The loss's options."""
    negatives: Negatives | None = None
    """What positives are told apart from: for `sampled_softmax`, `pairwise` and `gbce`, and beside the label's own
    zeros for `bce`."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Multiplier on this head's loss. Weights are not normalised to sum to one; `balance` may learn others beside."""
    rate: float | None = added_later(None, gt=0, le=100)
    """Learning rate of what this head has of its own, over that of what heads share; absent is the model's
    `training.head_rate`. A head with few rows among heads with many takes as many steps as they do: less keeps it from
    learning its rows by heart."""
    level: bool | None = None
    """Give scores a term of the member's state alone, the same for every title: how likely they are to do it at all.
    Absent is yes, unless titles compete."""
    reward: Reference | None = None
    """A reward that weighs its examples."""
    terms: tuple[HistoryTerm, ...] = ()
    """Sums over the member's history, and popularity, that are added to its scores, where titles compete in its loss.
    Training learns their weights by canvas and history length on the validation fold, 0 where they do not help."""
    horizon: HorizonSpec | None = added_later(None)
    """Learn every title that its label is above 0 for within a time, each by its reward and less the later it came,
    where several titles may be the targets of a row: under `softmax`, `sampled_softmax` and `gbce`."""
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
        return self.loss is not None and loss_plugin(self.loss).leveled and self.level is not False

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.label is None) == (self.auxiliary is None):
            raise ValueError("a head needs either 'label' or 'auxiliary'")
        if self.label is not None and self.loss is None:
            raise ValueError("a head with a label needs a 'loss'")
        if self.auxiliary is not None and self.loss is not None:
            raise ValueError("an 'auxiliary' head has a loss of its own; leave 'loss' out")
        self._check_loss()
        return self

    def _check_loss(self) -> None:
        if self.loss is None:
            for own in ("options", "terms", "horizon", "negatives", "level", "reward"):
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
        self._check_extras(loss_plugin(self.loss))

    def _check_extras(self, loss: LossPlugin) -> None:
        if self.level and not loss.leveled:
            raise ValueError(f"titles compete in '{self.loss}', so a 'level' that all of them share says nothing")
        if self.terms and loss.meaning != "competing":
            raise ValueError(f"titles do not compete in '{self.loss}', so 'terms' cannot be added to its scores")
        if len(set(self.terms)) < len(self.terms):
            raise ValueError("'terms' names one of them twice")
        if self.horizon is not None and not loss.sets:
            able = [f"'{name}'" for name in LOSSES.names() if loss_plugin(name).sets]
            raise ValueError(f"'{self.loss}' has one target a row; 'horizon' belongs to {', '.join(able)}")
        if self.reward is not None and loss.meaning == "value":
            raise ValueError(f"a reward says how much a choice teaches; '{self.loss}' learns a number and takes none")
