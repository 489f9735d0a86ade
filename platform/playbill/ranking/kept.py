"""What a scorer keeps between requests: states of pasts, and biases of titles at a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

import polars as pl
import torch

from playbill.datasets import Request

BIAS_BYTES = 128 * 2**20
"""Memory for biases of titles that may be asked for again."""

Key = tuple[int, int, tuple[str, ...]]
"""A moment of title snapshots, microseconds since 1970, the index of a canvas, and names of heads."""


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


class KeptBiases:
    """Biases of every title at moments on canvases, those asked for last. Safe to share between threads.

    Args:
        most: Bytes kept.
    """

    def __init__(self, most: int = BIAS_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[Key, torch.Tensor] = OrderedDict()
        self._lock = Lock()

    def of(self, keys: Sequence[Key], make: Callable[[Sequence[Key]], Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Return [K, T] additive biases for each (moment, canvas), those that are not kept made by `make` at once.

        Args:
            keys: Each once.
            make: Some of the keys -> the biases of each.
        """
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in keys if key not in found]
        # Two threads may make the same table at once: they make the same.
        found |= dict(zip(missing, make(missing), strict=True)) if missing else {}
        with self._lock:
            for key in keys:
                self._kept[key] = found[key]
                self._kept.move_to_end(key)
            size = max(1, found[keys[0]].nbytes) if keys else 1
            while len(self._kept) > max(len(keys), self._most // size):
                self._kept.popitem(last=False)
        return [found[key] for key in keys]
