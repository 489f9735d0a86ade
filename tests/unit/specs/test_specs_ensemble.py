"""What an ensemble's definition may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from playbill.definitions.specs import EnsembleSpec

MEMBERS = {
    "global": "everycanvas@champion",
    "nl": {"model": "everycanvas:2", "countries": ["NL"]},
    "trending": {"term": "popular_7d"},
}


def ensemble(**changes: Any) -> dict[str, Any]:
    return {"name": "both", "version": 1, "members": MEMBERS, "gate": ["country"], **changes}


def mistake(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        EnsembleSpec.model_validate(ensemble(**changes))
    return str(caught.value)


def test_members_are_models_and_terms_and_the_short_form_is_a_model() -> None:
    spec = EnsembleSpec.model_validate(ensemble(guard={"slice": "country", "worst": "-1%"}))
    assert {role: member.name for role, member in spec.models.items()} == {"global": "everycanvas", "nl": "everycanvas"}
    assert spec.history_terms == ("popular_7d",)
    assert spec.guarded == ("global", "nl")
    named = {"slice": "country", "worst": "-1%", "against": "global"}
    assert EnsembleSpec.model_validate(ensemble(guard=named)).guarded == ("global",)
    plain = spec.model_dump(mode="json")["members"]
    assert plain["global"] == "everycanvas@champion"
    assert plain["nl"]["countries"] == ["NL"]
    assert EnsembleSpec.model_validate_json(spec.model_dump_json()) == spec


def test_all_mistakes_between_members_base_and_guard_are_named_together() -> None:
    members = {**MEMBERS, "again": "everycanvas@champion", "week": {"term": "popular_7d"}}
    found = mistake(members=members, base="globl", guard={"slice": "country", "worst": "-1%", "against": "trendin"})
    assert "base 'globl' is no member. Did you mean 'global'?" in found
    assert "'again' and 'global' are both everycanvas@champion" in found
    assert "'week' and 'trending' are both popular_7d" in found
    assert "guard.against 'trendin' is no member" in found


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"members": {"global": "m"}}, "at least 2"),
        ({"base": "trending"}, "base 'trending' is a term"),
        ({"base": "nl"}, "base 'nl' is asked everywhere"),
        ({"members": {**MEMBERS, "x": {"model": "m", "term": "ease"}}}, "a 'model' or a 'term'"),
        ({"members": {**MEMBERS, "x": {"term": "ease", "canvas": "home"}}}, "is the same on every canvas"),
        ({"members": {**MEMBERS, "x": {"term": "popular"}}}, "'popularity' or 'content'"),
        ({"gate": ["country", "country"]}, "the gate reads each once"),
        ({"gate": ["device"]}, "'country', 'tenure' or 'title_age'"),
        ({"guard": {"slice": "country", "worst": "+1%"}}, "a limit on harm"),
        ({"guard": {"slice": "country", "worst": "-1%", "against": "trending"}}, "a guard compares with a model"),
    ],
)
def test_each_mistake_is_refused(changes: dict[str, Any], match: str) -> None:
    assert match in mistake(**changes)
