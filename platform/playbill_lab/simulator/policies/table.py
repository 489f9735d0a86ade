"""Policies by name: those that come with the simulator, and your own as `module:attribute`, checked before use."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from playbill.definitions.specs.base import unknown_name
from playbill.errors import ConfigError, DefinitionError, Problem, nearest
from playbill.registry import Plugin, Registry

if TYPE_CHECKING:
    from playbill_lab.simulator.policies.policies import Policy

_POLICIES = "playbill_lab.simulator.policies.policies"
POLICIES = Registry(
    "policy",
    "playbill.policies",
    {
        "plackett_luce": Plugin(f"{_POLICIES}:PlackettLuce"),
        "popular": Plugin(f"{_POLICIES}:MostPlayed"),
        "uniform": Plugin(f"{_POLICIES}:EqualChance"),
        "epsilon_greedy": Plugin(f"{_POLICIES}:EpsilonGreedy"),
        "best_appeal": Plugin(f"{_POLICIES}:BestAppeal"),
        "best_value": Plugin(f"{_POLICIES}:BestValue"),
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

_METHODS = ("answer", "probabilities")


def own_policy(name: str) -> Policy:
    """Return a policy by `module:attribute`; modules are looked for in the current folder too.

    Raises:
        ConfigError: There is no such module or attribute, or calling it failed.
        DefinitionError: It is no policy; everything that it lacks is named.
    """
    return _checked(name, _instance(name, _imported(name)))


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = import_module(module)
    except ImportError as error:
        raise ConfigError(f"policy '{name}' cannot be imported: {error}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = nearest(part, vars(found))
            hint = f" Did you mean '{close}'?" if close else ""
            raise ConfigError(f"policy '{name}': {module} has no '{part}'.{hint}")
        found = getattr(found, part)
    return found


def _instance(name: str, found: Any) -> Any:
    if not isinstance(found, type) and all(hasattr(found, method) for method in _METHODS):
        return found
    if not callable(found):
        return found
    try:
        return found()
    except TypeError as error:
        raise ConfigError(
            f"policy '{name}' must be one, or return one when it is called without arguments: {error}"
        ) from None


def _checked(name: str, made: Any) -> Policy:
    problems = [
        Problem(method, f"{type(made).__name__} has no such method.", "See docs/guide/simulator.md.")
        for method in _METHODS
        if not callable(getattr(made, method, None))
    ]
    if not isinstance(getattr(made, "name", None), str):
        problems.insert(0, Problem("name", f"{type(made).__name__} does not say what it is called."))
    if problems:
        raise DefinitionError(f"policy '{name}'", problems)
    policy: Policy = made
    return policy
