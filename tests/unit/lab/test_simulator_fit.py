"""The fit report's numbers, on logs small enough to count by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.errors import StateError
from playbill_lab.simulator.fit import fit_report, fit_table, pair_counts
from playbill_lab.simulator.world.members import (
    ACTIVITY_MEAN,
    ACTIVITY_MEDIAN,
    ACTIVITY_PROBABILITIES,
    ACTIVITY_RELATIVE,
    POPULARITY_SHARES,
    activity_at,
    activity_relative,
    popularity_gini,
    popularity_shares,
)


def log(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["member_id", "title_id", "action"], orient="row")


def test_pairs_are_counted_once_and_only_plays() -> None:
    frame = log(
        ("m", "a", "play"), ("m", "a", "play"), ("m", "b", "play"), ("n", "a", "play"), ("n", "b", "impression")
    )
    by_member, by_title = pair_counts(frame)
    assert by_member.tolist() == [2, 1]
    assert by_title.tolist() == [2, 1]


def test_gini_is_the_mean_difference_over_twice_the_mean() -> None:
    counts = np.random.default_rng(0).integers(1, 100, 57)
    plain = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    assert popularity_gini(np.concatenate([counts, [0, 0]])) == pytest.approx(plain)
    assert popularity_gini(np.array([5, 5, 5])) == 0.0


def test_activity_is_relative_to_the_median() -> None:
    assert activity_relative(np.array([0, 2, 4, 8]), (0.0, 0.5, 1.0)).tolist() == [0.5, 1.0, 2.0]


def test_shares_add_up_and_fall() -> None:
    shares = popularity_shares(np.arange(1, 11), parts=5)
    assert shares.tolist() == pytest.approx([19 / 55, 15 / 55, 11 / 55, 7 / 55, 3 / 55])


def test_members_drawn_from_the_reference_are_as_active_as_movielens() -> None:
    drawn = activity_at(np.random.default_rng(0).random(200_000))
    assert np.allclose(activity_relative(drawn)[1:-1], ACTIVITY_RELATIVE[1:-1], rtol=0.05)
    assert drawn.mean() == pytest.approx(ACTIVITY_MEAN / ACTIVITY_MEDIAN, rel=0.05)


def test_the_reference_is_a_distribution() -> None:
    assert list(ACTIVITY_PROBABILITIES) == sorted(ACTIVITY_PROBABILITIES)
    assert list(ACTIVITY_RELATIVE) == sorted(ACTIVITY_RELATIVE)
    assert sum(POPULARITY_SHARES) == pytest.approx(1.0, abs=1e-3)


def test_the_report_puts_both_side_by_side() -> None:
    report = fit_report(np.array([1, 2, 4, 0]), np.array([3, 3, 1, 0]))
    assert report["gini"] == pytest.approx(popularity_gini(np.array([3, 3, 1])), abs=1e-4)
    assert report["activity_quantiles"]["p50"] == 1.0
    assert report["activity_quantiles_movielens"]["p90"] == 4.1667
    assert set(report["activity_quantiles"]) == set(report["activity_quantiles_movielens"])
    assert fit_table(report).row_count == 4 + len(report["activity_quantiles"])


def test_a_log_without_plays_has_no_fit() -> None:
    with pytest.raises(StateError, match="no plays"):
        fit_report(np.zeros(3), np.zeros(2))
