"""Conformance suites: subclass one, set one attribute, inherit its tests.

Importing this module imports neither Feast nor pytest's plug-ins; touching a suite does. Install
`playbill[features,testing]`. The suites of Feast stores are in `playbill_feast.conformance`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbill.testing.label_extractors import LabelExtractorConformance

__all__ = ["LabelExtractorConformance"]


def __getattr__(name: str) -> Any:
    if name in ("OfflineStoreConformance", "OnlineStoreConformance"):
        # An AttributeError's text is lost in `from playbill.testing import ...`.
        raise ImportError(f"{name} is in playbill_feast.conformance: from playbill_feast.conformance import {name}")
    if name not in __all__:
        raise AttributeError(f"module 'playbill.testing' has no attribute '{name}', only {', '.join(__all__)}")
    import pytest

    # pytest shows both sides of a failed assertion only in modules it knows of before they are imported.
    pytest.register_assert_rewrite("playbill.testing.label_extractors")
    return getattr(import_module("playbill.testing.label_extractors"), name)


def __dir__() -> list[str]:
    return list(__all__)
