"""The scorer: requests in, every head's score of every title out. Evaluation and serving share it.

Letters: N requests, T titles without the padding row, F snapshot features, S moments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import torch

from playbill.arrays import Floats32, Ints64
from playbill.datasets import Request, title_arrays
from playbill.datasets.encoding.requests import EncodedRequests, as_carried, encode_requests, history_lengths
from playbill.datasets.encoding.titles import TitleFeatures, vector_values
from playbill.datasets.encoding.tokens import floor_moment
from playbill.definitions.specs.canvas import SIMILARITY, TERMS
from playbill.errors import UnknownNameError
from playbill.features import feature_of
from playbill.models import ContextBatch, HistoryBatch, Network, TitleInputs
from playbill.models.heads import Head, TitleVectors
from playbill.models.scoring_batch import ScoringBatch
from playbill.models.trunks.causal import Extends
from playbill.ranking.blend import blended, head_losses
from playbill.ranking.candidates import Mask
from playbill.ranking.page_scores import PageScores, blend_page
from playbill.ranking.scoring.auxiliary_scores import AuxiliaryScores
from playbill.ranking.scoring.bundle import Bundle
from playbill.ranking.scoring.ensemble import EnsembleReader, GateContext, MemberValues
from playbill.ranking.scoring.history_terms import HistoryReader, RequestTerms, TermGate
from playbill.ranking.scoring.row_scoring import PageReader, PageState, pair_scores
from playbill.ranking.scoring.state_cache import KeptHistories, KeptSnapshots, StateCache
from playbill.ranking.scoring.title_moments import Moments, TitleMoments

BATCH_SLOTS = 12_800  # history events per pass of the network, padding counted
BATCH_REQUESTS = 128  # requests per pass: each moment among them needs its own [T, F]


class Scorer:
    """One model version over one state of the catalogue. Safe to share between threads.

    Titles that came after training are scored too, from their metadata alone.

    Args:
        bundle: The model version.
        titles: The canonical table, one row per title.
        availability: The canonical table, for launches.
        features: Title features; None = all of them missing.
        as_of: The moment titles' ages are told at, zone-aware.
        network: The bundle's network, where it is loaded already.
        kept_states: Pasts whose state is kept, so that another canvas asked with the very same frame reads it once.
        snapshots: Numbers of the very same titles that were read before, by another scorer.
        kept_histories: Bytes for what the trunk keeps of members' histories, so that of one that is asked about again
            only new events are read.
    """

    def __init__(
        self,
        bundle: Bundle,
        titles: pl.DataFrame,
        availability: pl.DataFrame,
        features: TitleFeatures | None,
        *,
        as_of: datetime,
        network: Network | None = None,
        kept_states: int = 0,
        snapshots: KeptSnapshots | None = None,
        kept_histories: int = 0,
    ) -> None:
        self.bundle, self.as_of = bundle, as_of
        self.encoder = bundle.encoder.with_titles(titles["title_id"].to_list())
        self.title_ids: tuple[str, ...] = self.encoder.title_rows.entries
        self.network = network if network is not None else bundle.network()
        self._features, self._states = features, StateCache(kept_states)
        self._histories = KeptHistories(kept_histories if isinstance(self.network.trunk, Extends) else 0)
        self._losses = head_losses(bundle.resolved)
        self.inputs, self._vectors = self._prepare(titles, availability, as_of)
        given = (self.network, self.encoder, self._vectors, features)
        self.moments: Moments = TitleMoments(*given, snapshots)
        self._pages = PageReader(self.network, self.encoder, self._vectors.vectors)
        self.terms = AuxiliaryScores(self.network, self.inputs, self._vectors.vectors, titles, self.encoder)
        self._blended = {SIMILARITY, *blended(bundle.resolved)} & set(self.terms.names)
        self.terms.prepare(self._blended)
        self._history = self._history_reader()
        own = (self.network, self.encoder, self.inputs, self._vectors, as_of)
        self._ensemble = None if self.network.ensemble is None else EnsembleReader(*own)

    def refreshed(self, titles: pl.DataFrame, availability: pl.DataFrame, as_of: datetime) -> Scorer:
        """Return a scorer of the same version over a newer state of the catalogue. The network is shared."""
        given = (self.bundle, titles, availability, self._features)
        return Scorer(*given, as_of=as_of, network=self.network, kept_histories=self._histories.most)

    def with_shuffled(self, feature: str, order: Ints64) -> Scorer:
        """Return this scorer with a feature of titles taken from others ([T] `order`); all else is shared."""
        other, state = copy(self), self.encoder.state
        if feature in state.title_snapshot:
            # Numbers enter with the moment of a request: what a past reads of its titles stays.
            assert isinstance(self.moments, TitleMoments)
            other.moments = self.moments.shuffled(feature, order)
        elif feature in state.title_categorical:
            other._read_titles_anew("categorical", [list(state.title_categorical).index(feature)], order)
        else:
            numbers = [place for place, name in enumerate(state.title_vectors) if feature_of(name) == feature]
            other._read_titles_anew("numeric", numbers, order)
        other._history = other._history_reader()
        return other

    @torch.inference_mode()
    def _read_titles_anew(self, kind: str, columns: list[int], order: Ints64) -> None:
        """Give titles the values of others in some columns of an input."""
        values = getattr(self.inputs, kind).clone()
        values[1:, columns] = values[1:][torch.from_numpy(order)][:, columns]
        self.inputs = replace(self.inputs, **{kind: values})
        prepared = replace(self._vectors.prepared, numeric=self.network.titles.static(self.inputs.numeric))
        self._vectors = self.network.title_vectors(self.inputs, prepared)
        assert isinstance(self.moments, TitleMoments)
        self.moments = self.moments.of(self._vectors)
        self._states, self._histories = self._states.empty(), self._histories.empty()
        self._pages = PageReader(self.network, self.encoder, self._vectors.vectors)
        self.terms = self.terms.beside(self._vectors.vectors)

    def _history_reader(self) -> HistoryReader | None:
        terms = self.network.history_terms
        return None if terms is None else HistoryReader(terms, self.encoder, self.moments.column)

    def score(self, requests: Sequence[Request], heads: Collection[str] | None = None) -> dict[str, Floats32]:
        """Score every title in every request.

        Without `heads` these are all heads, `similarity` and the terms that some blend has; what is not named is free.

        Returns:
            Head -> [N, T] float32 logits, columns in the order of `title_ids`; and term -> its value, see `terms`.

        Raises:
            UnknownNameError: The model has no such head.
        """
        wanted, requests = self._wanted(heads), as_carried(self.encoder, requests)
        scores = {head: np.empty((len(requests), len(self.title_ids)), np.float32) for head in wanted}
        for chosen in self._batches(requests):
            found = self._pass([requests[place] for place in chosen], wanted)
            for head, values in found.items():
                scores[head][chosen] = values
        return scores

    @torch.inference_mode()
    def score_page(
        self, requests: Sequence[Request], blends: Sequence[Mapping[str, float]], candidates: Mask
    ) -> PageScores:
        """Score the rows of one page: what `blend` makes of `score` for each, at a fraction of the time.

        A past that the requests share is read once, each row is asked only for the heads of its own blend, and one
        product scores them all. There is a request, a blend and a row of candidates ([R, T]) for each row.

        Raises:
            UnknownNameError: A blend names a head that the model does not have.
            ValueError: The requests are of different moments, or the lengths differ.
        """
        if not len(requests) == len(blends) == len(candidates):
            raise ValueError(f"{len(requests)} requests, {len(blends)} blends and {len(candidates)} masks for one page")
        self._wanted({head for weights in blends for head in weights})
        if not len(requests):
            return blend_page([], [], self._losses, blends, candidates)
        requests = as_carried(self.encoder, requests)
        encoded, known = self._encode(requests)
        if len(encoded.moments) > 1:
            raise ValueError("the rows of a page are asked at one moment")
        history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
        states = self._read(requests, known, (history, context, self._vectors))
        scene = self.network.scene(history, context, self._vectors, states)
        pairs = [(row, head) for row, weights in enumerate(blends) for head in weights if head not in TERMS]
        others = [(row, term) for row, weights in enumerate(blends) for term in weights if term in TERMS]
        tables_PKT, table_R = self.moments.biases(encoded.moments, context, tuple(self.network.title_heads()))
        bias = {
            canvas: tables_PKT[place] for canvas, place in zip(context.canvas.tolist(), table_R.tolist(), strict=True)
        }
        logits = [*pair_scores(self.network, scene, pairs, bias).numpy()]
        canvas, gate = context.canvas.numpy(), self._gate(requests, context)
        if gate is not None and self._ensemble is not None:
            logits = self._ensemble.added_to_pairs(logits, pairs, scene.state, requests, gate)
        if self._history is not None:
            logits = self._history.added_to_pairs(logits, pairs, requests, canvas, *self._gates(requests, gate))
        terms = self.terms.of({term for _, term in others}, context)
        logits += [terms[term][row, 1:].numpy() for row, term in others]
        return blend_page(logits, pairs + others, self._losses, blends, candidates)

    @torch.inference_mode()
    def page_states(self, requests: Sequence[Request]) -> list[PageState]:
        """Read requests for the heads about rows and pages, if any; a past whose state is kept is not read again."""
        if not self._pages:
            return []
        found: dict[int, PageState] = {}
        requests = as_carried(self.encoder, requests)
        for chosen, scene in self._scenes(requests):
            found |= dict(zip(chosen.tolist(), self._pages.read(scene), strict=True))
        return [found[place] for place in range(len(requests))]

    @torch.inference_mode()
    def request_vectors(self, requests: Sequence[Request], head: str | None) -> Floats32:
        """Return [N, D] what a head multiplies title vectors with in each request; see `head_titles`.

        Without a head it is the state in its context, that all heads read.

        Raises:
            UnknownNameError: The model has no such head about titles.
        """
        own, requests = None if head is None else self._title_head(head), as_carried(self.encoder, requests)
        found = np.empty((len(requests), self.network.config.trunk.dim), np.float32)
        for chosen, scene in self._scenes(requests):
            vectors = scene.state if own is None else own.queries(scene.state_of(own))
            found[chosen] = vectors.float().numpy()
        return found

    def _scenes(self, requests: Sequence[Request]) -> Iterator[tuple[Ints64, ScoringBatch]]:
        """Yield requests by their places, as heads see them; a past whose state is kept is not read again."""
        for chosen in self._batches(requests):
            part = [requests[place] for place in chosen]
            encoded, known = self._encode(part)
            history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
            states = self._read(part, known, (history, context, self._vectors))
            yield chosen, self.network.scene(history, context, self._vectors, states)

    def head_titles(self, head: str) -> tuple[Floats32, Floats32]:
        """Return [T, D] title vectors, and [T] the head's bias of each title, in the order of `title_ids`.

        The product of a request's vector and a title's is the score but for biases: this one, and those of canvases and
        of numbers at the moment.

        Raises:
            UnknownNameError: The model has no such head about titles.
        """
        own = self._title_head(head)
        return self._vectors.vectors[1:].float().numpy(), self._vectors.bias[1:, own.position].float().numpy()

    def _title_head(self, head: str) -> Head:
        heads = self.network.title_heads()
        if head not in heads:
            raise UnknownNameError("head", head, heads)
        return heads[head]

    def remember(self, moments: Sequence[datetime]) -> None:
        """Read the title snapshots of many moments at once, ahead of the requests that will need them."""
        self.moments.remember(moments)

    def _batches(self, requests: Sequence[Request]) -> list[Ints64]:
        known = np.array([self._states.get(request) is not None for request in requests], dtype=np.bool_)
        lengths = np.minimum(history_lengths(requests), self.encoder.state.history_length)
        lengths[known] = 0
        order = np.argsort(lengths, kind="stable")
        batches, start = [], 0
        for stop in range(1, len(order) + 1):
            full = stop - start >= BATCH_REQUESTS or (stop - start + 1) * (lengths[order[stop - 1]] + 1) > BATCH_SLOTS
            if stop == len(order) or full:
                batches.append(order[start:stop])
                start = stop
        return batches

    def _wanted(self, heads: Collection[str] | None) -> tuple[str, ...]:
        known = (*(head.name for head in self.bundle.config.heads if head.target == "title"), *self.terms.names)
        for head in heads or ():
            if head not in known:
                raise UnknownNameError("head", head, known)
        chosen = set(known).difference(TERMS) | self._blended if heads is None else heads
        return tuple(head for head in known if head in chosen)

    @torch.inference_mode()
    def _pass(self, requests: Sequence[Request], heads: Sequence[str]) -> dict[str, Floats32]:
        encoded, known = self._encode(requests)
        history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
        states = self._read(requests, known, (history, context, self._vectors))
        own = tuple(head for head in heads if head not in TERMS)
        biases = self.moments.biases(encoded.moments, context, own) if own else None
        scene, gate = self.network.scene(history, context, self._vectors, states), self._gate(requests, context)
        found = self.network.scene_scores(scene, self._vectors, heads, biases)
        if gate is not None and self._ensemble is not None:
            found = self._ensemble.added(found, scene.state, requests, gate)
        found |= self.terms.of([head for head in heads if head in TERMS], context)
        scores = {head: values[:, 1:].numpy() for head, values in found.items()}
        if self._history is None:
            return scores
        return self._history.added(scores, requests, context.canvas.numpy(), *self._gates(requests, gate))

    def _gate(self, requests: Sequence[Request], context: ContextBatch) -> GateContext | None:
        """Return what the gate of an ensemble reads of requests."""
        return None if self._ensemble is None else self._ensemble.context(requests, context.canvas.numpy())

    def _gates(
        self, requests: Sequence[Request], gate: GateContext | None
    ) -> tuple[dict[str, TermGate], Ints64 | None]:
        """Return what the gate of an ensemble adds to the weights of terms of histories, and who has the same there."""
        if gate is None or self._ensemble is None:
            return {}, None
        return self._ensemble.term_gates(self.network.history_terms, requests, gate), gate.keys()

    @torch.inference_mode()
    def member_values(self, requests: Sequence[Request], head: str) -> MemberValues:
        """Return what each member of an ensemble says of the titles in N requests; only of an ensemble."""
        reader, requests = self._ensemble, as_carried(self.encoder, requests)
        assert reader is not None
        encoded, known = self._encode(requests)
        history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
        states = self._read(requests, known, (history, context, self._vectors))
        scene = self.network.scene(history, context, self._vectors, states)
        biases = self.moments.biases(encoded.moments, context, (head,))
        base_NT = self.network.scene_scores(scene, self._vectors, (head,), biases)[head]
        terms = None if self._history is None else self._history.read(requests)
        return reader.every_value(head, scene.state, base_NT, requests, context.canvas.numpy(), terms)

    def history_terms(self, requests: Sequence[Request]) -> RequestTerms | None:
        """Return the standardised terms of requests; None where no head has terms."""
        return None if self._history is None else self._history.read(as_carried(self.encoder, requests))

    def term_parts(self, request: Request, head: str) -> dict[str, tuple[float, Floats32]]:
        """Return term -> its weight in a head's scores in a request, and its [T] values; only those that weigh.

        Members of an ensemble are terms too, as `members.ROLE`.
        """
        found: dict[str, tuple[float, Floats32]] = {}
        if self._history is not None:
            found |= self._history.parts(as_carried(self.encoder, [request])[0], head)
        if self._ensemble is not None and head in self._ensemble.heads:
            found |= self._ensemble.parts(head, self.member_values([request], head))
        return found

    def _encode(self, requests: Sequence[Request]) -> tuple[EncodedRequests, list[torch.Tensor | None]]:
        """Encode requests, without the pasts whose states are kept; those states come beside."""
        known = [self._states.get(request) for request in requests]
        pairs = zip(requests, known, strict=True)
        unread = [request if state is None else replace(request, history=None) for request, state in pairs]
        return encode_requests(self.encoder, unread), known

    def _read(
        self,
        requests: Sequence[Request],
        known: Sequence[torch.Tensor | None],
        batch: tuple[HistoryBatch, ContextBatch, TitleVectors],
    ) -> torch.Tensor:
        """Return [N, D] states of the requests' pasts: those that are known, and the others read now."""
        member_id = None if any(state is not None for state in known) else self._one_member(requests, batch[0])
        if member_id is None:
            states = self.network.last_states(*batch)
        else:
            state_1D = self._histories.state(self.network, member_id, batch[0], batch[2])
            states = state_1D.expand(len(requests), -1)
        for place, state in enumerate(known):
            if state is not None:
                states[place] = state
        self._states.keep(requests, states)
        return states

    def _one_member(self, requests: Sequence[Request], history: HistoryBatch) -> str | None:
        """Return whose history all of some requests are about, if there is one and it may be read on from a cache."""
        if not self._histories.most or len(history.title) > 1 or requests[0].history is None:
            return None
        return requests[0].member_id

    @torch.inference_mode()
    def _prepare(
        self, titles: pl.DataFrame, availability: pl.DataFrame, as_of: datetime
    ) -> tuple[TitleInputs, TitleVectors]:
        count = self.encoder.title_rows.size
        plays = np.zeros(count, np.float32)
        plays[1 : self.encoder.trained_titles] = self.bundle.titles["plays"].to_numpy()
        arrays = title_arrays(
            self.encoder,
            titles,
            availability,
            plays=plays,
            as_of=as_of,
            snapshots=np.zeros((0, count, len(self.encoder.state.title_snapshot)), np.float32),
            **self._fixed(as_of),
        )
        inputs = TitleInputs.from_arrays(arrays)
        self.network.eval()
        return inputs, self.network.title_vectors(inputs)

    def _fixed(self, as_of: datetime) -> dict[str, Any]:
        """Return the categories and vectors of titles, which count at every moment from then on."""
        state = self.encoder.state
        if self._features is None or not (state.title_categorical or state.title_vectors):
            return {}
        moment = floor_moment(as_of, state.snapshot_hours)
        found = self._features.title_snapshots(state.service, [moment], self.title_ids)
        vectors = vector_values(found, state.title_vectors) if state.title_vectors else None
        return {"categorical": found.categorical, "vectors": vectors}
