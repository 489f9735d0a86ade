"""Rows blended at once against `blend` and `rank` of each row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from playbill.errors import UnknownNameError
from playbill.ranking.blend import AS_IT_IS, blend, rank
from playbill.ranking.page_scores import blend_page

LOSSES = {
    "play": "softmax",
    "sampled": "sampled_softmax",
    "pair": "pairwise",
    "up": "bce",
    "down": "bce",
    "minutes": "huber",
    "similarity": AS_IT_IS,
}
STEP = float(np.finfo(np.float32).smallest_subnormal)
"""What float32 cannot divide."""
WEIGHTS = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([1.0, -1.0, 0.3]))
# Few different values make ties; large ones make sums of exponentials underflow.
LOGITS = st.one_of(
    st.floats(-20, 20, width=32), st.sampled_from([0.0, 1.0, -1.0]), st.sampled_from([-400.0, 300.0, 1e4])
)


@st.composite
def pages(draw):
    titles, rows = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    blends = draw(
        st.lists(
            st.dictionaries(st.sampled_from(sorted(LOSSES)), WEIGHTS, min_size=1, max_size=3),
            min_size=rows,
            max_size=rows,
        )
    )
    pairs = [(row, head) for row, weights in enumerate(blends) for head in weights]
    logits = draw(hnp.arrays(np.float32, (len(pairs), titles), elements=LOGITS))
    candidates = draw(hnp.arrays(np.bool_, (rows, titles)))
    return logits, pairs, blends, candidates


TINY = (np.zeros((1, 2), np.float32), [(0, "down")], [{"down": 2.0**-149}], np.ones((1, 2), np.bool_))
"""A weight so small that float32 has no number between its product and 0."""


@settings(deadline=None, max_examples=300)
@given(page=pages(), k=st.integers(1, 12), seed=st.integers(0, 9))
@example(page=TINY, k=1, seed=0)
def test_a_page_lists_what_each_row_alone_would(page, k, seed):
    logits, pairs, blends, candidates = page
    found = blend_page(logits, pairs, LOSSES, blends, candidates)
    left = np.random.default_rng(seed).random(candidates.shape[1]) < 0.7
    for row, weights in enumerate(blends):
        own = {head: logits[number] for number, (place, head) in enumerate(pairs) if place == row}
        plain = blend(own, LOSSES, weights, candidates[row])
        size = sum(abs(weight) * (1 + np.abs(own[head]).max()) for head, weight in weights.items())
        np.testing.assert_allclose(found.scores[row], plain, rtol=0, atol=1e-5 * size + STEP)
        there = candidates[row]
        wrong = np.abs(found.scores[row, there].astype(np.float64) - plain[there])
        assert (wrong <= found.errors[row]).all(), "the bound that decides which titles are looked at again"
        for allowed in (None, left):
            mask = candidates[row] if allowed is None else candidates[row] & allowed
            best = found.best(row, k, allowed)
            expected = rank(plain, mask, k)
            np.testing.assert_allclose(best.scores, expected.scores, rtol=0, atol=1e-6 * size)
            assert np.array_equal(best.columns, expected.columns) or _apart_by_rounding(best, expected, plain)
        sharp = rank(found.sharpened(row, k), candidates[row], k)
        np.testing.assert_array_equal(sharp.columns, found.best(row, k).columns)


def _apart_by_rounding(best, expected, plain):
    """Two orders may differ only where float64 itself cannot tell the scores apart."""
    return np.allclose(plain[best.columns], plain[expected.columns], rtol=1e-12, atol=1e-12)


def test_ties_go_to_the_smaller_column_also_at_the_end_of_the_list():
    titles = 1003
    logits = np.repeat(np.float32([[2.0], [0.7]]), titles, axis=1)
    logits[0, 500] = 3.0
    everything = np.ones((1, titles), bool)
    found = blend_page(logits, [(0, "play"), (0, "up")], LOSSES, [{"play": 1.0, "up": 0.3}], everything)
    assert found.best(0, 5).columns.tolist() == [500, 0, 1, 2, 3]


def test_float32_alone_would_list_another_title():
    """Sums that float32 rounds into the wrong order are told apart all the same."""
    logits = np.float32([[8192.0, 8192.0, 0.0], [5.5e-4, 3e-4, 0.0], [0.0, 3e-4, 0.0]])
    losses = {"similarity": AS_IT_IS, "minutes": "huber", "stars": "huber"}
    pairs, blends = [(0, head) for head in losses], [dict.fromkeys(losses, 1.0)]
    found = blend_page(logits, pairs, losses, blends, np.ones((1, 3), bool))
    assert found.scores[0, 0] > found.scores[0, 1]
    assert found.best(0, 1).columns.tolist() == [1]


def test_a_candidate_far_below_the_others_keeps_its_probability():
    """Its exponential underflows beside a title that is no candidate."""
    logits = np.float32([[500.0, 0.0, 1.0]])
    candidates = np.array([[False, True, True]])
    found = blend_page(logits, [(0, "play")], LOSSES, [{"play": 1.0}], candidates)
    assert np.exp(found.best(0, 2).scores).sum() == pytest.approx(1.0)


def test_rows_without_candidates_are_empty_and_names_are_checked():
    logits = np.zeros((1, 4), np.float32)
    found = blend_page(logits, [(0, "play")], LOSSES, [{"play": 1.0}], np.zeros((1, 4), bool))
    assert len(found.best(0, 3)) == 0
    assert (found.scores == -np.inf).all()
    with pytest.raises(UnknownNameError, match="Did you mean 'play'"):
        blend_page(logits, [(0, "play")], LOSSES, [{"plya": 1.0}], np.ones((1, 4), bool))
    with pytest.raises(ValueError, match="k must be at least 1"):
        found.best(0, 0)


def test_a_score_that_is_no_number_is_refused_where_it_could_be_listed():
    logits = np.float32([[np.nan, 1.0, 2.0]])
    both = np.array([[True, True, True], [False, True, True]])
    pairs, blends = [(0, "up"), (1, "up")], [{"up": 1.0}] * 2
    found = blend_page(np.repeat(logits, 2, axis=0), pairs, LOSSES, blends, both)
    with pytest.raises(ValueError, match="NaN"):
        found.best(0, 2)
    assert found.best(1, 1).columns.tolist() == [2]
