"""What a scorer keeps between requests: states of pasts, and biases of titles at a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import polars as pl
import torch

from playbill.datasets import Request
from playbill.models.heads import TitleVectors

MOMENTS = 2
"""Moments kept: the one of now, and the one that is just ending."""


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


@dataclass(frozen=True)
class Moment:
    """Titles at one moment.

    Args:
        vectors: With the snapshot of the moment as their only one.
        bias: Index of a canvas -> [K, T] additive biases; filled when a canvas is first asked for.
    """

    vectors: TitleVectors
    bias: dict[int, torch.Tensor] = field(default_factory=dict)

    def biases(self, canvases: Iterable[int], make: Callable[[int], torch.Tensor]) -> dict[int, torch.Tensor]:
        """Return the biases of these canvases, made by `make` where they are not known yet."""
        for canvas in set(canvases).difference(self.bias):
            # Two threads may make the same table at once: they make the same.
            self.bias[canvas] = make(canvas)
        return self.bias


class KeptMoments:
    """The newest moments that pages were asked at. Safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Moment] = OrderedDict()
        self._lock = Lock()

    def get(self, moment: int, make: Callable[[], TitleVectors]) -> Moment:
        """Return a moment, made by `make` where it is not kept."""
        with self._lock:
            found = self._kept.get(moment)
        if found is None:
            found = Moment(make())
        with self._lock:
            found = self._kept.setdefault(moment, found)
            self._kept.move_to_end(moment)
            while len(self._kept) > MOMENTS:
                self._kept.popitem(last=False)
        return found
