"""The request's context as one vector, and its crossing with the state.

Every table and projection into the context starts at zero: a canvas, country or feature value the model was
never trained with is neutral, not noise. Missing fields are imputed before they get here (index 0, nan, no grams).
What was typed is kept for the few requests that have a query: the matching space is wide, and nothing is computed for
the others. Axis letters: N prediction rows, D width, M matching space, m rows that have a query, n chosen rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import ContextBatch
from playbill.models.config import NetworkConfig
from playbill.models.embeddings import Fields, GramSpace, Normaliser, bag_sizes
from playbill.models.title_tower import PreparedTitles

HOURS_OF_WEEK = 24 * 7
PULL_START = 1.0  # pull towards the source title before training, in lengths of a state


class ContextEncoder(nn.Module):
    """Requests -> context vectors [N, D]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        events, dim = config.events, config.trunk.dim
        sizes = (events.canvases, events.countries, events.devices, events.languages, 1 + HOURS_OF_WEEK)
        own = config.context
        self.imputation = own.imputation
        self.fields = Fields((*sizes, own.rows, own.row_positions, *own.categorical), dim, absent=own.imputation)
        self.normalise = Normaliser(config.context.numeric)
        width = self.normalise.width
        self.numeric = nn.Linear(width, dim, bias=False) if width else None
        self.source_title = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(config.text.dim, dim, bias=False)
        self.pull = nn.Parameter(torch.tensor(PULL_START))
        self.name_match = nn.Parameter(torch.tensor(0.0)) if own.named_queries else None
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.zeros_(module.weight)

    def forward(self, context: ContextBatch, source_ND: Tensor, queries: Queries | None) -> Tensor:
        """Embed N requests, given the directions of their source titles (see `source`) and what was typed, if any."""
        fields = (context.canvas, context.country, context.device, context.language, context.hour_of_week)
        places = (context.row, context.row_position)
        total_ND = self.fields((*fields, *places, *context.categorical.unbind(dim=1)))
        if self.numeric is not None:
            total_ND = total_ND + self.numeric(self._normalised(context.numeric))
        if queries is not None:
            read_mD = self.query(queries.read)
            total_ND = total_ND.index_add(0, queries.rows, read_mD.to(total_ND.dtype))
        encoded: Tensor = total_ND + self.source_title(source_ND)
        return encoded

    def _normalised(self, numeric_NF: Tensor) -> Tensor:
        values: Tensor = self.normalise(numeric_NF)
        if not self.imputation:
            features = self.normalise.features
            values = torch.cat([values[:, :features], torch.zeros_like(values[:, features:])], dim=-1)
        return values

    def queries(self, context: ContextBatch, space: GramSpace, titles: PreparedTitles) -> Queries | None:
        """Return what was typed in the requests, or what stands for it; None when no row has any.

        A name that stands for a query is not matched with names at the start of training.
        """
        return read_queries(context, space, titles, self.name_match)

    def source(self, context: ContextBatch, vectors_TD: Tensor) -> Tensor:
        """Return the source titles' directions at the length of a state [N, D]; zero where a row has none."""
        named = context.source_title.gt(0).unsqueeze(-1)
        found_ND = F.normalize(F.embedding(context.source_title, vectors_TD), dim=-1)
        source_ND: Tensor = found_ND * named * vectors_TD.shape[1] ** 0.5
        return source_ND


class Crossing(nn.Module):
    """`h * (1 + gate(c)) + W c`, or `h + W c` when crossing is off. A zero context leaves the state as it is."""

    def __init__(self, dim: int, crossing: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, dim, bias=False) if crossing else None
        self.shift = nn.Linear(dim, dim, bias=False)

    def forward(self, state_ND: Tensor, context_ND: Tensor) -> Tensor:
        """Return the state in its context [N, D]."""
        shifted: Tensor = self.shift(context_ND)
        if self.gate is not None:
            state_ND = state_ND * (1 + torch.tanh(self.gate(context_ND)))
        return state_ND + shifted


ROWS = 64  # rows with a query come in multiples of it: see `batch.pad_rows`


@dataclass(frozen=True, slots=True)
class Queries:
    """Unit vectors of the queries of N requests."""

    rows: Tensor  # [m] requests that have one, filled up with request 0 and vectors of zero
    read: Tensor  # [m, M] what is read as the query in the context
    matched: Tensor  # [m, M] what is matched with the names of titles
    place: Tensor  # [N] where each request's vector is, m for one that has none

    def of(self, chosen_n: Tensor) -> Tensor:
        """Return [n, M] what is matched for some requests, zero for those without a query."""
        padded = F.pad(self.matched, (0, 0, 0, 1))
        return padded[self.place[chosen_n]]

    def requested(self, chosen_n: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of some requests have a query, [k] places among them, and [k, M] what is matched."""
        place_n = self.place[chosen_n]
        found = torch.nonzero(place_n < self.matched.shape[0]).squeeze(-1)
        return found, self.matched[place_n[found]]

    @property
    def dense(self) -> Tensor:
        """[N, M] what is matched, zero for requests without a query."""
        return self.of(torch.arange(self.place.shape[0], device=self.place.device))


def requests_with_query(context: ContextBatch) -> Tensor:
    """Return [N] whether a request has a query, typed or by the name of its source title."""
    return (bag_sizes(context.query_grams, context.query_offsets) > 0) | context.by_name.gt(0)


def read_queries(
    context: ContextBatch, space: GramSpace, titles: PreparedTitles, name_match: Tensor | None
) -> Queries | None:
    """Return what was typed, or what stands for it; None when no request has a query.

    Where the name of the source title stands for the query it is read as if it had been typed, and matched with
    names as much as training finds it worth (`name_match`; None where that is not done).
    """
    rows = torch.nonzero(requests_with_query(context)).squeeze(-1)
    if not rows.numel():
        return None
    filler = rows.new_zeros(-rows.shape[0] % ROWS)
    place = torch.full_like(context.state, rows.shape[0] + filler.shape[0])
    place[rows] = torch.arange(rows.shape[0], device=rows.device)
    end = context.query_offsets.new_full(filler.shape, context.query_grams.shape[0])
    # Requests without a query have empty bags, so the grams of the others follow one another as before.
    read = space.queries(context.query_grams, torch.cat([context.query_offsets[rows], end]))
    rows = torch.cat([rows, filler])
    if name_match is None:
        return Queries(rows, read, read, place)
    named = F.embedding(context.source_title[rows], titles.names) * context.by_name[rows].unsqueeze(-1)
    named[rows.shape[0] - filler.shape[0] :] = 0
    return Queries(rows, read + named, read + name_match * named, place)


def some_requests(context: ContextBatch, rows_n: Tensor) -> ContextBatch:
    """Return some of N requests, in the order given."""
    own = {name: values[rows_n] for name, values in context.named().items() if not name.startswith("query_")}
    sizes_n = bag_sizes(context.query_grams, context.query_offsets)[rows_n]
    starts_n = sizes_n.cumsum(0) - sizes_n
    shift = torch.repeat_interleave(context.query_offsets[rows_n] - starts_n, sizes_n)
    grams = context.query_grams[torch.arange(shift.shape[0], device=shift.device) + shift]
    return ContextBatch(**own, query_grams=grams, query_offsets=starts_n)
