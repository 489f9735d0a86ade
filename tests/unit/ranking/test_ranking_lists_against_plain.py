from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.ranking.blend import break_ties, rank

ALL = np.ones(5, dtype=np.bool_)


def test_equal_scores_come_in_the_order_of_the_columns() -> None:
    ranked = rank(np.array([1.0, 2.0, 1.0, 2.0, 1.0]), ALL, 4)
    assert ranked.columns.tolist() == [1, 3, 0, 2]
    assert ranked.scores.tolist() == [2.0, 2.0, 1.0, 1.0]


def test_a_list_is_as_long_as_its_candidates() -> None:
    some = np.array([True, False, False, True, False])
    assert rank(np.arange(5.0), some, 10).columns.tolist() == [3, 0]
    assert rank(np.arange(5.0), some).columns.tolist() == [3, 0]
    assert len(rank(np.arange(5.0), ~ALL)) == 0
    assert len(rank(np.arange(5.0), ~ALL, 3)) == 0


def test_lists_can_be_cut_and_thinned() -> None:
    ranked = rank(np.arange(5.0), ALL)
    taken = np.array([False, False, False, True, False])
    assert ranked.without(taken).columns.tolist() == [4, 2, 1, 0]
    assert ranked.head(2).columns.tolist() == [4, 3]


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        rank(np.array([np.nan, 1.0]), np.ones(2, dtype=np.bool_), 1)


def test_ties_are_broken_and_nothing_else_moves() -> None:
    scores, ties = np.array([3.0, 1.0, 1.0, 1.0, 2.0]), np.array([0.0, 5.0, -np.inf, 9.0, 0.0])
    broken = break_ties(scores, ties, ALL, 5)
    assert rank(broken, ALL).columns.tolist() == [0, 4, 3, 1, 2]
    assert np.abs(broken - scores).max() < 0.5


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
)
def test_the_best_are_in_the_order_of_score_and_then_of_the_other(rows: list[tuple[int, float, bool]], k: int) -> None:
    scores, ties = (np.array([row[place] for row in rows], dtype=np.float64) for place in (0, 1))
    candidates = np.array([row[2] for row in rows])
    expected = sorted(np.flatnonzero(candidates).tolist(), key=lambda column: (-scores[column], -ties[column], column))
    assert rank(break_ties(scores, ties, candidates, k), candidates, k).columns.tolist() == expected[:k]
