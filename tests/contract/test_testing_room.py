"""The room of the suites is cheap to import and says what it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

import playbill.testing


def test_importing_the_suites_room_imports_no_feast() -> None:
    code = "import sys, playbill.testing; print({'feast', 'pytest', 'hypothesis', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_suite_is_named() -> None:
    suites = ("LabelExtractor", "OfflineStore", "OnlineStore", "Policy")
    assert dir(playbill.testing) == [f"{name}Conformance" for name in suites]
    with pytest.raises(AttributeError, match="no attribute 'OnlineConformance', only LabelExtractorConformance"):
        _ = playbill.testing.OnlineConformance
