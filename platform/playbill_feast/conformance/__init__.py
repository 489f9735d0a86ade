"""Test suites that any Feast store can inherit: subclass one, set one attribute.

A suite is a pytest class. It builds a small Feast repository of its own in a temporary folder, once per class, and
uses nothing but Feast's public interface. Importing this module imports neither Feast nor pytest; touching a suite
does. Needs pytest and hypothesis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbill_feast.conformance.offline import OfflineStoreConformance
    from playbill_feast.conformance.online import OnlineStoreConformance

__all__ = ["OfflineStoreConformance", "OnlineStoreConformance"]

_MODULES = {"OfflineStoreConformance": "offline", "OnlineStoreConformance": "online"}
_WITH_ASSERTIONS = ("offline", "offline_rows", "online", "online_values")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}', only {', '.join(__all__)}")
    import pytest

    # pytest shows both sides of a failed assertion only in modules it knows of before they are imported.
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_ASSERTIONS))
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
