"""When a term is final, for which events, and what changes a reward's id."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from playbill.definitions.specs import LabelSpec, RewardSpec, reward_version
from playbill.definitions.specs.resolved import attribution, matures_after, speaks_of
from playbill.definitions.specs.reward import TermSpec

DAY = timedelta(days=1)


def label(**texts: Any) -> LabelSpec:
    return LabelSpec.model_validate({"name": "it", "version": 1} | texts)


PLAYED = label(
    **{"from": {"action": "play"}, "negatives": {"shown_not_played": True, "window": "1d", "matures_after": "2d"}}
)
DONE = label(**{"from": {"action": "play"}, "window": "7d", "matures_after": "8d"})
LISTED = label(**{"from": {"action": "my_list_add"}, "window": "1d", "matures_after": "3d"})


@pytest.mark.parametrize(
    ("term", "spec", "of_play", "of_impression"),
    [
        ({}, PLAYED, 0, 2),
        ({}, DONE, 8, 0),
        ({}, LISTED, 4, 4),
        ({"within": "5d"}, LISTED, 8, 8),
        ({"attribute": "same_title", "within": "2d"}, DONE, 10, 10),
        ({"attribute": "event"}, LISTED, 0, 0),
    ],
)
def test_a_term_is_final_when_nothing_can_change_it(
    term: dict[str, Any], spec: LabelSpec, of_play: int, of_impression: int
) -> None:
    made = TermSpec.model_validate({"weight": 1.0} | term)
    assert matures_after(made, spec, "play") == of_play * DAY
    assert matures_after(made, spec, "impression") == of_impression * DAY


def test_a_term_may_say_whom_it_counts_for() -> None:
    plain, titled = TermSpec(weight=1.0), TermSpec(weight=1.0, attribute="same_title")
    assert (attribution(plain, DONE), attribution(titled, DONE), attribution(plain, LISTED)) == (
        "event",
        "same_title",
        "same_title",
    )
    assert speaks_of(plain, DONE) == {"play"}
    assert speaks_of(plain, PLAYED) == speaks_of(titled, DONE) == {"play", "impression"}


def test_defaults_that_are_written_out_change_no_id() -> None:
    def version(term: Any, **more: Any) -> str:
        made = RewardSpec.model_validate({"name": "worth", "version": 1, "terms": {"it": term}} | more)
        return reward_version(made, {"it": DONE})

    plain = version(1.0)
    assert version({"weight": 1.0, "otherwise": 0.0}, clip=None, delayed=[]) == plain
    assert version({"weight": 1.0, "otherwise": -0.1}) != plain
    assert version(1.0, clip=[-1, 1]) != plain
    # What was measured under an id must stay comparable, whatever keys rewards and labels may get.
    assert plain == "worth:1:03fdf0b87739"
    assert (
        reward_version(RewardSpec(name="worth", version=1, terms={"it": TermSpec(weight=1.0)}), {"it": DONE}) == plain
    )
