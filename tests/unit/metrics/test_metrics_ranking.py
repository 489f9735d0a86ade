"""Fast metrics against plain Python, and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill import metrics


def slow_list(scores: list[float], candidates: list[bool], k: int) -> list[int]:
    order = sorted((i for i in range(len(scores)) if candidates[i]), key=lambda i: (-scores[i], i))
    return (order + [-1] * k)[:k]


def slow_ndcg(ranked: list[int], targets: set[int], k: int) -> float:
    gained = sum(1 / math.log2(place + 2) for place, title in enumerate(ranked[:k]) if title in targets)
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(targets))))
    return gained / best


def slow_mrr(ranked: list[int], targets: set[int], k: int) -> float:
    return next((1 / (place + 1) for place, title in enumerate(ranked[:k]) if title in targets), 0.0)


@st.composite
def cases(draw):
    n, t, k = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    value = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0])  # few values, so ties are the rule
    scores = draw(st.lists(st.lists(value, min_size=t, max_size=t), min_size=n, max_size=n))
    flags = draw(st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=n, max_size=n))
    targets = draw(st.lists(st.sets(st.integers(0, t - 1), min_size=1), min_size=n, max_size=n))
    return np.array(scores, np.float32), np.array(flags), targets, k


@given(cases())
@settings(max_examples=200, deadline=None)
def test_lists_ranks_and_metrics_equal_the_plain_versions(case):
    scores, candidates, targets, k = case
    n, t = scores.shape
    rows = np.array([row for row, titles in enumerate(targets) for _ in titles])
    titles = np.array([title for those in targets for title in sorted(those)])
    counts = np.array([len(those) for those in targets])

    lists = metrics.top_k(scores, k, candidates)
    ranks = metrics.target_ranks(scores, rows, titles, candidates)
    relevance = np.array([[title in targets[row] for title in those] for row, those in enumerate(lists)])
    plain = [slow_list(list(scores[i]), list(candidates[i]), k) for i in range(n)]
    full = [slow_list(list(scores[i]), list(candidates[i]), t) for i in range(n)]

    assert lists.tolist() == plain
    expected = [full[r].index(c) + 1 if c in full[r] else 0 for r, c in zip(rows, titles, strict=True)]
    assert ranks.tolist() == expected
    np.testing.assert_array_equal(relevance, metrics.relevance_from_ranks(ranks, rows, n, k))
    found = [sum(title in targets[i] for title in plain[i]) for i in range(n)]
    np.testing.assert_allclose(metrics.hit_rate(relevance, k), [float(c > 0) for c in found])
    np.testing.assert_allclose(
        metrics.recall(relevance, counts, k), [c / len(s) for c, s in zip(found, targets, strict=True)]
    )
    np.testing.assert_allclose(
        metrics.ndcg(relevance, counts, k), [slow_ndcg(plain[i], targets[i], k) for i in range(n)]
    )
    np.testing.assert_allclose(metrics.mrr(relevance, k), [slow_mrr(plain[i], targets[i], k) for i in range(n)])
    union = {title for those in plain for title in those if title >= 0}
    assert metrics.coverage(lists, k, t) == pytest.approx(len(union) / t)


def test_by_hand_one_target_at_rank_three():
    scores = np.array([[0.1, 0.9, 0.8, 0.3]])
    rows, titles, counts = np.array([0]), np.array([3]), np.array([1])
    ranks = metrics.target_ranks(scores, rows, titles)
    relevance = metrics.relevance_from_ranks(ranks, rows, 1, 10)
    assert ranks.tolist() == [3]
    assert metrics.ndcg(relevance, counts, 10)[0] == pytest.approx(0.5)  # 1 / log2(4)
    assert metrics.mrr(relevance, 10)[0] == pytest.approx(1 / 3)
    assert metrics.hit_rate(relevance, 2)[0] == 0.0


def test_by_hand_two_of_three_targets_in_the_first_five():
    relevance = np.array([[True, False, True, False, False]])
    counts = np.array([3])
    assert metrics.recall(relevance, counts, 5)[0] == pytest.approx(2 / 3)
    best = 1 + 1 / math.log2(3) + 0.5
    assert metrics.ndcg(relevance, counts, 5)[0] == pytest.approx(1.5 / best)


def test_ties_go_to_the_smaller_index_even_at_the_cut():
    scores = np.zeros((2, 6), np.float32)
    assert metrics.top_k(scores, 3).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert metrics.target_ranks(scores, np.array([1]), np.array([4])).tolist() == [5]


def test_a_candidate_scored_minus_infinity_still_comes_before_what_is_masked():
    scores = np.array([[-np.inf, -np.inf, -np.inf]])
    candidates = np.array([[False, False, True]])
    assert metrics.top_k(scores, 2, candidates).tolist() == [[2, -1]]


def test_lists_are_padded_when_there_are_fewer_titles_than_places():
    assert metrics.top_k(np.array([[1.0, 2.0]]), 4).tolist() == [[1, 0, -1, -1]]


@pytest.mark.parametrize(
    ("scores", "k", "candidates"),
    [
        (np.array([[np.nan, 1.0]]), 1, None),
        (np.zeros((1, 2)), 0, None),
        (np.zeros((1, 2)), 1, np.ones((1, 3), bool)),
    ],
)
def test_unusable_scores_are_refused(scores, k, candidates):
    with pytest.raises(ValueError, match=r"NaN|at least 1|alike"):
        metrics.top_k(scores, k, candidates)


def test_nan_where_nothing_may_be_listed_is_harmless():
    scores = np.array([[np.nan, 1.0]])
    assert metrics.top_k(scores, 1, np.array([[False, True]])).tolist() == [[1]]


def test_a_request_without_targets_is_a_mistake():
    with pytest.raises(ValueError, match="at least one target"):
        metrics.recall(np.zeros((1, 3), bool), np.array([0]), 3)
