"""Every trunk against a plain, slow twin: one member, one token and one attention head after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from playbill import registry
from playbill.definitions.specs import TRUNKS, TrunkOptions
from playbill.models import EventConfig, HistoryBatch, Network, NetworkConfig, TitleConfig, TrunkConfig
from playbill.models.config import HeadConfig
from playbill.models.trunks import causal
from playbill.registry import Plugin, load_object

NAMES = ("gated_transformer", "hstu", "sasrec", "gated_transformer time", "hstu time")
"""Registered trunks, and those with a bias for time."""
LENGTH, DIM, HEADS, GAPS = 9, 8, 2, 5
Vectors = list[Tensor]
Bias = Callable[[int, int, int], Tensor | float]
"""Of a head, a query's place and a key's."""
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


def softmax_sum(q: Vectors, k: Vectors, v: Vectors, place: int, bias: Bias) -> Tensor:
    """Return what the token at a place hears of itself and those before it."""
    heard = []
    for head in range(HEADS):
        query = part(q[place], head)
        weights = [
            torch.exp((query * part(k[key], head)).sum() / math.sqrt(DIM // HEADS) + bias(head, place, key))
            for key in range(place + 1)
        ]
        heard.append(sum(weight * part(v[key], head) for key, weight in enumerate(weights)) / sum(weights))
    return torch.cat(heard)


def gated_block(block: nn.Module, states: Vectors, time: Bias) -> Vectors:
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
        heard = softmax_sum(q, k, v, place, lambda h, at, key: block.distance[h, at - key] + time(h, at, key))
        gates = 2 / (1 + torch.exp(-linear(block.gates, normed[place])))
        heard = torch.cat([part(heard, head) * gates[head] for head in range(HEADS)])
        state = state + linear(block.out, heard)
        wide = linear(block.up, norm(state, block.feed_norm))
        found.append(state + linear(block.down, wide * (1 + torch.erf(wide / math.sqrt(2))) / 2))
    return found


def hstu_block(block: nn.Module, states: Vectors, time: Bias) -> Vectors:
    """Equations 1 to 3 of the paper: U, Q, K, V = SiLU(f(norm x)); SiLU(QK + bias) V / n; f(norm(AV) * U)."""
    projected = [silu(linear(block.uqkv, norm(state))) for state in states]
    u, q, k, v = ([row[n * DIM : (n + 1) * DIM] for row in projected] for n in range(4))
    found = []
    for place, state in enumerate(states):
        heard = []
        for head in range(HEADS):
            own = torch.zeros(DIM // HEADS)
            for key in range(place + 1):
                score = (part(q[place], head) * part(k[key], head)).sum()
                score = score + block.distance[head, place - key] + time(head, place, key)
                own = own + silu(score) / (LENGTH + 1) * part(v[key], head)
            heard.append(own)
        found.append(state + linear(block.out, norm(torch.cat(heard)) * u[place]))
    return found


def sasrec_block(block: nn.Module, states: Vectors, time: Bias) -> Vectors:
    """As in the authors' code: queries are normed, keys and values are not, residuals start from the normed."""
    normed = [norm(state, block.norm) for state in states]
    q = [linear(block.query, x) for x in normed]
    both = [linear(block.key_value, state) for state in states]
    k, v = [row[:DIM] for row in both], [row[DIM:] for row in both]
    found = []
    for place, x in enumerate(normed):
        fed = norm(x + softmax_sum(q, k, v, place, lambda *_: 0.0), block.feed_norm)
        found.append(fed + linear(block.narrow, linear(block.wide, fed).clamp(min=0)))
    return found


TWINS = {"gated_transformer": gated_block, "hstu": hstu_block, "sasrec": sasrec_block}


def twin(name: str, trunk: nn.Module, tokens_BLD: Tensor, gaps_BL: Tensor | None = None) -> Tensor:
    """Return what the trunk does, step by step."""
    found = []
    for member, tokens in enumerate(tokens_BLD):

        def time(head: int, place: int, key: int, member: int = member) -> Tensor | float:
            if gaps_BL is None:
                return 0.0
            return trunk.pauses.weight[max([0, *gaps_BL[member, key:place].tolist()]), head]

        states = list(tokens)
        for block in trunk.blocks:
            states = TWINS[name.split()[0]](block, states, time)
        found.append(torch.stack([norm(state, trunk.norm) for state in states]))
    return torch.stack(found)


def config_of(name: str) -> NetworkConfig:
    kind, *time = name.split()
    options = {"time_bias": True} if time else {}
    return NetworkConfig(
        length=LENGTH,
        trunk=TrunkConfig(type=kind, dim=DIM, layers=2, heads=HEADS, dropout=0.0, options=options),
        titles=TitleConfig(titles=5),
        events=EventConfig(gaps=GAPS),
        heads=(HeadConfig(name="play", loss="softmax"),),
    )


def made(name: str) -> nn.Module:
    """Return a trunk with every parameter moved away from its start, as training would."""
    torch.manual_seed(2)
    found: nn.Module = TRUNKS[name.split()[0]].load()(config_of(name))
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return found.eval()


def tokens_of(members: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(members, length, DIM, generator=torch.Generator().manual_seed(seed))


def gaps_of(name: str, members: int, events: int, seed: int = 0) -> dict[str, Tensor]:
    """Return the gaps of events, for a trunk that reads them."""
    draw = torch.Generator().manual_seed(seed)
    return {"gaps_BL": torch.randint(0, GAPS, (members, events), generator=draw)} if name.endswith("time") else {}


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_and_its_gradients_are_those_of_its_plain_twin(name: str) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1).requires_grad_()
    wanted = torch.randn(2, LENGTH + 1, DIM, generator=torch.Generator().manual_seed(1))
    inputs = [tokens, *trunk.parameters()]
    gaps = gaps_of(name, 2, LENGTH)
    fast, plain = trunk(tokens, **gaps), twin(name, trunk, tokens, **gaps)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    pairs = (torch.autograd.grad((states * wanted).sum(), inputs) for states in (fast, plain))
    for ours, theirs in zip(*pairs, strict=True):
        assert theirs.abs().max() > 1e-4, "everything has an effect"
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@few
@given(place=st.integers(0, LENGTH), seed=st.integers(0, 10), size=st.sampled_from([0.1, 10.0, 1e4]))
def test_a_token_changes_no_state_before_it(name: str, place: int, seed: int, size: float) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1, seed)
    with torch.no_grad():
        other = tokens.clone()
        other[:, place] += size * torch.randn(DIM)
        gaps = gaps_of(name, 2, LENGTH, seed)
        later = {key: values.clone() for key, values in gaps.items()}
        for values in later.values():
            values[:, max(0, place - 1) :] = GAPS - 1
        states, changed = trunk(tokens, **gaps), trunk(other, **(later if place else gaps))
    assert torch.equal(states[:, :place], changed[:, :place])
    assert not torch.allclose(states[:, place], changed[:, place], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@few
@given(length=st.integers(1, LENGTH), padding=st.integers(1, LENGTH), size=st.sampled_from([0.0, 1.0, 1e4]))
def test_padding_is_never_read(name: str, length: int, padding: int, size: float) -> None:
    trunk, tokens = made(name), tokens_of(2, length)
    padded = torch.cat([tokens, size * torch.randn(2, min(padding, LENGTH + 1 - length), DIM)], dim=1)
    with torch.no_grad():
        gaps = gaps_of(name, 2, padded.shape[1] - 1)
        own = {key: values[:, : length - 1] for key, values in gaps.items()}
        torch.testing.assert_close(trunk(padded, **gaps)[:, :length], trunk(tokens, **own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@few
@given(picks=st.lists(st.tuples(st.integers(0, 2), st.integers(0, LENGTH)), min_size=1, max_size=5))
def test_states_of_some_places_are_those_of_all(name: str, picks: list[tuple[int, int]]) -> None:
    trunk, tokens = made(name), tokens_of(3, LENGTH + 1)
    assert isinstance(trunk, causal.ReadsAt)
    member_S, place_S = torch.tensor(picks).T
    with torch.no_grad():
        gaps = gaps_of(name, 3, LENGTH)
        found, states = trunk.at(tokens, member_S, place_S, **gaps), trunk(tokens, **gaps)
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
            gaps = {key: values[:, : stop - 1] for key, values in gaps_of(name, 2, LENGTH).items()}
            state, cache = trunk.extend(tokens[:, read:stop], cache, kept, **gaps)
            expected = trunk(tokens[:, :stop], **gaps)[:, -1]
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)
        read += kept
        assert all(block.keys.shape[2] == read for block in cache)


def test_the_longest_pause_is_that_between_two_tokens() -> None:
    gaps = torch.tensor([[0, 3, 1, 2]])
    expected = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [3, 3, 0, 0, 0], [3, 3, 1, 0, 0], [3, 3, 2, 2, 0]])
    assert torch.equal(causal.longest_pauses(gaps, 0, 5)[0], expected)
    assert torch.equal(causal.longest_pauses(gaps, 3, 4)[0], expected[3:4, :4])


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
        low = trunk(tokens.bfloat16().requires_grad_(), **gaps_of(name, 2, LENGTH))
    low.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trunk.parameters())
    torch.testing.assert_close(low.float(), trunk(tokens, **gaps_of(name, 2, LENGTH)), rtol=0.1, atol=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_finds_what_a_processor_does(name: str, low: bool) -> None:
    trunk, tokens = made(name), tokens_of(2, LENGTH + 1)
    gaps = gaps_of(name, 2, LENGTH)
    expected = trunk(tokens, **gaps)
    expected.sum().backward()
    grads = [parameter.grad for parameter in trunk.parameters()]
    moved = made(name).cuda()
    with torch.autocast("cuda", torch.bfloat16, enabled=low):
        found = moved(tokens.cuda(), **{key: values.cuda() for key, values in gaps.items()})
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
            self.windows = config.trunk.own().windows

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


@pytest.mark.parametrize("name", NAMES)
def test_a_network_hands_its_trunk_what_it_reads(name: str) -> None:
    torch.manual_seed(0)
    network = Network(config_of(name)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    titles = SimpleNamespace(vectors=torch.randn(5, DIM))
    fields = ("title", "actions", "canvas", "device", "language", "duration")
    past = HistoryBatch(
        **dict.fromkeys(fields, torch.ones(1, 4).long()), gap=torch.tensor([[0, 1, 2, 1]]), length=torch.tensor([4])
    )
    later = replace(past, gap=torch.tensor([[0, 1, 4, 1]]))
    context = SimpleNamespace(state=torch.tensor([4]))
    for history in (past, later):
        state = network.states(history, titles)[:, 4]
        torch.testing.assert_close(network.last_states(history, context, titles), state)
        torch.testing.assert_close(network.extended_state(history, titles, None, 0)[0], state)


def test_a_trunk_without_options_is_written_as_before_there_were_any() -> None:
    assert "options" not in config_of("hstu").model_dump()["trunk"]
    assert config_of("hstu").trunk == TrunkConfig.of(config_of("hstu").trunk.own())
    assert config_of("hstu time").model_dump()["trunk"]["options"] == {"time_bias": True}
    assert "options" not in config_of("hstu").to_json().split('"titles"')[0]
