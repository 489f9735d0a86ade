"""Rows in the order of their worth, each by itself: what a canvas of rows answers.

Rows are filled as on an empty page, so a title may be in several of them; a page takes it out of all but the first.
Axis letters: T titles, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.ranking.page_builder import Page, PlacedRow
from playbill.ranking.page_rules import RowCandidate, RowValues


def rank_rows(candidates: Sequence[RowCandidate], k: int, values: RowValues | None = None) -> Page:
    """Order rows by value; one with fewer titles than its minimum is absent.

    Args:
        candidates: R rows, in the order they are written in.
        k: Titles of a row at most.
        values: Worth of rows; without it they come as they are written.
    """
    nothing = np.zeros(len(candidates[0].scores) if candidates else 0, np.bool_)
    filled = [(row, row.fill(nothing, k)) for row in candidates]
    there = [(row, titles) for row, titles in filled if len(titles)]
    absent = {
        row.plan.row_id: f"{row.count} titles after filtering, fewer than {row.plan.spec.minimum_length}"
        for row, titles in filled
        if not len(titles)
    }
    if values is None or not there:
        return Page(tuple(PlacedRow(row, titles, "next in the written order") for row, titles in there), absent)
    worth = values([row.entry(titles) for row, titles in there], [])
    ordered = [(*there[place], float(worth[place])) for place in np.argsort(-worth, kind="stable").tolist()]
    return Page(tuple(PlacedRow(row, titles, "by its own score", value) for row, titles, value in ordered), absent)
