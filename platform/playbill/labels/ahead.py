"""Work on several blocks at a time, with their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(work: Callable[[Given], Made], items: Iterable[Given], at_once: int) -> Iterator[Made]:
    """Yield `work(item)` of each item in order, with the next ones in work meanwhile, in threads.

    Items are taken as they are needed: `at_once` of them, and their results, are in memory. Threads share the
    processors as far as the work is in numpy and polars, which let other threads run.

    Args:
        work: Called from several threads at once. What it raises is raised here, in its item's turn.
        items: What to work on.
        at_once: Threads, at least 1.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="labels") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
