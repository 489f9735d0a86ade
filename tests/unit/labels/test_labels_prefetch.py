"""Work ahead: in order, never more at a time than asked, and errors in their turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from playbill.labels.extraction import prefetch


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_results_are_in_order_and_items_are_taken_as_they_are_needed(at_once: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(12):
            taken.append(item)
            yield item

    def slow_if_even(item: int) -> int:
        time.sleep(0.004 * (item % 2 == 0))
        return item * item

    found = []
    for result in prefetch(slow_if_even, items(), at_once):
        found.append(result)
        assert len(taken) <= len(found) + at_once - 1
    assert found == [item * item for item in range(12)]


def test_several_are_in_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    assert len(list(prefetch(lambda item: both.wait(), range(4), 2))) == 4


def test_an_error_is_raised_in_its_turn_and_ends_the_work() -> None:
    def fail_at_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    items = iter(range(100))
    results = prefetch(fail_at_three, items, 2)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert next(items) < 7


def test_closing_the_iterator_stops_the_work() -> None:
    threads = threading.active_count()
    results = prefetch(lambda item: item, iter(range(1_000_000)), 4)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
