"""Heads about rows and pages: they learn, they read the rows above, and serving computes what training did."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, RowConfig, TitleConfig, TitleInputs
from playbill.models.embeddings import GramSpace
from playbill.models.row_tower import PageHead, RowHead, RowReader, RowTower, pair_features, row_logits

DIM, TITLES, M = 8, 6, 64


def config() -> NetworkConfig:
    return NetworkConfig.model_validate(
        {
            "titles": TitleConfig(titles=TITLES, metadata=False),
            "trunk": {"dim": DIM, "heads": 1, "layers": 1},
            "text": {"buckets": 50, "dim": M},
            "rows": RowConfig(names=((1, 2, 3), (4, 5), (1, 2, 7)), genres=((8, 9),)),
            "heads": [{"name": "row_play", "loss": "bce", "target": "row"}],
        }
    )


def rows_of(*pages: list[tuple[int, int, int, int]]) -> dict[str, torch.Tensor]:
    """Rows as (name, genre, about, head), each page's own row first and those above it after it."""
    wide = max(len(page) for page in pages)
    filled = torch.tensor([page + [(0, 0, 0, 0)] * (wide - len(page)) for page in pages])
    return {name: filled[..., place] for place, name in enumerate(("name", "genre", "about", "head"))}


def scrambled(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5


def test_the_mean_and_the_likeness_of_rows_above_are_those_of_plain_code() -> None:
    rows = rows_of([(1, 1, 0, 2), (2, 1, 0, 3), (1, 0, 0, 4)], [(2, 0, 0, 1)])
    there = rows["head"][:, 1:].gt(0)
    found = pair_features(rows, there)
    torch.testing.assert_close(found, torch.log1p(torch.tensor([[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])))
    tower = RowTower(config().rows or RowConfig(), DIM, M)
    scrambled(tower)
    read = RowReader(tower, torch.randn(TITLES, DIM), GramSpace(50, M))
    own, above = read.own_and_above(rows, there)
    every = read(rows)
    torch.testing.assert_close(own, every[:, 0])
    torch.testing.assert_close(above[0], every[0, 1:].mean(0))
    assert above[1].abs().sum() == 0


def test_a_row_that_was_never_trained_is_known_by_what_it_is_called() -> None:
    """Names 1 and 3 share grams, 2 shares none with them: before any training 3 is nearer to 1."""
    torch.manual_seed(0)
    tower = RowTower(config().rows or RowConfig(), DIM, M)
    e = tower(rows_of([(1, 0, 0, 0), (2, 0, 0, 0), (3, 0, 0, 0)]), torch.zeros(TITLES, DIM), GramSpace(50, M))[0]
    near = torch.nn.functional.cosine_similarity(e[2], e[:2], dim=-1)
    assert near[0] > near[1]


def test_the_head_learns_that_a_second_row_alike_is_played_less() -> None:
    torch.manual_seed(0)
    tower, head, space = RowTower(config().rows or RowConfig(), DIM, M), RowHead(config(), 0), GramSpace(50, M)
    titles = torch.randn(TITLES, DIM)
    alone, after_itself = [(1, 1, 0, 2)], [(1, 1, 0, 2), (1, 1, 0, 3)]
    after_another = [(1, 1, 0, 2), (2, 0, 0, 4)]
    rows = rows_of(alone, after_itself, after_another)
    label = torch.tensor([1.0, 0.0, 1.0])
    state = torch.randn(3, DIM)
    optimizer = torch.optim.Adam([*tower.parameters(), *head.parameters()], 0.05)
    for _ in range(80):
        optimizer.zero_grad()
        logits = row_logits(head, state, rows, RowReader(tower, titles, space))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label).backward()
        optimizer.step()
    assert logits[0] > 1
    assert logits[2] > 1
    assert logits[1] < -1


def test_rows_above_that_are_forgotten_say_nothing() -> None:
    head = RowHead(config(), 0)
    scrambled(head)
    rows = rows_of([(1, 1, 0, 2), (2, 0, 0, 3)])
    tower = RowTower(config().rows or RowConfig(), DIM, M)
    scrambled(tower)
    state, read = torch.randn(1, DIM), RowReader(tower, torch.randn(TITLES, DIM), GramSpace(50, M))
    with_above = row_logits(head, state, rows, read)
    forgotten = row_logits(head, state, rows, read, forget=1.0)
    alone = row_logits(head, state, {name: values[:, :1] for name, values in rows.items()}, read)
    torch.testing.assert_close(forgotten, alone)
    assert (with_above - alone).abs().item() > 0.01


def test_a_page_head_reads_the_state_alone() -> None:
    head = PageHead(config(), 0)
    scrambled(head)
    state = torch.randn(3, DIM)
    np.testing.assert_allclose(
        head(state).detach(), (state @ head.out.weight[0] + head.out.bias).detach(), rtol=1e-5, atol=1e-6
    )
    assert RowHead(config(), 2).position == 2


def test_a_configuration_with_rows_survives_its_own_file() -> None:
    assert NetworkConfig.from_json(config().to_json()) == config()
    with pytest.raises(ValueError, match="names"):
        RowConfig.model_validate({"names": [[-1]]})


def test_heads_about_rows_do_not_read_the_row_of_the_request() -> None:
    """A page is laid out before there is a row to ask in; the title's own heads do read it."""
    config_ = NetworkConfig.model_validate(
        {
            **config().model_dump(),
            "context": {"rows": 4, "row_positions": 3},
            "heads": [{"name": "row_play", "loss": "bce", "target": "row"}, {"name": "play", "loss": "softmax"}],
        }
    )
    network = Network(config_).train()
    scrambled(network.context)
    history, context, titles = tiny_batch()
    scene = network.scene(history, context, network.title_vectors(titles), torch.zeros(2, DIM), torch.arange(2))
    assert scene.page is not None
    torch.testing.assert_close(scene.page.state[0], scene.page.state[1])
    assert (scene.state[0] - scene.state[1]).abs().max() > 0.01
    assert network.eval().scene(history, context, network.title_vectors(titles), torch.zeros(2, DIM)).page is None


def tiny_batch() -> tuple[HistoryBatch, ContextBatch, TitleInputs]:
    """Two requests alike but for their row."""
    none, pair = torch.zeros(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    fields = dict.fromkeys(("title", "actions", "canvas", "device", "language", "gap", "duration"), torch.zeros(1, 1))
    history = HistoryBatch.from_arrays(SimpleNamespace(**fields, length=[0]))
    requested = dict.fromkeys(
        ("state", "canvas", "country", "device", "language", "hour_of_week", "source_title"), pair
    )
    rest = {"numeric": torch.zeros(2, 0), "categorical": torch.zeros(2, 0), "snapshot": pair}
    rows = {"row": [1, 2], "row_position": [1, 2], "named": pair}
    context = SimpleNamespace(**requested, **rest, **rows, query_grams=none, query_offsets=pair)
    flat = {"genres": none, "name_grams": none, "synopsis_grams": none}
    starts = dict.fromkeys(("genre_offsets", "name_offsets", "synopsis_offsets"), torch.zeros(TITLES))
    whole = dict.fromkeys(("index", "kind", "language", "release_year", "age_days", "plays"), torch.zeros(TITLES))
    more = {"has_id": torch.ones(TITLES), "numeric": torch.zeros(TITLES, 0), "categorical": torch.zeros(TITLES, 0)}
    titles = SimpleNamespace(**flat, **starts, **whole, **more, snapshots=torch.zeros(1, TITLES, 0))
    return history, ContextBatch.from_arrays(context), TitleInputs.from_arrays(titles)
