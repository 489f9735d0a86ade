"""Random numbers that belong to a member and an occasion, not to the order in which they are drawn.

A number is a hash of (seed, purpose, member, occasion, place), so runs over other members or batches give a member the
same luck: policies are compared by common random numbers. The hash is splitmix64's finaliser (Steele, Lea and Flood,
OOPSLA 2014).
"""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from playbill.arrays import AnyInts, Floats64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Streams:
    """The random streams of one seed."""

    seed: int

    def uniform(self, purpose: str, member: AnyInts, occasion: AnyInts | int, places: int | None = None) -> Floats64:
        """Return numbers in [0, 1): [N], or [N, places].

        Each `purpose`, such as "churn", has its own stream; `occasion` [N] counts a member's own, or is one number for
        all.
        """
        key = np.uint64((self.seed << 32) ^ zlib.crc32(purpose.encode()))
        with np.errstate(over="ignore"):
            state = _mix(np.asarray(member, np.uint64) * _GOLDEN + key)
            state = _mix(state + np.asarray(occasion, np.uint64) * _GOLDEN)
            if places is not None:
                state = _mix(state[:, None] + np.arange(1, places + 1, dtype=np.uint64) * _GOLDEN)
        return (state >> np.uint64(11)).astype(np.float64) * _TO_UNIT

    def normal(self, purpose: str, member: AnyInts, occasion: AnyInts | int, places: int) -> Floats64:
        """Return [N, places] standard normal numbers, by the transform of Box and Muller (1958)."""
        pairs = (places + 1) // 2
        drawn = self.uniform(purpose, member, occasion, 2 * pairs)
        radius = np.sqrt(-2.0 * np.log1p(-drawn[:, :pairs]))
        angle = 2.0 * np.pi * drawn[:, pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :places]

    def generator(self, purpose: str, *occasion: int) -> np.random.Generator:
        """Return a generator of its own for one purpose and occasion."""
        return np.random.Generator(np.random.SFC64([self.seed, zlib.crc32(purpose.encode()), *occasion]))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread: how sums are split among threads changes their last bits."""
    limited: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limited
