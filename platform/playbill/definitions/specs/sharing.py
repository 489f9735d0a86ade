"""How heads share what the network knows of a request: one state, or experts that each head mixes for itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from playbill.definitions.specs.base import Size, Spec, read_options
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


_SPECS = "playbill.definitions.specs.sharing"
SHARINGS = Registry(
    "sharing",
    "playbill.sharings",
    {
        "shared": Plugin("playbill.models.heads:Shared", f"{_SPECS}:SharingOptions"),
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
