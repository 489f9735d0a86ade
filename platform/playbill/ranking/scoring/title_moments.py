"""Titles' numbers at moments, and what they add to scores: read once, and held as what differs between moments.

Where titles have numbers in a country, a moment stands for itself and a country: see `datasets.encoding.tokens`.

Letters: S moments, T titles and the padding row, F features, K heads, P pairs of a moment and a canvas, N requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from threading import Lock

import numpy as np
import torch

from playbill.arrays import Floats32, Ints64
from playbill.clock import to_microseconds
from playbill.datasets import Encoder
from playbill.datasets.encoding.titles import TitleFeatures, read_snapshots, snapshot_values
from playbill.datasets.encoding.tokens import floor_moment
from playbill.models import ContextBatch, Network
from playbill.models.heads import TitleVectors
from playbill.ranking.scoring.row_scoring import bias_tables
from playbill.ranking.scoring.state_cache import KeptBiases, KeptSnapshots, Key

READ_AT_ONCE, CELLS_AT_ONCE = 16_000_000, 4_000_000
"""Numbers of titles that are read at a time, and those whose biases are worked out."""


class TitleMoments:
    """The numbers of one state of the catalogue's titles, at any moment. Safe to share between threads.

    Without `features` all of them are missing. `kept` are those of the same titles that were read before.
    """

    def __init__(
        self,
        network: Network,
        encoder: Encoder,
        vectors: TitleVectors,
        features: TitleFeatures | None,
        kept: KeptSnapshots | None = None,
    ) -> None:
        self._network, self._encoder, self._vectors, self._features = network, encoder, vectors, features
        self._kept, self._biases, self._lock = KeptSnapshots() if kept is None else kept, KeptBiases(), Lock()

    def remember(self, moments: Sequence[datetime]) -> None:
        """Read many moments at once, ahead of the requests that will need them.

        Where features depend on a request's country too, that waits for the requests.
        """
        if self._encoder.state.country_columns:
            return
        hours = self._encoder.state.snapshot_hours
        floors = {floor_moment(moment, hours) for moment in moments}
        with self._lock:
            self._read(np.array(sorted(to_microseconds(floor) for floor in floors), np.int64))

    def biases(
        self, moments: Ints64, context: ContextBatch, heads: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [P, K, T] biases of titles in K heads at each moment and canvas, and [N] those of each request."""
        timed = bool(self._encoder.state.title_snapshot)
        snapshot_N = context.snapshot if timed else torch.zeros_like(context.snapshot)
        pairs_P2, pair_N = torch.unique(torch.stack([snapshot_N, context.canvas], 1), dim=0, return_inverse=True)
        keys = [(int(moments[snapshot]) if timed else 0, canvas, heads) for snapshot, canvas in pairs_P2.tolist()]
        return torch.stack(self.tables(keys)), pair_N

    def tables(self, keys: Sequence[Key]) -> list[torch.Tensor]:
        """Return [K, T] biases for each key, all of the same heads."""
        return self._biases.of(keys, self._make)

    def column(self, moments: Ints64, place: int) -> Floats32:
        """Return [S, T] one of the features at some moments."""
        with self._lock:
            self._read(moments)
            return np.stack([self._kept.column(moment, place) for moment in moments.tolist()])

    def at(self, moments: Ints64) -> TitleVectors:
        """Return the titles' vectors with their numbers at these moments, [S, T, F]."""
        if not self._encoder.state.title_snapshot:
            return self._vectors
        with self._lock:
            self._read(moments)
            raw = torch.from_numpy(np.stack([self._kept.of(moment) for moment in moments.tolist()]))
        prepared = replace(self._vectors.prepared, snapshots=self._network.titles.dynamic.plain(raw))
        return replace(self._vectors, prepared=prepared)

    def shuffled(self, name: str, order: Ints64) -> ShuffledMoments:
        """Return the same numbers, but one feature of each title ([titles], no padding row) is another title's."""
        place = self._encoder.state.title_snapshot.index(name)
        return ShuffledMoments(self, place, np.append(0, order + 1))

    def of(self, vectors: TitleVectors) -> TitleMoments:
        """Return the same numbers beside other vectors of the same titles."""
        return TitleMoments(self._network, self._encoder, vectors, self._features, self._kept)

    def _make(self, keys: Sequence[Key]) -> list[torch.Tensor]:
        found: dict[Key, torch.Tensor] = {}
        moments, step = sorted({moment for moment, *_ in keys}), self._at_once(CELLS_AT_ONCE)
        for start in range(0, len(moments), step):
            part = moments[start : start + step]
            places = {moment: place for place, moment in enumerate(part)}
            own = [key for key in keys if key[0] in places]
            vectors = self.at(np.array(part, np.int64))
            pairs = [(places[moment], canvas) for moment, canvas, _ in own]
            made = bias_tables(self._network, vectors, pairs, keys[0][2])
            found |= dict(zip(own, (table.clone() for table in made), strict=True))
        return [found[key] for key in keys]

    def _at_once(self, cells: int) -> int:
        return max(1, cells // max(1, self._encoder.title_rows.size * len(self._encoder.state.title_snapshot)))

    def _read(self, moments: Ints64) -> None:
        """Have the [T, F] raw features of each moment in memory, as long as the lock is held."""
        missing, step = self._kept.missing(moments.tolist()), self._at_once(READ_AT_ONCE)
        for start in range(0, len(missing), step):
            part = missing[start : start + step]
            for moment, values in zip(part, self._look_up(part), strict=True):
                self._kept.keep(moment, values, set(moments.tolist()))

    def _look_up(self, moments: list[int]) -> Floats32:
        names, size = self._encoder.state.title_snapshot, self._encoder.title_rows.size
        if self._features is None:
            return np.full((len(moments), size, len(names)), np.nan, np.float32)
        return snapshot_values(read_snapshots(self._features, self._encoder, np.array(moments, np.int64)), names)


class ShuffledMoments:
    """Numbers of titles, of which the one at `place` is another title's, by `order` [T].

    What that adds to biases is worked out beside the others.
    """

    def __init__(self, plain: TitleMoments, place: int, order: Ints64) -> None:
        self._plain, self._place, self._order = plain, place, order

    def remember(self, moments: Sequence[datetime]) -> None:
        """Read many moments at once."""
        self._plain.remember(moments)

    def column(self, moments: Ints64, place: int) -> Floats32:
        """Return [S, T] one of the features at some moments."""
        found = self._plain.column(moments, place)
        return found[:, self._order] if place == self._place else found

    def biases(
        self, moments: Ints64, context: ContextBatch, heads: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `TitleMoments.biases` does."""
        found_PKT, pair_N = self._plain.biases(moments, context, heads)
        network = self._plain._network
        wanted = [head for name, head in network.title_heads().items() if name in heads]
        dynamic = network.titles.dynamic
        for pair in range(len(found_PKT)):
            first = int((pair_N == pair).nonzero()[0])
            moment, canvas_1 = moments[int(context.snapshot[first])], context.canvas[first : first + 1]
            raw_T = torch.from_numpy(self._plain.column(np.array([moment]), self._place)[0])
            change_2T = torch.stack(dynamic.one(raw_T, self._place))
            change_2T[:, 0] = 0.0
            change_2T = change_2T[:, self._order] - change_2T
            for number, head in enumerate(wanted):
                weights_F2 = (head.snapshot + head.snapshot_canvas(canvas_1)[0]).unflatten(0, (2, -1)).T
                found_PKT[pair, number] += weights_F2[self._place] @ change_2T
        return found_PKT, pair_N


Moments = TitleMoments | ShuffledMoments
