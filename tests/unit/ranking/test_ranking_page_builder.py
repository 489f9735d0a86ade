"""The page builder: what no page may break, whatever the arm, and what each arm is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from playbill.arrays import Floats64
from playbill.definitions.specs import RowSpec
from playbill.definitions.specs.canvas import VIEWPORTS, PageSpec
from playbill.ranking.page_builder import Page, build_page
from playbill.ranking.page_rules import PageRules, RowCandidate, RowEntry, ValuedRows
from playbill.ranking.row_plans import RowPlan

TITLES = 24
ARMS = ("fixed", "independent", "greedy", "beam")


def candidate(
    name: str, titles: Sequence[int], minimum: int = 2, seed: int = 0, ranked_by: dict[str, Any] | None = None
) -> RowCandidate:
    """A row whose titles are in this order of liking."""
    body = {"name": name, "version": 1, "title": {"en": name}, "canvas": "home", "minimum_length": minimum}
    scores = np.full(TITLES, -99.0)
    scores[list(titles)] = -np.arange(len(titles), dtype=np.float64)
    wanted = np.zeros(TITLES, np.bool_)
    wanted[list(titles)] = True
    plan = RowPlan(name, RowSpec.model_validate({**body, **(ranked_by or {"blend": {"play": 1.0}})}), name)
    return RowCandidate(plan, scores, wanted, np.random.default_rng(seed).normal(size=TITLES))


@dataclass
class Taste:
    """Likes a row for its name and its first title, and less for every row above that begins alike."""

    seed: int = 0
    repeat: float = 0.0

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        of = np.random.default_rng(self.seed).normal(size=TITLES + 1)
        names = [sum(map(ord, row.name)) % TITLES for row in rows]
        own = np.array([of[row.head] + of[name] for row, name in zip(rows, names, strict=True)])
        twin = np.array([sum(abs(row.head - up.head) <= 1 for up in above) for row in rows], float)
        return np.log(1 / (1 + np.exp(-own))) - self.repeat * twin


def spec(**more: Any) -> PageSpec:
    return PageSpec.model_validate({"blend": {"row_play": 1.0}, **more})


rows_st = st.lists(
    st.tuples(st.lists(st.integers(0, TITLES - 1), unique=True, max_size=12), st.integers(1, 4)), max_size=7
)
page_st = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(ARMS),
        "maximum_rows": st.integers(1, 6),
        "pinned": st.lists(st.sampled_from(["r0", "r3"]), unique=True, max_size=2),
        "placed": st.sampled_from([None, {"row": "r1", "head": "visit", "first_from": 0.5, "otherwise": 2}]),
        "expected": st.sampled_from([None, {"head": "shown_play"}]),
        "viewports": st.sampled_from([{}, {"tv": "tv"}, {"tv": {"rows": 2, "columns": 3}}]),
    }
)


@given(rows_st, page_st, st.integers(1, 6), st.floats(0, 1), st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_no_page_breaks_a_rule(
    rows: list[tuple[list[int], int]], given_: dict[str, Any], k: int, likely: float, seed: int
) -> None:
    candidates = [candidate(f"r{place}", titles, minimum) for place, (titles, minimum) in enumerate(rows)]
    rules = PageRules.of(spec(**given_), k, "tv", {"visit": likely})
    taste = Taste(seed, 0.5)
    expected = rules.spec.expected
    page = build_page(candidates, rules, taste if expected is None else ValuedRows(expected, taste))
    shown = [title for row in page.rows for title in row.titles.columns.tolist()]
    assert len(shown) == len(set(shown)), "a title twice"
    assert len(page.rows) <= rules.spec.maximum_rows
    above: set[int] = set()
    for row in page.rows:
        titles, minimum = row.titles.columns.tolist(), row.candidate.plan.spec.minimum_length
        left = row.candidate.wanted.sum() - len(above & set(np.flatnonzero(row.candidate.wanted)))
        assert left >= minimum, "a row that is too short"
        assert row.candidate.wanted[titles].all(), "a title that the row may not show"
        assert len(titles) == min(k, left), "room left in a row that has titles for it"
        above |= set(titles)
    names = [row.candidate.name for row in page.rows]
    assert sorted([*names, *page.absent]) == sorted(one.name for one in candidates), "every row is told of once"
    assert len(page.trace) == len(candidates)
    pinned = [name for name in given_["pinned"] if name in names]
    assert names[: len(pinned)] == pinned
    _check_placed(names, pinned, rules, likely)
    _check_screen(page, rules, len(pinned))


def _check_placed(names: list[str], pinned: list[str], rules: PageRules, likely: float) -> None:
    if rules.spec.placed is None or "r1" not in names:
        return
    at = names.index("r1") - len(pinned)
    assert at == (0 if likely >= 0.5 else min(2, len(names) - 1 - len(pinned)))


def _check_screen(page: Page, rules: PageRules, pinned: int) -> None:
    """On the first screen no free row that leaves columns empty stands above one that could have filled them."""
    if rules.viewport is None:
        return
    wide = min(rules.viewport.columns, rules.k)
    taken = np.zeros(TITLES, np.bool_)
    for at, row in enumerate(page.rows):
        free = at >= pinned and rules.place_of(row.candidate.name) is None
        if free and at < rules.viewport.rows and len(row.titles) < wide:
            below = [other.candidate for other in page.rows[at + 1 :]]
            could = [one for one in below if rules.place_of(one.name) is None and len(one.fill(taken, rules.k)) >= wide]
            assert not could
        taken[row.titles.columns] = True


def names_of(page: Page) -> list[str]:
    return [row.candidate.name for row in page.rows]


def test_without_values_rows_come_as_they_are_written() -> None:
    rows = [candidate("b", range(4)), candidate("a", range(4, 8)), candidate("c", range(3))]
    page = build_page(rows, PageRules(spec(), 3))
    assert names_of(page) == ["b", "a"]
    assert "0 of its 3 titles are left" in page.absent["c"]


def test_greedy_reads_the_rows_above_and_refills_and_independent_does_not() -> None:
    """Two rows begin alike. Shown once, the second is worth less, and its own first title is gone."""
    twins = [candidate("x", [1, 2, 3, 4]), candidate("y", [2, 1, 5, 6]), candidate("z", [20, 21, 22])]
    likes = {1: 2.0, 2: 1.9, 5: -3.0, 6: -3.0, 20: 0.0}

    def values(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        return np.array([likes[row.head] for row in rows])

    orders = {
        arm: names_of(build_page(twins, PageRules(spec(strategy=arm), 2), values)) for arm in ("independent", "greedy")
    }
    assert orders == {"independent": ["x", "y", "z"], "greedy": ["x", "z", "y"]}


def test_a_beam_finds_a_page_that_greed_misses() -> None:
    """The best first row takes the titles that make two other rows worth showing."""
    rows = [candidate("big", [1, 2], minimum=2), candidate("left", [1, 3]), candidate("right", [2, 4])]

    def values(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        return np.log([{"big": 0.5, "left": 0.48, "right": 0.47}[row.name] for row in rows])

    orders = {arm: names_of(build_page(rows, PageRules(spec(strategy=arm), 2), values)) for arm in ("greedy", "beam")}
    assert orders == {"greedy": ["big"], "beam": ["left", "right"]}


def test_a_visit_that_will_continue_begins_with_what_is_to_be_continued() -> None:
    rows = [candidate("new", range(3)), candidate("more", range(3, 6)), candidate("going_on", [9, 10])]
    placed = {"row": "going_on", "head": "visit_continues", "first_from": 0.6, "otherwise": 1}
    found = {}
    for likely in (0.7, 0.5):
        rules = PageRules.of(spec(placed=placed), 3, None, {"visit_continues": likely})
        page = build_page(rows, rules, lambda some, above: np.zeros(len(some)))
        found[likely] = names_of(page)
        assert any("visit_continues" in line for line in page.trace)
    assert found == {0.7: ["going_on", "new", "more"], 0.5: ["new", "going_on", "more"]}


def test_a_page_says_what_is_wrong_with_it() -> None:
    assert spec(viewports={"mobile": "phone"}).viewports["mobile"] == VIEWPORTS["phone"]
    with pytest.raises(ValidationError, match="phonee"):
        spec(viewports={"mobile": "phonee"})
    with pytest.raises(ValidationError, match="pinned, so it cannot be placed"):
        spec(pinned=["r1"], placed={"row": "r1", "head": "visit"})


@pytest.mark.parametrize("arm", ARMS)
def test_a_chart_shows_its_titles_whatever_other_rows_show_and_takes_none_from_them(arm: str) -> None:
    chart = candidate("chart", range(6), ranked_by={"policy": "top_10", "chart": True})
    others = [candidate("first", range(6)), candidate("last", range(3, 9))]
    for rows in ([others[0], chart, others[1]], [chart, *others]):
        page = build_page(rows, PageRules(spec(strategy=arm), k=6), Taste())
        shown = {row.candidate.name: row.titles.columns.tolist() for row in page.rows}
        assert shown["chart"] == list(range(6))
        left = [title for name in ("first", "last") for title in shown[name]]
        assert sorted(left) == list(range(9))


def test_a_chart_is_ranked_by_a_policy_and_by_nothing_of_the_member() -> None:
    body = {"name": "chart", "version": 1, "title": {"en": "Chart"}, "canvas": "home", "chart": True}
    for own in ({"blend": {"play": 1.0}}, {"policy": "top_10", "candidates": {"watched": False}}):
        with pytest.raises(ValidationError, match="the same for everybody"):
            RowSpec.model_validate({**body, **own})
