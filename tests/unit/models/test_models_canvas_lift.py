"""What titles have more of on each canvas: its start, and that scores of every path know of it."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.models.canvas_lift import canvas_lift


def reference(titles: list[int], canvases: list[int], size: tuple[int, int], strength: float) -> np.ndarray:
    found = np.zeros(size)
    pairs = [(title, canvas) for title, canvas in zip(titles, canvases, strict=True) if title]
    at_large = [1.0 + sum(own == title for own, _ in pairs) for title in range(size[0])]
    for title in range(1, size[0]):
        share = at_large[title] / sum(at_large)
        for canvas in range(size[1]):
            there = sum(own == canvas for _, own in pairs)
            both = sum(one == (title, canvas) for one in pairs)
            found[title, canvas] = np.log((both + strength * share) / (there + strength) / share)
    return found


def test_is_the_log_of_the_smoothed_share_over_the_share_at_large() -> None:
    rng = np.random.default_rng(3)
    titles, canvases = rng.integers(0, 6, 200), rng.integers(0, 4, 200)
    found = canvas_lift(titles, canvases, (6, 5), 7.0)
    np.testing.assert_allclose(found, reference(titles.tolist(), canvases.tolist(), (6, 5), 7.0), atol=1e-12)


def test_a_canvas_without_examples_and_the_padding_title_have_none() -> None:
    found = canvas_lift(np.array([1, 1, 2, 0]), np.array([1, 1, 2, 3]), (3, 4))
    assert found[:, [0, 3]] == pytest.approx(0.0)
    assert found[0] == pytest.approx(0.0)
    assert found[1, 1] > 0 > found[2, 1]


def test_few_examples_of_its_own_move_a_canvas_little() -> None:
    titles, canvases = np.array([1] * 50 + [2] * 50 + [2]), np.array([1] * 100 + [2])
    weak, strong = (canvas_lift(titles, canvases, (3, 3), strength)[2, 2] for strength in (1000.0, 1.0))
    assert 0 < weak < 0.01 < strong
