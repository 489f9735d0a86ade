"""Rows by their own worth: nothing is lost, nothing is taken from another, and short ones are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.arrays import Floats64
from playbill.definitions.specs import RowSpec
from playbill.ranking.page_builder import rank_rows
from playbill.ranking.page_rules import RowCandidate, RowEntry
from playbill.ranking.row_plans import RowPlan

TITLES = 16


def candidate(number: int, titles: Sequence[int], minimum: int) -> RowCandidate:
    body = {"name": f"row{number}", "version": 1, "title": {"en": "row"}, "canvas": "home", "policy": "popular"}
    scores, wanted = np.full(TITLES, -99.0), np.zeros(TITLES, np.bool_)
    scores[list(titles)] = -np.arange(len(titles), dtype=np.float64)
    wanted[list(titles)] = True
    spec = RowSpec.model_validate({**body, "minimum_length": minimum})
    return RowCandidate(RowPlan(spec.name, spec, spec.name), scores, wanted)


def by_head(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
    """Rows are worth what their first title is, and nothing stands above any."""
    assert not above
    return np.array([-float(row.head % 5) for row in rows])


rows_st = st.lists(
    st.tuples(st.lists(st.integers(0, TITLES - 1), unique=True, max_size=9), st.integers(1, 4)), max_size=7
)


@settings(max_examples=60, deadline=None)
@given(rows_st, st.integers(1, 6))
def test_rows_are_ranked_each_by_itself(rows: list[tuple[list[int], int]], k: int) -> None:
    candidates = [candidate(number, *row) for number, row in enumerate(rows)]
    page = rank_rows(candidates, k, by_head)
    shown = [row.candidate.plan.row_id for row in page.rows]
    long = [one for one in candidates if one.count >= one.plan.spec.minimum_length]
    assert sorted(shown) == sorted(one.plan.row_id for one in long)
    assert set(page.absent) == {one.plan.row_id for one in candidates} - set(shown)
    values = [row.value for row in page.rows]
    assert values == sorted(values, reverse=True)
    for row in page.rows:
        assert row.titles.columns.tolist() == rows[int(row.candidate.name[3:])][0][:k]
        assert row.value == -float(row.titles.columns[0] % 5)
    # Equal ones come as they are written.
    for one, other in zip(page.rows, page.rows[1:], strict=False):
        if one.value == other.value:
            assert one.candidate.name < other.candidate.name
    written = rank_rows(candidates, k)
    assert [row.candidate.name for row in written.rows] == [one.name for one in long]
    assert {row.value for row in written.rows} <= {None}


def test_no_row_is_no_answer() -> None:
    assert rank_rows([], 3, by_head).rows == ()
