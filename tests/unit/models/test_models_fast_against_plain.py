"""Fast parts against plain ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from playbill.errors import IntegrityError
from playbill.models import HistoryBatch, Network, NetworkConfig, svd, weights
from playbill.models import softmax_loss as loss
from playbill.models.embeddings import Fields, GramSpace, Normaliser, sign_patterns
from playbill.models.svd import co_occurrence, positive_pmi, svd_vectors
from playbill.models.trunks import causal as attention
from playbill.models.trunks.causal import Dropout
from playbill.models.trunks.gated_transformer import mix_back
from playbill.models.weights import load_network, save_weights


@pytest.fixture
def problem() -> SimpleNamespace:
    torch.manual_seed(1)
    rows, titles, dim, biases = 37, 23, 8, 3
    return SimpleNamespace(
        q=torch.randn(rows, dim, dtype=torch.float32),
        e=torch.randn(titles, dim),
        bias=torch.randn(biases, titles),
        bias_row=torch.randint(0, biases, (rows,)),
        target=torch.randint(0, titles, (rows,)),
        weight=torch.rand(rows),
    )


def gradients(value: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, inputs))


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (50, 200), (10_000, 10_000)])
@pytest.mark.parametrize("biases", [1, 3])
def test_chunked_softmax_is_cross_entropy(
    problem: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, chunk: int, block: int, biases: int
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(loss, "BLOCK_LOGITS", block)
    monkeypatch.setattr(loss, "LEAST_ROWS", 1)
    q, e = problem.q.requires_grad_(), problem.e.requires_grad_()
    bias = problem.bias[:biases].clone().requires_grad_()
    row = problem.bias_row % biases
    plain = F.cross_entropy(q @ e.T + bias[row], problem.target, reduction="none") @ problem.weight
    fast = loss.softmax_loss(q, e, bias, row, problem.target, problem.weight)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(3 * fast, q, e, bias), gradients(3 * plain, q, e, bias), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (50, 200), (10_000, 10_000)])
@pytest.mark.parametrize("order", ["side by side", "mixed"])
def test_chunked_softmax_adds_what_features_say_at_a_rows_moment_and_what_was_typed(
    problem: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, chunk: int, block: int, order: str
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(loss, "BLOCK_LOGITS", block)
    monkeypatch.setattr(loss, "LEAST_ROWS", 1)
    rows, titles = problem.q.shape[0], problem.e.shape[0]
    snapshot = torch.randint(0, 4, (rows,))
    snapshot = snapshot.sort()[0] if order == "side by side" else snapshot
    features, names, requested = torch.randn(4, titles, 5), torch.randn(titles, 6), torch.tensor([0, 3, 4, 20, 36])
    q, e, bias = problem.q.requires_grad_(), problem.e.requires_grad_(), problem.bias.requires_grad_()
    slopes, typed = torch.randn(3, 5, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    hidden = torch.rand(2, titles) < 0.3
    group = torch.randint(0, 2, (rows,))
    logits = q @ e.T + bias[problem.bias_row]
    logits = logits + (features[snapshot] * slopes[problem.bias_row].unsqueeze(1)).sum(-1)
    logits = logits.index_add(0, requested, typed @ names.T)
    away = hidden[group].scatter(1, problem.target.unsqueeze(1), value=False)
    plain = F.cross_entropy(logits.masked_fill(away, -torch.inf), problem.target, reduction="none") @ problem.weight
    fast = loss.softmax_loss(
        *(q, e, bias, problem.bias_row, problem.target, problem.weight),
        hidden=loss.Hidden(hidden, group),
        moments=loss.MomentFeatures(slopes, features, snapshot),
        names=loss.Names(requested, typed, names),
    )
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    inputs = (q, e, bias, slopes, typed)
    for ours, theirs in zip(gradients(3 * fast, *inputs), gradients(3 * plain, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_features_that_repeat_another_are_kept_once_and_say_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(3, 7, 5, generator=draw)
    raw[:, 2:4, 1] = raw[:, 2:4, 3] = float("nan")  # missing together
    raw[..., 4] = float("nan")  # missing always
    normaliser = Normaliser(5)
    normaliser.calibrate(raw[:, 1:])
    found = normaliser.distinct(raw)
    assert found.values.shape == (3, 7, 6)  # four values; missing like features 1 and 3, and like feature 4
    assert not found.values[:, 0].any()
    slopes = torch.randn(2, 10, generator=draw)
    whole = normaliser(raw)[:, 1:]
    torch.testing.assert_close((found.values @ found.spread)[:, 1:], whole)
    torch.testing.assert_close(found.values[:, 1:] @ found.weights(slopes).T, whole @ slopes.T)


@pytest.mark.parametrize("tiles", [True, False])
def test_bfloat16_is_used_where_the_processor_has_tiles_for_it(monkeypatch: pytest.MonkeyPatch, tiles: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert weights.bfloat16_is_fast(torch.device("cpu")) is tiles
    assert weights.bfloat16_is_fast(torch.device("cuda"))


def test_chunked_softmax_in_bfloat16_stays_near(problem: SimpleNamespace) -> None:
    rows = torch.zeros_like(problem.bias_row)
    exact = loss.softmax_loss(problem.q, problem.e, problem.bias[:1], rows, problem.target, problem.weight)
    low = loss.softmax_loss(
        problem.q.bfloat16(), problem.e.bfloat16(), problem.bias[:1], rows, problem.target, problem.weight
    )
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0.01, atol=0.01)


def test_blocks_of_logits_stay_in_the_caches_and_have_rows_enough() -> None:
    cpu, accelerator = torch.device("cpu"), torch.device("cuda")
    assert loss.block_rows(4_000, cpu) * 4_000 * 4 <= 4 << 20  # 4 MiB
    assert loss.block_rows(1_000_000, cpu) == 64
    assert loss.block_rows(4_000, accelerator) > loss.block_rows(4_000, cpu)


def test_chunked_softmax_makes_one_array_of_logits_whatever_the_rows() -> None:
    titles, made = 500, []
    for rows in (4_000, 16_000):
        q, e = torch.randn(rows, 4, requires_grad=True), torch.randn(titles, 4, requires_grad=True)
        with torch.profiler.profile(profile_memory=True) as run:
            loss.softmax_loss(
                q, e, torch.zeros(1, titles), torch.zeros(rows).long(), torch.zeros(rows).long(), torch.ones(rows)
            )
        block = loss.block_rows(titles, q.device) * titles * 4
        made.append(sum(event.self_cpu_memory_usage >= block for event in run.events()))
    assert made == [1, 1]


def test_a_hopeless_row_has_a_finite_loss() -> None:
    e = torch.tensor([[1000.0], [-1000.0]])
    row = torch.zeros(1, dtype=torch.int64)
    value = loss.softmax_loss(
        torch.ones(1, 1), e, torch.zeros(1, 2), row, torch.ones(1, dtype=torch.int64), torch.ones(1)
    )
    assert torch.isfinite(value)


def test_plain_and_fused_attention_agree() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    bias = attention.distance_bias(torch.randn(2, 9), attention.steps_back(0, 5, q.device))
    torch.testing.assert_close(attention.plain_attention(q, k, v, bias), attention.fused_attention(q, k, v, bias))


def test_distance_bias_looks_back_only() -> None:
    bias = attention.distance_bias(torch.tensor([[1.0, 2.0, 3.0]]), attention.steps_back(0, 3, torch.device("cpu")))[0]
    inf = float("inf")
    assert bias.tolist() == [[1, -inf, -inf], [2, 1, -inf], [3, 2, 1]]


def test_mixing_back_is_a_causal_sum() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    plain = x.clone()
    for back in (1, 2):
        plain = plain + F.pad(x[:, :-back] * mix[back - 1], (0, 0, back, 0))
    torch.testing.assert_close(mix_back(x, mix), plain)
    assert torch.autograd.gradcheck(mix_back, (x, mix))


@pytest.mark.parametrize("length", [1, 2])
def test_mixing_back_of_very_short_histories(length: int) -> None:
    x = torch.randn(1, length, 3, requires_grad=True)
    mixed = mix_back(x, torch.ones(2, 3, requires_grad=True))
    mixed.sum().backward()
    torch.testing.assert_close(mixed[:, 0], x[:, 0])


def test_dropout_keeps_the_mean_and_its_share() -> None:
    torch.manual_seed(0)
    dropout, ones = Dropout(0.25), torch.ones(100, 1000)
    dropped = dropout.train()(ones)
    assert dropped.eq(0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(ones), ones)
    assert torch.equal(Dropout(0).train()(ones), ones)


def test_fields_are_the_sum_of_their_embeddings() -> None:
    fields = Fields((3, 1, 4), 5)
    nn.init.normal_(fields.table.weight)
    first, nothing, second = torch.tensor([[0, 2]]), torch.tensor([[0, 0]]), torch.tensor([[3, 1]])
    expected = fields.table.weight[first] + fields.table.weight[3 + second]
    torch.testing.assert_close(fields((first, nothing, second)), expected)
    assert Fields((1, 1), 5)((nothing, nothing)).abs().sum() == 0


def test_normaliser_compresses_standardises_and_flags() -> None:
    normaliser = Normaliser(2)
    values = torch.tensor([[0.0, 1.0], [1e6, float("nan")], [10.0, 1.0]])
    normaliser.calibrate(values)
    normal = normaliser(values)
    assert normal.shape == (3, 4)
    assert normal[:, 0].mean().abs() < 1e-5
    assert normal[:, 0].std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert normal[:, 3].tolist() == [0, 1, 0]
    assert normaliser(torch.tensor([[1e30, 0.0]])).abs().max() <= 5


def test_sign_patterns_never_change() -> None:
    patterns = sign_patterns(5, 70)
    assert patterns.shape == (5, 70)
    assert patterns[0].abs().sum() == 0
    assert patterns[1:].abs().eq(1).all()
    assert patterns[1, :12].tolist() == GOLDEN_SIGNS


GOLDEN_SIGNS = [float(sign) for sign in (-1, 1, -1, -1, 1, 1, 1, 1, -1, 1, -1, -1)]
"""The low bits of 0x06C45D188009454F, SplitMix64's third output from seed 0."""


def test_grams_that_are_rarer_count_more() -> None:
    space = GramSpace(16, 256)
    space.calibrate(torch.tensor([1, 2, 1, 3, 1, 4]), torch.tensor([0, 2, 4]))
    assert space.rarity[2] > space.rarity[1]
    names = space.names(torch.tensor([1, 2, 1, 3, 1, 4]), torch.tensor([0, 2, 4]))
    query = space.queries(torch.tensor([1, 3]), torch.tensor([0]))
    assert (names @ query.T).argmax().item() == 1
    empty = space.queries(torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert empty.abs().sum() == 0


@pytest.mark.parametrize("at_once", [1, 3, 8, 100, 499, 500])
def test_co_occurrence_counted_in_stretches_is_that_of_the_whole(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(at_once)
    title, member = draw.integers(0, 12, 500), np.sort(draw.integers(0, 30, 500))
    whole = co_occurrence(title, member, 12)
    monkeypatch.setattr(svd, "EVENTS_AT_ONCE", at_once)
    parts = co_occurrence(title, member, 12)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_co_occurrence_stays_within_members_and_eight_steps() -> None:
    title = np.array([1, 2, 3, 1, 4])
    counts = co_occurrence(title, np.array([0, 0, 1, 1, 1]), 6).toarray()
    assert counts[1, 2] == counts[2, 1] == 1
    assert counts[2, 3] == 0
    assert counts[3, 1] == counts[3, 4] == counts[1, 4] == 1
    far = co_occurrence(np.arange(1, 12), np.zeros(11), 12).toarray()
    assert far[1, 9] == 1
    assert far[1, 10] == 0


def test_positive_pmi_drops_what_is_less_than_chance() -> None:
    counts = co_occurrence(np.array([1, 2, 1, 2, 1, 2, 3, 4]), np.array([0, 0, 1, 1, 2, 2, 3, 3]), 5)
    information = positive_pmi(counts).toarray()
    assert information[3, 4] > information[1, 2] > 0
    assert (information >= 0).all()


@pytest.mark.parametrize("dim", [2, 8])
def test_svd_puts_neighbours_near(dim: int) -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 400)
    title = np.where(group == 0, rng.integers(1, 4, 400), rng.integers(4, 7, 400))
    order = np.argsort(group, kind="stable")
    vectors = svd_vectors(title[order], group[order], 8, dim, seed=1)
    again = svd_vectors(title[order], group[order], 8, dim, seed=1)
    assert vectors.shape == (8, dim)
    assert np.allclose(vectors, again, atol=1e-6)
    assert not vectors[0].any()
    unit = vectors[1:7] / np.linalg.norm(vectors[1:7], axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[0, 1] > alike[0, 4]


def test_directions_from_random_vectors_are_those_of_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    member = np.repeat(np.arange(200), 6)
    matrix = positive_pmi(co_occurrence(draw.integers(0, 12, 1_200) + member % 5 * 12 + 1, member, 62))
    exact, values = svd.largest_directions(matrix, 5, np.random.default_rng(1))
    monkeypatch.setattr(svd, "LANCZOS", 10)
    found, sizes = svd.largest_directions(matrix, 5, np.random.default_rng(1))
    np.testing.assert_allclose(np.sort(sizes), np.sort(values), rtol=1e-3)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-2)


def test_titles_that_nobody_has_played_take_no_part_in_directions() -> None:
    draw = np.random.default_rng(4)
    title, member = draw.integers(1, 9, 300), np.repeat(np.arange(100), 3)
    near, wide = (positive_pmi(co_occurrence(title * step, member, 9 * step)) for step in (1, 5_000))
    left, values = svd.known_directions(near, 2, np.random.default_rng(1))
    found, sizes = svd.known_directions(wide, 2, np.random.default_rng(1))
    np.testing.assert_allclose(sizes, values)
    np.testing.assert_allclose(np.abs(found[::5_000]), np.abs(left), atol=1e-9)
    assert np.count_nonzero(found) == np.count_nonzero(left[1:])


def test_svd_of_nothing_is_noise() -> None:
    vectors = svd_vectors(np.zeros(0, np.int64), np.zeros(0, np.int64), 4, 3, seed=0)
    assert vectors.shape == (4, 3)
    assert vectors[1:].any()


def test_batches_take_any_arrays_and_name_what_is_missing(history_arrays: SimpleNamespace) -> None:
    history = HistoryBatch.from_arrays(history_arrays)
    assert history.title.dtype == torch.int64
    assert HistoryBatch.from_arrays(history).title is history.title
    del history_arrays.gap
    with pytest.raises(AttributeError, match="gap"):
        HistoryBatch.from_arrays(history_arrays)


def test_weights_go_to_disk_and_back(network: Network, config: NetworkConfig, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "weights.safetensors"
    save_weights(network, path)
    loaded = load_network(config, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    other = config.model_copy(update={"length": 3})
    with pytest.raises(IntegrityError, match="does not fit"):
        load_network(other, path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_network(config, path)
