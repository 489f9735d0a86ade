"""Every trunk against a plain, slow twin: one member, one token and one attention head after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from playbill import registry
from playbill.definitions.specs import TRUNKS, TrunkOptions
from playbill.models import NetworkConfig, TitleConfig, TrunkConfig
from playbill.models.config import HeadConfig
from playbill.models.trunks import causal
from playbill.registry import Plugin, load_object

NAMES = ("gated_transformer", "hstu", "sasrec")
LENGTH, DIM, HEADS = 9, 8, 2
Vectors = list[Tensor]
few = settings(max_examples=20, deadline=None)


def norm(x: Tensor, module: nn.LayerNorm | None = None, eps: float = 1e-6) -> Tensor:
    eps = eps if module is None else module.eps
    x = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + eps)
    return x if module is None else x * module.weight + module.bias


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    total = (module.weight * x).sum(-1)
    return total if module.bias is None else total + module.bias


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def part(x: Tensor, head: int) -> Tensor:
    return x[head * DIM // HEADS : (head + 1) * DIM // HEADS]


def softmax_sum(q: Vectors, k: Vectors, v: Vectors, place: int, bias: Callable[[int, int], Tensor | float]) -> Tensor:
    """Return what the token at a place hears of itself and those before it."""
    heard = []
    for head in range(HEADS):
        query = part(q[place], head)
        weights = [
            torch.exp((query * part(k[key], head)).sum() / math.sqrt(DIM // HEADS) + bias(head, place - key))
            for key in range(place + 1)
        ]
        heard.append(sum(weight * part(v[key], head) for key, weight in enumerate(weights)) / sum(weights))
    return torch.cat(heard)


def gated_block(block: nn.Module, states: Vectors) -> Vectors:
    """Pre-norm; queries, keys and values with multiples of the two before; bias by distance; gates; feed-forward."""
    normed = [norm(state, block.attention_norm) for state in states]
    rows = [linear(block.project, x) for x in normed]
    mixed = []
    for place, row in enumerate(rows):
        for back in (1, 2):
            if place >= back:
                row = row + rows[place - back] * block.mix[back - 1]
        mixed.append(row)
    q, k, v = ([row[n * DIM : (n + 1) * DIM] for row in mixed] for n in range(3))
    found = []
    for place, state in enumerate(states):
        heard = softmax_sum(q, k, v, place, lambda head, back: block.distance[head, back])
        gates = 2 / (1 + torch.exp(-linear(block.gates, normed[place])))
        heard = torch.cat([part(heard, head) * gates[head] for head in range(HEADS)])
        state = state + linear(block.out, heard)
        wide = linear(block.up, norm(state, block.feed_norm))
        found.append(state + linear(block.down, wide * (1 + torch.erf(wide / math.sqrt(2))) / 2))
    return found


def hstu_block(block: nn.Module, states: Vectors) -> Vectors:
    """Equations 1 to 3 of the paper: U, Q, K, V = SiLU(f(norm x)); SiLU(QK + bias) V / n; f(norm(AV) * U)."""
    projected = [silu(linear(block.uqkv, norm(state))) for state in states]
    u, q, k, v = ([row[n * DIM : (n + 1) * DIM] for row in projected] for n in range(4))
    found = []
    for place, state in enumerate(states):
        heard = []
        for head in range(HEADS):
            own = torch.zeros(DIM // HEADS)
            for key in range(place + 1):
                score = (part(q[place], head) * part(k[key], head)).sum() + block.distance[head, place - key]
                own = own + silu(score) / (LENGTH + 1) * part(v[key], head)
            heard.append(own)
        found.append(state + linear(block.out, norm(torch.cat(heard)) * u[place]))
    return found


def sasrec_block(block: nn.Module, states: Vectors) -> Vectors:
    """As in the authors' code: queries are normed, keys and values are not, residuals start from the normed."""
    normed = [norm(state, block.norm) for state in states]
    q = [linear(block.query, x) for x in normed]
    both = [linear(block.key_value, state) for state in states]
    k, v = [row[:DIM] for row in both], [row[DIM:] for row in both]
    found = []
    for place, x in enumerate(normed):
        fed = norm(x + softmax_sum(q, k, v, place, lambda head, back: 0.0), block.feed_norm)
        found.append(fed + linear(block.narrow, linear(block.wide, fed).clamp(min=0)))
    return found


TWINS = {"gated_transformer": gated_block, "hstu": hstu_block, "sasrec": sasrec_block}


def twin(name: str, trunk: nn.Module, tokens_BLD: Tensor) -> Tensor:
    """Return what the trunk does, step by step."""
    found = []
    for tokens in tokens_BLD:
        states = list(tokens)
        for block in trunk.blocks:
            states = TWINS[name](block, states)
        found.append(torch.stack([norm(state, trunk.norm) for state in states]))
    return torch.stack(found)


def config_of(name: str, **trunk: object) -> NetworkConfig:
    return NetworkConfig(
        length=LENGTH,
        trunk=TrunkConfig(**{"type": name, "dim": DIM, "layers": 2, "heads": HEADS, "dropout": 0.0, **trunk}),
        titles=TitleConfig(titles=5),
        heads=(HeadConfig(name="play", loss="softmax"),),
    )


def made(name: str, **trunk: object) -> nn.Module:
    """Return a trunk with every parameter moved away from its start, as training would."""
    torch.manual_seed(2)
    found: nn.Module = TRUNKS[name].load()(config_of(name, **trunk))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return found.eval()


def tokens_of(members: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(members, length, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_and_its_gradients_are_those_of_its_plain_twin(name: str) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1).requires_grad_()
    wanted = torch.randn(2, LENGTH + 1, DIM, generator=torch.Generator().manual_seed(1))
    inputs = [tokens, *trunk.parameters()]
    fast, plain = trunk(tokens), twin(name, trunk, tokens)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    pairs = (torch.autograd.grad((states * wanted).sum(), inputs) for states in (fast, plain))
    for ours, theirs in zip(*pairs, strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@few
@given(place=st.integers(0, LENGTH), seed=st.integers(0, 10), size=st.sampled_from([0.1, 10.0, 1e4]))
def test_a_token_changes_no_state_before_it(name: str, place: int, seed: int, size: float) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1, seed)
    with torch.no_grad():
        other = tokens.clone()
        other[:, place] += size * torch.randn(DIM)
        states, changed = trunk(tokens), trunk(other)
    assert torch.equal(states[:, :place], changed[:, :place])
    assert not torch.allclose(states[:, place], changed[:, place], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@few
@given(length=st.integers(1, LENGTH), padding=st.integers(1, LENGTH), size=st.sampled_from([0.0, 1.0, 1e4]))
def test_padding_is_never_read(name: str, length: int, padding: int, size: float) -> None:
    trunk, tokens = made(name), tokens_of(2, length)
    padded = torch.cat([tokens, size * torch.randn(2, min(padding, LENGTH + 1 - length), DIM)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(trunk(padded)[:, :length], trunk(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@few
@given(picks=st.lists(st.tuples(st.integers(0, 2), st.integers(0, LENGTH)), min_size=1, max_size=5))
def test_states_of_some_places_are_those_of_all(name: str, picks: list[tuple[int, int]]) -> None:
    trunk, tokens = made(name), tokens_of(3, LENGTH + 1)
    assert isinstance(trunk, causal.ReadsAt)
    member_S, place_S = torch.tensor(picks).T
    with torch.no_grad():
        found, states = trunk.at(tokens, member_S, place_S), trunk(tokens)
    torch.testing.assert_close(found, states[member_S, place_S], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@few
@given(counts=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4))
def test_reading_on_from_a_cache_is_reading_it_all(name: str, counts: list[tuple[int, int]]) -> None:
    """Each call reads some tokens beyond those that the last one kept, and keeps some of them."""
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1)
    assert isinstance(trunk, causal.Extends)
    cache, read = None, 0
    for new, kept in counts:
        stop = min(read + new, LENGTH + 1)
        kept = min(kept, stop - read)
        if stop == read:
            break
        with torch.no_grad():
            state, cache = trunk.extend(tokens[:, read:stop], cache, kept)
            expected = trunk(tokens[:, :stop])[:, -1]
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)
        read += kept
        assert all(block.keys.shape[2] == read for block in cache)


def test_a_cache_holds_keys_values_and_what_is_mixed_only() -> None:
    trunk = made("gated_transformer")
    with torch.no_grad():
        _, cache = trunk.extend(tokens_of(1, 6), None, 5)
    floats = 2 * 5 * DIM + 2 * 3 * DIM
    assert [block.nbytes for block in cache] == [4 * floats] * 2
    storages = {part.untyped_storage().nbytes() for block in cache for part in (block.keys, block.values, block.rows)}
    assert storages == {4 * 5 * DIM, 4 * 2 * 3 * DIM}, "no view keeps what it was cut from"


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_in_bfloat16_stays_near(name: str) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1)
    with torch.autocast("cpu", torch.bfloat16):
        low = trunk(tokens.bfloat16().requires_grad_())
    low.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trunk.parameters())
    torch.testing.assert_close(low.float(), trunk(tokens), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_finds_what_a_processor_does(name: str, low: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1)
    expected = trunk(tokens)
    expected.sum().backward()
    grads = [parameter.grad for parameter in trunk.parameters()]
    moved = made(name).cuda()
    with torch.autocast("cuda", torch.bfloat16, enabled=low):
        found = moved(tokens.cuda())
    found.float().sum().backward()
    near = {"rtol": 0.1, "atol": 0.1} if low else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(found.float().cpu(), expected, **near)
    if not low:
        for ours, theirs in zip([parameter.grad for parameter in moved.parameters()], grads, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs, **near)


def test_attention_without_a_bias_is_that_with_one_of_nothing() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    nothing = causal.distance_bias(torch.zeros(2, 9), causal.steps_back(0, 5, q.device))
    torch.testing.assert_close(causal.fused_attention(q, k, v, None), causal.plain_attention(q, k, v, nothing))


def test_an_outside_trunk_is_built_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class WideOptions(TrunkOptions):
        windows: int = 1

    class Wide(nn.Linear):
        def __init__(self, config: NetworkConfig) -> None:
            super().__init__(config.trunk.dim, config.trunk.dim)
            self.windows = config.trunk.options["windows"]

    with TRUNKS.temporary_claims():
        TRUNKS.claim("wide", Plugin("somewhere:Wide", "somewhere:WideOptions"))
        found = {"somewhere:Wide": Wide, "somewhere:WideOptions": WideOptions}
        monkeypatch.setattr(registry, "load_object", lambda path: found.get(path) or load_object(path))
        trunk = TrunkConfig.of(WideOptions(type="wide", dim=8, windows=3))
        config = config_of("hstu").model_copy(update={"trunk": trunk})
        assert NetworkConfig.from_json(config.to_json()) == config
        assert TRUNKS["wide"].load()(config).windows == 3
        with pytest.raises(ValueError, match="windws"):
            TrunkConfig(type="wide", dim=8, options={"windws": 3})


def test_a_trunk_without_options_is_written_as_before_there_were_any() -> None:
    assert "options" not in config_of("hstu").model_dump()["trunk"]
    assert "options" not in config_of("hstu").to_json().split('"titles"')[0]
