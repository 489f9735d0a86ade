"""Page metrics: against plain code on any page, and what a member would notice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill_lab.studies.pages.metrics import (
    VIEWPORTS,
    attention,
    duplicate_rate,
    page_coverage,
    page_diversity,
    page_ndcg,
    page_recall,
)

TITLES = 9
page_st = st.lists(st.lists(st.integers(-1, TITLES - 1), min_size=4, max_size=4), min_size=3, max_size=3)
relevant_st = st.sets(st.integers(0, TITLES - 1), max_size=5)
pages_st = st.lists(st.tuples(page_st, relevant_st), min_size=1, max_size=4)
GENRES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]])


def arrays(cases: list[tuple[list[list[int]], set[int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = [(row, title) for row, (_, wanted) in enumerate(cases) for title in wanted]
    rows, titles = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return np.array([page for page, _ in cases], np.int64), rows, titles


def plain_recall(page: list[list[int]], wanted: set[int], m: int, n: int) -> float:
    shown = {title for row in page[:m] for title in row[:n]}
    return len(shown & wanted) / len(wanted) if wanted else float("nan")


def plain_ndcg(page: list[list[int]], wanted: set[int]) -> float:
    if not wanted:
        return float("nan")
    seen: set[int] = set()
    gain = 0.0
    for r, row in enumerate(page):
        for c, title in enumerate(row):
            if title in wanted and title not in seen:
                gain += 0.78**r * 0.86**c
                seen.add(title)
    every = sorted((0.78**r * 0.86**c for r in range(3) for c in range(4)), reverse=True)
    return gain / sum(every[: len(wanted)])


def plain_diversity(page: list[list[int]]) -> float:
    shown = sorted({title for row in page for title in row if title >= 0})
    if len(shown) < 2:
        return float("nan")
    alike = []
    for one in shown:
        for other in shown:
            if one != other:
                a, b = GENRES[one].astype(float), GENRES[other].astype(float)
                norm = np.linalg.norm(a) * np.linalg.norm(b)
                alike.append(float(a @ b) / norm if norm else 0.0)
    return 1 - float(np.mean(alike))


@given(pages_st, st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_plain_code(cases: list[tuple[list[list[int]], set[int]]], m: int, n: int) -> None:
    pages, rows, titles = arrays(cases)
    np.testing.assert_allclose(
        page_recall(pages, rows, titles, m, n), [plain_recall(page, wanted, m, n) for page, wanted in cases]
    )
    np.testing.assert_allclose(page_ndcg(pages, rows, titles), [plain_ndcg(*case) for case in cases])
    np.testing.assert_allclose(page_diversity(pages, GENRES), [plain_diversity(page) for page, _ in cases], atol=1e-9)
    filled = [[title for row in page for title in row if title >= 0] for page, _ in cases]
    rates = [1 - len(set(shown)) / len(shown) if shown else float("nan") for shown in filled]
    np.testing.assert_allclose(duplicate_rate(pages), rates, atol=1e-12)
    assert page_coverage(pages, TITLES) == len({title for shown in filled for title in shown}) / TITLES


def test_recall_grows_with_the_window_and_a_better_row_on_top_raises_ndcg() -> None:
    page = np.array([[[0, 1, 2], [3, 4, 5], [6, 7, 8]]])
    row, title = np.array([0, 0]), np.array([3, 4])
    recalls = [float(page_recall(page, row, title, m, n)[0]) for m, n in ((1, 3), (2, 1), (2, 2), (3, 3))]
    assert recalls == [0.0, 0.5, 1.0, 1.0]
    assert page_ndcg(page[:, [1, 0, 2]], row, title)[0] > page_ndcg(page, row, title)[0]


def test_attention_falls_by_row_and_by_column() -> None:
    seen = attention(3, 4, 0.5, 0.8)
    assert seen[0, 0] == 1
    assert seen[1, 2] == pytest.approx(0.5 * 0.64)
    with pytest.raises(ValueError, match="row_decay"):
        attention(2, 2, 0.0)


def test_a_phone_shows_fewer_titles_than_a_television() -> None:
    phone, tv = VIEWPORTS["phone"], VIEWPORTS["tv"]
    assert phone.rows * phone.columns < tv.rows * tv.columns
    with pytest.raises(ValueError, match="at least 1"):
        page_recall(np.zeros((1, 1, 1), np.int64), np.array([0]), np.array([0]), 0, 1)
