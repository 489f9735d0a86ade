"""Every loss a head may have: it learns by its own gradient, and the formula is the plain one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from playbill.definitions.specs import LOSSES
from playbill.definitions.specs.head import loss_plugin
from playbill.models import ContextBatch, HeadConfig, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs
from playbill.models.batch import NegativeBatch
from playbill.models.objectives import huber_loss, pairwise_loss

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
OPTIONS = {"huber": {"scale": 2.0, "cap": 3.0, "delta": 0.5}}


def network_of(config: NetworkConfig, loss: str, **changes: object) -> Network:
    torch.manual_seed(3)
    leveled = loss_plugin(loss).leveled
    head = HeadConfig.model_validate(
        {"name": "play", "loss": loss, "options": OPTIONS.get(loss, {}), "level": leveled, **changes}
    )
    titles = config.titles.model_copy(update={"id_mask": 0.0})
    return Network(config.model_copy(update={"heads": (head,), "titles": titles}))


def with_negatives(batch: Batch) -> Batch:
    history, context, targets = batch
    rows = targets.title.shape[0]
    drawn = torch.tensor([1, 2, 4])
    negatives = NegativeBatch(
        title=drawn,
        expected=torch.ones(3),
        usable=drawn.ne(targets.title.unsqueeze(-1)),
        shown=torch.full((rows, 1), 5) * targets.title.ne(5).unsqueeze(-1),
    )
    return history, context, replace(targets, negatives={"play": negatives})


@pytest.mark.parametrize("loss", LOSSES.names())
def test_steps_down_the_gradient_of_a_loss_lower_that_loss(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, loss: str
) -> None:
    network, batch = network_of(config, loss), with_negatives(batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.005)
    found = []
    for _ in range(4):
        total, heads = network.loss(*batch, titles)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found.append(float(heads["play"].detach()))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] - 1e-4


@pytest.mark.parametrize("loss", LOSSES.names())
def test_a_loss_sends_a_gradient_into_the_trunk_and_counts_each_row_by_its_weight(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, loss: str
) -> None:
    network, (history, context, targets) = network_of(config, loss), with_negatives(batch)
    total, sums = network(history, context, targets, titles)
    total.backward()
    assert network.trunk.blocks[0].up.weight.grad.abs().sum() > 0
    _, heavier = network(history, context, replace(targets, weight=targets.weight * 3), titles)
    torch.testing.assert_close(heavier, sums * 3)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "pairwise", "gbce", "huber"])
def test_a_batch_reads_its_own_titles_and_learns_as_if_it_read_all(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Taking out the titles that a batch names changes no loss and no gradient."""
    history, context, targets = batch
    targets = replace(targets, title=torch.tensor([1, 2, 1, 5, 1, 2, 1]))
    history = replace(history, title=torch.where(history.title.gt(2), 1, history.title))
    network, batch = network_of(config, loss), with_negatives((history, context, targets))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    history, context, targets = batch
    context = replace(context, source_title=torch.tensor([1, 0, 2, 4, 0, 5, 0]))
    counts, found = [], []
    network.titles.register_forward_pre_hook(lambda _, given: counts.append(given[0].count))
    for part in (10**6, 0):
        monkeypatch.setattr("playbill.models.network.SMALL_PART", part)
        network.zero_grad()
        total, sums = network(history, context, targets, titles)
        total.backward()
        found.append((total.detach(), sums, [own.grad for own in network.parameters()]))
    assert counts == [titles.count, titles.count - 1]  # all but title 3
    torch.testing.assert_close(found[1][:2], found[0][:2])
    for own, whole in zip(found[1][2], found[0][2], strict=True):
        torch.testing.assert_close(own, whole, atol=1e-6, rtol=1e-4)


def test_softmax_ranks_against_drawn_titles_where_some_were_drawn(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    drawn = with_negatives(batch)
    found = {loss: network_of(config, loss)(*drawn, titles)[1] for loss in ("softmax", "sampled_softmax")}
    torch.testing.assert_close(found["softmax"], found["sampled_softmax"])
    whole = network_of(config, "softmax")(*batch, titles)[1]
    assert (whole[:, 0] > found["softmax"][:, 0]).all()


def test_huber_is_square_near_and_straight_far() -> None:
    value = torch.tensor([0.0, 1.0, 5.0, -2.0], requires_grad=True)
    label, weight, delta = torch.tensor([0.2, 1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0, 0.5]), 0.5
    total = huber_loss(value, label, weight, delta)
    total.backward()
    plain, slopes = 0.0, []
    for own, wanted, share in zip(value.tolist(), label.tolist(), weight.tolist(), strict=True):
        error = own - wanted
        near = abs(error) <= delta
        plain += share * (error**2 / 2 if near else delta * (abs(error) - delta / 2))
        slopes.append(share * (error if near else delta * np.sign(error)))
    assert float(total.detach()) == pytest.approx(plain)
    assert value.grad.tolist() == pytest.approx(slopes)


def test_a_number_is_learnt_in_units_of_its_scale_and_cut_off_at_its_cap(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    history, context, targets = batch
    labels = targets.labels["play"]
    network = network_of(config, "huber")
    for label, twin in ((9.0, 3.0), (3.0, 9.0)):
        same = [replace(targets, labels={"play": torch.full_like(labels, one)}) for one in (label, twin)]
        sums = [network(history, context, one, titles)[1] for one in same]
        torch.testing.assert_close(sums[0], sums[1])
    network.start_levels({"play": 1.5})
    none, exact = (replace(targets, labels={"play": torch.full_like(labels, one)}) for one in (0.0, 3.0))
    assert network(history, context, exact, titles)[1][0, 0] < network(history, context, none, titles)[1][0, 0]


def test_pairs_are_the_mean_over_what_a_row_may_use() -> None:
    target = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    never = -torch.inf
    others = torch.tensor([[0.0, 1.0, never], [never, never, 0.25], [never, never, never]], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])
    total = pairwise_loss(target, others, weight)
    total.backward()

    def plain(target: Tensor, others: Tensor) -> Tensor:
        rows = []
        for own, row, share in zip(target, others, weight, strict=True):
            pairs = [torch.log1p(torch.exp(other - own)) for other in row if torch.isfinite(other)]
            rows.append(share * sum(pairs) / len(pairs) if pairs else own * 0)
        return torch.stack(rows).sum()

    twins = [own.detach().clone().requires_grad_() for own in (target, others)]
    expected = plain(*twins)
    expected.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(target.grad, twins[0].grad)
    torch.testing.assert_close(others.grad, twins[1].grad.nan_to_num())


def test_a_level_raises_every_title_alike(config: NetworkConfig, batch: Batch, titles: TitleInputs) -> None:
    network = network_of(config, "bce")
    history, context, targets = batch
    before = network.scores(history, context, titles)["play"]
    network.start_levels({"play": -3.0})
    after = network.scores(history, context, titles)["play"]
    torch.testing.assert_close(after, before - 3.0)
    _, sums = network(history, context, targets, titles)
    assert float(sums[0, 1]) > 0
    with pytest.raises(ValueError, match="titles compete in 'softmax'"):
        network_of(config, "softmax", level=True)


def test_a_drawn_title_has_the_level_of_its_row(config: NetworkConfig, batch: Batch, titles: TitleInputs) -> None:
    network, (history, context, targets) = network_of(config, "bce"), with_negatives(batch)
    ones = replace(targets, labels={"play": torch.where(targets.labels["play"] > 0, 1.0, torch.nan)})
    network.start_levels({"play": 40.0})
    total, _ = network(history, context, ones, titles)
    # A certain yes costs nothing for the ones, and its 40 nats for what was drawn beside them.
    assert float(total.detach()) == pytest.approx(40, abs=4)
