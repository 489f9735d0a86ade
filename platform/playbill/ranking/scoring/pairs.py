"""Scores of chosen (request, head) pairs over every title: one product for all of them.

`Network.scores` asks every request for every head it is given. A page asks each of its rows for the one to three
heads of that row's blend, so the pairs are a small part of requests times heads.
Axis letters: N requests, K heads, M pairs, T titles without the padding row, D width, S snapshots, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from playbill.models.heads import BiasRows, Head, TitleVectors
from playbill.models.network import Network
from playbill.models.scoring_batch import Scene

Pair = tuple[int, str]
"""Number of a request, and name of a head."""


def bias_tables(
    network: Network, titles: TitleVectors, pairs: Sequence[tuple[int, int]], heads: Collection[str] | None = None
) -> list[Tensor]:
    """Return [K, T] the additive bias of every title in every head, for each (snapshot, canvas).

    It depends on nothing else, so it may be kept as long as the weights and the titles are. The padding title is in it.

    Args:
        network: Of the heads.
        titles: T titles.
        pairs: Which of the titles' snapshots, and index of the canvas.
        heads: Names of the K heads that are wanted; None = all.
    """
    snapshot_P, canvas_P = torch.tensor(pairs, dtype=torch.int64).unbind(1)
    rows = BiasRows(snapshot_P, canvas_P, torch.arange(len(pairs)))
    wanted = [head for name, head in heads_of(network).items() if heads is None or name in heads]
    by_head = [head.bias(titles, rows) for head in wanted]
    return list(torch.stack(by_head, dim=1))


def pair_scores(network: Network, scene: Scene, pairs: Sequence[Pair], bias: Mapping[int, Tensor]) -> Tensor:
    """Score every title in every pair.

    Args:
        network: Of the heads.
        scene: N requests.
        pairs: M of them.
        bias: Index of a canvas -> [K, T + 1] its `bias_tables`, for every canvas among the requests.

    Returns:
        [M, T] float32 logits: what `Network.scores` gives for the same request and head.
    """
    e_TD = scene.titles.vectors[1:]
    scores_MT = e_TD.new_empty(len(pairs), e_TD.shape[0])
    if not pairs:
        return scores_MT
    canvases, places = scene.context.canvas.tolist(), {name: place for place, name in enumerate(heads_of(network))}
    for number, (row, head) in enumerate(pairs):
        scores_MT[number] = bias[canvases[row]][places[head], 1:]
    queries_MD, levels_M = _queries(network, scene, pairs)
    scores_MT.add_(levels_M.unsqueeze(-1))
    torch.addmm(scores_MT, queries_MD, e_TD.to(queries_MD.dtype).T, out=scores_MT)
    _add_match(network, scene, pairs, scores_MT)
    return scores_MT


def heads_of(network: Network) -> dict[str, Head]:
    """Return the heads that score titles by name, in their order."""
    return network.title_heads()


def _queries(network: Network, scene: Scene, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return [M, D] float32 queries and [M] levels: each head is asked once for all of its rows."""
    heads = heads_of(network)
    found = scene.state.new_empty(len(pairs), scene.state.shape[1], dtype=torch.float32)
    levels = found.new_empty(len(pairs))
    for name in dict.fromkeys(head for _, head in pairs):
        numbers = [number for number, pair in enumerate(pairs) if pair[1] == name]
        rows = [pairs[number][0] for number in numbers]
        state = scene.state_of(heads[name])[rows]
        found[numbers] = heads[name].queries(state).float()
        levels[numbers] = heads[name].levels(state)
    return found, levels


def _add_match(network: Network, scene: Scene, pairs: Sequence[Pair], scores_MT: Tensor) -> None:
    """Add what the query's text has in common with names. It is one product for each row that has a query."""
    if scene.queries is None:
        return
    heads, names_TM = heads_of(network), scene.titles.prepared.names[1:]
    matched_NM = scene.queries.dense
    asked = matched_NM.ne(0).any(dim=-1).tolist()
    for row in sorted({row for row, _ in pairs if asked[row]}):
        match_T = names_TM @ matched_NM[row]
        for number, (own, head) in enumerate(pairs):
            if own == row:
                scores_MT[number].add_(heads[head].match * match_T)
