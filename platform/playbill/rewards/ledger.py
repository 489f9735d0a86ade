"""Running totals of a log by key and by the moment things became known: what was so far, for a million moments at once.

A row of the log is known at a moment when it happened strictly before it and was recorded by then. Everything asked
of a ledger is so known; there is no way to ask for more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Float = NDArray[np.float64]


def known_from(event_at: Int, recorded_at: Int) -> Int:
    """Return the first moment at which each row is known: later than it happened, not before it was recorded.

    Args:
        event_at: [n] microseconds.
        recorded_at: [n] microseconds.
    """
    return np.maximum(event_at + 1, recorded_at)


class Ledger:
    """Totals and best values of n rows, to be asked at any (key, moment).

    Positions found once by `position` serve every column. Letters: n rows, m questions.
    """

    def __init__(
        self, key: Int, known: Int, totals: Mapping[str, Float], best: Mapping[str, Float] | None = None
    ) -> None:
        """Sort the rows and add them up.

        Args:
            key: [n] whose total, whole numbers from 0.
            known: [n] when each row is known, see `known_from`.
            totals: Name -> [n] what is added up.
            best: Name -> [n] of which the largest so far is kept, from 0 to 1.
        """
        self._moments = np.unique(known)
        order = np.lexsort((known, key))
        self._step = len(self._moments) + 1
        self._place = key[order] * self._step + np.searchsorted(self._moments, known[order]) + 1
        self._known = known[order]
        self._totals = {name: np.concatenate([[0.0], np.cumsum(values[order])]) for name, values in totals.items()}
        shift = 2.0 * key[order]
        self._best = {
            name: np.maximum.accumulate(np.clip(values[order], 0.0, 1.0) + shift) - shift
            for name, values in (best or {}).items()
        }

    def position(self, key: Int, at: Int) -> Int:
        """Return [m] the number of sorted rows up to and with those of `key` that are known at `at`."""
        moment = np.searchsorted(self._moments, at, side="right")
        return np.searchsorted(self._place, key * self._step + moment, side="right")

    def start(self, key: Int) -> Int:
        """Return [m] the position before the first row of `key`."""
        return np.searchsorted(self._place, key * self._step, side="right")

    def total(self, name: str, since: Int, until: Int) -> Float:
        """Return [m] the sum of a column between two positions of the same key."""
        sums: Float = self._totals[name]
        made: Float = sums[until] - sums[since]
        return made

    def best(self, name: str, start: Int, until: Int) -> Float:
        """Return [m] the largest value from the key's first row to a position; nan without a row."""
        return self._last(self._best[name], start, until)

    def last_known(self, start: Int, until: Int) -> Float:
        """Return [m] when the newest row before a position became known, microseconds; nan without a row."""
        return self._last(self._known, start, until)

    def first_known(self, start: Int, until: Int) -> Float:
        """Return [m] when the oldest row from a position became known, microseconds; nan without a row."""
        if not len(self._known):
            return np.full(len(until), np.nan)
        values = self._known[np.minimum(start, len(self._known) - 1)].astype(np.float64)
        return np.where(until > start, values, np.nan)

    def _last(self, column: NDArray[np.generic], start: Int, until: Int) -> Float:
        if not len(column):
            return np.full(len(until), np.nan)
        values = column[np.maximum(until - 1, 0)].astype(np.float64)
        return np.where(until > start, values, np.nan)
