"""Several targets of a row from one row of logits, against a row for each of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from playbill.models import ContextBatch, HeadConfig, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs
from playbill.models import softmax_loss as loss
from playbill.models.batch import FurtherBatch, NegativeBatch

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
FURTHER = FurtherBatch(
    torch.tensor([[3, 5], [0, 0], [4, 0], [2, 1], [1, 0], [0, 0], [2, 3]]),
    torch.tensor([[0.3, 0.2], [0.0, 0.0], [0.5, 0.0], [0.25, 0.25], [0.1, 0.0], [0.0, 0.0], [0.4, 0.1]]),
)


@pytest.fixture
def problem() -> SimpleNamespace:
    torch.manual_seed(1)
    rows, titles, dim, further = 37, 23, 8, 3
    target = torch.randint(1, titles, (rows,))
    others = torch.stack([1 + (target - 1 + step) % (titles - 1) for step in (1, 5, 9)], dim=1)
    share = torch.rand(rows, further) * torch.randint(0, 2, (rows, further)) / further
    return SimpleNamespace(
        q=torch.randn(rows, dim, requires_grad=True),
        e=torch.randn(titles, dim, requires_grad=True),
        bias=torch.randn(3, titles, requires_grad=True),
        bias_row=torch.randint(0, 3, (rows,)),
        target=target,
        weight=torch.rand(rows),
        further=FurtherBatch(torch.where(share > 0, others, 0), share),
        hidden=loss.Hidden(torch.rand(2, titles) < 0.3, torch.randint(0, 2, (rows,))),
    )


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (50, 200), (10_000, 10_000)])
def test_one_row_of_logits_teaches_what_a_row_for_each_target_would(
    problem: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, chunk: int, block: int
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(loss, "BLOCK_LOGITS", block)
    monkeypatch.setattr(loss, "LEAST_ROWS", 1)
    given = (problem.q, problem.e, problem.bias)
    fast = loss.softmax_loss(*given, problem.bias_row, problem.target, problem.weight, further=problem.further)
    logits = problem.q @ problem.e.T + problem.bias[problem.bias_row]
    plain = torch.zeros(())
    for row, target in enumerate(problem.target.tolist()):
        titles, shares = problem.further.title[row].tolist(), problem.further.share[row].tolist()
        targets = [(target, 1 - sum(shares)), *zip(titles, shares, strict=True)]
        for title, share in targets:
            cost = F.cross_entropy(logits[row : row + 1], torch.tensor([title]))
            plain = plain + problem.weight[row] * share * cost
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    found, wanted = (torch.autograd.grad(3 * total, given) for total in (fast, plain))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_shares_of_nothing_change_nothing(problem: SimpleNamespace) -> None:
    given = (problem.q, problem.e, problem.bias, problem.bias_row, problem.target, problem.weight, problem.hidden)
    none = FurtherBatch(torch.zeros_like(problem.further.title), torch.zeros_like(problem.further.share))
    one, other = loss.softmax_loss(*given), loss.softmax_loss(*given, further=none)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(total, given[:3]) for total in (one, other)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def network_of(config: NetworkConfig, name: str) -> Network:
    torch.manual_seed(3)
    head = HeadConfig(name="play", loss=name, level=name == "gbce")
    titles = config.titles.model_copy(update={"id_mask": 0.0})
    network = Network(config.model_copy(update={"heads": (head,), "titles": titles}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    return network


def given_to(batch: Batch, drawn: list[int] | None, further: FurtherBatch | None) -> Batch:
    history, context, targets = batch
    targets = replace(targets, labels={"play": targets.labels["play"]})
    if further is not None:
        targets = replace(targets, further={"play": further})
    if drawn is not None:
        usable = torch.tensor(drawn).ne(targets.title[:, None])
        for own in () if further is None else further.title.T:
            usable &= torch.tensor(drawn).ne(own[:, None])
        none = torch.zeros(7, 0, dtype=torch.int64)
        own = NegativeBatch(torch.tensor(drawn), torch.ones(len(drawn)), usable, none)
        targets = replace(targets, negatives={"play": own})
    return history, context, targets


def test_drawn_titles_with_every_title_drawn_are_the_full_softmax(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    full = network_of(config, "softmax").loss(*given_to(batch, None, FURTHER), titles)[1]["play"]
    drawn = given_to(batch, [1, 2, 3, 4, 5], FURTHER)
    for name in ("sampled_softmax", "softmax"):
        found = network_of(config, name).loss(*drawn, titles)[1]["play"]
        assert float(found) == pytest.approx(float(full), rel=1e-4)


@pytest.mark.parametrize("name", ["softmax", "sampled_softmax", "gbce"])
def test_a_loss_of_several_targets_is_the_mean_of_the_losses_of_each(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, name: str
) -> None:
    """Against drawn titles the others of a set still compete where they are drawn for the one at hand alone."""
    further = FurtherBatch(torch.tensor([[2]] * 7), torch.full((7, 1), 0.4))
    first = replace(batch[2], title=torch.tensor([1, 3, 4, 5, 4, 3, 1]))
    network, drawn = network_of(config, name).eval(), None if name == "softmax" else [5, 4]
    own = (batch[0], batch[1], first)
    both = network.loss(*given_to(own, drawn, further), titles)[1]["play"]
    if name == "sampled_softmax":  # with one denominator
        scores = network.scores(batch[0], batch[1], titles)["play"]
        weight, total = first.weight * torch.nan_to_num(first.labels["play"]), 0.0
        for row, target in enumerate(first.title.tolist()):
            others = [title for title in (5, 4) if title != target]
            logits = scores[row, [target, 2, *others]]
            total += float(weight[row] * (torch.logsumexp(logits, 0) - 0.6 * logits[0] - 0.4 * logits[1]))
        assert float(both) == pytest.approx(total / float(weight.sum()), rel=1e-4)
        return
    parts = []
    for title in (first.title, torch.full((7,), 2)):
        history, context, targets = given_to(own, drawn, further)
        parts.append(network.loss(history, context, replace(targets, title=title, further={}), titles)[1]["play"])
    assert float(both) == pytest.approx(0.6 * float(parts[0]) + 0.4 * float(parts[1]), rel=1e-4)


@pytest.mark.parametrize("name", ["softmax", "sampled_softmax", "gbce"])
def test_a_batch_reads_its_own_titles_the_further_ones_among_them(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    history, context, targets = batch
    history = replace(history, title=torch.where(history.title.gt(2), 1, history.title))
    targets = replace(targets, title=torch.tensor([1, 2, 1, 2, 1, 2, 1]))
    further = FurtherBatch(torch.tensor([[5], [0], [4], [5], [0], [4], [0]]), torch.tensor([[0.5], [0.0]] * 3 + [[0]]))
    further = replace(further, share=torch.where(further.title > 0, 0.3, 0.0))
    given, found = given_to((history, context, targets), [1, 2], further), []
    network = network_of(config, name)
    for part in (10**6, 0):
        monkeypatch.setattr("playbill.models.network.SMALL_PART", part)
        network.zero_grad()
        total, sums = network(*given, titles)
        total.backward()
        found.append((total.detach(), sums, [own.grad for own in network.parameters()]))
    torch.testing.assert_close(found[1][:2], found[0][:2])
    for own, whole in zip(found[1][2], found[0][2], strict=True):
        torch.testing.assert_close(own, whole, atol=1e-6, rtol=1e-4)


def test_a_row_weighs_what_it_did(config: NetworkConfig, batch: Batch, titles: TitleInputs) -> None:
    network = network_of(config, "softmax")
    one, several = (given_to(batch, None, further) for further in (None, FURTHER))
    assert float(network.head_weights(one[2])) == float(network.head_weights(several[2]))
    assert float(network(*one, titles)[1][0, 1]) == float(network(*several, titles)[1][0, 1])


def test_targets_move_between_arrays_and_devices(batch: Batch) -> None:
    arrays = SimpleNamespace(title=FURTHER.title.numpy(), share=FURTHER.share.numpy().astype(np.float32))
    own = {name: getattr(batch[2], name) for name in ("title", "labels", "weight")}
    found = TargetBatch.from_arrays(SimpleNamespace(**own, further={"play": arrays})).to("cpu")
    torch.testing.assert_close(found.further["play"].share, FURTHER.share)
