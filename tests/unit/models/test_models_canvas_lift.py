"""What titles have more of on each canvas: its start, and that scores of every path know of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TitleInputs
from playbill.models.heads import bias_rows
from playbill.models.scoring_batch import target_logits
from playbill.training.build import canvas_lift

Contexts = Callable[..., ContextBatch]


def reference(
    titles: list[int], canvases: list[int], seen: list[set[int]], size: tuple[int, int], strength: float
) -> np.ndarray:
    """Observed over expected, example by example."""
    rows = [row for row in zip(titles, canvases, seen, strict=True) if row[0]]
    at_large = {title: 1.0 + sum(own == title for own, _, _ in rows) for title in range(1, size[0])}
    observed, expected = np.zeros((size[1], size[0])), np.zeros((size[1], size[0]))
    for title, canvas, could in rows:
        observed[canvas, title] += 1
        total = sum(at_large[one] for one in could)
        for one in could:
            expected[canvas, one] += at_large[one] / total
    return np.log((observed + strength) / (expected + strength))


def test_canvas_lift_is_observed_over_expected_plays_among_available_titles() -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((4, 6)) < 0.7
    masks[:, 0], masks[:, 1] = False, True
    titles, canvases, states = rng.integers(0, 6, 200), rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    seen = [set(np.nonzero(masks[state])[0].tolist()) for state in states]
    found = canvas_lift(titles, canvases, states, (6, 5), lambda own: masks[own], 0.7)
    expected = reference(titles.tolist(), canvases.tolist(), seen, (6, 5), 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    everything = [set(range(1, 6))] * 200
    plain = canvas_lift(titles, canvases, np.zeros(200, np.int64), (6, 5), None, 0.7)
    np.testing.assert_allclose(plain, reference(titles.tolist(), canvases.tolist(), everything, (6, 5), 0.7))


def test_unknown_canvases_and_padding_have_no_lift() -> None:
    """A canvas without examples, the padding title, and a title that nobody wanted on a small canvas."""
    titles = np.array([1] * 300 + [2] * 300 + [3] + [0])
    canvases = np.array([1] * 300 + [2] * 300 + [1] + [3])
    found = canvas_lift(titles, canvases, np.zeros(602, np.int64), (5, 4))
    assert found[[0, 3]] == pytest.approx(0.0)
    assert found[:, 0] == pytest.approx(0.0)
    assert found[1, 1] > 0.5
    assert found[2, 1] < -3.0 < -0.5 < found[2, 4] <= 0.0


def test_a_title_that_could_not_be_seen_elsewhere_is_not_wanted_less_here() -> None:
    """Canvas 2 shows title 3 alone, which no other shows: nothing is known of it that its share does not say."""
    masks = np.array([[False, True, True, False], [False, False, False, True]])
    titles, canvases = np.array([1] * 90 + [2] * 10 + [3] * 50), np.array([1] * 100 + [2] * 50)
    states = canvases - 1
    found = canvas_lift(titles, canvases, states, (4, 3), lambda own: masks[own])
    assert found[2] == pytest.approx([0.0, 0.0, 0.0, 0.0], abs=1e-9)
    apart = canvas_lift(titles, canvases, states, (4, 3))
    assert apart[2, 3] > 0.5 > 0.0 > apart[2, 1]


def canvases_of(context_of: Contexts, network: Network, history: HistoryBatch, titles: TitleInputs) -> dict:
    """Scores of one past on canvases 1, 2 and 3."""
    return network.scores(history, context_of([5, 5, 5], canvas=np.array([1, 2, 3])), titles)


def test_a_title_gains_where_it_is_wanted(
    network: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    before = canvases_of(context_of, network, history, titles)
    lift = torch.zeros(1, 5, titles.count)
    lift[0, 3, 2] = 1.5
    network.start_canvases(lift)
    after = canvases_of(context_of, network, history, titles)
    share = network.titles(titles, network.titles.prepare(titles, network.grams))[1][2].item()
    moved = after["play"] - before["play"]
    assert moved[2, 2].item() == pytest.approx(1.5 * share, abs=1e-5)
    moved[2, 2] = 0.0
    assert moved.abs().max().item() == pytest.approx(0.0, abs=1e-6)
    # A head that says yes or no learns from what was shown, which was chosen there already.
    assert torch.equal(after["thumb"], before["thumb"])


def test_every_scoring_path_adds_the_lift(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    """Whole catalogues, single targets and some titles have one and the same score."""
    context = context_of([5, 8, 5], canvas=np.array([1, 2, 3]), snapshot=np.array([0, 1, 1]))
    scores, vectors = trained.scores(history, context, titles), trained.title_vectors(titles)
    scene = trained.scene(history, context, vectors)
    assert scene.rows.canvas[scene.rows.row].tolist() == [1, 2, 3]
    own, some = torch.tensor([2, 4, 3]), torch.tensor([5, 1])
    for name, head in trained.title_heads().items():
        found = target_logits(head, scene, own, torch.arange(3))
        torch.testing.assert_close(found, scores[name][torch.arange(3), own], atol=1e-4, rtol=1e-4)
        whole = head.bias(vectors, scene.rows)[:, some]
        torch.testing.assert_close(head.bias_of(vectors, scene.rows, some), whole)


def test_rows_of_one_canvas_share_a_bias_without_snapshots(context_of: Contexts) -> None:
    context = context_of([5, 8, 5, 5], canvas=np.array([1, 2, 1, 3]), snapshot=np.array([0, 1, 2, 3]))
    crossed = bias_rows(context, 0, title_crossing=True)
    assert crossed.canvas[crossed.row].tolist() == [1, 2, 1, 3]
    assert crossed.snapshot.tolist() == [0] * len(crossed.snapshot)
    assert bias_rows(context, 0).row.tolist() == [0] * 4


def test_canvas_lift_can_be_switched_off(config: NetworkConfig) -> None:
    context = config.context.model_copy(update={"title_crossing": False})
    plain = Network(config.model_copy(update={"context": context}))
    assert plain.canvas_titles is None
    assert all(head.crossed is None for head in plain.title_heads().values())
