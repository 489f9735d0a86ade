"""Small pieces of work side by side: plain Ray tasks of one processor each, or one after the other in this process.

For work that is far too small for a trainer of its own: a trainer costs ten seconds before its first step, a task
milliseconds. Ray is imported where there are workers, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from playbill.errors import PlaybillError, ServiceError
from playbill.ray_cluster import connected

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2  # how often a task whose worker died is started again


def side_by_side(
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[Item],
    *,
    workers: int = 0,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield the number of each item with what `work(shared, item)` returned, as it gets ready.

    Args:
        work: A function of a module; it may run in another process.
        shared: What every call reads; it goes to each node once.
        items: Taken when there is room for them, so that no more than twice as many as workers are held.
        workers: Tasks at a time; 0 runs in this process.
        address: Of the cluster, see `ray_cluster.cluster_address`.

    Raises:
        ConfigError: The cluster's address is one of Ray Client.
        ServiceError: There is no cluster, or workers kept dying.
        PlaybillError: What `work` raised.
    """
    if not workers:
        yield from ((number, work(shared, item)) for number, item in enumerate(items))
        return
    with connected(address, local={"num_cpus": workers}):
        yield from _on_ray(work, shared, items, workers)


def _on_ray(work: Callable[[Any, Any], Any], shared: Any, items: Iterable[Any], workers: int) -> Iterator[Any]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(work)
    there, running, left = ray.put(shared), dict[Any, int](), enumerate(items)
    try:
        while True:
            while len(running) < 2 * workers and (following := next(left, None)) is not None:
                number, item = following
                running[task.remote(there, item)] = number
            if not running:
                return
            (ready,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready), _result(ray.get, ready)
    finally:
        for one in running:
            ray.cancel(one)


def _result(get: Callable[[Any], Any], ready: Any) -> Any:
    from ray.exceptions import RayError, RayTaskError

    try:
        return get(ready)
    except RayTaskError as error:
        if isinstance(error.cause, PlaybillError):
            raise error.cause from None
        raise
    except RayError as error:
        raise ServiceError(f"a task was given up after {RETRIES} more attempts: {error}") from None
