"""The conformance suite of policies: subclass it, give `policy`, inherit its tests."""

import pytest

# pytest shows both sides of a failed assertion only in modules it knows of before they are imported.
pytest.register_assert_rewrite("playbill_lab.testing.policies")

from playbill_lab.testing.policies import PolicyConformance  # noqa: E402

__all__ = ["PolicyConformance"]
