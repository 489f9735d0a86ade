"""The page builder: which rows a page shows, in which order, with which titles, and why.

Every strategy keeps the same rules. A title is on a page once, in the first row that shows it; only a chart shows its
titles whatever other rows show, and takes none from them. A row with fewer titles left than its minimum is not shown
and takes nothing from the others. Pinned rows come first; a placed row has the place that the visit's purpose gives it;
on the first screen a row that fills the screen's columns comes before one that does not. Availability, maturity and
genre are in the titles a row may show, so no order can break them.

A canvas of rows has no page: `rank_rows` orders its rows by value, each filled as on an empty page.
Axis letters: T titles, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.definitions.specs.canvas import PageSpec
from playbill.ranking.blend import RankedList, Scores
from playbill.ranking.candidates import Catalogue, Mask
from playbill.ranking.page_rules import ROW_DECAY, PageRules, RowCandidate, RowEntry, RowValues
from playbill.ranking.row_plans import RowPlan


@dataclass(frozen=True)
class PlacedRow:
    """A row of a page.

    Args:
        candidate: Which row.
        titles: What it shows.
        reason: Why it is where it is.
        value: What it was worth there, None where nothing valued it.
    """

    candidate: RowCandidate
    titles: RankedList
    reason: str
    value: float | None = None


@dataclass(frozen=True)
class Page:
    """A page, and why the other rows are not on it.

    Args:
        rows: From the top down.
        absent: `row_id` -> why it is not shown.
    """

    rows: tuple[PlacedRow, ...]
    absent: dict[str, str]

    @property
    def trace(self) -> tuple[str, ...]:
        """One line per row: where it is and why, or why it is absent."""
        shown = (f"row {row.candidate.plan.row_id} at {at}: {row.reason}" for at, row in enumerate(self.rows))
        return (*shown, *(f"row {name} is absent: {why}" for name, why in self.absent.items()))


@dataclass(frozen=True)
class _Partial:
    """A page as far as it has been built: rows, titles taken, rows left, and what it is worth so far."""

    rows: tuple[PlacedRow, ...]
    taken: Mask
    left: tuple[RowCandidate, ...]
    absent: dict[str, str]
    worth: float = 0.0
    unplayed: float = 1.0

    @property
    def entries(self) -> list[RowEntry]:
        return [row.candidate.entry(row.titles) for row in self.rows]


def build_page(candidates: Sequence[RowCandidate], rules: PageRules, values: RowValues | None = None) -> Page:
    """Put a page together.

    Args:
        candidates: Rows that could be on it, in the order they are written in; `row_id`s differ.
        rules: What it keeps to, and the arm that orders it.
        values: Worth of rows; without it they come as they are written.
    """
    size = len(candidates[0].scores) if candidates else 0
    page = _Partial((), np.zeros(size, np.bool_), tuple(candidates), {})
    page, pinned = _pinned(page, rules)
    own = None if values is None or rules.spec.strategy == "fixed" else values
    own = _independent(candidates, rules, values) if own is not None and rules.spec.strategy == "independent" else own
    width = rules.spec.beam if own is not None and rules.spec.strategy == "beam" else 1
    beam = [page]
    while any(one.left and len(one.rows) < rules.spec.maximum_rows for one in beam):
        longer = [step for one in beam for step in _steps(one, rules, own, pinned, width)]
        beam = sorted(longer, key=lambda one: -one.worth)[:width]
    best = max(beam, key=lambda one: one.worth)
    over = {row.plan.row_id: f"the page has its {rules.spec.maximum_rows} rows" for row in best.left}
    return Page(best.rows, {**best.absent, **over})


def _pinned(page: _Partial, rules: PageRules) -> tuple[_Partial, int]:
    for reference in rules.spec.pinned:
        name = reference.partition("@")[0]
        for row in [row for row in page.left if row.name == name]:
            titles = row.fill(page.taken, rules.k)
            if len(titles) and len(page.rows) < rules.spec.maximum_rows:
                page = _with(page, PlacedRow(row, titles, "pinned"))
            elif not len(titles):
                page = _without(page, row)
    return page, len(page.rows)


def _independent(candidates: Sequence[RowCandidate], rules: PageRules, values: RowValues | None) -> RowValues:
    """Value every row once: nothing above it, nothing taken from it."""
    assert values is not None
    nothing = np.zeros(len(candidates[0].scores) if candidates else 0, np.bool_)
    entries = [row.entry(row.fill(nothing, rules.k), rules.looks) for row in candidates]
    worth = values(entries, []) if entries else np.zeros(0)
    own = {_key(entry): value for entry, value in zip(entries, worth, strict=True)}
    return lambda rows, above: np.array([own[_key(row)] for row in rows])


def _key(entry: RowEntry) -> tuple[str, str | None, int]:
    return entry.name, entry.genre, entry.about


def _steps(page: _Partial, rules: PageRules, values: RowValues | None, pinned: int, width: int) -> list[_Partial]:
    """Return the page with its next row, in the `width` best ways; the page itself where no row is left."""
    if not page.left or len(page.rows) >= rules.spec.maximum_rows:
        return [page]
    filled = [(row, row.fill(page.taken, rules.k)) for row in page.left]
    for row, titles in filled:
        if not len(titles):
            page = _without(page, row)
    there = [(row, titles) for row, titles in filled if len(titles)]
    if not there:
        return [page]
    at = len(page.rows) - pinned
    free = [pair for pair in there if rules.place_of(pair[0].name) is None]
    for row, titles in there:
        place = rules.place_of(row.name)
        if place is not None and (at >= place or not free):
            return [_with(page, PlacedRow(row, titles, _placed(rules)))]
    return _chosen(page, rules, values, _on_screen(free, rules, len(page.rows)), width)


def _on_screen(
    there: list[tuple[RowCandidate, RankedList]], rules: PageRules, at: int
) -> list[tuple[RowCandidate, RankedList]]:
    """Keep the rows that fill the first screen, where the next row is on it and there are any."""
    if rules.viewport is None or at >= rules.viewport.rows:
        return there
    wide = [pair for pair in there if len(pair[1]) >= min(rules.viewport.columns, rules.k)]
    return wide or there


def _chosen(
    page: _Partial,
    rules: PageRules,
    values: RowValues | None,
    there: list[tuple[RowCandidate, RankedList]],
    width: int,
) -> list[_Partial]:
    if values is None:
        row, titles = there[0]
        return [_with(page, PlacedRow(row, titles, "next in the written order"))]
    looks = rules.looks
    worth = values([row.entry(titles, looks) for row, titles in there], page.entries)
    order = np.argsort(-worth, kind="stable")[:width]
    reason = {"independent": "best by its own score", "beam": "on the page with the most likely play"}.get(
        rules.spec.strategy, "best given the rows above"
    )
    found = []
    for place in order.tolist():
        row, titles = there[place]
        found.append(_with(page, PlacedRow(row, titles, reason, float(worth[place]))))
    return found


def _placed(rules: PageRules) -> str:
    assert rules.spec.placed is not None
    if rules.first:
        return f"the visit will likely continue ({rules.spec.placed.head})"
    return f"the visit will likely start something new ({rules.spec.placed.head})"


def _with(page: _Partial, row: PlacedRow) -> _Partial:
    """Add a row: attention falls from row to row, and a visit that has played looks no further."""
    taken = page.taken
    if not row.candidate.plan.spec.chart:
        taken = taken.copy()
        taken[row.titles.columns] = True
    chance = float(np.exp(min(row.value, 0.0))) if row.value is not None else 0.0
    return replace(
        page,
        rows=(*page.rows, row),
        taken=taken,
        left=tuple(one for one in page.left if one is not row.candidate),
        worth=page.worth + page.unplayed * chance,
        unplayed=page.unplayed * (1 - chance) * ROW_DECAY,
    )


def _without(page: _Partial, row: RowCandidate) -> _Partial:
    free = row.wanted if row.plan.spec.chart else row.wanted & ~page.taken
    left, needed = int(free.sum()), row.plan.spec.minimum_length
    why = f"{row.count} titles after filtering, fewer than {needed}"
    if row.count >= needed:
        why = f"{left} of its {row.count} titles are left after the rows above, fewer than {needed}"
    return replace(
        page,
        left=tuple(one for one in page.left if one is not row),
        absent={**page.absent, row.plan.row_id: why},
    )


Chances = Mapping[str, npt.NDArray[np.floating[Any]]]
"""`row_id` -> [T] logits of a play."""

AS_WRITTEN = PageSpec(strategy="fixed", maximum_rows=1_000)
"""The page of a canvas that says nothing of pages: all its rows, in the order they are written in."""


def row_candidates(
    plans: Sequence[RowPlan],
    catalogue: Catalogue,
    lists: Sequence[tuple[Scores, Mask]],
    *,
    genre_consistency: bool = True,
    chances: Chances | None = None,
) -> list[RowCandidate]:
    """Return the rows that could be on a page, a genre row with titles of its genre alone where that is wanted.

    Args:
        plans: Rows in the order they are written in.
        catalogue: Genres of titles.
        lists: [T] scores and [T] candidates of each.
        genre_consistency: Whether every title of a genre row must have the genre.
        chances: `row_id` -> [T] logits of a play of each title in the row once it is examined.
    """
    rows = []
    for plan, (scores, candidates) in zip(plans, lists, strict=True):
        own = plan.about(candidates, catalogue, genre_consistency=genre_consistency)
        rows.append(RowCandidate(plan, scores, own, (chances or {}).get(plan.row_id)))
    return rows


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
