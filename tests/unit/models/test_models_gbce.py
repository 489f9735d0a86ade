"""Calibrated odds against drawn titles: gSASRec's loss as its paper writes it."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from playbill.models import ContextBatch, HeadConfig, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs
from playbill.models.batch import NegativeBatch
from playbill.models.objectives import gbce_loss, gbce_power, row_weights

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def as_written(
    target: list[float], others: list[list[float]], weight: list[float], titles: list[int], t: float
) -> float:
    """arXiv 2308.07192, equations 8 to 11: -(log sigma(s+)^beta + sum log(1 - sigma(s-))) / (|I-| + 1)."""
    total = 0.0
    for own, row, share, count in zip(target, others, weight, titles, strict=True):
        used = [score for score in row if score > -math.inf]
        beta = 1 - t  # the limit of none drawn
        if used:
            alpha = len(used) / (count - 1)
            beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        negative = sum(math.log(1 - sigmoid(score)) for score in used)
        total -= share * (math.log(sigmoid(own) ** beta) + negative) / (len(used) + 1)
    return total


@pytest.mark.parametrize("calibration", [0.0, 0.3, 0.75, 1.0])
def test_the_loss_is_the_one_of_the_paper(calibration: float) -> None:
    draw = torch.Generator().manual_seed(3)
    target, others = torch.randn(6, generator=draw), torch.randn(6, 4, generator=draw)
    others[torch.rand(6, 4, generator=draw) < 0.3] = -torch.inf
    weight, titles = torch.rand(6, generator=draw), torch.tensor([9, 20, 9, 50, 9, 7])
    power = gbce_power(torch.isfinite(others).sum(-1), titles - 1, calibration)
    used = torch.isfinite(others).any(-1)
    assert int(used.sum()) >= 5
    found = gbce_loss(target[used], others[used], power[used], weight[used])
    plain = as_written(
        target[used].tolist(), others[used].tolist(), weight[used].tolist(), titles[used].tolist(), calibration
    )
    assert float(found) == pytest.approx(plain, rel=1e-5)


def test_without_calibration_it_is_binary_cross_entropy_of_the_title_and_its_negatives() -> None:
    draw = torch.Generator().manual_seed(4)
    target, others = torch.randn(5, generator=draw), torch.randn(5, 3, generator=draw)
    power = gbce_power(torch.full((5,), 3), torch.full((5,), 40), 0.0)
    logits = torch.cat([target.unsqueeze(-1), others], dim=-1)
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    plain = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1).sum()
    torch.testing.assert_close(gbce_loss(target, others, power, torch.ones(5)), plain)


def test_fully_calibrated_odds_of_titles_that_are_all_alike_are_one_in_all_of_them() -> None:
    """Where the loss is least with every title as likely as any other, a title's probability is 1 / T."""
    titles, negatives = 50, 7
    score = torch.zeros((), requires_grad=True)
    power = gbce_power(torch.tensor([negatives]), torch.tensor([titles - 1]), 1.0)
    optimizer = torch.optim.LBFGS([score], max_iter=100, tolerance_grad=1e-9, tolerance_change=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = gbce_loss(score.view(1), score.expand(1, negatives), power, torch.ones(1))
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert sigmoid(float(score.detach())) == pytest.approx(1 / titles, rel=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_a_network_is_scored_by_it_over_what_its_rows_could_see(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, masked: bool
) -> None:
    head = HeadConfig(name="play", loss="gbce", level=True, options={"calibration": 0.5})
    torch.manual_seed(3)
    network = Network(config.model_copy(update={"heads": (head,)})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    history, context, targets = batch
    drawn = np.array([2, 5, 5])
    usable = drawn != targets.title.numpy()[:, None]
    available, group = np.zeros((0, 0), np.bool_), np.zeros(0, np.int64)
    if masked:
        available, group = np.ones((2, 6), np.bool_), np.array([0, 1, 1, 0, 1, 0, 1])
        available[:, 0], available[1, [4, 5]] = False, False
        usable &= available[:, drawn][group]
    own = NegativeBatch.from_arrays(
        SimpleNamespace(title=drawn, expected=np.ones(3, np.float32), usable=usable, shown=np.zeros((7, 0), np.int64))
    )
    targets = replace(
        targets,
        labels={"play": targets.labels["play"]},
        negatives={"play": own},
        available=torch.from_numpy(available),
        group=torch.from_numpy(group),
    )
    scores = network.scores(history, context, titles)["play"]
    weight = row_weights(head, targets)
    rows = [row for row in range(7) if weight[row] > 0]
    counts = [int(available[group[row]].sum()) if masked else 5 for row in rows]
    plain = as_written(
        [float(scores[row, targets.title[row]]) for row in rows],
        [[float(scores[row, t]) if usable[row, at] else -math.inf for at, t in enumerate(drawn)] for row in rows],
        [float(weight[row]) for row in rows],
        counts,
        0.5,
    )
    found = network.loss(history, context, targets, titles)[1]["play"] * weight.sum()
    assert float(found.detach()) == pytest.approx(plain, rel=1e-4)
