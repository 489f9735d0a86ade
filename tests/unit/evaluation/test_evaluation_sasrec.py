"""Plain SASRec: its attention against a loop, its loss against the formula, and that it learns an order."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from playbill.datasets import Request
from playbill.errors import ConfigError
from playbill.evaluation.baselines import sasrec as sasrec_module
from playbill.evaluation.baselines.sasrec import SasRec, SasRecOptions, sequences_of
from playbill.evaluation.baselines.sasrec_network import (
    Negatives,
    SasRecNetwork,
    Sequences,
    batches,
    binary_loss,
    full_loss,
)
from playbill.evaluation.cases.event_log import TitleOrder

CYCLE = TitleOrder(tuple("abcdefgh"))
SMALL = SasRecOptions(dim=16, blocks=1, length=6, dropout=0.0, batch=16, epochs=40, check_every=8, learning_rate=1e-2)


def cycles(members: int = 60, length: int = 6, seed: int = 0) -> pl.DataFrame:
    """Everybody goes through the titles in one order, from a start of their own."""
    starts = np.random.default_rng(seed).integers(len(CYCLE), size=members)
    rows = [(f"m{m}", CYCLE.title_ids[(s + i) % len(CYCLE)]) for m, s in enumerate(starts) for i in range(length)]
    return pl.DataFrame(rows, schema=["member_id", "title_id"], orient="row")


def request(*titles: str) -> Request:
    frame = pl.DataFrame({"title_id": list(titles), "action": ["play"] * len(titles)}, schema_overrides=TEXT)
    return Request("home", None, history=frame)


TEXT = {"title_id": pl.String, "action": pl.String}


@pytest.fixture(scope="module")
def trained():
    return SasRec.fit(CYCLE, cycles(), SMALL, backoff=np.arange(8) / 8)


def test_sasrec_learns_which_title_follows_which(trained):
    requested = [request("b", "c"), request("f", "g", "h"), request("e")]
    scores = trained.score(requested)
    for row, one in enumerate(requested):  # as in evaluation, what was played is no candidate
        scores[row, CYCLE.codes(one.history["title_id"])] = -np.inf
    assert [CYCLE.title_ids[column] for column in scores.argmax(axis=1)] == ["d", "a", "f"]


def test_the_order_of_the_past_matters(trained):
    forward, backward = trained.score([request("b", "c", "d"), request("d", "c", "b")])
    assert np.abs(forward - backward).max() > 0.1


def test_a_request_scores_the_same_alone_and_among_longer_ones(trained):
    requested = [request("b", "c"), request(), request(*"abcdefgh"), request("unheard", "e")]
    together = trained.score(requested)
    alone = np.concatenate([trained.score([one]) for one in requested])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[1], np.arange(8) / 8)  # an empty past: the backoff


def test_only_the_newest_plays_are_read(trained):
    longer, newest = trained.score([request(*"hgabcdef"), request(*"abcdef")])
    np.testing.assert_allclose(longer, newest, atol=1e-5)


def test_the_same_seed_gives_the_same_network_and_leaves_torch_alone():
    options = SasRecOptions(dim=8, blocks=1, length=6, batch=32, epochs=2, seed=4)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again = (SasRec.fit(CYCLE, cycles(), options, backoff=np.zeros(8)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.score([request("a")]), again.score([request("a")]))


def test_the_network_equals_the_papers_equations_place_by_place():
    torch.manual_seed(0)
    network = SasRecNetwork(5, 4, 3, 1, 0.0).eval()
    titles, (block,) = [3, 1, 4], network.blocks

    def norm(x, layer):
        return (x - x.mean()) / torch.sqrt(x.var(correction=0) + layer.eps) * layer.weight + layer.bias

    rows = [network.titles.weight[t] * math.sqrt(3) + network.places.weight[2 - i] for i, t in enumerate(titles)]
    requested = [norm(row, block.norm) for row in rows]
    expected = []
    for place in range(3):
        weights = [block.query(requested[place]) @ block.key(row) / math.sqrt(3) for row in rows[: place + 1]]
        shares = torch.softmax(torch.stack(weights), 0)
        read = sum(share * block.value(row) for share, row in zip(shares, rows, strict=False))
        x = norm(requested[place] + read, block.norm_after)
        expected.append(norm(x + block.narrow(torch.relu(block.wide(x))), network.norm))
    found = network(torch.tensor([titles]), torch.tensor([3]))
    torch.testing.assert_close(found[0], torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_the_loss_is_one_negative_per_place_and_blind_to_padding():
    torch.manual_seed(0)
    network = SasRecNetwork(6, 4, 4, 1, 0.0).eval()
    padded = np.array([[2, 3, 5, 1], [4, 1, 0, 0]])
    negatives = np.array([[0, 4, 0], [2, 5, 5]])
    found = binary_loss(network, padded, np.array([4, 2]), negatives)
    terms = []
    for row, count in ((0, 4), (1, 2)):
        states = network(torch.tensor(padded[row : row + 1, : count - 1]), torch.tensor([count - 1]))[0]
        for place in range(count - 1):
            scores = network.titles.weight @ states[place]
            terms.append(torch.log(torch.sigmoid(scores[padded[row, place + 1]])))
            terms.append(torch.log(1 - torch.sigmoid(scores[negatives[row, place]])))
    torch.testing.assert_close(found, -torch.stack(terms).sum() / 4, atol=1e-5, rtol=1e-5)


def test_the_full_loss_is_the_mean_cross_entropy_among_all_titles_and_blind_to_padding():
    torch.manual_seed(0)
    network = SasRecNetwork(6, 4, 4, 1, 0.0).eval()
    padded, counts = np.array([[2, 3, 5, 1], [4, 1, 0, 0]]), np.array([4, 2])
    states = network(torch.tensor(padded[:, :-1]), torch.tensor(counts - 1))
    logits = torch.cat([states[0], states[1, :1]]) @ network.titles.weight.T
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 5, 1, 1]))
    found = full_loss(network, padded, counts, places=4)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, network.titles.weight, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_places_of_short_histories_count_as_much_as_those_of_long_ones():
    known = Sequences(np.arange(14) % 7, np.array([0, 2, 4, 14]))
    options = SasRecOptions(length=6, batch=2)
    # 1 + 1 + 6 places that a title follows, in two batches; of a history of ten the newest seven are read.
    assert sasrec_module.usual_places(known.lengths, options) == 4
    torch.manual_seed(0)
    network = SasRecNetwork(7, 6, 4, 1, 0.0, plus=True).eval()
    both = known.newest(np.array([0, 1]), 7), known.newest(np.array([2]), 7)
    short, long = (full_loss(network, *batch, places=4) for batch in both)
    padded, counts = known.newest(np.array([0, 1, 2]), 7)
    torch.testing.assert_close(short + long, full_loss(network, padded, counts, places=4))
    torch.testing.assert_close((short + long) / 2, full_loss(network, padded, counts, places=8))


def test_sasrec_plus_counts_places_from_the_oldest_title_and_starts_small():
    for plus, place in ((True, 0), (False, 2)):
        torch.manual_seed(0)
        network = SasRecNetwork(40, 6, 64, 1, 0.0, plus=plus).eval()
        weights = [each.detach() for each in network.parameters() if each.ndim == 2]
        assert (max(float(each.std()) for each in weights) < 0.03) is plus
        titles, lengths = torch.tensor([[3, 4, 5]]), torch.tensor([3])
        with torch.no_grad():
            before = network(titles, lengths)[0, 0]
            network.places.weight[place] += torch.linspace(-1, 1, 64)  # what the oldest of three titles stands at
            assert not torch.allclose(network(titles, lengths)[0, 0], before)


def test_with_the_full_loss_it_learns_what_follows_what_without_negatives(monkeypatch):
    monkeypatch.setattr(Negatives, "draw", None)
    full = SasRec.fit(CYCLE, cycles(), replace(SMALL, loss="softmax"), backoff=np.arange(8) / 8)
    scores = full.score([request("b", "c")])[0]
    assert CYCLE.title_ids[int(scores.argmax())] == "d"


def test_a_falling_rate_rises_first_and_ends_at_nothing():
    rates = []
    seen = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    options = SasRecOptions(dim=4, blocks=1, length=6, batch=3, epochs=4, learning_rate=0.5, falling=True)
    try:
        SasRec.fit(CYCLE, cycles(), options, backoff=np.zeros(8))
    finally:
        seen.remove()
    assert rates[0] < rates[1] < rates[3] == pytest.approx(0.5, abs=0.01)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)


def test_negatives_are_titles_the_member_never_played():
    known = sequences_of(CYCLE, cycles())
    members = np.arange(60)[::-1]
    drawn = Negatives(known, 8).draw(members, 50, np.random.default_rng(0))
    played = [set(known.codes[known.offsets[m] : known.offsets[m + 1]].tolist()) for m in members]
    assert all(not own & set(row.tolist()) for own, row in zip(played, drawn, strict=True))
    assert all(len(set(row.tolist())) == 2 for row in drawn)  # each played six of eight


def test_a_member_who_played_everything_still_gets_negatives():
    known = sequences_of(CYCLE, cycles(3, 8))
    drawn = Negatives(known, 8).draw(np.array([2, 0]), 40, np.random.default_rng(0))
    assert {*drawn.ravel().tolist()} == set(range(8))


def test_sequences_keep_the_order_and_leave_unknown_titles_out():
    plays = pl.DataFrame({"member_id": ["v", "u", "u", "v", "u"], "title_id": ["b", "c", "gone", "a", "a"]})
    known = sequences_of(CYCLE, plays)
    np.testing.assert_array_equal(known.codes, [2, 0, 1, 0])
    np.testing.assert_array_equal(known.offsets, [0, 2, 4])
    titles, counts = known.newest(np.array([1, 0]), 1)
    np.testing.assert_array_equal(titles, [[0], [0]])
    np.testing.assert_array_equal(counts, [1, 1])


def test_an_epoch_goes_through_every_member_with_a_next_play_once():
    lengths = np.array([1, 2, 7, 3, 0, 5, 2])
    seen = np.concatenate(list(batches(lengths, 2, np.random.default_rng(0))))
    assert sorted(seen.tolist()) == [1, 2, 3, 5, 6]


def test_training_stops_when_the_plays_held_back_gain_nothing():
    looks = []
    options = SasRecOptions(dim=8, blocks=1, length=6, epochs=50, check_every=1, patience=3, learning_rate=1e-12)
    SasRec.fit(CYCLE, cycles(), options, backoff=np.zeros(8), watch=lambda *look: looks.append(look))
    assert len(looks) == 4


def test_nothing_to_learn_from_still_scores():
    model = SasRec.fit(CYCLE, cycles(0), SMALL, backoff=np.arange(8) / 8)
    assert np.isfinite(model.score([request("a"), request()])).all()


def test_a_catalogue_it_cannot_learn_is_refused(monkeypatch):
    monkeypatch.setattr(sasrec_module, "LARGEST_CATALOGUE", 7)
    with pytest.raises(ConfigError, match=r"'sasrec'.*at most 7 titles, and there are 8"):
        SasRec.fit(CYCLE, cycles(), SMALL, backoff=np.zeros(8))


def test_options_are_checked_together():
    with pytest.raises(ConfigError, match=r"dim 0 is not above zero; dropout 1.0 is not in \[0, 1\)"):
        SasRecOptions(dim=0, dropout=1.0)


def test_no_members_give_no_batches():
    empty = Sequences(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
    assert list(batches(empty.lengths, 4, np.random.default_rng(0))) == []
