"""The conformance suite of policies that fill the pages of a simulated service: subclass it, give `policy`.

What off-policy evaluation rests on: propensities that are the truth about how lists were drawn.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from playbill.arrays import Floats64, Ints32
from playbill_lab.simulator import Policy, PolicyRequest, Slates, World, WorldSpec, load_policy, simulate
from playbill_lab.simulator.engine.choices import Response
from playbill_lab.simulator.policies.policy_request import LatentIntent, check_slates
from playbill_lab.simulator.world.canvases import CANVASES

Questions = dict[str, PolicyRequest]  # Canvas -> questions of its own, with candidates
DRAWS = 6_000
_SIGMAS = 5.0
_KEPT = 40
_COUNTERS = ("played", "genre_plays", "language_plays", "continuing", "my_list", "plays_7d", "sessions", "questions")


class PolicyConformance:
    """What every policy must keep, asked in the middle of a small service's life.

    Attributes:
        reads_truth: It may read what members want, as an oracle does; others may not.
        travels: It can be sent to other processes.
    """

    reads_truth = False
    travels = True

    def policy(self) -> Policy:
        """Return a policy. Called for each test, so that none leaves anything behind."""
        raise NotImplementedError

    def world(self) -> World:
        """Return the service; few titles, so that every list is drawn often."""
        return World.make(WorldSpec(seed=11, members=300, titles=24, days=8, launches_per_week=4))

    @pytest.fixture
    def policy_at_hand(self) -> Policy:
        """The policy."""
        return self.policy()

    @pytest.fixture(scope="class")
    def questions(self) -> Questions:
        """Canvas -> questions of its own, with candidates."""
        return some_questions(self.world())

    def test_it_says_what_it_is_called(self, policy_at_hand: Policy) -> None:
        """Reports name it."""
        assert policy_at_hand.name

    def test_lists_can_be_shown(self, policy_at_hand: Policy, questions: Questions) -> None:
        """Lists hold candidates, each once, no more than asked for, with a propensity in (0, 1] each."""
        for canvas, request in questions.items():
            slates = policy_at_hand.answer(request, np.random.default_rng(3))
            check_slates(request, slates, f"{policy_at_hand.name} on {canvas}")
            assert (slates.titles >= 0).any(), f"every list on {canvas} is empty"

    def test_equal_luck_gives_equal_lists(self, policy_at_hand: Policy, questions: Questions) -> None:
        """All chance comes from the generator that is handed in."""
        for request in questions.values():
            one, other = (policy_at_hand.answer(request, np.random.default_rng(4)) for _ in range(2))
            np.testing.assert_array_equal(one.titles, other.titles)
            np.testing.assert_array_equal(one.propensity, other.propensity)

    def test_propensities_are_the_probabilities_of_the_list(self, policy_at_hand: Policy, questions: Questions) -> None:
        """What is logged is what `probabilities` says of the same list."""
        for request in questions.values():
            slates = policy_at_hand.answer(request, np.random.default_rng(5))
            found = policy_at_hand.probabilities(request, slates.titles)
            np.testing.assert_allclose(found, slates.propensity, rtol=1e-4, atol=1e-7)

    def test_probabilities_of_a_place_sum_to_one(self, policy_at_hand: Policy, questions: Questions) -> None:
        """Some candidate comes first; and some other one second, whatever came first."""
        for request in questions.values():
            slates = policy_at_hand.answer(request, np.random.default_rng(6))
            filled = (slates.titles >= 0).sum(axis=1)
            first = _place_totals(policy_at_hand, request, slates.titles[:, :0])
            np.testing.assert_allclose(first[filled > 0], 1.0, rtol=1e-4)
            if request.places > 1:
                second = _place_totals(policy_at_hand, request, slates.titles[:, :1])
                np.testing.assert_allclose(second[filled > 1], 1.0, rtol=1e-4)

    def test_what_cannot_be_shown_has_probability_zero(self, policy_at_hand: Policy, questions: Questions) -> None:
        """Titles that are no candidates, empty places, and a title that is on the list already."""
        for request in questions.values():
            stranger = (~request.candidates()).argmax(axis=1)
            there = ~request.candidates()[np.arange(len(request)), stranger]
            lists = np.where(there, stranger, -1)[:, None].astype(np.int32)
            assert not policy_at_hand.probabilities(request, lists).any()
            slates = policy_at_hand.answer(request, np.random.default_rng(7))
            if request.places > 1:
                twice = np.repeat(slates.titles[:, :1], 2, axis=1)
                assert not policy_at_hand.probabilities(request, twice)[:, 1].any()

    def test_lists_come_as_often_as_they_say(self, policy_at_hand: Policy, questions: Questions) -> None:
        """The first two places of one question, drawn many times, against their propensities."""
        for canvas, request in questions.items():
            again = request.take(np.zeros(DRAWS, np.int64))
            slates = policy_at_hand.answer(again, np.random.default_rng(8))
            lists, at, counts = np.unique(slates.titles[:, :2], axis=0, return_index=True, return_counts=True)
            chance = np.where(lists >= 0, slates.propensity[at, : lists.shape[1]], 1.0).prod(axis=1, dtype=np.float64)
            reach = _SIGMAS * np.sqrt(DRAWS * chance * (1 - chance)) + 1.0
            wrong = np.flatnonzero(np.abs(counts - DRAWS * chance) > reach)
            assert not wrong.size, (
                f"on {canvas} the list {lists[wrong[0]].tolist()} came {counts[wrong[0]]} times in {DRAWS}, its "
                f"propensities say {DRAWS * chance[wrong[0]]:.0f}"
            )

    def test_questions_do_not_depend_on_one_another(self, policy_at_hand: Policy, questions: Questions) -> None:
        """A question has the probabilities it has among others, alone and in another order."""
        for request in questions.values():
            lists = policy_at_hand.answer(request, np.random.default_rng(9)).titles
            whole = policy_at_hand.probabilities(request, lists)
            backwards = np.arange(len(request))[::-1][: max(1, len(request) // 2)]
            part = policy_at_hand.probabilities(request.take(backwards), lists[backwards])
            np.testing.assert_allclose(part, whole[backwards], rtol=1e-4, atol=1e-7)

    def test_it_does_not_read_what_members_want(self, policy_at_hand: Policy, questions: Questions) -> None:
        """No service knows the intent of a session or the title somebody searches for."""
        if self.reads_truth:
            return
        for request in questions.values():
            lists = policy_at_hand.answer(request, np.random.default_rng(10)).titles
            other = LatentIntent(request.hidden.intent[::-1] + 1.0, np.full_like(request.hidden.wanted, 0))
            found = policy_at_hand.probabilities(replace(request, hidden=other), lists)
            np.testing.assert_array_equal(found, policy_at_hand.probabilities(request, lists))

    def test_it_leaves_the_service_alone(self, policy_at_hand: Policy, questions: Questions) -> None:
        """Answering changes neither counters nor candidates."""
        for request in questions.values():
            before = {name: getattr(request.state, name).copy() for name in _COUNTERS}
            candidates = request.candidates().copy()
            policy_at_hand.answer(request, np.random.default_rng(12))
            for name, values in before.items():
                np.testing.assert_array_equal(getattr(request.state, name), values)
            np.testing.assert_array_equal(request.candidates(), candidates)

    def test_it_can_be_sent_to_another_process(self, policy_at_hand: Policy, questions: Questions) -> None:
        """A copy by pickle answers as it does."""
        if not self.travels:
            return
        copy = pickle.loads(pickle.dumps(policy_at_hand))
        request = next(iter(questions.values()))
        one, other = (policy.answer(request, np.random.default_rng(13)) for policy in (policy_at_hand, copy))
        np.testing.assert_array_equal(one.titles, other.titles)


def some_questions(world: World) -> Questions:
    """Return questions of a world's last days, by canvas, as the service stood at the end of its run."""
    found: Questions = {}

    def watch(request: PolicyRequest, slates: Slates, response: Response) -> None:
        for code in np.unique(request.canvas):
            at = np.flatnonzero(request.canvas == code)[:_KEPT]
            canvas = CANVASES[code]
            if canvas not in found or len(at) >= min(len(found[canvas]), _KEPT // 4):
                found[canvas] = _still(request.take(at))

    simulate(world, load_policy("uniform"), watch=watch)
    return {canvas: kept for canvas, request in found.items() if len(kept := _with_candidates(request))}


def _still(request: PolicyRequest) -> PolicyRequest:
    """Return a copy whose page does not fill up any more, and whose candidates are yet to be worked out."""
    return replace(request, shown=request.shown.copy(), at_us=request.at_us.copy(), device=request.device.copy())


def _with_candidates(request: PolicyRequest) -> PolicyRequest:
    return request.take(np.flatnonzero(request.candidates().any(axis=1)))


def _place_totals(policy: Policy, request: PolicyRequest, before: Ints32) -> Floats64:
    """Return [N] the sum of the probabilities of all titles at the place behind those `before` [N, K]."""
    total = np.zeros(len(request))
    for lists in _one_more(request, before):
        total += policy.probabilities(request, lists)[:, -1]
    return total


def _one_more(request: PolicyRequest, before: Ints32) -> Iterator[Ints32]:
    candidates = request.candidates()
    for title in range(candidates.shape[1]):
        free = candidates[:, title] & ~(before == title).any(axis=1)
        yield np.concatenate([before, np.where(free, title, -1)[:, None].astype(np.int32)], axis=1)
