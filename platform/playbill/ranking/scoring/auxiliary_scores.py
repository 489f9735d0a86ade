"""Terms of a blend that no loss trained: likeness to a source title, and matches of a query's text.

| term | what it is, 0 where a request has no source or no query |
|---|---|
| similarity | cosine of the network's vectors of source title and title |
| likeness | what is played beside the source, shares its genres and years, or is called like it: `alike_titles` |
| lift | log lift of the two being played together, metadata as the prior of what the log says |
| co_play | the same by the log alone |
| semantic | the same by metadata alone: what it leads one to expect |
| text | match of the query with the title's names, characters, facets and synopsis |
| text_neighbours | likeness to the titles that match the query best, times how well they match |

`text_neighbours` is what answers a query for a title that may not be shown here, or not yet: the title is known, so its
neighbours are. Axis letters: N requests, T titles and the padding row.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from functools import cached_property
from threading import Lock

import numpy as np
import polars as pl
import torch
from cachetools import FIFOCache
from scipy import sparse
from torch import Tensor

from playbill.arrays import Floats32, Ints64
from playbill.datasets import Encoder
from playbill.definitions.specs.canvas import QUERY_TERMS, SIMILARITY, TERMS
from playbill.metrics.topk import top_k
from playbill.models import ContextBatch, Network, TitleInputs
from playbill.ranking.relevance import POPULAR, popularity_prior
from playbill.ranking.scoring.similar_titles import AlikeTitles
from playbill.ranking.scoring.text_match import SearchTexts, TextIndex

KEPT_BYTES = 64 * 2**20  # memory for terms of source titles that may be asked for again
QUERIES_AT_ONCE = 16  # queries whose best titles' neighbours are held at a time
MATCHES = 4  # titles whose neighbours answer a query
NEAREST = 3.0  # likeness from which on a title is a neighbour like any other
SHARPNESS = 20.0  # how fast a match that is less than the best one counts less


class AuxiliaryScores:
    """The terms of one model version over one state of the catalogue. Safe to share between threads.

    The canonical rows of titles give their texts, `vectors` [T, D] are the model's of them.
    """

    def __init__(
        self, network: Network, inputs: TitleInputs, vectors: Tensor, titles: pl.DataFrame, encoder: Encoder
    ) -> None:
        self._network, self._inputs, self._titles, self._encoder = network, inputs, titles, encoder
        self._directions = torch.nn.functional.normalize(vectors.float(), dim=-1)
        self._rows: FIFOCache[tuple[str, int], Floats32] = FIFOCache(max(1, KEPT_BYTES // (4 * inputs.count)))
        self._lock = Lock()

    def beside(self, vectors: Tensor) -> AuxiliaryScores:
        """Return the same terms beside other vectors of the same titles, which similarity alone reads."""
        other = copy(self)
        other._directions = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return other

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that this model has: those of likeness are learnt where a blend asks for one."""
        fitted = self._network.likeness.neighbours > 0
        return TERMS if fitted else (SIMILARITY, "text")

    def prepare(self, names: Collection[str]) -> None:
        """Make ready what these terms need, ahead of the first request."""
        if set(QUERY_TERMS) & set(names):
            _ = self._texts
        if set(names) - {SIMILARITY, "text"}:
            _ = self.alike

    def of(self, names: Collection[str], context: ContextBatch) -> dict[str, Tensor]:
        """Return some terms of N requests, [N, T] float32 each."""
        found = {}
        for name in names:
            if name == SIMILARITY:
                found[name] = self._similarity(context.source_title)
            elif name in QUERY_TERMS:
                found[name] = torch.from_numpy(self._of_queries(name, context))
            else:
                found[name] = torch.from_numpy(self._of_sources(name, context.source_title.numpy()))
        return found

    def _similarity(self, source_N: Tensor) -> Tensor:
        named = source_N.nonzero().squeeze(-1)
        cosines_NT = self._directions.new_zeros(source_N.shape[0], self._directions.shape[0])
        cosines_NT[named] = self._directions[source_N[named]] @ self._directions.T
        return cosines_NT

    @cached_property
    def alike(self) -> AlikeTitles:
        """The titles, ready to be compared."""
        return AlikeTitles.of(self._network, self._inputs, self._titles, self._encoder)

    @cached_property
    def _texts(self) -> TextIndex:
        buckets, rows = self._encoder.state.text_buckets, self._encoder.title_rows
        texts = SearchTexts.of(self._titles, buckets)
        owners = rows.encode(self._titles["title_id"]).astype(np.int64)
        return TextIndex.of(texts.owned_by(owners), rows.size, buckets)

    def _of_queries(self, name: str, context: ContextBatch) -> Floats32:
        if not context.query_grams.numel():
            return np.zeros((len(context.canvas), self._inputs.count), np.float32)
        return self._text(context) if name == "text" else self._text_neighbours(context)

    def _text(self, context: ContextBatch) -> Floats32:
        importance = self._network.grams.importance.weight.squeeze(-1).exp().detach().numpy()
        grams, offsets = context.query_grams.numpy(), context.query_offsets.numpy()
        matches = self._texts.scores(grams, offsets, importance)
        typed = self._texts.described(grams, offsets) == 0
        matches[typed] *= 1 + POPULAR * self._popularity
        return matches

    @cached_property
    def _popularity(self) -> Floats32:
        return popularity_prior(self._inputs.plays.numpy()).astype(np.float32)

    def _text_neighbours(self, context: ContextBatch) -> Floats32:
        matches = self._text(context)
        best = np.maximum(top_k(matches, MATCHES), 0)
        value = np.take_along_axis(matches, best, axis=1)
        weight = np.exp(SHARPNESS * (value - value[:, :1])) * (value > 0)
        weight *= value[:, :1] / np.maximum(weight.sum(axis=1, keepdims=True), 1.0)
        found = np.zeros_like(matches)
        for start in range(0, len(best), QUERIES_AT_ONCE):
            own, share = best[start : start + QUERIES_AT_ONCE], weight[start : start + QUERIES_AT_ONCE]
            used, place = np.unique(np.where(share > 0, own, 0), return_inverse=True)
            row = np.repeat(np.arange(len(own)), own.shape[1])
            shares = sparse.csr_array((share.ravel(), (row, place.ravel())), shape=(len(own), len(used)))
            shares.eliminate_zeros()
            like = np.minimum(self._of_sources("likeness", used), NEAREST)
            found[start : start + QUERIES_AT_ONCE] = shares.astype(np.float32) @ like
        return found

    def _of_sources(self, name: str, sources: Ints64) -> Floats32:
        """Return [N, T] of one kind of likeness to each source; 0 where the source is the padding row."""
        used, place = np.unique(sources, return_inverse=True)
        with self._lock:
            rows = {title: self._rows[name, title] for title in used.tolist() if (name, title) in self._rows}
        if missing := [title for title in used.tolist() if title and title not in rows]:
            made = dict(zip(missing, self._likeness(name, np.array(missing, np.int64)), strict=True))
            rows |= made
            with self._lock:
                self._rows.update({(name, title): row for title, row in made.items()})
        nothing = np.zeros(self._inputs.count, np.float32)
        return np.stack([rows.get(title, nothing) for title in used[place].tolist()])

    def _likeness(self, name: str, sources: Ints64) -> Floats32:
        found: Floats32 = getattr(self.alike, name)(sources)
        return found
