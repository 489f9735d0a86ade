"""On-demand views are known by their code, not by their layout."""

import ast
from pathlib import Path

import pytest

from playbill.features.reading_plan import KNOWN, code_digest

REPO = Path(__file__).parents[3] / "feature_repo"


def shipped():
    for path in sorted(REPO.glob("*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            if "on_demand_feature_view" in ast.unparse(getattr(node, "decorator_list", [])):
                yield node.name, ast.get_source_segment(text, node)


def test_every_shipped_view_of_the_moment_alone_is_known():
    """Those of titles in a country, and those that read a request's country or device, are left to Feast."""
    digests = {name: code_digest(source) for name, source in shipped()}
    others = ("title_country", "request_local_time", "request_device")
    of_models = {name: digest for name, digest in digests.items() if not name.startswith(others)}
    assert set(of_models) == {"request_time", "title_age", "member_recency", "member_presence"}
    assert set(of_models.values()) == set(KNOWN)


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("def f(x):\n    '''Docs.'''\n    return x+1", True),
        ("@decorated\ndef f(x):\n    return (x + 1)  # why", True),
        ("def f(x):\n    return x + 2", False),
        ("def g(x):\n    return x + 1", False),
        ("def f(x, y=1):\n    return x + 1", False),
        ("view(lambda x: x + 1),", False),
    ],
)
def test_only_the_code_counts(source, same):
    assert (code_digest(source) == code_digest("def f(x):\n    return x + 1")) is same
