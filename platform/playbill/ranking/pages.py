"""A page as rows, and what is in them.

Rows come in the order of the page. Each has candidates and a score of its own; a title is shown once, in the
first row that wants it; a row with too few titles left is not shown and keeps nothing from the others.
Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Catalogue, Mask
from playbill.ranking.lists import RankedList, rank
from playbill.ranking.rows import RowPlan


@dataclass(frozen=True)
class FilledRow:
    """A row that is shown, its titles, and the candidates they were chosen from."""

    plan: RowPlan
    titles: RankedList
    candidates: Mask


def fill_rows(
    plans: Sequence[RowPlan],
    catalogue: Catalogue,
    score: Callable[[RowPlan], tuple[Scores, Mask]],
    k: int,
) -> list[FilledRow]:
    """Fill rows from the top of the page down.

    A row needs its minimum length of titles that no earlier row shows. It shows `k` of them at most, and only
    those it shows are taken from the rows below.

    Args:
        plans: Rows in the order of the page.
        catalogue: Genres of titles.
        score: Scores and candidates of a row, [T] each.
        k: Titles shown in a row at most.
    """
    taken = np.zeros(len(catalogue), dtype=np.bool_)
    filled: list[FilledRow] = []
    for plan in plans:
        scores, candidates = score(plan)
        wanted = candidates if plan.genre is None else candidates & catalogue.genres[plan.genre]
        left = wanted & ~taken
        if left.sum() < plan.spec.minimum_length:
            continue
        titles = rank(scores, left, k)
        taken[titles.columns] = True
        filled.append(FilledRow(plan, titles, wanted))
    return filled
