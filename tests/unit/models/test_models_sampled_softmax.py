"""Softmax over drawn titles against the one over all, masks of what could not be seen, and weights by head."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from playbill.datasets.examples.negatives import InBatch, Pool
from playbill.definitions.specs.head import DrawnOptions
from playbill.models import HeadConfig, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs
from playbill.models.batch import ContextBatch, pad_rows
from playbill.models.objectives import row_weights, sampled_softmax_loss
from playbill.models.softmax_loss import Hidden, softmax_loss

TITLES, WIDTH, ROWS = 60, 8, 5


@pytest.fixture
def problem() -> SimpleNamespace:
    draw = torch.Generator().manual_seed(2)
    return SimpleNamespace(
        q=torch.randn(ROWS, WIDTH, generator=draw),
        e=torch.randn(TITLES, WIDTH, generator=draw) * 0.5,
        bias=torch.randn(1, TITLES, generator=draw) * 0.3,
        row=torch.zeros(ROWS, dtype=torch.int64),
        target=torch.tensor([3, 9, 3, 40, 58]),
        weight=torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0]),
    )


def plain_softmax(problem: SimpleNamespace, q: Tensor, e: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Row by row, in float64, over the titles that are not hidden and the target."""
    total = torch.zeros((), dtype=torch.float64)
    for row in range(ROWS):
        target = int(problem.target[row])
        competing = [t for t in range(TITLES) if t == target or hidden is None or not hidden[row, t]]
        logits = (e[competing].double() @ q[row].double()) + problem.bias[0, competing].double()
        total = total - problem.weight[row] * (logits[competing.index(target)] - torch.logsumexp(logits, 0))
    return total


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [gradient.double() for gradient in torch.autograd.grad(loss, inputs)]


def hidden_titles() -> Tensor:
    draw = torch.Generator().manual_seed(4)
    return torch.rand(3, TITLES, generator=draw) < 0.4


def test_hidden_titles_are_in_no_denominator(problem) -> None:
    titles, group = hidden_titles(), torch.tensor([0, 1, 1, 2, 0])
    q, e = problem.q.requires_grad_(), problem.e.requires_grad_()
    bias = problem.bias.clone().requires_grad_()
    fast = softmax_loss(q, e, bias, problem.row, problem.target, problem.weight, Hidden(titles, group))
    plain = plain_softmax(problem, q, e, titles[group])
    assert float(fast.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    for one, other in zip(gradients(fast, q, e), gradients(plain, q, e), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_hiding_nothing_changes_nothing(problem) -> None:
    arguments = (problem.q, problem.e, problem.bias, problem.row, problem.target, problem.weight)
    none = Hidden(torch.zeros(1, TITLES, dtype=torch.bool), problem.row)
    assert float(softmax_loss(*arguments)) == float(softmax_loss(*arguments, none))


def test_a_hidden_target_still_competes(problem) -> None:
    everything = Hidden(torch.ones(1, TITLES, dtype=torch.bool), problem.row)
    loss = softmax_loss(problem.q, problem.e, problem.bias, problem.row, problem.target, problem.weight, everything)
    assert float(loss) == pytest.approx(0, abs=1e-5)


def sampled(problem: SimpleNamespace, q: Tensor, e: Tensor, drawn: Tensor, expected: Tensor) -> Tensor:
    logits = q @ e[drawn].T + problem.bias[0, drawn]
    logits = logits.masked_fill(drawn == problem.target[:, None], -torch.inf)
    own = (q * e[problem.target]).sum(-1) + problem.bias[0, problem.target]
    return sampled_softmax_loss(own, logits, expected[drawn], problem.weight)


def test_every_title_drawn_once_is_the_full_softmax(problem) -> None:
    q, e = problem.q.requires_grad_(), problem.e.requires_grad_()
    found = sampled(problem, q, e, torch.arange(TITLES), torch.ones(TITLES))
    plain = plain_softmax(problem, q, e)
    assert float(found.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    for one, other in zip(gradients(found, q, e), gradients(plain, q, e), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_mean_gradient_nears_that_of_the_full_softmax(problem, power: float) -> None:
    """By the law of importance sampling: the mean error falls with the draws; without the correction it stays."""
    q, e = problem.q.requires_grad_(), problem.e.requires_grad_()
    exact = gradients(plain_softmax(problem, q, e), q)[0]
    chances = torch.arange(1, TITLES + 1).double() ** power
    chances /= chances.sum()
    draw = torch.Generator().manual_seed(1)

    def error(count: int, corrected: bool) -> float:
        mean = torch.zeros_like(exact)
        for _ in range(150):
            drawn = torch.multinomial(chances, count, replacement=True, generator=draw)
            expected = (count * chances if corrected else torch.full_like(chances, count / TITLES)).float()
            mean += gradients(sampled(problem, q, e, drawn, expected), q)[0] / 150
        return float((mean - exact).norm() / exact.norm())

    few, many = error(16, True), error(512, True)
    assert many < 0.02
    assert many < few
    if power:
        assert error(512, False) > 5 * many


def test_the_mean_gradient_against_targets_of_a_batch_nears_that_of_the_full_softmax(problem) -> None:
    """In-batch negatives come as often as the log plays them; by what was to be expected they stand for all titles."""
    q, e = problem.q.requires_grad_(), problem.e
    exact = gradients(plain_softmax(problem, q, e), q)[0]
    frequency = np.arange(1, TITLES + 1, dtype=np.float32) ** -0.8
    frequency /= frequency.sum()
    draw = np.random.default_rng(3)
    policy, own = InBatch(DrawnOptions(policy="in_batch", count=4_096)), problem.target.numpy()

    def error(rows: int, corrected: bool, batches: int = 80) -> float:
        mean = torch.zeros_like(exact)
        for _ in range(batches):
            others = draw.choice(TITLES, rows - ROWS, p=frequency.astype(np.float64) / frequency.sum(dtype=np.float64))
            pool = Pool(np.concatenate([own, others]), frequency > 0, np.zeros(TITLES, np.float32), frequency)
            drawn, expected = policy.draw(pool, draw)
            expected = expected if corrected else np.full(TITLES, rows / TITLES, np.float32)
            loss = sampled(problem, q, e, torch.from_numpy(drawn), torch.from_numpy(expected))
            mean += gradients(loss, q)[0] / batches
        return float((mean - exact).norm() / exact.norm())

    few, many = error(64, True), error(4_096, True)
    assert many < 0.03
    assert many < few / 2
    assert error(4_096, False) > 5 * many


Heads = tuple[HeadConfig, ...]


def with_heads(config: NetworkConfig, heads: Heads) -> Network:
    """A trained-looking network whose heads all have the same weights."""
    torch.manual_seed(3)
    network = Network(config.model_copy(update={"heads": heads})).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        network.title_bias.weight[:] = network.title_bias.weight[:, :1]
        if network.canvas_titles is not None:
            crossed = network.canvas_titles.weight.unflatten(1, (-1, config.events.canvases))
            crossed[:] = crossed[:, :1].clone()
        for head in network.heads[1:]:
            head.load_state_dict(network.heads[0].state_dict())
    return network


def negatives(title: list[int], expected: list[float], targets: TargetBatch, shown: Any = None) -> SimpleNamespace:
    usable = np.array(title) != targets.title.numpy()[:, None]
    shown = np.zeros((len(usable), 0), np.int64) if shown is None else shown
    return SimpleNamespace(title=np.array(title), expected=np.array(expected, np.float32), usable=usable, shown=shown)


def changed(targets: TargetBatch, **changes: Any) -> TargetBatch:
    own = {name: getattr(targets, name) for name in ("title", "labels", "weight")}
    return TargetBatch.from_arrays(SimpleNamespace(**{**own, **changes}))


Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
QUERIES = {"query_grams": np.array([10, 11, 20]), "query_offsets": np.array([0, 0, 2, 2, 3, 3, 3])}


@pytest.mark.parametrize("requested", [False, True])
def test_a_head_over_all_drawn_titles_is_the_full_one(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, context_of, requested: bool
) -> None:
    heads = (HeadConfig(name="play", loss="softmax"), HeadConfig(name="drawn", loss="sampled_softmax"))
    network = with_heads(config, heads)
    history, context, targets = batch
    if requested:
        context = context_of([0, 1, 2, 3, 4, 6, 7], **QUERIES)
    own = changed(targets, labels={"play": targets.labels["play"], "drawn": targets.labels["play"]})
    drawn = changed(own, negatives={"drawn": negatives([1, 2, 3, 4, 5], [1.0] * 5, targets)})
    _, found = network.loss(history, context, drawn, titles)
    assert float(found["drawn"]) == pytest.approx(float(found["play"]), rel=1e-4)
    shown = np.array([[(title + step) % 5 + 1 for step in range(4)] for title in targets.title.tolist()])
    beside = changed(own, negatives={"drawn": negatives([], [], targets, shown)})
    assert float(network.loss(history, context, beside, titles)[1]["drawn"]) == pytest.approx(
        float(found["play"]), rel=1e-4
    )


def test_drawn_titles_teach_a_binary_head_that_they_are_none(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    heads = (HeadConfig(name="play", loss="bce", negative_weight=0.7),)
    network = with_heads(config, heads)
    history, context, targets = batch
    own = changed(targets, labels={"play": targets.labels["play"]})
    drawn = changed(own, negatives={"play": negatives([2, 5], [1.0, 1.0], targets)})
    scores = network.scores(history, context, titles)["play"]
    plain = 0.0
    for row, (title, label, weight) in enumerate(
        zip(targets.title.tolist(), targets.labels["play"].tolist(), targets.weight.tolist(), strict=True)
    ):
        if label == label:
            sign = 1 if label else -1
            plain += weight * float(torch.nn.functional.softplus(-sign * scores[row, title]))
        if label == 1:
            others = [other for other in (2, 5) if other != title]
            losses = [float(torch.nn.functional.softplus(scores[row, other])) for other in others]
            plain += 0.7 * weight * sum(losses) / len(losses)
    total = row_weights(heads[0], own).sum()
    found = network.loss(history, context, drawn, titles)[1]["play"]
    assert float(found) * float(total) == pytest.approx(plain, rel=1e-4)


def test_what_could_not_be_seen_is_left_out_of_the_full_softmax(
    network: Network, batch: Batch, titles: TitleInputs
) -> None:
    history, context, targets = batch
    available = np.ones((2, 6), np.bool_)
    available[:, 0] = False
    available[1, [2, 4]] = False
    group = np.array([0, 1, 1, 0, 1, 0, 1])
    found = network.loss(history, context, changed(targets, available=available, group=group), titles)[1]["play"]
    scores = network.scores(history, context, titles)["play"]
    weights = row_weights(network.config.heads[0], targets)
    plain = 0.0
    for row, title in enumerate(targets.title.tolist()):
        seen = [t for t in range(6) if available[group[row], t] or t == title]
        if weights[row]:
            plain += float(weights[row] * (torch.logsumexp(scores[row, seen], 0) - scores[row, title]))
    assert float(found) * float(weights.sum()) == pytest.approx(plain, rel=1e-4)


def test_weights_of_a_head_are_its_own(network: Network, batch: Batch) -> None:
    targets = batch[2]
    own = np.linspace(0.5, 2, 7).astype(np.float32)
    weighted = changed(targets, weights={"thumb": own})
    play, thumb = network.config.heads
    torch.testing.assert_close(row_weights(play, weighted), row_weights(play, targets))
    torch.testing.assert_close(row_weights(thumb, weighted), row_weights(thumb, targets) * torch.from_numpy(own))


def test_padding_rows_train_nothing_and_change_nothing(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    history, context, targets = batch
    network = with_heads(config, (HeadConfig(name="play", loss="sampled_softmax"),))
    available = np.ones((1, 6), np.bool_)
    full = changed(
        targets,
        labels={"play": targets.labels["play"]},
        weights={"play": np.ones(7, np.float32)},
        available=available,
        group=np.zeros(7, np.int64),
        negatives={"play": negatives([2, 5], [1.0, 1.0], targets, np.zeros((7, 2), np.int64))},
    )
    loss = network.loss(history, context, full, titles)[0]
    wider, padded = pad_rows(context, full, 32)
    assert padded.negatives["play"].usable.shape == (32, 2)
    assert padded.group.shape == (32,)
    assert float(network.loss(history, wider, padded, titles)[0].detach()) == pytest.approx(
        float(loss.detach()), rel=1e-6
    )
    assert replace(full).to("cpu").negatives.keys() == {"play"}
