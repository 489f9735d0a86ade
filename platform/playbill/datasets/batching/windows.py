"""Windows of tokens, and batches of windows of about one length.

A window's inputs are tokens `start .. start + length - 1` of one member; state j of it has read j of them and
predicts token `start + j`. A member's last token is an input only where a title was shown after it: else nothing is
left to predict.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from playbill.arrays import AnyInts, Bools, Ints64
from playbill.errors import StateError

BUCKETS = 11


@dataclass(frozen=True)
class Windows:
    """W windows."""

    start: Ints64  # [W] first input token
    length: Ints64  # [W] input tokens, 0 to L
    first: Bools  # [W] whether it begins where the member begins: only then is its state 0 a real moment
    member: Ints64  # [W] number of the member; `start + member` is the slot of state 0
    draw: Ints64  # [W] which of a window's draws it is: rows that an epoch reads more often than that are in it

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: Ints64 | slice) -> Windows:
        return Windows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @cached_property
    def widths(self) -> Ints64:
        """Bucket lengths, ascending: those that waste the fewest slots on padding."""
        return bucket_lengths(self.length)


def cut_windows(counts: Ints64, length: int, stride: int, reach: Ints64 | None = None) -> Windows:
    """Cut windows from the end of each member's tokens ([M] counts), `stride` apart.

    `reach` [M] are the tokens that the last state with a row has read, -1 for a member without rows; that state is in a
    window too, even of a member without tokens.
    """
    step = min(stride, length)
    inputs = counts - 1 if reach is None else np.maximum(counts - 1, reach)
    number = np.where(inputs < 0, 0, 1 + np.maximum(0, -(-(inputs - length) // step)))
    member = np.repeat(np.arange(len(counts)), number)
    place = np.arange(len(member)) - np.repeat(np.cumsum(number) - number, number)
    end = inputs[member] - place * step
    begin = np.maximum(end - length, 0)
    offset = np.cumsum(counts) - counts
    return Windows(
        start=offset[member] + begin,
        length=end - begin,
        first=begin == 0,
        member=member,
        draw=np.zeros(len(member), np.int64),
    )


def last_windows(windows: Windows) -> Bools:
    """Return [W] which windows are the last ones of their members: the first to be cut."""
    found = np.zeros(len(windows), np.bool_)
    found[np.unique(windows.member, return_index=True)[1]] = True
    return found


def epoch_part(windows: Windows, share: float, seed: int, epoch: int) -> Ints64:
    """Choose the windows that an epoch reads, ascending: each member's last one, and a share of the earlier ones.

    Earlier windows take turns, so that each is read as often as any other; windows of one width, in an order drawn by
    seed, follow each other, so that every epoch has about equally many of each.
    """
    last = last_windows(windows)
    others = np.random.default_rng(seed).permutation(np.nonzero(~last)[0])
    bucket = np.searchsorted(windows.widths, np.maximum(windows.length[others], 1))
    others = others[np.argsort(bucket, kind="stable")]
    turn = np.floor((np.arange(len(others) + 1) + epoch) * share)
    return np.sort(np.concatenate([np.nonzero(last)[0], others[np.diff(turn) > 0]]))


def drawn_windows(windows: Windows, slot: AnyInts, copies: AnyInts) -> Windows:
    """Repeat windows as often as their rows ([R] slots, ascending) are drawn, no longer than that draw's rows need."""
    parts, places, rows = [windows], np.arange(len(windows)), np.arange(len(slot))
    for draw in range(1, int(copies.max(initial=0))):
        rows = rows[copies[rows] > draw]
        first, last = row_ranges(windows[places], slot[rows])
        used = last > first
        places = places[used]
        own = windows[places]
        reach = slot[rows[last[used] - 1]] - own.start - own.member
        parts.append(replace(own, length=reach.astype(np.int64), draw=np.full(len(places), draw)))
    return Windows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Windows)))


def row_ranges(windows: Windows, slot: AnyInts) -> tuple[Ints64, Ints64]:
    """Return [W] the first row of each window and the one after its last, by [R] slots of rows, ascending."""
    begin = windows.start + windows.member
    first = np.searchsorted(slot, begin + np.where(windows.first, 0, 1), side="left")
    return first.astype(np.int64), np.searchsorted(slot, begin + windows.length, side="right").astype(np.int64)


def bucket_lengths(lengths: Ints64, count: int = BUCKETS) -> Ints64:
    """Return at most `count` widths so that padding each length up to the next width costs the fewest slots.

    Exact, by dynamic programming over the distinct lengths: some 200 x 200 x `count` steps.
    """
    values, weights = np.unique(np.maximum(lengths, 1), return_counts=True)
    total = np.concatenate([[0], np.cumsum(weights)])
    # cost[i, j] = slots of a bucket that holds values i..j, all padded to values[j].
    cost = (total[None, 1:] - total[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    best = cost[0].copy()
    cuts: list[Ints64] = []
    for _ in range(min(count, len(values)) - 1):
        through = best[:-1, None] + cost[1:]
        cuts.append(np.concatenate([[0], 1 + np.argmin(through, axis=0)[1:]]).astype(np.int64))
        best = np.concatenate([[np.inf], through.min(axis=0)[1:]])
    return _widths(values, cuts)


def _widths(values: Ints64, cuts: list[Ints64]) -> Ints64:
    last, found = len(values) - 1, [len(values) - 1]
    for cut in reversed(cuts):
        last = int(cut[last]) - 1
        found.append(last)
    return values[sorted(found)].astype(np.int64)


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: which windows make which batch."""

    widths: list[int]  # of each batch
    windows: list[Ints64]  # of each batch

    def __len__(self) -> int:
        return len(self.widths)


def plan_epoch(
    windows: Windows, batch_slots: int, seed: tuple[int, int], world: int, widths: Ints64 | None = None
) -> EpochPlan:
    """Group windows of about one length into batches of about `batch_slots` tokens, in an order drawn by seed.

    What is left over in a bucket moves up to the next longer one, so that every batch but one is full. Slots are those
    of all ranks together, padding counted; each of `world` ranks needs a window of every batch. `widths` are the
    buckets' (default: those of the windows).

    Raises:
        StateError: There are fewer windows than ranks.
    """
    if len(windows) < world:
        raise StateError(
            f"there are {len(windows)} training windows for {world} workers; use fewer workers or more data"
        )
    widths = windows.widths if widths is None else widths
    draw = np.random.default_rng(seed)
    bucket = np.searchsorted(widths, np.maximum(windows.length, 1))
    left = np.zeros(0, np.int64)
    batches: list[tuple[int, Ints64]] = []
    for place, width in enumerate(widths.tolist()):
        pool = draw.permutation(np.concatenate([left, np.nonzero(bucket == place)[0]]))
        size = max(batch_slots // width, world)
        full = len(pool) // size * size
        batches += [(width, pool[at : at + size]) for at in range(0, full, size)]
        left = pool[full:]
    if len(left):
        _place_rest(batches, left, int(widths[-1]), max(batch_slots // int(widths[-1]), world), world)
    order = draw.permutation(len(batches))
    return EpochPlan([batches[at][0] for at in order], [batches[at][1] for at in order])


def with_batches(plan: EpochPlan, count: int) -> EpochPlan:
    """Return the plan with `count` batches: small ones joined, or large ones halved."""
    widths, windows = list(plan.widths), list(plan.windows)
    while len(widths) > count:
        small, other = sorted(range(len(widths)), key=lambda at: widths[at] * len(windows[at]))[:2]
        widths[other] = max(widths[other], widths[small])
        windows[other] = np.concatenate([windows[other], windows[small]])
        del widths[small], windows[small]
    while len(widths) < count:
        large = max(range(len(widths)), key=lambda at: len(windows[at]))
        half = len(windows[large]) // 2
        widths.insert(large, widths[large])
        windows[large : large + 1] = [windows[large][:half], windows[large][half:]]
    return EpochPlan(widths, windows)


def _place_rest(batches: list[tuple[int, Ints64]], left: Ints64, width: int, size: int, world: int) -> None:
    """Make the last windows a batch of their own if they fill half of one, else add them to the last batch."""
    if not batches or (2 * len(left) >= size and len(left) >= world):
        batches.append((width, left))
    else:
        batches[-1] = (width, np.concatenate([batches[-1][1], left]))
