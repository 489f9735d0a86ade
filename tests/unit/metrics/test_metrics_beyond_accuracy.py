"""Average precision, novelty, debiased NDCG and genre calibration against plain Python and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from playbill import metrics


def plain_average_precision(order: list[int], targets: set[int], k: int) -> float:
    found, total = 0, 0.0
    for place, title in enumerate(order[:k], start=1):
        if title in targets:
            found += 1
            total += found / place
    return total / min(k, len(targets))


def plain_debiased(order: list[int], targets: set[int], weights: list[float], k: int) -> float:
    gained = sum(weights[t] / math.log2(place + 2) for place, t in enumerate(order[:k]) if t in targets)
    best = sorted((weights[t] for t in targets), reverse=True)[:k]
    return gained / sum(w / math.log2(place + 2) for place, w in enumerate(best))


def plain_calibration(listed: list[int], shares: list[list[float]], mix: list[float], alpha: float) -> float:
    tagged = [shares[t] for t in listed if sum(shares[t]) > 0]
    shown = [sum(column) / len(tagged) for column in zip(*tagged, strict=True)]
    return sum(p * math.log(p / ((1 - alpha) * q + alpha * p)) for p, q in zip(mix, shown, strict=True) if p > 0)


@st.composite
def rankings(draw):
    n, t = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    scores = np.array(draw(st.lists(st.permutations(range(t)), min_size=n, max_size=n)), dtype=np.float64)
    targets = draw(st.lists(st.sets(st.integers(0, t - 1), min_size=1), min_size=n, max_size=n))
    plays = draw(st.lists(st.integers(0, 30), min_size=t, max_size=t))
    return scores, targets, np.array(plays), draw(st.integers(1, 10))


@given(rankings())
@settings(max_examples=150, deadline=None)
def test_precision_novelty_and_debiased_gain_equal_the_plain_versions(case):
    scores, targets, plays, k = case
    n, t = scores.shape
    rows = np.array([row for row, titles in enumerate(targets) for _ in titles])
    titles = np.array([title for those in targets for title in sorted(those)])
    counts = np.array([len(those) for those in targets])
    orders = [sorted(range(t), key=lambda i, s=s: -s[i]) for s in scores.tolist()]

    ranks = metrics.target_ranks(scores, rows, titles)
    lists = metrics.top_k(scores, k)
    relevance = metrics.relevance_from_ranks(ranks, rows, n, k)
    np.testing.assert_allclose(
        metrics.average_precision(relevance, counts, k),
        [plain_average_precision(o, s, k) for o, s in zip(orders, targets, strict=True)],
    )
    whole = metrics.average_precision(metrics.relevance_from_ranks(ranks, rows, n, t), counts)
    for row, those in enumerate(targets):
        flags = np.isin(np.arange(t), list(those))
        expected = average_precision_score(flags, scores[row])
        assert whole[row] == pytest.approx(expected)

    weights = metrics.inverse_popularity(plays)
    debiased = metrics.popularity_debiased_ndcg(ranks, rows, weights[titles], n, k)
    plain = [plain_debiased(o, s, weights.tolist(), k) for o, s in zip(orders, targets, strict=True)]
    np.testing.assert_allclose(debiased.values, plain)
    np.testing.assert_allclose(debiased.weights, [sum(weights[list(s)]) for s in targets])

    bits = metrics.self_information(plays, 30)
    np.testing.assert_allclose(metrics.novelty(lists, bits, k), [np.mean([bits[i] for i in o[:k]]) for o in orders])


def test_a_target_that_was_no_candidate_costs_precision():
    ranks, rows = np.array([1, 0]), np.array([0, 0])
    relevance = metrics.relevance_from_ranks(ranks, rows, 1, 2)
    assert metrics.average_precision(relevance, np.array([2])).tolist() == [0.5]


def test_debiased_gain_is_ndcg_when_all_titles_weigh_the_same():
    ranks, rows, counts = np.array([3, 1, 0]), np.array([0, 0, 1]), np.array([2, 1])
    same = metrics.inverse_popularity(np.array([5, 900]), gamma=-1.0)
    assert same.tolist() == [1.0, 1.0]
    relevance = metrics.relevance_from_ranks(ranks, rows, 2, 5)
    debiased = metrics.popularity_debiased_ndcg(ranks, rows, np.ones(3), 2, 5)
    np.testing.assert_allclose(debiased.values, metrics.ndcg(relevance, counts, 5))


def test_debiasing_recovers_the_gain_over_all_likings_from_plays_logged_by_popularity():
    # Every title is liked alike, but a liking is logged with a chance that grows with popularity, and a popularity
    # list is judged: its plain NDCG is far too high, the debiased one near what all likings would give.
    generator = np.random.default_rng(4)
    plays = np.round(1000 * np.arange(1, 51) ** -1.0).astype(int)
    rank_of_title = np.arange(1, 51)
    liked = generator.integers(0, 50, size=40_000)
    logged = liked[generator.random(40_000) < (plays / plays.max())[liked] ** 1.25]
    truth = np.mean(np.where(rank_of_title <= 10, 1 / np.log2(rank_of_title + 1), 0.0))
    n = logged.size
    found = metrics.popularity_debiased_ndcg(
        rank_of_title[logged], np.arange(n), metrics.inverse_popularity(plays)[logged], n, 10
    )
    plain = found.values.mean()
    debiased = np.average(found.values, weights=found.weights)
    assert plain > 3 * truth
    assert debiased == pytest.approx(truth, rel=0.12)


def test_novelty_counts_rare_titles_as_more_surprising_and_empty_lists_as_nothing():
    bits = metrics.self_information(np.array([62, 0]), 62)
    assert bits.tolist() == pytest.approx([-math.log2(63 / 64), 6.0])
    found = metrics.novelty(np.array([[0, 1], [1, -1], [-1, -1]]), bits, 2)
    assert found[:2].tolist() == pytest.approx([(bits[0] + 6.0) / 2, 6.0])
    assert np.isnan(found[2])
    with pytest.raises(ValueError, match=r"\[0, 10\]"):
        metrics.self_information(np.array([11]), 10)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_calibration_equals_the_plain_version(data):
    t, g = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 4))
    flags = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=g, max_size=g), min_size=t, max_size=t)))
    flags[0, 0] = True  # at least one title with a genre, which everybody has played and everybody is shown
    shares = metrics.genre_shares(flags)
    played = [0, *data.draw(st.lists(st.integers(0, t - 1), max_size=5))]
    mix = metrics.genre_mix(np.zeros(len(played), int), np.array(played), shares, 1)
    plain_mix = np.sum([shares[i] for i in played], axis=0)
    np.testing.assert_allclose(mix[0], plain_mix / plain_mix.sum())
    listed = [0, *data.draw(st.permutations(range(1, t)))][: data.draw(st.integers(1, t))]
    found = metrics.calibration(np.array([listed]), shares, mix, len(listed))
    assert found[0] == pytest.approx(plain_calibration(listed, shares.tolist(), mix[0].tolist(), 0.01), abs=1e-12)


def test_calibration_ends_of_the_range_and_what_is_unknown():
    shares = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    mix = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0], [np.nan, np.nan]])
    lists = np.array([[0, 1], [1, -1], [2, 2], [0, 1]])
    found = metrics.calibration(lists, shares, mix, 2)
    assert found[0] == pytest.approx(0.0, abs=1e-12)
    assert found[1] == pytest.approx(-math.log(0.01))
    assert np.isnan(found[2:]).all()


@pytest.mark.parametrize(
    "name", ["sampled_ndcg", "ndcg@10_sampled", "hr_99_negatives", "ndcg_neg100", "ndcg_1vs100", "sampled-hr@10"]
)
def test_sampled_metrics_are_refused_by_name_with_the_reason(name):
    with pytest.raises(metrics.ranking.ComparisonError, match="whole catalogue"):
        metrics.refuse_sampled(name)


@pytest.mark.parametrize("name", ["ndcg@10", "map@10", "debiased_ndcg@10", "reward_ndcg@20", "resampling_free"])
def test_metrics_that_are_not_sampled_are_accepted(name):
    assert metrics.refuse_sampled(name) == name


def test_a_ranking_of_a_subset_of_what_may_be_shown_is_refused():
    offered = np.ones((3, 4), bool)
    ranked = offered.copy()
    metrics.require_whole_catalogue(ranked, offered)
    ranked[1, 2:] = False
    with pytest.raises(metrics.ranking.ComparisonError, match=r"1 of 3 requests.*request 1, which leaves out 2 of 4"):
        metrics.require_whole_catalogue(ranked, offered)
