"""Which labels a log cannot have, whatever comes of its events."""

import polars as pl
import pytest

from playbill.definitions.specs import LabelSpec
from playbill.labels import not_in_log

LOG = pl.DataFrame(
    {
        "action": ["play", "impression"],
        "canvas": ["home", "home"],
        "title_id": ["1", "1"],
        "progress": [1.0, None],
        "query": [None, None],
        "request_id": ["r", "r"],
        "row_id": [None, None],
        "session_id": [None, None],
    },
    schema_overrides={"query": pl.String, "row_id": pl.String, "session_id": pl.String},
)


def label(**parts: object) -> LabelSpec:
    return LabelSpec.model_validate({"name": "one", "version": 1, "matures_after": "8d", "window": "7d", **parts})


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (label(**{"from": {"action": "my_list_add"}}), "no event my_list_add"),
        (label(**{"from": {"action": ["search", "abandon"]}}), "no event search or abandon"),
        (label(**{"from": {"action": ["search", "play"]}}), None),
        (label(**{"from": {"action": "play", "where": "progress < 0.5 and query = 'x'"}}), "column query is empty"),
        (label(**{"from": {"action": "play", "where": "progress < 0.5 and later_plays = 0"}}), None),
        (label(**{"from": {"action": "play", "where": "canvas in ('search', 'kids')"}}), "no event on canvas kids or"),
        (label(**{"from": {"action": "play", "where": "canvas = 'home' or canvas = 'kids'"}}), None),
        (label(**{"from": {"action": "play", "where": "not (canvas = 'kids')"}}), None),
        (label(extractor="acted_on", options={"actions": "kuairand.follow"}), "no event kuairand.follow"),
        (label(extractor="acted_on", options={"actions": "play"}), None),
        (label(extractor="played_from", level="row"), "column row_id is empty"),
        (label(extractor="played_from", level="page"), None),
    ],
)
def test_labels_that_the_log_cannot_have_are_named_with_the_reason(spec, missing):
    found = not_in_log([spec], LOG).get("one")
    assert found is None if missing is None else (found or "").startswith(missing), found


def test_a_log_without_impressions_has_no_label_about_them():
    spec = label(extractor="acted_on", options={"actions": "play"})
    assert not_in_log([spec], LOG.filter(pl.col("action") == "play").lazy()) == {"one": "no event impression"}
