"""Policies that ship with the simulated service keep what every policy must."""

from __future__ import annotations

import numpy as np
import pytest

from playbill_lab.simulator import Policy, PolicyRequest, Slates, load_policy
from playbill_lab.simulator.policies.policies import (
    BestAppeal,
    BestValue,
    EpsilonGreedy,
    EqualChance,
    MostPlayed,
    PlackettLuce,
)
from playbill_lab.testing import PolicyConformance


class TestPlackettLuce(PolicyConformance):
    def policy(self) -> Policy:
        return PlackettLuce()


class TestColdPlackettLuce(PolicyConformance):
    def policy(self) -> Policy:
        return PlackettLuce(temperature=0.3, popularity=1.0)


class TestPopular(PolicyConformance):
    def policy(self) -> Policy:
        return MostPlayed()


class TestUniform(PolicyConformance):
    def policy(self) -> Policy:
        return EqualChance()


class TestEpsilonGreedy(PolicyConformance):
    def policy(self) -> Policy:
        return EpsilonGreedy(epsilon=0.4)


class TestBestAppeal(PolicyConformance):
    reads_truth = True

    def policy(self) -> Policy:
        return BestAppeal()


class TestBestValue(PolicyConformance):
    reads_truth = True

    def policy(self) -> Policy:
        return BestValue()


class Boastful(EqualChance):
    """Says that what it shows was likelier than it was."""

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        slates = super().answer(request, rng)
        return Slates(slates.titles, np.minimum(slates.propensity * 1.3, 1.0).astype(np.float32))

    def probabilities(self, request: PolicyRequest, titles: np.ndarray) -> np.ndarray:
        return np.minimum(super().probabilities(request, titles) * 1.3, 1.0).astype(np.float32)


def test_the_suite_finds_propensities_that_are_not_true() -> None:
    suite = PolicyConformance()
    questions = suite_questions()
    with pytest.raises(AssertionError, match=r"came \d+ times in"):
        suite.test_lists_come_as_often_as_they_say(Boastful(), questions)
    with pytest.raises(AssertionError):
        suite.test_probabilities_of_a_place_sum_to_one(Boastful(), questions)


def test_the_suite_finds_what_reads_the_truth() -> None:
    with pytest.raises(AssertionError):
        PolicyConformance().test_it_does_not_read_what_members_want(BestAppeal(), suite_questions())


def test_every_canvas_of_titles_is_asked() -> None:
    request = {"home", "kids", "billboard", "search", "more_like_this", "post_play", "screensaver", "coming_soon"}
    assert set(suite_questions()) == {*request, "pre_launch"}


def test_registered_policies_are_found_by_name() -> None:
    assert load_policy("plackett_luce").name == "plackett_luce"


def suite_questions() -> dict[str, PolicyRequest]:
    return PolicyConformance.questions.__wrapped__(PolicyConformance())  # type: ignore[attr-defined, no-any-return]
