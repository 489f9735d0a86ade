"""Policies of your own: named as `module:attribute`, and checked before they fill pages."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from playbill.errors import ConfigError, DefinitionError, Problem, nearest

if TYPE_CHECKING:
    from playbill_lab.simulator.policies.policies import Policy

_METHODS = ("answer", "probabilities")


def own_policy(name: str) -> Policy:
    """Return a policy by `module:attribute`; modules are looked for in the current folder too.

    Raises:
        ConfigError: There is no such module or attribute, or calling it failed.
        DefinitionError: It is no policy; everything that it lacks is named.
    """
    return _checked(name, _made(name, _imported(name)))


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


def _made(name: str, found: Any) -> Any:
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
