"""Rows as entities: a vector of a row, and heads that score rows and whole pages.

A row's vector is made of what is known before anybody looks: its name, learned and by its grams, its genre, likewise,
the title it is about and the title it begins with. A head's score is `q(h) · e + b`, with the query of the state h in
its context; given the rows above it the query moves by their mean vector, and what they have in common with the row is
added. In training the rows above are forgotten at random, so one head answers with them and without.
Axis letters: N prediction rows, R rows, A rows above, D width, M matching space, F features of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

if TYPE_CHECKING:
    from playbill.models.config import NetworkConfig, RowConfig
    from playbill.models.embeddings import GramSpace

FIELDS = ("name", "genre", "about", "head")
"""What is known of a row: index of its name, of its genre, of the title it is about and of the title it begins with."""
FORGET_SHARE = 0.3  # how often the rows above are forgotten in training
PAIR_FEATURES = 3  # how many rows are above, and how many of them have the row's name, and its genre


class RowTower(nn.Module):
    """Rows -> vectors [..., D]; the configuration has names and genres with their grams, `text` is M."""

    grams: Tensor
    offsets: Tensor

    def __init__(self, config: RowConfig, dim: int, text: int) -> None:
        super().__init__()
        bags = ((), *config.names, (), *config.genres)
        self.names = 1 + len(config.names)
        self.name = nn.Embedding(self.names, dim)
        self.genre = nn.Embedding(1 + len(config.genres), dim)
        self.text = nn.Linear(text, dim, bias=False)
        self.about = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, dim, bias=False)
        flat = [gram for bag in bags for gram in bag]
        starts = [0, *accumulate(len(bag) for bag in bags)][:-1]
        self.register_buffer("grams", torch.tensor(flat, dtype=torch.int64), persistent=False)
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.int64), persistent=False)
        for table in (self.name, self.genre, self.text, self.about, self.head):
            nn.init.zeros_(table.weight)
        nn.init.normal_(self.text.weight, std=text**-0.5)

    def texts(self, space: GramSpace) -> Tensor:
        """Return [names + genres, M] unit vectors of what rows are called."""
        return space.names(self.grams, self.offsets)

    def forward(self, rows: Mapping[str, Tensor], titles_TD: Tensor, space: GramSpace) -> Tensor:
        """Embed rows, `FIELDS` -> indices [...], 0 = none; row 0 of the titles' vectors is none."""
        return RowReader(self, titles_TD, space)(rows)

    def table(self, titles_TD: Tensor, space: GramSpace) -> Tensor:
        """Return [X, D] what every name, genre, title that rows are about and title that they begin with adds."""
        texts_XD = self.text(self.texts(space)).float()
        named_TD = named_titles(titles_TD)
        named = torch.cat([self.name.weight, self.genre.weight]) + texts_XD
        return torch.cat([named, self.about(named_TD).float(), self.head(named_TD).float()])


class RowReader:
    """Vectors of rows, given the titles of a moment (row 0 none). Nothing is computed before it is asked."""

    def __init__(self, tower: RowTower, titles_TD: Tensor, space: GramSpace) -> None:
        self._tower, self._titles_TD, self._space = tower, titles_TD, space
        genres, titles = tower.genre.num_embeddings, titles_TD.shape[0]
        self._starts = (0, tower.names, tower.names + genres, tower.names + genres + titles)

    @cached_property
    def _table(self) -> Tensor:
        return self._tower.table(self._titles_TD, self._space)

    def __call__(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return [..., D] vectors of rows, `FIELDS` -> indices [...]."""
        found: Tensor = F.embedding(self._indices(rows), self._table).sum(-2)
        return found

    def own_and_above(self, rows: Mapping[str, Tensor], there_NA: Tensor) -> tuple[Tensor, Tensor]:
        """Return [N, D] vectors of rows, and the mean vectors of those above them without a vector for each.

        `rows` are `FIELDS` -> [N, 1 + A]: column 0 is the row, the others are above it where `there_NA` says so.
        """
        indices = self._indices(rows)
        own_ND = F.embedding_bag(indices[:, 0], self._table, mode="sum")
        if not there_NA.shape[1]:
            return own_ND, torch.zeros_like(own_ND)
        weight = there_NA.to(own_ND.dtype)
        each = weight.unsqueeze(-1).expand(-1, -1, len(FIELDS)).flatten(1)
        sum_ND = F.embedding_bag(indices[:, 1:].flatten(1), self._table, mode="sum", per_sample_weights=each)
        return own_ND, sum_ND / weight.sum(1, keepdim=True).clamp(min=1)

    def _indices(self, rows: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([rows[name] + start for name, start in zip(FIELDS, self._starts, strict=True)], dim=-1)


def named_titles(titles_TD: Tensor) -> Tensor:
    """Return [T, D] what a row reads of each title that it is about or begins with; row 0, none, is zero."""
    directions_TD = F.normalize(titles_TD.float(), dim=-1) * titles_TD.shape[-1] ** 0.5
    return torch.cat([torch.zeros_like(directions_TD[:1]), directions_TD[1:]])


class RowHead(nn.Module):
    """A head about rows."""

    def __init__(self, config: NetworkConfig, position: int) -> None:
        super().__init__()
        assert config.rows is not None
        dim, names = config.trunk.dim, 1 + len(config.rows.names)
        self.position = position
        self.query = nn.Linear(dim, dim)
        self.above = nn.Linear(dim, dim, bias=False)
        self.pair = nn.Linear(PAIR_FEATURES, 1, bias=False)
        self.bias = nn.Embedding(names, 1)
        self.base = nn.Parameter(torch.zeros(()))
        self.scale = dim**-0.5
        for module in (self.query, self.above, self.pair, self.bias):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(self, state_ND: Tensor, e_ND: Tensor, name_N: Tensor, mean_ND: Tensor, pair_NF: Tensor) -> Tensor:
        """Return logits [N] of rows e; mean vectors are of the rows above each, zero where none is known."""
        q_ND = state_ND + self.query(state_ND) + self.above(mean_ND)
        logit = (q_ND * e_ND).sum(-1) * self.scale + self.bias(name_N).squeeze(-1)
        total: Tensor = logit + self.pair(pair_NF).squeeze(-1) + self.base
        return total.float()


class PageHead(nn.Module):
    """A head about the whole page, or the visit it is for: logistic regression on the state in its context."""

    def __init__(self, config: NetworkConfig, position: int) -> None:
        super().__init__()
        self.position = position
        self.out = nn.Linear(config.trunk.dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state_ND: Tensor) -> Tensor:
        """Return logits [N]."""
        found: Tensor = self.out(state_ND).squeeze(-1)
        return found.float()


def pair_features(rows: Mapping[str, Tensor], there: Tensor) -> Tensor:
    """Return [N, F] what rows have in common with those above them; arguments as for `RowReader.own_and_above`."""
    above = there.float()
    alike = [rows[name][:, 1:].eq(rows[name][:, :1]) & rows[name][:, :1].gt(0) for name in ("name", "genre")]
    counts = [above.sum(1), *((above * same).sum(1) for same in alike)]
    return torch.log1p(torch.stack(counts, dim=-1))


def row_logits(
    head: RowHead, state_ND: Tensor, rows: Mapping[str, Tensor], read: RowReader, *, forget: float = 0.0
) -> Tensor:
    """Return [N] logits of rows ([N, 1 + A]) given those above them, which are forgotten with probability `forget`."""
    there = (rows["name"][:, 1:] | rows["head"][:, 1:]).gt(0)
    if forget:
        there = there & torch.rand(there.shape[0], 1, device=there.device).ge(forget)
    own_ND, above_ND = read.own_and_above(rows, there)
    logits: Tensor = head(state_ND, own_ND, rows["name"][:, 0], above_ND, pair_features(rows, there))
    return logits
