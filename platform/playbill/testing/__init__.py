"""Conformance suites: subclass one, set one attribute, inherit its tests.

Importing this module imports neither Feast nor pytest's plug-ins; touching a suite does. Install
`playbill[features,testing]`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbill.testing.label_extractors import LabelExtractorConformance
    from playbill.testing.policies import PolicyConformance
    from playbill_feast.conformance.offline import OfflineStoreConformance
    from playbill_feast.conformance.online import OnlineStoreConformance

__all__ = ["LabelExtractorConformance", "OfflineStoreConformance", "OnlineStoreConformance", "PolicyConformance"]

_HOMES = {
    "LabelExtractorConformance": "playbill.testing.label_extractors",
    "OfflineStoreConformance": "playbill_feast.conformance.offline",
    "OnlineStoreConformance": "playbill_feast.conformance.online",
    "PolicyConformance": "playbill.testing.policies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'playbill.testing' has no attribute '{name}', only {', '.join(__all__)}")
    import pytest

    # pytest shows both sides of a failed assertion only in modules it knows of before they are imported.
    pytest.register_assert_rewrite(
        "playbill_feast.conformance", "playbill.testing.label_extractors", "playbill.testing.policies"
    )
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
