"""The scorer: requests in, every head's score of every title out. Evaluation and serving share it.

Letters: N requests, T titles without the padding row, F snapshot features, S moments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from threading import Lock
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from playbill.datasets import Request, title_arrays
from playbill.datasets.buckets import floor_moment, microseconds_of, moment_of
from playbill.datasets.online import encode_requests, history_lengths
from playbill.datasets.titles import snapshot_values
from playbill.errors import UnknownNameError
from playbill.models import ContextBatch, HistoryBatch, Network, TitleInputs
from playbill.models.heads import TitleVectors
from playbill.ranking.bundle import Bundle
from playbill.specs.canvas import SIMILARITY

BATCH_SLOTS = 12_800
"""History events per pass of the network, padding counted."""
BATCH_REQUESTS = 128
"""Requests per pass: each moment among them needs its own [T, F]."""
SNAPSHOT_BYTES = 256 * 2**20
"""Memory for snapshots that may be asked for again."""


class TitleFeatures(Protocol):
    """What is read of `playbill.features.FeatureDoor`."""

    def title_snapshots(self, service: str, moments: Sequence[datetime], title_ids: Sequence[str]) -> Any:
        """Return `.columns`, `.values` [S, T, F] and `.categorical` of title features, strictly before each."""
        ...


def similarity(vectors_TD: torch.Tensor, source_N: torch.Tensor) -> torch.Tensor:
    """Return [N, T] cosines of each source title with every title; row 0 of the titles, no source, gives 0."""
    directions_TD = torch.nn.functional.normalize(vectors_TD.float(), dim=-1)
    cosines_NT: torch.Tensor = directions_TD[source_N] @ directions_TD.T
    return cosines_NT * source_N.gt(0).unsqueeze(-1)


class KeptStates:
    """The states of pasts that were read before, by their frame. Not safe to share between threads when in use.

    Args:
        most: Pasts kept, the newest ones; 0 = none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # The frame is held too, so that its id stays its own.
        self._kept: OrderedDict[int, tuple[pl.DataFrame, torch.Tensor]] = OrderedDict()

    def get(self, request: Request) -> torch.Tensor | None:
        """Return the [D] state of a request's past, None where it was not kept."""
        if not self._kept or request.history is None:
            return None
        found = self._kept.get(id(request.history))
        return None if found is None else found[1]

    def keep(self, requests: Sequence[Request], states: torch.Tensor) -> None:
        """Remember the [N, D] states of the requests' pasts."""
        if not self._most:
            return
        for request, state in zip(requests, states, strict=True):
            if request.history is not None:
                self._kept[id(request.history)] = (request.history, state.clone())
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


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
    ) -> None:
        self.bundle = bundle
        self.encoder = bundle.encoder.with_titles(titles["title_id"].to_list())
        self.title_ids: tuple[str, ...] = self.encoder.title_rows.entries
        self.network = network if network is not None else bundle.network()
        self._features, self._lock = features, Lock()
        self._raw: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._states = KeptStates(kept_states)
        self._inputs, self._vectors = self._prepare(titles, availability, as_of)

    def refreshed(self, titles: pl.DataFrame, availability: pl.DataFrame, as_of: datetime) -> Scorer:
        """Return a scorer of the same version over a newer state of the catalogue. The network is shared."""
        return Scorer(self.bundle, titles, availability, self._features, as_of=as_of, network=self.network)

    def score(
        self, requests: Sequence[Request], heads: Collection[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Score every title in every request.

        Args:
            requests: Of any members and canvases.
            heads: Names of heads, and `similarity`; the others cost nothing. None = all.

        Returns:
            Head -> [N, T] float32 logits, columns in the order of `title_ids`; and under `similarity` the cosine of
            source title and title, 0 where a request has no source.

        Raises:
            UnknownNameError: The model has no such head.
        """
        wanted = self._wanted(heads)
        scores = {head: np.empty((len(requests), len(self.title_ids)), np.float32) for head in wanted}
        for chosen in self._batches(requests):
            found = self._pass([requests[place] for place in chosen], wanted)
            for head, values in found.items():
                scores[head][chosen] = values
        return scores

    def remember(self, moments: Sequence[datetime]) -> None:
        """Read the title snapshots of many moments at once, ahead of the requests that will need them."""
        hours = self.encoder.state.snapshot_hours
        floors = {floor_moment(moment, hours) for moment in moments}
        self._snapshots(np.array(sorted(microseconds_of(floor) for floor in floors), np.int64))

    def _batches(self, requests: Sequence[Request]) -> list[NDArray[np.int64]]:
        """Group requests of about one history length."""
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
        known = (*(head.name for head in self.bundle.config.heads), SIMILARITY)
        for head in heads or ():
            if head not in known:
                raise UnknownNameError("head", head, known)
        return known if heads is None else tuple(head for head in known if head in heads)

    @torch.inference_mode()
    def _pass(self, requests: Sequence[Request], heads: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        known = [self._states.get(request) for request in requests]
        pairs = zip(requests, known, strict=True)
        unread = [request if state is None else replace(request, history=None) for request, state in pairs]
        encoded = encode_requests(self.encoder, unread)
        vectors = self._at(encoded.moments)
        history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
        states = self.network.last_states(history, context, vectors)
        for place, state in enumerate(known):
            if state is not None:
                states[place] = state
        self._states.keep(requests, states)
        found = self.network.scores(history, context, self._inputs, vectors, states, heads)
        if SIMILARITY in heads:
            found[SIMILARITY] = similarity(vectors.vectors, context.source_title)
        return {head: values[:, 1:].numpy() for head, values in found.items()}

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
            categorical=self._categorical(as_of),
        )
        inputs = TitleInputs.from_arrays(arrays)
        self.network.eval()
        return inputs, self.network.title_vectors(inputs)

    def _categorical(self, as_of: datetime) -> pl.DataFrame | None:
        if self._features is None or not self.encoder.state.title_categorical:
            return None
        moment = floor_moment(as_of, self.encoder.state.snapshot_hours)
        found = self._features.title_snapshots(self.encoder.state.service, [moment], self.title_ids)
        categorical: pl.DataFrame = found.categorical
        return categorical

    def _at(self, moments: NDArray[np.int64]) -> TitleVectors:
        """Return the titles' vectors with the snapshots of these moments, [S, T + 1, F]."""
        if not self.encoder.state.title_snapshot:
            return self._vectors
        raw = torch.from_numpy(np.stack(self._snapshots(moments)))
        prepared = replace(self._vectors.prepared, snapshots=self.network.titles.dynamic(raw))
        return replace(self._vectors, prepared=prepared)

    def _snapshots(self, moments: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Return [T + 1, F] raw features of each moment, from memory where it has been read before."""
        wanted = moments.tolist()
        with self._lock:
            known = {moment: self._raw[moment] for moment in wanted if moment in self._raw}
        missing = [moment for moment in wanted if moment not in known]
        if missing:
            known |= self._read(missing)
        with self._lock:
            for moment in wanted:
                self._raw[moment] = known[moment]
                self._raw.move_to_end(moment)
            size = max(1, known[wanted[0]].nbytes) if wanted else 1
            while len(self._raw) > max(len(wanted), SNAPSHOT_BYTES // size):
                self._raw.popitem(last=False)
        return [known[moment] for moment in wanted]

    def _read(self, moments: list[int]) -> dict[int, NDArray[np.float32]]:
        names = self.encoder.state.title_snapshot
        if self._features is None:
            empty = np.full((len(self.title_ids) + 1, len(names)), np.nan, np.float32)
            return dict.fromkeys(moments, empty)
        asked = [moment_of(moment) for moment in moments]
        found = self._features.title_snapshots(self.encoder.state.service, asked, self.title_ids)
        return dict(zip(moments, snapshot_values(found, names), strict=True))
