"""What titles have more of on each canvas: its start, and that scores of every path know of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TitleInputs
from playbill.models.canvas_lift import canvas_lift
from playbill.models.heads import bias_rows
from playbill.models.scene import target_logits

Contexts = Callable[..., ContextBatch]


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


def canvases_of(context_of: Contexts, network: Network, history: HistoryBatch, titles: TitleInputs) -> dict:
    """Scores of one past on canvases 1, 2 and 3."""
    return network.scores(history, context_of([5, 5, 5], canvas=np.array([1, 2, 3])), titles)


def test_a_title_gains_where_it_is_wanted(
    network: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    before = canvases_of(context_of, network, history, titles)
    lift = torch.zeros_like(network.canvas_titles.weight)
    lift[2, 3] = 1.5
    network.start_canvases(lift)
    after = canvases_of(context_of, network, history, titles)
    share = network.titles(titles, network.titles.prepare(titles, network.grams))[1][2].item()
    moved = after["play"] - before["play"]
    assert moved[2, 2].item() == pytest.approx(1.5 * share, abs=1e-5)
    moved[2, 2] = 0.0
    assert moved.abs().max().item() == pytest.approx(0.0, abs=1e-6)
    # A head that says yes or no learns from what was shown, which was chosen there already.
    assert torch.equal(after["thumb"], before["thumb"])


def test_every_way_to_score_knows_of_it(
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


def test_it_can_be_switched_off(config: NetworkConfig) -> None:
    context = config.context.model_copy(update={"title_crossing": False})
    plain = Network(config.model_copy(update={"context": context}))
    assert plain.canvas_titles is None
    assert all(head.canvas is None for head in plain.title_heads().values())
