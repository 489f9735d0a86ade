"""Windows of tokens, and batches of windows of about one length.

A window's inputs are tokens `start .. start + length - 1` of one member; state j of it has read j of them and
predicts token `start + j`. The last token of a member is never an input: nothing is left to predict after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from playbill.datasets.arrays import Bool, Int
from playbill.errors import StateError

BUCKETS = 11


@dataclass(frozen=True)
class Windows:
    """W windows."""

    start: Int
    """[W] first input token."""
    length: Int
    """[W] input tokens, 0 to L."""
    first: Bool
    """[W] whether it begins where the member begins: only then is its state 0 a real moment."""

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def widths(self) -> Int:
        """Bucket lengths, ascending: those that waste the fewest slots on padding."""
        return bucket_lengths(self.length)


def cut_windows(counts: Int, length: int, stride: int) -> Windows:
    """Cut windows from the end of each member's tokens.

    Args:
        counts: [B] tokens of each member, one at least; members lie one after the other.
        length: Tokens at most.
        stride: From one window's end to the next one's, at most `length`, else tokens would be left out.
    """
    step = min(stride, length)
    inputs = counts - 1
    number = 1 + np.maximum(0, -(-(inputs - length) // step))
    member = np.repeat(np.arange(len(counts)), number)
    place = np.arange(len(member)) - np.repeat(np.cumsum(number) - number, number)
    end = inputs[member] - place * step
    begin = np.maximum(end - length, 0)
    offset = np.cumsum(counts) - counts
    return Windows(start=offset[member] + begin, length=end - begin, first=begin == 0)


def bucket_lengths(lengths: Int, count: int = BUCKETS) -> Int:
    """Return at most `count` widths so that padding each length up to the next width costs the fewest slots.

    Exact, by dynamic programming over the distinct lengths: some 200 x 200 x `count` steps.
    """
    values, weights = np.unique(np.maximum(lengths, 1), return_counts=True)
    total = np.concatenate([[0], np.cumsum(weights)])
    # cost[i, j] = slots of a bucket that holds values i..j, all padded to values[j].
    cost = (total[None, 1:] - total[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    best = cost[0].copy()
    cuts: list[Int] = []
    for _ in range(min(count, len(values)) - 1):
        through = best[:-1, None] + cost[1:]
        cuts.append(np.concatenate([[0], 1 + np.argmin(through, axis=0)[1:]]).astype(np.int64))
        best = np.concatenate([[np.inf], through.min(axis=0)[1:]])
    return _widths(values, cuts)


def _widths(values: Int, cuts: list[Int]) -> Int:
    last, found = len(values) - 1, [len(values) - 1]
    for cut in reversed(cuts):
        last = int(cut[last]) - 1
        found.append(last)
    return values[sorted(found)].astype(np.int64)


@dataclass(frozen=True)
class Plan:
    """One epoch: which windows make which batch."""

    widths: list[int]
    """Of each batch."""
    windows: list[Int]
    """Of each batch."""

    def __len__(self) -> int:
        return len(self.widths)


def plan_epoch(windows: Windows, batch_slots: int, seed: tuple[int, int], world: int) -> Plan:
    """Group windows of about one length into batches of about `batch_slots` tokens, in an order drawn by seed.

    What is left over in a bucket moves up to the next longer one, so that every batch but one is full.

    Args:
        windows: W windows.
        batch_slots: Tokens per batch of all ranks together, padding counted.
        seed: Run and epoch.
        world: Ranks; each needs a window of every batch.

    Raises:
        StateError: There are fewer windows than ranks.
    """
    if len(windows) < world:
        raise StateError(
            f"there are {len(windows)} training windows for {world} workers; use fewer workers or more data"
        )
    draw = np.random.default_rng(seed)
    bucket = np.searchsorted(windows.widths, np.maximum(windows.length, 1))
    left = np.zeros(0, np.int64)
    batches: list[tuple[int, Int]] = []
    for place, width in enumerate(windows.widths.tolist()):
        pool = draw.permutation(np.concatenate([left, np.nonzero(bucket == place)[0]]))
        size = max(batch_slots // width, world)
        full = len(pool) // size * size
        batches += [(width, pool[at : at + size]) for at in range(0, full, size)]
        left = pool[full:]
    if len(left):
        _place_rest(batches, left, int(windows.widths[-1]), max(batch_slots // int(windows.widths[-1]), world), world)
    order = draw.permutation(len(batches))
    return Plan([batches[at][0] for at in order], [batches[at][1] for at in order])


def _place_rest(batches: list[tuple[int, Int]], left: Int, width: int, size: int, world: int) -> None:
    """Make the last windows a batch of their own if they fill half of one, else add them to the last batch."""
    if not batches or (2 * len(left) >= size and len(left) >= world):
        batches.append((width, left))
    else:
        batches[-1] = (width, np.concatenate([batches[-1][1], left]))
