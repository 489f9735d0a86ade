"""How a network bends to a country: vectors of its own, gates, or low-rank weights beside the shared ones.

Everything here is neutral before training, and for a request whose country is not known, or was never trained with: it
then is the global network to the last bit. Nothing is computed, and no tensor exists, where a definition wants none.

Gates: Chang et al., "PEPNet: parameter and embedding personalized network for infusing with personalized prior
information" (KDD 2023, arXiv 2302.01115). Low-rank weights: Yang et al., "MLoRA: multi-domain low-rank adaptive network
for CTR prediction" (RecSys 2024, arXiv 2408.08913).
Axis letters: N requests, D width, K heads, C countries but for the unknown one, U countries among the requests, R rank,
W hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.config import NetworkConfig


class Adaptation(nn.Module):
    """What a country changes. The base class changes nothing."""

    def state(self, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor:
        """Return the state that all heads share [N, D]; index 0 is no known country."""
        return state_ND

    def heads(self, own_KND: Tensor | None, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor | None:
        """Return the state as each head sees it [K, N, D]; None where all see `state_ND`, before and after."""
        return own_KND


class CountryVectors(Adaptation):
    """Each head has a vector of each country, which is added to the state that it reads."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(config.events.countries - 1, len(config.heads), config.trunk.dim))

    def heads(self, own_KND: Tensor | None, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor | None:
        """Add the vectors."""
        own_NKD = F.pad(self.vectors, (0, 0, 0, 0, 1, 0))[country_N].to(state_ND.dtype)
        return (state_ND if own_KND is None else own_KND) + own_NKD.transpose(0, 1)


class Gate(nn.Module):
    """`2 sigmoid(W2 relu(W1 x + b1) + b2)`, a factor between 0 and 2 for each output; 1 before training."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, width)
        self.down = nn.Linear(width, outputs)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, inputs_NX: Tensor) -> Tensor:
        """Return factors [N, outputs]."""
        factors: Tensor = 2 * torch.sigmoid(self.down(F.relu(self.up(inputs_NX))))
        return factors


class CountryGates(Adaptation):
    """One gate scales the units of the shared state, another those that each head reads.

    Both are driven by a vector of the country, the first beside the state itself, the second beside the state and the
    rest of the request's context. Gradients stop at what is not the gate's own, so it bends the shared representation
    without pulling at it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        assert config.adaptation is not None
        width, dim, self.count = config.adaptation.width, config.trunk.dim, len(config.heads)
        self.country = nn.Embedding(config.events.countries, width)
        nn.init.normal_(self.country.weight, std=width**-0.5)
        self.shared = Gate(width + dim, width, dim)
        self.own = Gate(width + 2 * dim, width, self.count * dim)

    def state(self, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor:
        """Scale the shared state."""
        return state_ND * self._factors(self.shared, country_N, state_ND)

    def heads(self, own_KND: Tensor | None, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor | None:
        """Scale what each head reads."""
        factors_NX = self._factors(self.own, country_N, state_ND, context_ND)
        factors_KND = factors_NX.view(len(factors_NX), self.count, -1).transpose(0, 1)
        return factors_KND * (state_ND if own_KND is None else own_KND)

    def _factors(self, gate: Gate, country_N: Tensor, *beside: Tensor) -> Tensor:
        read_NX = torch.cat([self.country(country_N), *(part.detach().to(self.country.weight) for part in beside)], -1)
        known_N1 = country_N.gt(0).unsqueeze(-1)
        return torch.where(known_N1, gate(read_NX), 1.0).to(beside[0].dtype)


class LowRank(Adaptation):
    """`h + (h A_c) B_c + d_c`: a matrix of rank R and a vector of each country, added to the projection of the state.

    With the rank of the width it is any matrix: the country has a projection of its own.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        assert config.adaptation is not None
        countries, dim, rank = (
            config.events.countries - 1,
            config.trunk.dim,
            min(config.adaptation.rank, config.trunk.dim),
        )
        self.down = nn.Parameter(torch.randn(countries, dim, rank) * dim**-0.5)
        self.up = nn.Parameter(torch.zeros(countries, rank, dim))
        self.shift = nn.Parameter(torch.zeros(countries, dim))

    def state(self, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor:
        """Add what the country adds."""
        country_U, place_N = torch.unique(country_N, return_inverse=True)
        index_U = (country_U - 1).clamp(min=0)
        # One product for all the countries of a batch, each row then reads that of its own: a matrix for each row
        # would be copied N times.
        mine_NU = F.one_hot(place_N, country_U.shape[0]) * country_U.gt(0)
        down_DX = self.down[index_U].transpose(0, 1).flatten(1)
        hidden_NX: Tensor = state_ND @ down_DX.to(state_ND.dtype)
        hidden_NUR = hidden_NX.view(len(hidden_NX), country_U.shape[0], -1)
        hidden_NX = (hidden_NUR * mine_NU.unsqueeze(-1).to(hidden_NUR.dtype)).flatten(1)
        added_ND: Tensor = hidden_NX @ self.up[index_U].flatten(0, 1).to(hidden_NX.dtype)
        shift_ND: Tensor = mine_NU.to(state_ND.dtype) @ self.shift[index_U].to(state_ND.dtype)
        return state_ND + added_ND + shift_ND


ADAPTATIONS: dict[str, type[Adaptation]] = {"id": CountryVectors, "gate": CountryGates, "low_rank": LowRank}


def build_adaptation(config: NetworkConfig) -> Adaptation | None:
    """Return what bends a network to countries, None where its configuration wants nothing, or there is no country."""
    if config.adaptation is None or config.events.countries < 2:
        return None
    return ADAPTATIONS[config.adaptation.type](config)
