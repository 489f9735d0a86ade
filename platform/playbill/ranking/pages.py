"""A page as rows, and what is in them.

Rows come in the order of the page. Each has candidates and a score of its own; a title is shown once, in the
first row that wants it; a row with too few titles left is not shown and keeps nothing from the others.
Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.definitions.specs.page import PageSpec
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Catalogue, Mask
from playbill.ranking.lists import RankedList
from playbill.ranking.page_builder import Page, PlacedRow, build_page
from playbill.ranking.page_rules import PageRules, RowCandidate, RowValues
from playbill.ranking.row_plans import RowPlan

RowScore = Callable[[RowPlan], tuple[Scores, Mask]]
"""Scores and candidates of a row, [T] each."""
Chances = Mapping[str, npt.NDArray[np.floating[Any]]]
"""`row_id` -> [T] logits of a play."""

AS_WRITTEN = PageSpec(arm="fixed", maximum_rows=1_000)
"""The page of a canvas that says nothing of pages: all its rows, in the order they are written in."""


@dataclass(frozen=True)
class FilledRow:
    """A row that is shown, its titles, and the candidates they were chosen from."""

    plan: RowPlan
    titles: RankedList
    candidates: Mask
    reason: str = ""
    """Why the member has it, and why it is where it is."""
    score: float | None = None
    """What it was worth there; None where nothing valued it."""


def row_candidates(
    plans: Sequence[RowPlan],
    catalogue: Catalogue,
    score: RowScore,
    *,
    genre_consistency: bool = True,
    chances: Chances | None = None,
) -> list[RowCandidate]:
    """Return the rows that could be on a page, a genre row with titles of its genre alone where that is asked for.

    Args:
        plans: Rows in the order they are written in.
        catalogue: Genres of titles.
        score: Of a row.
        genre_consistency: Whether every title of a genre row must have the genre.
        chances: `row_id` -> [T] logits of a play of each title in the row once it is looked at.
    """
    found = []
    for plan in plans:
        scores, candidates = score(plan)
        own = plan.about(candidates, catalogue, genre_consistency=genre_consistency)
        found.append(RowCandidate(plan, scores, own, (chances or {}).get(plan.row_id)))
    return found


def page_of(
    plans: Sequence[RowPlan],
    catalogue: Catalogue,
    score: RowScore,
    rules: PageRules,
    values: RowValues | None = None,
    chances: Chances | None = None,
) -> Page:
    """Build a page from plans; see `row_candidates` and `page_builder.build_page`."""
    consistency = rules.spec.genre_consistency
    rows = row_candidates(plans, catalogue, score, genre_consistency=consistency, chances=chances)
    return build_page(rows, rules, values)


def filled_rows(page: Page) -> list[FilledRow]:
    """Return the rows of a page as they are shown."""
    return [_filled(row) for row in page.rows]


def _filled(row: PlacedRow) -> FilledRow:
    plan = row.candidate.plan
    reason = "; ".join(part for part in (plan.because, row.reason) if part)
    return FilledRow(plan, row.titles, row.candidate.wanted, reason, row.value)


def fill_rows(plans: Sequence[RowPlan], catalogue: Catalogue, score: RowScore, k: int) -> list[FilledRow]:
    """Fill rows in the order they are written in.

    A row needs its minimum length of titles that no earlier row shows. It shows `k` of them at most, and only
    those it shows are taken from the rows below.

    Args:
        plans: Rows in the order of the page.
        catalogue: Genres of titles.
        score: Scores and candidates of a row.
        k: Titles shown in a row at most.
    """
    return filled_rows(page_of(plans, catalogue, score, PageRules(AS_WRITTEN, k)))
