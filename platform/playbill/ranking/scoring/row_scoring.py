"""What heads about rows and pages say of one request: how likely a row is played from, given the rows above it.

The row tower is read once per state of the catalogue; a page then costs a few small products.
Axis letters: T titles with the padding row, X names of rows or genres, R rows, D width, F features of a pair.

The scores of chosen (request, head) pairs over every title take one product for all of them: `Network.scores` asks
every request for every head, but a page asks each of its rows for the one to three heads of that row's blend alone.
Other letters there: N requests, K heads, M pairs, T titles without the padding row, S snapshots, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.datasets import Encoder
from playbill.errors import UnknownNameError
from playbill.models.heads import BiasRows, TitleVectors
from playbill.models.network import Network
from playbill.models.row_tower import PageHead, RowHead, named_titles
from playbill.models.scoring_batch import ScoringBatch
from playbill.ranking.page_rules import RowEntry


def _array(tensor: torch.Tensor) -> Floats32:
    found: Floats32 = tensor.detach().float().numpy().copy()
    return found


@dataclass(frozen=True)
class RowWeights:
    """A head about rows, as arrays."""

    query: Floats32
    query_bias: Floats32
    above: Floats32
    pair: Floats32
    bias: Floats32
    base: float
    scale: float

    @classmethod
    def of(cls, head: RowHead) -> RowWeights:
        """Read a head's weights."""
        return cls(
            query=_array(head.query.weight),
            query_bias=_array(head.query.bias),
            above=_array(head.above.weight),
            pair=_array(head.pair.weight)[0],
            bias=_array(head.bias.weight)[:, 0],
            base=float(head.base.detach()),
            scale=float(head.scale),
        )


class RowVectors:
    """Vectors of rows over one state of the catalogue; row 0 of the vectors of titles is none."""

    @torch.inference_mode()
    def __init__(self, network: Network, encoder: Encoder, titles_TD: torch.Tensor) -> None:
        tower = network.rows
        assert tower is not None
        texts_XD = tower.text(tower.texts(network.grams))
        named_TD = named_titles(titles_TD)
        self._name = _array(tower.name.weight + texts_XD[: tower.names])
        self._genre = _array(tower.genre.weight + texts_XD[tower.names :])
        self._about, self._head = _array(tower.about(named_TD)), _array(tower.head(named_TD))
        self._names = {name: place + 1 for place, name in enumerate(encoder.state.row_texts)}
        self._genres = {genre: place + 1 for place, genre in enumerate(encoder.state.genres)}

    def coded(self, rows: Sequence[RowEntry]) -> Ints64:
        """Return [R, 4] indices of rows by `models.row_tower.FIELDS`; columns of titles begin at 0, their rows at 1."""
        coded = [
            (self._names.get(row.name, 0), self._genres.get(row.genre or "", 0), row.about + 1, row.head + 1)
            for row in rows
        ]
        return np.array(coded, np.int64).reshape(-1, 4)

    def __call__(self, coded: Ints64) -> Floats32:
        """Return [R, D]."""
        name, genre, about, head = coded.T
        found: Floats32 = self._name[name] + self._genre[genre] + self._about[about] + self._head[head]
        return found


@dataclass(frozen=True)
class PageState:
    """One request, as heads about rows and pages see it."""

    vectors: RowVectors | None
    heads: Mapping[str, RowWeights]
    states: Mapping[str, Floats32]
    page: Mapping[str, float]

    def logits(self, head: str, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        """Return [R] logits of rows in one head, given the rows above them.

        Raises:
            UnknownNameError: No head about rows has this name.
        """
        if head not in self.heads or self.vectors is None:
            raise UnknownNameError("head about rows", head, self.heads)
        weights, state = self.heads[head], self.states[head]
        own, up = self.vectors.coded(rows), self.vectors.coded(above)
        q = state + weights.query @ state + weights.query_bias
        if len(up):
            q = q + weights.above @ self.vectors(up).mean(axis=0)
        found: Floats64 = (self.vectors(own) @ q * weights.scale + weights.bias[own[:, 0]] + weights.base).astype(float)
        return found + _alike(own, up) @ weights.pair

    def values(self, blend: Mapping[str, float]) -> BlendedRows:
        """Return how rows are valued by a blend: a weighted sum of log probabilities."""
        return BlendedRows(self, blend)


@dataclass(frozen=True)
class BlendedRows:
    """Values of rows by a blend of heads; a `page_parts.RowValues`."""

    state: PageState
    blend: Mapping[str, float]

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        """Return [R] blended log probabilities."""
        total: Floats64 = np.zeros(len(rows))
        for head, weight in self.blend.items():
            total = total - weight * np.logaddexp(0.0, -self.state.logits(head, rows, above))
        return total


def _alike(own: Ints64, up: Ints64) -> Floats64:
    """Return [R, F] what rows have in common with those above them: see `models.row_tower.pair_features`."""
    counts = [np.full(len(own), float(len(up)))]
    for column in (0, 1):
        same = (own[:, column, None] == up[None, :, column]) & (own[:, column, None] > 0)
        counts.append(same.sum(axis=1).astype(float))
    found: Floats64 = np.log1p(np.stack(counts, axis=1))
    return found


class PageReader:
    """Reads requests for a network's heads about rows and pages; see `scorer.Scorer.page_states`."""

    def __init__(self, network: Network, encoder: Encoder, titles_TD: torch.Tensor) -> None:
        named = zip(network.config.heads, network.heads, strict=True)
        heads: dict[str, Any] = {settings.name: head for settings, head in named if settings.target != "title"}
        self._rows = {name: head for name, head in heads.items() if isinstance(head, RowHead)}
        self._pages = {name: head for name, head in heads.items() if isinstance(head, PageHead)}
        self._weights = {name: RowWeights.of(head) for name, head in self._rows.items()}
        self._vectors = RowVectors(network, encoder, titles_TD) if self._rows else None

    def __bool__(self) -> bool:
        return bool(self._rows or self._pages)

    @torch.inference_mode()
    def read(self, scene: Any) -> list[PageState]:
        """Return one state for each request of a scene (`models.scoring_batch.ScoringBatch`)."""
        every = torch.arange(scene.state.shape[0])
        own = {name: scene.page_states(head, every) for name, head in (self._rows | self._pages).items()}
        states = {name: _array(own[name]) for name in self._rows}
        pages = {name: torch.sigmoid(head(own[name])).tolist() for name, head in self._pages.items()}
        return [
            PageState(
                self._vectors,
                self._weights,
                {name: values[place] for name, values in states.items()},
                {name: values[place] for name, values in pages.items()},
            )
            for place in range(scene.state.shape[0])
        ]


Pair = tuple[int, str]  # number of a request, and name of a head


def bias_tables(
    network: Network, titles: TitleVectors, pairs: Sequence[tuple[int, int]], heads: Collection[str] | None = None
) -> list[Tensor]:
    """Return [K, T] the additive bias of every title in every head, for each (snapshot, canvas).

    It depends on nothing else, so it may be kept as long as the weights and the titles are. The padding title is in it.
    """
    snapshot_P, canvas_P = torch.tensor(pairs, dtype=torch.int64).unbind(1)
    rows = BiasRows(snapshot_P, canvas_P, torch.arange(len(pairs)))
    wanted = [head for name, head in network.title_heads().items() if heads is None or name in heads]
    by_head = [head.bias(titles, rows) for head in wanted]
    return list(torch.stack(by_head, dim=1))


def pair_scores(network: Network, scene: ScoringBatch, pairs: Sequence[Pair], bias: Mapping[int, Tensor]) -> Tensor:
    """Score every title in M pairs, [M, T] float32 logits: what `Network.scores` gives for the same request and head.

    `bias` has the [K, T + 1] `bias_tables` of the canvas of every request.
    """
    e_TD = scene.titles.vectors[1:]
    scores_MT = e_TD.new_empty(len(pairs), e_TD.shape[0])
    if not pairs:
        return scores_MT
    canvases, places = scene.context.canvas.tolist(), {name: place for place, name in enumerate(network.title_heads())}
    for number, (row, head) in enumerate(pairs):
        scores_MT[number] = bias[canvases[row]][places[head], 1:]
    queries_MD, levels_M = _queries(network, scene, pairs)
    scores_MT.add_(levels_M.unsqueeze(-1))
    torch.addmm(scores_MT, queries_MD, e_TD.to(queries_MD.dtype).T, out=scores_MT)
    _add_match(network, scene, pairs, scores_MT)
    return scores_MT


def _queries(network: Network, scene: ScoringBatch, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return [M, D] float32 queries and [M] levels: each head is asked once for all of its rows."""
    heads = network.title_heads()
    found = scene.state.new_empty(len(pairs), scene.state.shape[1], dtype=torch.float32)
    levels = found.new_empty(len(pairs))
    for name in dict.fromkeys(head for _, head in pairs):
        numbers = [number for number, pair in enumerate(pairs) if pair[1] == name]
        rows = [pairs[number][0] for number in numbers]
        state = scene.state_of(heads[name])[rows]
        found[numbers] = heads[name].queries(state).float()
        levels[numbers] = heads[name].levels(state)
    return found, levels


def _add_match(network: Network, scene: ScoringBatch, pairs: Sequence[Pair], scores_MT: Tensor) -> None:
    """Add what the query's text has in common with names. It is one product for each row that has a query."""
    if scene.queries is None:
        return
    heads, names_TM = network.title_heads(), scene.titles.prepared.names[1:]
    matched_NM = scene.queries.dense
    requested = matched_NM.ne(0).any(dim=-1).tolist()
    for row in sorted({row for row, _ in pairs if requested[row]}):
        match_T = names_TM @ matched_NM[row]
        for number, (own, head) in enumerate(pairs):
            if own == row:
                scores_MT[number].add_(heads[head].match * match_T)
