"""The policies that come with the simulator by name, and how a world's specification names one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from playbill.definitions.specs.base import unknown_name
from playbill.registry import Plugin, Registry

_POLICIES, _ORACLES = "playbill_lab.simulator.policies.policies", "playbill_lab.simulator.engine.oracles"
POLICIES = Registry(
    "policy",
    "playbill.policies",
    {
        "plackett_luce": Plugin(f"{_POLICIES}:PlackettLuce"),
        "popular": Plugin(f"{_POLICIES}:Popular"),
        "uniform": Plugin(f"{_POLICIES}:Uniform"),
        "epsilon_greedy": Plugin(f"{_POLICIES}:EpsilonGreedy"),
        "best_appeal": Plugin(f"{_ORACLES}:BestAppeal"),
        "best_value": Plugin(f"{_ORACLES}:BestValue"),
    },
)
"""Who fills the pages of a simulated service; called without arguments they return a policy."""


def _reference(text: str) -> str:
    if ":" not in text:
        if text not in POLICIES:
            raise unknown_name(POLICIES.kind, text, POLICIES.names())
        return text
    module, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise PydanticCustomError(
            "policy", "'{text}' is no policy", {"text": text, "hint": "Expected module:attribute."}
        )
    return text


PolicyReference = Annotated[str, AfterValidator(_reference)]
"""A registered policy, or `module:attribute` of one of your own."""
