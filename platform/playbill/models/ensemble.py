"""Members of an ensemble beside one network, the base: its scores plus a weighted sum of what the others say.

    l(x, t) + sum_k w_k(canvas, country, tenure, age of t) z_k(x, t)

A member with a network of its own is *folded*: of its network the titles' vectors stay, with their biases on each
canvas, and its query becomes a linear map of the base's state in context,

    z(x, t) = (M h(x) + m_country) · e_t + b_t

so a request still reads one history through one trunk. Where the trunk is the same, as with a copy that was tuned on
top of a frozen one, the map is nearly exact. z are centred over the titles of a request, of deviation 1;
a title that a member does not know is as good as the base thinks it is. All w are at least 0, and 0 where the country
of a request is unknown, which leaves the base as it is.
Axis letters: H heads, C canvases, G countries, U tenures, A title ages, K members, T titles, D width of the base,
E width of a member, J heads of a member, N requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from playbill.models.config import EnsembleConfig, FoldedConfig, NetworkConfig

TENURE_DAYS = (30.0, 365.0)  # days since joining from which on a request is in the next group (axis U)
NEW_DAYS = 30.0  # days since its launch up to which a title is new: the second of the two ages (axis A)
KNOWN_COUNTRY = 1  # the first country that is known: 0 is any other


class FoldedMember(nn.Module):
    """A network of its own, without its trunk.

    Attributes:
        titles: [T, E] vectors, 0 of a title that it does not know.
        known: [T] whether it knows each.
        bias: [C, T] of titles on each canvas of the base.
        head: [C] which of its heads answers on each.
        query: [J, D, E] the map from the base's state to each head's query.
        shift: [J, G, E] what is added to the query in each country.
        scale: deviation of its scores over the titles of a request.
    """

    titles: Tensor
    known: Tensor
    bias: Tensor
    head: Tensor
    query: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, config: FoldedConfig, titles: int, canvases: int, dim: int, countries: int) -> None:
        super().__init__()
        self.register_buffer("titles", torch.zeros(titles, config.width))
        self.register_buffer("known", torch.zeros(titles, dtype=torch.bool))
        self.register_buffer("bias", torch.zeros(canvases, titles))
        self.register_buffer("head", torch.zeros(canvases, dtype=torch.int64))
        self.register_buffer("query", torch.zeros(config.heads, dim, config.width))
        self.register_buffer("shift", torch.zeros(config.heads, countries, config.width))
        self.register_buffer("scale", torch.ones(()))

    def of(self, index_T: Tensor) -> FoldedTitles:
        """Return what the member knows of titles with these rows, ready for requests."""
        known_T = _rows(self.known, index_T, 0)
        every = bool(known_T[1:].all())
        return FoldedTitles(_rows(self.titles, index_T, 0), _rows(self.bias, index_T, 1), None if every else known_T)

    def forward(
        self, state_ND: Tensor, canvas_N: Tensor, country_N: Tensor, titles: FoldedTitles, base_NT: Tensor
    ) -> Tensor:
        """Return [N, T] what it says of titles, where `base_NT` is what the base says of them."""
        head_N = self.head[canvas_N]
        query_NE = self.shift[head_N, country_N]
        for head in sorted(set(head_N.tolist())):
            query_NE = query_NE + (head_N == head).unsqueeze(1) * (state_ND @ self.query[head])
        scores_NT = query_NE @ titles.vectors.T + titles.bias[canvas_N]
        scores_NT = centred(scores_NT) / self.scale
        return scores_NT if titles.known is None else torch.where(titles.known, scores_NT, base_NT)


@dataclass(frozen=True, slots=True)
class FoldedTitles:
    """T titles as a folded member knows them."""

    vectors: Tensor  # [T, E]
    bias: Tensor  # [C, T]
    known: Tensor | None  # [T]; None where it knows all


def _rows(values: Tensor, index_T: Tensor, axis: int) -> Tensor:
    """Return values by the rows of titles; the very same tensor where these are all rows in order."""
    in_order = torch.equal(index_T, torch.arange(values.shape[axis]))
    return values if in_order else values.index_select(axis, index_T)


class EnsembleMembers(nn.Module):
    """What stands beside the base, and what the gate has learnt.

    Attributes:
        weights: [H, C, G, U, A, K]. Canvas 0 is any that nothing was learnt of, country 0 any that is unknown.
        scale: deviation of the base's scores over the titles of a request.
        popularity: [G, T] log plays in each country, centred, of deviation 1; empty where it is no member.
        content: deviation of the scores of `content`.
    """

    weights: Tensor
    scale: Tensor
    popularity: Tensor
    content: Tensor

    def __init__(self, config: EnsembleConfig, network: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        sizes = network.titles.titles, network.events.canvases, network.trunk.dim
        groups = len(TENURE_DAYS) + 1 if config.tenure else 1
        shape = (len(config.heads), sizes[1], config.countries, groups, 2 if config.title_age else 1)
        self.register_buffer("weights", torch.zeros(*shape, len(config.members)))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("content", torch.ones(()))
        known = config.countries if "popularity" in config.terms.values() else 0
        self.register_buffer("popularity", torch.zeros(known, sizes[0]))
        self.folded = nn.ModuleDict(
            {role: FoldedMember(one, *sizes, config.countries) for role, one in config.folded.items()}
        )

    def folded_member(self, role: str) -> FoldedMember:
        """Return one of the members that are folded."""
        return cast(FoldedMember, self.folded[role])

    def local(self, index_T: Tensor) -> Tensor:
        """Return [G, T] `popularity` of titles with these rows."""
        return _rows(self.popularity, index_T, 1)

    def places(self, terms: tuple[str, ...]) -> list[tuple[int, int]]:
        """Return (place among the members, place among `terms`) of the members that are one of them."""
        named = ((place, self.config.terms.get(role)) for place, role in enumerate(self.config.members))
        return [(place, terms.index(term)) for place, term in named if term in terms]


def centred(scores_NT: Tensor) -> Tensor:
    """Return scores with mean 0 over the titles of each request; the padding title is none."""
    found = scores_NT - scores_NT[:, 1:].mean(dim=1, keepdim=True)
    found[:, 0] = 0
    return found
