"""Linear algebra in one thread: how sums are split among threads changes their last bits, and a log must not."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS, whichever it is, uses one thread."""
    limited: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limited
