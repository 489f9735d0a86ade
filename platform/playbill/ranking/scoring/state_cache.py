"""What a scorer keeps between requests: histories and their states, numbers and biases of titles at a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from cachetools import FIFOCache, LRUCache
from numpy.typing import NDArray

from playbill.arrays import Floats32
from playbill.datasets import Request
from playbill.models import HistoryBatch, Network, TitleVectors
from playbill.models.trunks.causal import TrunkCache

HISTORY_BYTES = 128 * 2**20  # memory for keys and values of members' histories

BIAS_BYTES = 128 * 2**20  # memory for biases of titles that may be asked for again

SNAPSHOT_BYTES = 256 * 2**20  # memory for numbers of titles that may be asked for again

Key = tuple[int, int, tuple[str, ...]]
"""A moment of title snapshots, microseconds since 1970, the index of a canvas, and names of heads."""


class StateCache:
    """The states of histories that were read before, by their frame. Not safe to share between threads when in use."""

    def __init__(self, most: int) -> None:
        self._most = most
        # The frame is held too, so that its id stays its own.
        self._kept: FIFOCache[int, tuple[pl.DataFrame, torch.Tensor]] = FIFOCache(most)

    def empty(self) -> StateCache:
        """Return room for as many others."""
        return StateCache(self._most)

    def get(self, request: Request) -> torch.Tensor | None:
        """Return the [D] state of a request's history, None where it is not cached."""
        found = None if request.history is None else self._kept.get(id(request.history))
        return None if found is None else found[1]

    def keep(self, requests: Sequence[Request], states: torch.Tensor) -> None:
        """Remember the [N, D] states of the requests' histories."""
        if self._most:
            for request, state in zip(requests, states, strict=True):
                if request.history is not None:
                    self._kept[id(request.history)] = (request.history, state.clone())


class ReadHistory(NamedTuple):
    """What is kept of a history: its events, the state after them, and keys and values of all tokens but the last."""

    events: torch.Tensor  # [F, L] fields
    state: torch.Tensor  # [1, D]
    cache: TrunkCache

    @property
    def nbytes(self) -> int:
        """Return its memory in bytes."""
        return self.events.nbytes + self.state.nbytes + sum(block.nbytes for block in self.cache)

    def begins(self, events_FL: torch.Tensor) -> bool:
        """Return whether events go on after those whose keys and values are kept."""
        count = self.events.shape[1]
        return count <= events_FL.shape[1] and torch.equal(events_FL[:, : count - 1], self.events[:, :-1])


class KeptHistories:
    """Keys and values of members' histories (KV cache), those read last (in bytes). Safe to share between threads.

    A history that begins with what is kept is read on from there, so that an event that was added costs two tokens: the
    last one may have merged with it and is always read again. Any other history is read anew, such as one whose window
    slid, since all places in it are others, or one with an event that came late.

    Args:
        most: Bytes; 0 keeps nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: LRUCache[str, ReadHistory] = LRUCache(most, getsizeof=lambda read: read.nbytes)
        self._lock = Lock()

    def empty(self) -> KeptHistories:
        """Return room for as many others."""
        return KeptHistories(self.most)

    def state(self, network: Network, member_id: str, history: HistoryBatch, vectors: TitleVectors) -> torch.Tensor:
        """Return the [1, D] state after the whole history of one member."""
        events_FL = torch.cat([values for name, values in history.named().items() if name != "length"])
        events_FL = events_FL[:, : int(history.length[0])]
        with self._lock:
            kept = self._kept.get(member_id)
        if kept is not None and torch.equal(kept.events, events_FL):
            return kept.state
        cache, read = (kept.cache, kept.events.shape[1]) if kept and kept.begins(events_FL) else (None, 0)
        state, cache = network.extended_state(history, vectors, cache, read)
        if events_FL.shape[1]:
            self._keep(member_id, ReadHistory(events_FL.clone(), state, cache))
        return state

    def _keep(self, member_id: str, read: ReadHistory) -> None:
        with self._lock:
            if read.nbytes <= self.most:
                self._kept[member_id] = read


class KeptBiases:
    """Biases of every title at moments on canvases, those asked for last (in bytes). Safe to share between threads."""

    def __init__(self, most: int = BIAS_BYTES) -> None:
        self._kept: LRUCache[Key, torch.Tensor] = LRUCache(most, getsizeof=lambda table: table.nbytes)
        self._lock = Lock()

    def of(self, keys: Sequence[Key], make: Callable[[Sequence[Key]], Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Return [K, T] additive biases for each of different keys; those that are missing are made at once."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in keys if key not in found]
        # Two threads may make the same table at once: they make the same.
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        with self._lock:
            self._kept.update((key, table) for key, table in made.items() if table.nbytes <= self._kept.maxsize)
        found |= made
        return [found[key] for key in keys]


_Difference = tuple[int, NDArray[np.int32] | None, Floats32]
"""Place of a number, the titles whose it is another one, None = of all, and what it is."""


class KeptSnapshots:
    """Numbers of titles [T, F] at moments, those asked for last (in bytes).

    Most titles' numbers are the same at most moments, so each moment is held as what it has other than the first one.
    Not safe to share between threads when in use.
    """

    def __init__(self, most: int = SNAPSHOT_BYTES) -> None:
        self._most, self.nbytes = most, 0
        self._first: Floats32 | None = None
        self._kept: OrderedDict[int, list[_Difference]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def missing(self, moments: Sequence[int]) -> list[int]:
        """Return those of the moments that are not kept."""
        return [moment for moment in dict.fromkeys(moments) if moment not in self._kept]

    def of(self, moment: int) -> Floats32:
        """Return the [T, F] numbers at a moment that is kept."""
        assert self._first is not None
        self._kept.move_to_end(moment)
        found = self._first.copy()
        for place, titles, values in self._kept[moment]:
            if titles is None:
                found[place] = values
            else:
                found[place, titles] = values
        turned: Floats32 = found.T
        return turned

    def column(self, moment: int, place: int) -> Floats32:
        """Return [T] one of the numbers at a moment that is kept."""
        assert self._first is not None
        self._kept.move_to_end(moment)
        found: Floats32 = self._first[place].copy()
        for own, titles, values in self._kept[moment]:
            if own == place:
                found[slice(None) if titles is None else titles] = values
        return found

    def keep(self, moment: int, values_TF: Floats32, wanted: Collection[int] = ()) -> None:
        """Keep the numbers at a moment, and let go of others for it but those that are still wanted."""
        values_FT = np.ascontiguousarray(values_TF.T)
        if self._first is None:
            self._first = values_FT
        found: list[_Difference] = []
        for place, (own, first) in enumerate(zip(values_FT, self._first, strict=True)):
            titles = np.flatnonzero((own != first) & ~(np.isnan(own) & np.isnan(first))).astype(np.int32)
            if 2 * len(titles) > len(own):
                found.append((place, None, own.copy()))
            elif len(titles):
                found.append((place, titles, own[titles]))
        self._kept[moment] = found
        self.nbytes += _size(found)
        for other in list(self._kept):
            if self.nbytes <= self._most:
                break
            if other != moment and other not in wanted:
                self.nbytes -= _size(self._kept.pop(other))


def _size(parts: Sequence[_Difference]) -> int:
    return sum(values.nbytes + (0 if titles is None else titles.nbytes) for _, titles, values in parts)
