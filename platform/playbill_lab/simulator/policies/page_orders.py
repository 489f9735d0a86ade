"""Pages as a policy may order them: which rows could be on each, and the order it answers with.

A policy that has a method `order(pages, rng)` is asked whenever home pages begin; without one the pages keep the
order of the service's own law: two pinned rows, then the others by chance. Axis letters: N pages, R rows of a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Floats32, Ints32, Ints64
from playbill.errors import IntegrityError
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.state import State

if TYPE_CHECKING:
    from playbill_lab.simulator.world.event_log import EventRecorder


@dataclass(frozen=True, eq=False)
class Pages:
    """N home pages that begin, of N different members.

    `rows` [N, ROWS] are places in `canvases.ROWS` in the law's own order; those that cannot be there are -1. `genre`
    [N] is what a genre row would be about; it does not matter for members without plays.
    """

    state: State
    number: Ints64  # [N] number of each page's first question
    member: Ints32  # [N]
    at_us: Ints64  # [N] moment, microseconds since 1970
    device: NDArray[np.int8]  # [N] place in `canvases.DEVICES`
    rows: NDArray[np.int8]
    genre: NDArray[np.int16]
    log: EventRecorder | None = None  # The events so far, where the run keeps them

    def __len__(self) -> int:
        return len(self.member)

    def take(self, places: AnyInts) -> Pages:
        """Return some of the pages."""
        names = ("number", "member", "at_us", "device", "rows", "genre")
        return replace(self, **{name: getattr(self, name)[places] for name in names})


@dataclass(frozen=True, eq=False)
class RowOrders:
    """What pages show; `propensity` [N, R] is each row's probability at its place, given those above."""

    rows: NDArray[np.int8]  # [N, R] rows from the top down; -1 fills
    propensity: Floats32


def ordering(policy: Any) -> Callable[[Pages, np.random.Generator], RowOrders | None] | None:
    """Return how a policy orders rows, None where it leaves that to the service; so may its answer."""
    return getattr(policy, "order", None)


def checked(pages: Pages, orders: RowOrders, name: str) -> RowOrders:
    """Return a policy's order, `MOST_ROWS` wide.

    Raises:
        IntegrityError: Wrong shapes, a row that cannot be on the page or is there twice, holes, an empty page where
            there are rows, or a propensity outside (0, 1].
    """
    rows, propensity = np.asarray(orders.rows), np.asarray(orders.propensity)
    if rows.ndim != 2 or len(rows) != len(pages) or rows.shape != propensity.shape or rows.shape[1] > on.MOST_ROWS:
        shapes = f"rows {rows.shape} and propensities {propensity.shape} for {len(pages)} pages"
        raise IntegrityError(f"policy '{name}' ordered pages wrongly: {shapes}, at most {on.MOST_ROWS} rows each.")
    there = rows >= 0
    possible = np.zeros((len(pages), len(on.ROWS) + 1), np.bool_)
    np.put_along_axis(possible, pages.rows.astype(np.int64), True, 1)
    possible[:, -1] = False
    ordered = np.sort(rows, axis=1)
    faults_found = {
        "rows that cannot be there": there & ~np.take_along_axis(possible, rows.astype(np.int64), 1),
        "a row twice": (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0),
        "an empty place above a row": ~there[:, :-1] & there[:, 1:],
        "no row at all": ~there.any(axis=1, keepdims=True) & possible.any(axis=1, keepdims=True),
        "a propensity outside (0, 1]": there & ~((propensity > 0) & (propensity <= 1)),
    }
    faults = [f"{what} in {int(wrong.any(axis=1).sum())} pages" for what, wrong in faults_found.items() if wrong.any()]
    if faults:
        raise IntegrityError(f"policy '{name}' ordered pages wrongly: {'; '.join(faults)}.")
    wide = np.full((len(pages), on.MOST_ROWS), on.NO_ROW, np.int8)
    odds = np.full(wide.shape, np.nan, np.float32)
    wide[:, : rows.shape[1]], odds[:, : rows.shape[1]] = rows, propensity
    return RowOrders(wide, odds)


def law_propensity(rows: NDArray[np.int8], fitting: NDArray[np.int16]) -> Floats32:
    """Return [N, R] the law's own probability of each row at its place, given those above: pinned ones 1."""
    left = np.maximum(fitting[:, None] - np.arange(rows.shape[1]), 1)
    return np.where(np.isin(rows, on.PINNED_ROWS), 1.0, 1.0 / left).astype(np.float32)
