"""What an ensemble is held to, member by member."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from playbill.definitions.specs import EnsembleSpec
from playbill.errors import IntegrityError
from playbill.versions.promotion.gates import judge_against
from playbill.versions.promotion.members import judge_members, member_gates, shared_numbers
from playbill.versions.tracking import Evaluation

MEMBERS = {
    "global": "every",
    "second": "other:3",
    "foundation": {"model": "foundation", "canvas": "next_play"},
    "dutch": {"model": "every_nl", "countries": ["NL"]},
    "trending": {"term": "popular_7d"},
}


def held(**changes: Any) -> dict[tuple[str, str | None], tuple[str, tuple[str, ...]]]:
    spec = EnsembleSpec.model_validate(
        {"name": "all", "version": 1, "members": MEMBERS, "gate": ["country"], **changes}
    )
    gates = list(member_gates(spec, 10, ("country", "tenure")))
    assert all(one.gate.significant and one.gate.metric == "ndcg@10" for one in gates)
    assert len(gates) == len({(one.role, one.gate.slice) for one in gates})
    return {(one.role, one.gate.slice): (f"{one.gate.tolerance}/{one.gate.worst}", one.countries) for one in gates}


def test_no_canvas_and_no_country_of_a_member_may_be_worse_than_the_member() -> None:
    assert held() == {
        ("global", None): ("0.0/None", ()),
        ("second", None): ("0.0/None", ()),
        ("dutch", "country"): ("None/0.0", ("NL",)),
    }


def test_the_guard_holds_against_the_member_that_it_names_or_against_each_model() -> None:
    guard = {"slice": "tenure", "worst": "-2%"}
    every = held(guard=guard)
    assert {key for key in every if key[1] == "tenure"} == {("global", "tenure"), ("second", "tenure")}
    assert every["second", "tenure"] == ("None/-0.02", ())
    named = held(guard=guard | {"against": "global"})
    assert {key for key in named if key[1] == "tenure"} == {("global", "tenure")}


def test_a_version_without_members_is_held_to_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"extra": {}}))
    assert judge_members(tmp_path, [], None) == ()  # type: ignore[arg-type]
    (tmp_path / "manifest.json").write_text(json.dumps({"extra": {"members": {"global": {}}}}))
    with pytest.raises(IntegrityError, match="cannot be read"):
        judge_members(tmp_path, [], None)  # type: ignore[arg-type]


def test_only_numbers_of_one_split_and_of_shared_canvases_and_countries_are_compared() -> None:
    ours, other = {"home/ndcg@10": 0.1}, {"home/ndcg@10": 0.3, "kids/ndcg@10": 0.2, "home/ndcg@10/country=NL": 0.4}
    one, two, three = (
        Evaluation("leave_one_out", split * 12, numbers, "r")
        for split, numbers in (("a", ours), ("b", other), ("a", other))
    )
    spec = EnsembleSpec.model_validate({"name": "all", "version": 1, "members": MEMBERS, "gate": ["country"]})
    whole, _, dutch = member_gates(spec, 10, ("country",))
    assert shared_numbers(three, whole, ["home"]).metrics.keys() == {"home/ndcg@10", "home/ndcg@10/country=NL"}
    assert shared_numbers(three, dutch, ["home"]).metrics.keys() == {"home/ndcg@10/country=NL"}
    (result,) = judge_against(whole.gate, [one], [two], "global (every:1)")
    assert not result.passed
    assert "not comparable: measured under leave_one_out on split aaaaaaaaaaaa, global (every:1)" in result.reason
    (result,) = judge_against(whole.gate, [one], [shared_numbers(three, whole, ["search"])], "global (every:1)")
    assert result.passed
    assert "global (every:1) has no such number to compare with" in result.reason
