"""Options that a registered plugin checks by a spec of its own: `type`, and what belongs to it."""

from __future__ import annotations

from typing import Any, TypeVar

from playbill.definitions.specs.base import Spec, unknown_name
from playbill.registry import Registry

Options = TypeVar("Options", bound=Spec)


def read_options(value: Any, registry: Registry, plain: type[Options], default: str) -> Any:
    """Check options by the spec that their type registers; a bare name takes its defaults.

    Args:
        value: A name, a mapping, or anything else, which is left to the field's own check.
        registry: Of the types.
        plain: Spec of a type that registers none.
        default: The type where `type` is absent.
    """
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, dict) or not isinstance(value.get("type", default), str):
        return value
    name = value.get("type", default)
    if name not in registry:
        raise unknown_name(registry.kind, name, registry.names())
    options: type[Options] | None = registry[name].load_options()
    return (options or plain).model_validate(value)
