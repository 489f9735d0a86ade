"""Rules about runtimes and hours: one reading in training masks, evaluation and serving."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from playbill.datasets.availability import availability_states
from playbill.datasets.candidate_masks import Audience, Described
from playbill.definitions.specs import CandidatesSpec, CanvasSpec, ResolvedModel
from playbill.ranking.candidates import Catalogue, Viewer, emptying_rule, explain, select
from playbill.ranking.row_plans import spare_rules
from playbill.tables import Vocabulary

LATE = {"from": 22, "to": 5, "runtime_min": {"below": 45}}
TITLES = pl.DataFrame(
    {
        "title_id": ["short", "long", "unknown"],
        "name": ["Short", "Long", "Unknown"],
        "names": pl.Series([None] * 3, dtype=pl.List(pl.Struct({"language": pl.String, "name": pl.String}))),
        "kind": ["film"] * 3,
        "runtime_min": pl.Series([30, 120, None], dtype=pl.Int32),
    }
)
AVAILABILITY = pl.DataFrame(
    {
        "title_id": ["short", "long", "unknown"],
        "country": ["*"] * 3,
        "available_from": [datetime(2020, 1, 1, tzinfo=UTC)] * 3,
        "available_until": pl.Series([None] * 3, dtype=pl.Datetime("us", "UTC")),
        "recorded_at": [datetime(2020, 1, 1, tzinfo=UTC)] * 3,
    }
)


def rules(**texts: Any) -> CandidatesSpec:
    return CandidatesSpec.model_validate(texts)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2024, 6, 1, hour, minute, tzinfo=UTC)


def shown(spec: CandidatesSpec, moment: datetime) -> list[bool]:
    catalogue = Catalogue(TITLES["title_id"].to_list(), TITLES, AVAILABILITY)
    return select(catalogue, spec, Viewer(moment, "NL")).tolist()


def test_a_runtime_is_a_rule_by_itself() -> None:
    assert shown(rules(runtime_min={"below": 45}), at(12)) == [True, False, False]
    assert shown(rules(runtime_min={"above": 45}), at(12)) == [False, True, False]
    assert shown(rules(runtime_min={"above": 30, "below": 120}), at(12)) == [False, False, False]


@pytest.mark.parametrize(
    ("moment", "late"), [(at(21, 59), False), (at(22), True), (at(0), True), (at(4, 59), True), (at(5), False)]
)
def test_hours_may_pass_midnight(moment: datetime, late: bool) -> None:
    assert shown(rules(hours=[LATE]), moment) == ([True, False, False] if late else [True, True, True])


def test_hours_are_those_of_the_time_zone() -> None:
    summer = rules(hours=[LATE | {"timezone": "Asia/Kolkata"}])  # UTC+5:30, so 22 h there is 16:30
    assert [shown(summer, at(16, minute))[1] for minute in (29, 30)] == [True, False]
    assert [shown(summer, at(23, minute))[1] for minute in (29, 30)] == [False, True]


def test_a_rule_of_an_hour_is_explained() -> None:
    catalogue = Catalogue(TITLES["title_id"].to_list(), TITLES, AVAILABILITY)
    spec = rules(hours=[LATE])
    late = explain(catalogue, spec, Viewer(at(23), "NL"), 1)
    assert late == {"available: now": True, "runtime_min (from 22 to 5 h)": False}
    assert explain(catalogue, spec, Viewer(at(12), "NL"), 1) == {"available: now": True}
    nothing = rules(hours=[{"from": 22, "to": 5, "runtime_min": {"below": 5}}])
    assert emptying_rule(catalogue, nothing, Viewer(at(23), "NL")) == "runtime_min (from 22 to 5 h)"
    assert emptying_rule(catalogue, rules(kind=["game"]), Viewer(at(23), "NL")) == "kind: [game]"
    assert spare_rules(spec) == spec, "what fills a row up late at night is short too"


def test_training_masks_follow_the_hour_of_each_request() -> None:
    canvas = CanvasSpec.model_validate(
        {"name": "porch", "version": 1, "blend": {"play": 1.0}, "metric": "play", "candidates": {"hours": [LATE]}}
    )
    resolved = ResolvedModel.model_construct(canvases={"porch": canvas})
    requests = pl.DataFrame(
        {"event_at": [at(21, 59), at(22), at(4, 59), at(22)], "country": ["NL"] * 4, "canvas": [*["porch"] * 3, "home"]}
    )
    audience = Audience(
        described=Described.of(["", *TITLES["title_id"]], TITLES),
        profile=np.zeros(4, np.bool_),
    )
    titles = Vocabulary("title", TITLES["title_id"].to_list())
    states, state = availability_states(titles, AVAILABILITY, requests, resolved, audience)
    everything, short = [False, True, True, True], [False, True, False, False]
    assert states.mask(state).tolist() == [everything, short, short, everything]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"runtime_min": {}}, "needs 'below', 'above' or both"),
        ({"runtime_min": {"above": 44, "below": 45}}, "no runtime is above 44 and below 45 minutes"),
        ({"hours": [{"from": 22, "to": 5}]}, "needs a rule that holds then: kids, kind"),
        ({"hours": [{"from": 22, "to": 22, "kids": False}]}, "no hour is from 22 and to 22"),
        ({"hours": [LATE | {"from": 24}]}, "less than or equal to 23"),
        ({"hours": [LATE | {"timezone": "Europe/Amsterdm"}]}, "unknown time zone 'Europe/Amsterdm'"),
        ({"hours": [LATE], "runtime_min": {"below": 90}}, "'runtime_min' is given for all hours and for those from 22"),
        ({"hours": [LATE, LATE | {"from": 4, "to": 8}]}, "'runtime_min' is given from 22 to 5 h and from 4 to 8 h"),
    ],
)
def test_hours_that_make_no_sense_are_refused(texts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rules(**texts)


def test_rules_of_other_hours_may_follow_one_another() -> None:
    both = rules(hours=[LATE, {"from": 5, "to": 9, "runtime_min": {"below": 20}}])
    assert [shown(both, at(hour))[0] for hour in (23, 6, 12)] == [True, False, True]
    assert CandidatesSpec.model_validate_json(both.model_dump_json(by_alias=True)) == both
