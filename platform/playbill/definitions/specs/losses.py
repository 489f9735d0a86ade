"""The losses a head may have: what each asks for, and what the head's logits mean. Free of torch.

A loss is registered with an objective, `objective(settings, head, scene, targets, weight_N) -> Tensor`: the weighted
sum of the losses of N rows; see `playbill.models.objectives`. Outside packages add some under `playbill.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, PositiveFloat, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from playbill.definitions.specs.base import Spec
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


class HuberOptions(Spec):
    """How a number is learnt (Huber 1964): squared errors near the truth, absolute ones far from it."""

    scale: PositiveFloat = 1.0
    """Label value that the head calls 1: minutes over 60 make hours."""
    cap: PositiveFloat | None = None
    """Labels above it count as this much, so that one long evening does not outweigh a hundred short ones."""
    delta: PositiveFloat = Field(default=1.0)
    """Errors above it count by their size and no more by their square; in units of `scale`."""


LOSSES = Registry(
    "loss",
    "playbill.losses",
    {
        "softmax": LossPlugin("playbill.models.objectives:softmax_sum", ranks=True, meaning="competing"),
        "sampled_softmax": LossPlugin(
            "playbill.models.objectives:sampled_sum", ranks=True, meaning="competing", negatives="required"
        ),
        "pairwise": LossPlugin(
            "playbill.models.objectives:pairwise_sum", ranks=True, meaning="competing", negatives="required"
        ),
        "bce": LossPlugin("playbill.models.objectives:binary_sum", negatives="optional"),
        "huber": LossPlugin(
            "playbill.models.objectives:huber_sum", "playbill.definitions.specs.losses:HuberOptions", meaning="value"
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
    spec = loss_plugin(name).load_options()
    if spec is None:
        if options:
            raise PydanticCustomError("options", f"loss '{name}' takes no options")
        return None
    try:
        return spec.model_validate(options)
    except ValidationError as error:
        raise ValidationError.from_exception_data(error.title, [_below(item) for item in error.errors()]) from None


def _below(item: ErrorDetails) -> InitErrorDetails:
    text = PydanticCustomError("options", "{text}", {"text": item["msg"]})
    return InitErrorDetails(type=text, loc=("options", *item["loc"]), input=item["input"])


def ranks(loss: str | None) -> bool:
    """Return whether a loss ranks a target: rows whose label is not above 0 train nothing in it."""
    return loss is not None and loss_plugin(loss).ranks
