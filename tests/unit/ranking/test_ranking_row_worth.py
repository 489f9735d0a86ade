"""Rows valued by the titles they show: the expected play, and arms against plain code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.arrays import Floats64
from playbill.definitions.specs import RowSpec
from playbill.definitions.specs.canvas import PageSpec
from playbill.ranking.page_builder import Page, build_page
from playbill.ranking.page_rules import PageRules, RowCandidate, RowEntry, ValuedRows, expected_play, valued_by
from playbill.ranking.page_scores import blend_page
from playbill.ranking.row_plans import RowPlan
from playbill.ranking.scoring.row_scoring import PageState

TITLES = 16
LOGITS = np.linspace(-4.0, 2.0, TITLES)
"""Later titles are played more often."""


def candidate(name: str, titles: Sequence[int], chances: np.ndarray | None = LOGITS) -> RowCandidate:
    """A row whose titles are in this order of liking."""
    body = {"name": name, "version": 1, "title": {"en": name}, "canvas": "home", "minimum_length": 1}
    scores = np.full(TITLES, -99.0)
    scores[list(titles)] = -np.arange(len(titles), dtype=np.float64)
    wanted = np.zeros(TITLES, np.bool_)
    wanted[list(titles)] = True
    plan = RowPlan(name, RowSpec.model_validate({**body, "blend": {"play": 1.0}}), name)
    return RowCandidate(plan, scores, wanted, chances)


def spec(**more: Any) -> PageSpec:
    return PageSpec.model_validate({"expected": {"head": "shown_play"}, **more})


def built(rows: Sequence[RowCandidate], page: PageSpec, k: int = 3, device: str | None = None) -> Page:
    return build_page(rows, PageRules.of(page, k, device), valued_by(page, None))


def names_of(page: Page) -> list[str]:
    return [row.candidate.name for row in page.rows]


def plain_expected(titles: Sequence[int], look: float, columns: int) -> float:
    unplayed = 1.0
    for column, title in enumerate(list(titles)[:columns]):
        unplayed *= 1 - look**column / (1 + math.exp(-LOGITS[title]))
    return 1 - unplayed


@given(st.lists(st.integers(0, TITLES - 1), unique=True, min_size=1), st.floats(0.05, 1.0), st.integers(1, 8))
def test_the_expected_play_is_what_plain_code_says(titles: list[int], look: float, columns: int) -> None:
    looks = look ** np.arange(columns, dtype=np.float64)
    entry = candidate("row", titles).entry(candidate("row", titles).fill(np.zeros(TITLES, np.bool_), 20), looks)
    assert entry.expected == pytest.approx(plain_expected(titles, look, columns), rel=1e-9)
    wider = expected_play(LOGITS[titles], look ** np.arange(len(titles) + 1, dtype=np.float64))
    assert 0 < entry.expected <= 1
    assert wider >= plain_expected(titles, look, min(columns, len(titles))) - 1e-12


rows_st = st.lists(st.lists(st.integers(0, TITLES - 1), unique=True, max_size=7), min_size=1, max_size=5)


@given(rows_st, st.integers(1, 4), st.sampled_from([0.5, 0.85, 1.0]))
@settings(max_examples=60, deadline=None)
def test_arms_are_what_plain_code_does(rows: list[list[int]], k: int, look: float) -> None:
    candidates = [candidate(f"r{place}", titles) for place, titles in enumerate(rows)]
    for arm in ("independent", "greedy"):
        page = built(candidates, spec(strategy=arm, expected={"head": "shown_play", "examination_prob": look}), k)
        taken: set[int] = set()
        left, found = dict(enumerate(rows)), []
        own = {place: plain_expected(titles, look, k) for place, titles in left.items()}
        while left:
            fresh = {place: [title for title in titles if title not in taken] for place, titles in left.items()}
            worth = {
                place: own[place] if arm == "independent" else plain_expected(titles, look, k)
                for place, titles in fresh.items()
                if titles
            }
            if not worth:
                break
            best = max(worth, key=lambda place: (round(worth[place], 12), -place))
            found.append(f"r{best}")
            taken |= set(fresh[best][:k])
            del left[best]
        # Rows whose worth differs by rounding alone may change places.
        values = [round(row.value or 0.0, 9) for row in page.rows]
        assert names_of(page) == found or len(set(values)) < len(values)


def test_a_row_is_worth_what_it_shows_now_and_not_its_first_title() -> None:
    """Both begin with title 3; the second goes on with titles that are played more often."""
    rows = [candidate("poor", [3, 0, 1]), candidate("rich", [3, 14, 15])]
    assert names_of(built(rows, spec(strategy="independent"))) == ["rich", "poor"]


def test_greed_sees_that_the_row_above_took_the_titles_that_made_a_row_worth_showing() -> None:
    rows = [candidate("a", [15, 14, 13]), candidate("b", [14, 13, 15, 0, 1]), candidate("c", [9, 10, 8])]
    orders = {arm: names_of(built(rows, spec(strategy=arm))) for arm in ("fixed", "independent", "greedy")}
    assert orders == {"fixed": ["a", "b", "c"], "independent": ["a", "b", "c"], "greedy": ["a", "c", "b"]}


def test_only_columns_that_are_seen_before_scrolling_count() -> None:
    rows = [candidate("deep", [5, 6, 15, 14]), candidate("now", [9, 8, 0, 1])]
    page = spec(strategy="independent", viewports={"mobile": {"rows": 2, "columns": 2}})
    assert names_of(built(rows, page, 4, "mobile")) == ["now", "deep"]
    assert names_of(built(rows, page, 4, "tv")) == ["deep", "now"]


class Named:
    """A state that values rows by name."""

    def values(self, blend: dict[str, float]) -> Any:
        def values(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
            return np.array([sum(blend.values()) * {"good": 0.0, "bad": -9.0}[row.name] for row in rows])

        return values


def test_heads_about_rows_are_added_with_their_weights() -> None:
    rows = [candidate("bad", [15, 14]), candidate("good", [4, 5])]
    page = spec(strategy="greedy", blend={"row_play": 1.0})
    state: Any = Named()
    both = build_page(rows, PageRules(page, 2), valued_by(page, state))
    assert names_of(both) == ["good", "bad"]
    assert both.rows[0].value == pytest.approx(math.log(plain_expected([4, 5], 0.85, 2)))
    assert names_of(built(rows, page)) == ["bad", "good"], "without a state the titles alone decide"
    heavy = spec(strategy="greedy", blend={"row_play": 1.0}, expected={"head": "shown_play", "weight": 20.0})
    assert names_of(build_page(rows, PageRules(heavy, 2), valued_by(heavy, state))) == ["bad", "good"]


def test_a_page_without_its_head_and_a_row_without_chances() -> None:
    page = spec(blend={"row_play": 1.0})
    assert page.without({"shown_play"}).expected is None
    assert page.without({"row_play"}).expected == page.expected
    assert valued_by(spec().without({"shown_play"}), None) is None
    with pytest.raises(ValueError, match="titles of row 'bare' are played"):
        built([candidate("bare", [1, 2], None)], spec())
    assert ValuedRows(spec().expected, None)([RowEntry("none", expected=0.0)], [])[0] < -20  # type: ignore[arg-type]


def test_a_head_of_weight_nothing_keeps_its_logits_and_adds_nothing() -> None:
    logits = [np.array([3.0, -2.0], np.float32), np.array([0.5, 9.0], np.float32)]
    page = blend_page(
        logits,
        [(0, "play"), (1, "shown_play")],
        {"play": "softmax", "shown_play": "bce"},
        [{"play": 1.0}, {"shown_play": 0.0}],
        np.array([[True, True], [True, False]]),
    )
    np.testing.assert_array_equal(page.logits(1), logits[1])
    np.testing.assert_array_equal(page.scores[1], [0.0, -np.inf])
    assert page.best(0, 2).columns.tolist() == [0, 1]


def test_without_anything_that_values_rows_there_is_no_value() -> None:
    state = PageState(None, {}, {}, {})
    assert valued_by(PageSpec(), state) is None
    assert valued_by(spec(strategy="fixed"), state) is None
