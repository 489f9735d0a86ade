"""How the losses of heads are weighed against each other while a model learns. Options, checked without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from playbill.definitions.specs.base import Rate, Spec, read_options
from playbill.registry import Plugin, Registry


class BalanceOptions(Spec):
    """The heads' own weights, as they are written. Also the options of `static`."""

    type: str = "static"
    """`static`, `uncertainty`, `gradnorm`, `scale`, or one that an outside package adds. Heads' own weights multiply
    what a learned balance finds."""


class UncertaintyOptions(BalanceOptions):
    """A learned temperature for each head (Kendall et al. 2018): heads that stay unsure count for less."""

    learning_rate: Rate = 0.01
    """Of the logarithms of the weights."""


class GradNormOptions(BalanceOptions):
    """Weights that make heads pull equally hard on the shared state (Chen et al. 2018, GradNorm)."""

    alpha: float = Field(default=1.0, ge=0, le=10)
    """How much harder heads that learn slowly may pull; 0 makes all pull alike."""
    learning_rate: Rate = 0.025
    """Of the weights."""


class ScaleOptions(BalanceOptions):
    """Each loss divided by its own running size: one per cent off any head's loss counts the same."""

    decay: float = Field(default=0.98, ge=0, lt=1)
    """Of the running means, by step."""
    power: float = Field(default=1.0, ge=0, le=1)
    """Power of the size that is divided by; 0 divides by nothing."""


_SPECS = "playbill.definitions.specs.balance"
BALANCERS = Registry(
    "balance",
    "playbill.balancers",
    {
        "static": Plugin("playbill.training.optimizer:Static", f"{_SPECS}:BalanceOptions"),
        "uncertainty": Plugin("playbill.training.optimizer:Uncertainty", f"{_SPECS}:UncertaintyOptions"),
        "gradnorm": Plugin("playbill.training.optimizer:GradNorm", f"{_SPECS}:GradNormOptions"),
        "scale": Plugin("playbill.training.optimizer:Scale", f"{_SPECS}:ScaleOptions"),
    },
)
"""Classes made by `balancer(weights_K, options)`; see `playbill.training.optimizer.Balancer`."""


def read_balance(value: Any) -> Any:
    """Check the options of a balance by the spec it registers; a bare name takes its defaults."""
    return read_options(value, BALANCERS, BalanceOptions, "static")


Balance = Annotated[SerializeAsAny[BalanceOptions], BeforeValidator(read_balance)]
"""Options of a balance, checked by the spec its type registers."""
