"""The room of the suites is cheap to import and says what it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

import playbill.testing
import playbill_feast.conformance


def test_importing_the_suites_room_imports_no_feast() -> None:
    heavy = "{'feast', 'pytest', 'hypothesis', 'pandas'}"
    code = f"import sys, playbill.testing, playbill_feast.conformance; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_suite_is_named() -> None:
    assert dir(playbill.testing) == ["LabelExtractorConformance"]
    with pytest.raises(AttributeError, match="no attribute 'OnlineConformance', only LabelExtractorConformance"):
        _ = playbill.testing.OnlineConformance
    assert dir(playbill_feast.conformance) == ["OfflineStoreConformance", "OnlineStoreConformance"]
    with pytest.raises(AttributeError, match="no attribute 'OnlineConformance', only OfflineStoreConformance"):
        _ = playbill_feast.conformance.OnlineConformance


def test_the_stores_suites_are_named_where_they_were() -> None:
    with pytest.raises(ImportError, match=r"from playbill_feast\.conformance import OnlineStoreConformance"):
        from playbill.testing import OnlineStoreConformance  # noqa: F401
