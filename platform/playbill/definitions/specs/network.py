"""The network: its trunk, how heads share what it knows of a request, and how their losses are weighed.

Options are checked by the spec that their type registers, without torch.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from playbill.definitions.specs.base import Rate, Size, Spec, added_later, read_options
from playbill.registry import Plugin, Registry


class SharingOptions(Spec):
    """Every head reads the same state. Also the options of `shared`."""

    type: str = "shared"
    """`shared`, `adapters`, `mmoe`, `ple`, or one that an outside package adds."""


class AdaptersOptions(SharingOptions):
    """Each head changes the state by a small network of its own."""

    width: Size = 32
    """Hidden units of each network."""


class MmoeOptions(SharingOptions):
    """Experts that all heads share, and a gate for each head that mixes them (Ma et al. 2018)."""

    experts: int = Field(default=4, ge=1, le=64)
    """Small networks."""
    width: Size = 64
    """Hidden units of each."""


class PleOptions(MmoeOptions):
    """Shared experts beside some of each head's own, in levels (Tang et al. 2020, progressive layered extraction)."""

    own: int = Field(default=1, ge=1, le=64)
    """Experts of each head at every level; `experts` counts the shared ones."""
    levels: int = Field(default=2, ge=1, le=8)
    """Extractions, one after the other; 1 is customised gate control (CGC)."""


_SPECS = "playbill.definitions.specs.network"
SHARINGS = Registry(
    "sharing",
    "playbill.sharings",
    {
        "shared": Plugin("playbill.models.heads:SharedState", f"{_SPECS}:SharingOptions"),
        "adapters": Plugin("playbill.models.heads:Adapters", f"{_SPECS}:AdaptersOptions"),
        "mmoe": Plugin("playbill.models.heads:Mmoe", f"{_SPECS}:MmoeOptions"),
        "ple": Plugin("playbill.models.heads:Ple", f"{_SPECS}:PleOptions"),
    },
)
"""Modules made by `module(dim, heads, options)`; called with states [N, D] they return [K, N, D], or None for the state
as it is."""


def read_sharing(value: Any) -> Any:
    """Check the options of a way to share by the spec it registers; a bare name takes its defaults."""
    return read_options(value, SHARINGS, SharingOptions, "shared")


Sharing = Annotated[SerializeAsAny[SharingOptions], BeforeValidator(read_sharing)]
"""Options of a way to share, checked by the spec its type registers."""


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


BALANCERS = Registry(
    "balance",
    "playbill.balancers",
    {
        "static": Plugin("playbill.training.balancers:Static", f"{_SPECS}:BalanceOptions"),
        "uncertainty": Plugin("playbill.training.balancers:Uncertainty", f"{_SPECS}:UncertaintyOptions"),
        "gradnorm": Plugin("playbill.training.balancers:GradNorm", f"{_SPECS}:GradNormOptions"),
        "scale": Plugin("playbill.training.balancers:Scale", f"{_SPECS}:ScaleOptions"),
    },
)
"""Classes made by `balancer(weights_K, options)`; see `playbill.training.balancers.Balancer`."""


def read_balance(value: Any) -> Any:
    """Check the options of a balance by the spec it registers; a bare name takes its defaults."""
    return read_options(value, BALANCERS, BalanceOptions, "static")


Balance = Annotated[SerializeAsAny[BalanceOptions], BeforeValidator(read_balance)]
"""Options of a balance, checked by the spec its type registers."""


class TrunkOptions(Spec):
    """The causal network over a member's events: its registered type and its sizes."""

    type: str = "gated_transformer"
    """Registered trunk: `gated_transformer`, `hstu`, `sasrec`, or one that an outside package adds."""
    dim: Size = 64
    """Width D of every vector in the model."""
    layers: int = Field(default=2, ge=1, le=64)
    """Blocks, one after the other."""
    heads: int = Field(default=2, ge=1, le=64)
    """Attention heads; `dim` must be a multiple of it."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of activations dropped in training."""
    sharing: Sharing = SharingOptions()
    """How heads share the state of a request: `shared`, or experts that each head mixes for itself."""


class AttentionOptions(TrunkOptions):
    """Attention heads that share the width."""

    def model_post_init(self, context: Any, /) -> None:
        """Check that the width divides into the attention heads."""
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of heads {self.heads}")


class BiasedAttentionOptions(AttentionOptions):
    """Attention with a learned bias for how many events ago, and where it is wanted for how long ago."""

    time_bias: bool = added_later(False)
    """Learn a bias for the longest pause since an event, by bucket of the time between neighbours."""


class GatedTransformerOptions(BiasedAttentionOptions):
    """Pre-norm attention with gated residuals, a learned relative bias and a short causal mixing."""


class HstuOptions(BiasedAttentionOptions):
    """Pointwise attention by SiLU with a learned relative bias, gated, no feed-forward part (Zhai et al. 2024)."""


class SasRecTrunkOptions(AttentionOptions):
    """Plain self-attention (Kang and McAuley 2018): the reference that other trunks are held against."""


TRUNKS = Registry(
    "trunk",
    "playbill.trunks",
    {
        "gated_transformer": Plugin(
            "playbill.models.trunks.gated_transformer:GatedTransformer", f"{_SPECS}:GatedTransformerOptions"
        ),
        "hstu": Plugin("playbill.models.trunks.hstu:Hstu", f"{_SPECS}:HstuOptions"),
        "sasrec": Plugin("playbill.models.trunks.sasrec:SasRecTrunk", f"{_SPECS}:SasRecTrunkOptions"),
    },
)
"""Modules made by `module(config)` of a `models.config.NetworkConfig`; called with tokens [B, L, D] they return states
[B, L, D], of which number l depends on tokens 0 to l only."""


def read_trunk(value: Any) -> Any:
    """Check the options of a trunk."""
    return read_options(value, TRUNKS, TrunkOptions, "gated_transformer")


Trunk = Annotated[SerializeAsAny[TrunkOptions], BeforeValidator(read_trunk)]
"""A trunk's options, checked by the spec its type registers."""
