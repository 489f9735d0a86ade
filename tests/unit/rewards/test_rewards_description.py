"""A reward in facts: which events each term speaks of, whom it counts for, and when it is final."""

from __future__ import annotations

from datetime import timedelta

import pytest

from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.definitions.zoo import Zoo
from playbill.errors import DataError
from playbill.rewards import describe_reward, reward_version

DAY = timedelta(days=1)


def test_the_shipped_long_term_reward_in_facts(zoo: Zoo) -> None:
    reward, labels = zoo.reward("long_term")
    found = describe_reward(reward, labels)
    assert found.id == reward_version(reward, labels)
    assert found.final_after == 8 * DAY == reward.matures_after
    assert [term.label.partition(":")[0] for term in found.terms] == list(reward.terms)
    progress = {
        term.label.partition(":")[0]: (term.of, term.counts_for, term.final_after / DAY, term.delayed)
        for term in found.terms
    }
    thumb = ("play", "impression"), "the title's latest play before it within 7 days", 7.0, False
    assert progress["thumbs_up"] == progress["thumbs_down"] == thumb
    assert progress["completion"] == progress["returned_within_7d"] == (("play",), "itself", 8.0, True)
    assert progress["quick_abandon"] == (("play",), "itself", 2.0, True)
    assert progress["discovery_genre"] == (("play",), "itself", 0.0, False)
    assert progress["discovery_play"] == (("play", "impression"), "itself", 1.25, False)


def test_another_event_without_a_window_counts_however_late() -> None:
    label = LabelSpec.model_validate({"name": "up", "version": 2, "from": {"action": "thumbs_up"}})
    reward = RewardSpec.model_validate({"name": "worth", "version": 1, "terms": {"up": 1.0}, "clip": [0, 1]})
    found = describe_reward(reward, {"up": label})
    (term,) = found.terms
    assert (term.label, term.counts_for, found.clip) == ("up:2", "the title's latest play before it", (0.0, 1.0))
    with pytest.raises(DataError, match="no such label"):
        describe_reward(reward, {})
