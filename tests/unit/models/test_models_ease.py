"""EASE's weights: the whole matrix from sparse plays, and the strongest of each title for large catalogues."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from playbill.models import ease
from playbill.models.ease import played_both, solve, strongest_weights


def log(members: int = 60, titles: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Titles 1 to 12, the first ones played most; some plays are repeated."""
    draw = np.random.default_rng(seed).random((members, titles)) < np.linspace(0.6, 0.1, titles)
    member, title = np.nonzero(draw)
    return np.append(title, title[:9]) + 1, np.append(member, member[:9])


def dense(title: np.ndarray, member: np.ndarray, titles: int) -> np.ndarray:
    plays = np.zeros((member.max() + 1, titles), np.float32)
    plays[member, title] = 1.0
    return plays


def test_counts_in_blocks_of_titles_are_the_whole(monkeypatch):
    plays = dense(*log(), 13)
    monkeypatch.setattr(ease, "ROWS_AT_ONCE", 5)
    np.testing.assert_array_equal(played_both(sparse.csr_array(plays)), plays.T @ plays)


def test_all_weights_kept_are_the_closed_form():
    title, member = log()
    plays = dense(title, member, 13)
    weights = strongest_weights(title, member, 13, keep=13, penalty=20.0).toarray()
    np.testing.assert_allclose(weights[1:, 1:], solve((plays.T @ plays)[1:, 1:], 20.0), rtol=1e-4, atol=1e-7)
    assert not weights[0].any()
    assert not weights[:, 0].any(), "title 0 is none"


def test_of_each_title_the_largest_in_size_are_kept():
    title, member = log()
    whole = strongest_weights(title, member, 13, keep=13, penalty=20.0).toarray()
    kept = strongest_weights(title, member, 13, keep=3, penalty=20.0).toarray()
    for s in range(1, 13):
        assert np.count_nonzero(kept[s]) == 3
        assert np.abs(kept[s][kept[s] != 0]).min() >= np.abs(whole[s][kept[s] == 0]).max()


def test_beyond_what_is_solved_the_most_played_titles_have_weights():
    title, member = log()
    weights = strongest_weights(title, member, 13, keep=13, penalty=20.0, solved=4)
    most = np.argsort(-dense(title, member, 13).sum(axis=0), kind="stable")[:4]
    assert set(weights.nonzero()[0]) == set(weights.nonzero()[1]) == set(most.tolist())


@pytest.mark.parametrize("title", [np.zeros(0, np.int64), np.zeros(3, np.int64)])
def test_a_log_without_plays_has_no_weights(title):
    weights = strongest_weights(title, np.arange(len(title)), 5, keep=3)
    assert weights.shape == (5, 5)
    assert not weights.nnz


@pytest.mark.parametrize("block", [4, 1_024])
@pytest.mark.parametrize("definite", [True, False])
def test_a_solution_by_halves_is_that_of_a_general_inverse(monkeypatch, block, definite):
    monkeypatch.setattr(ease, "ROWS_AT_ONCE", block)
    draw = np.random.default_rng(1).normal(size=(13, 13))
    counts = (draw @ draw.T if definite else draw + draw.T).astype(np.float32)
    inverse = np.linalg.inv(counts.astype(np.float64) + 2.0 * np.eye(13))
    plain = inverse / -np.diag(inverse)
    np.fill_diagonal(plain, 0)
    np.testing.assert_allclose(solve(counts, 2.0), plain, rtol=1e-3, atol=1e-4)
