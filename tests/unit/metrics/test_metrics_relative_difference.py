"""The interval of a relative difference: what it says of numbers made by hand, and how often it holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.metrics import MemberBootstrap, relative_interval

MEMBERS = np.arange(400)


def test_a_factor_common_to_all_requests_is_found_exactly() -> None:
    theirs = np.random.default_rng(1).random((3, 400)) + 0.5
    found = relative_interval(MEMBERS, 1.2 * theirs, theirs, resamples=200)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2)


def test_one_seed_gives_the_interval_of_the_drawn_ratio() -> None:
    draw = np.random.default_rng(2)
    ours, theirs = draw.random((1, 400)), draw.random((1, 400))
    found = relative_interval(MEMBERS, ours, theirs, resamples=300, seed=4)
    totals = MemberBootstrap(MEMBERS, 300, 4).totals(np.stack([ours[0], theirs[0]], axis=1))
    low, high = np.quantile(totals[:, 0] / totals[:, 1] - 1, [0.025, 0.975])
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert found.value == pytest.approx(ours.mean() / theirs.mean() - 1)


def test_seeds_that_disagree_widen_it() -> None:
    draw = np.random.default_rng(3)
    theirs = draw.random((3, 400)) + 1
    steady = theirs * 1.1
    restless = theirs * np.array([[0.8], [1.1], [1.4]])
    narrow, wide = (relative_interval(MEMBERS, ours, theirs, resamples=200) for ours in (steady, restless))
    assert narrow.value == pytest.approx(wide.value, abs=0.02)
    assert wide.high - wide.low > 0.5
    assert narrow.high - narrow.low < 0.01


def test_requests_of_one_member_are_no_independent_members() -> None:
    draw = np.random.default_rng(5)
    ours, theirs = draw.random((1, 100)), draw.random((1, 100))
    once = relative_interval(np.arange(100), ours, theirs, resamples=400)
    often = relative_interval(
        np.repeat(np.arange(100), 9), np.repeat(ours, 9, 1), np.repeat(theirs, 9, 1), resamples=400
    )
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_the_interval_covers_the_truth_about_as_often_as_its_level() -> None:
    held, tries, truth = 0, 150, 0.1
    for number in range(tries):
        draw = np.random.default_rng(100 + number)
        member = draw.gamma(2.0, 1.0, (1, 200))
        luck = 1 + 0.03 * draw.normal(size=(4, 1))
        theirs = member * (1 + 0.2 * draw.normal(size=(4, 200)))
        ours = member * (1 + truth) * luck * (1 + 0.2 * draw.normal(size=(4, 200)))
        found = relative_interval(np.arange(200), ours, theirs, resamples=100, seed=number)
        held += found.low <= truth <= found.high
    assert 0.88 <= held / tries <= 1.0


def test_a_reference_of_zero_gives_no_number() -> None:
    found = relative_interval(np.arange(3), np.ones((1, 3)), np.zeros((1, 3)))
    assert np.isnan(found.value)
    with pytest.raises(ValueError, match=r"\[S, N = 3\]"):
        relative_interval(np.arange(3), np.ones((1, 3)), np.ones((2, 3)))
