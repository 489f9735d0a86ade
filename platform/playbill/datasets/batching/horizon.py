"""The titles that a member chose in the time after each row: the set of targets of a head with a horizon.

What is cached is served hours later, and the order of what somebody will play within two days means little: such a head
learns all of it, each title by what it was worth and less the later it came (Netflix TechBlog 2025, "Foundation model
for personalized recommendation": multi-token targets; "dense all action" of PinnerFormer, Pancha et al., KDD 2022).
Letters: N rows of the batch, R of the training set, P positive rows of a head, C looked at, F further titles of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Ints64
from playbill.datasets.arrays import FurtherArrays
from playbill.datasets.encoding.tokens import MICROSECONDS
from playbill.datasets.examples.rows import TrainingRows

LOOK_AHEAD = 8
"""Choices looked through for each one wanted: titles played again, or not there at the time, are passed over."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When and by whom rows were chosen. Letter: m requests."""

    member: Ints64  # [R] number of the member
    at: Ints64  # [R] moment of the request, microseconds since 1970
    alone: Bools  # [R] whether it had a query or a source title: what came later is no answer to it

    @classmethod
    def of(cls, rows: TrainingRows, token_member: AnyInts, at: Ints64, alone: Bools) -> Self:
        """Look up the [R] rows, by [n] member of each token and [m] moments and kinds of requests."""
        members = np.asarray(token_member, np.int64)
        count = np.bincount(members)
        first = np.cumsum(count) - count + np.arange(len(count))
        # A slot past the last member with tokens is of one without any: it chose nothing twice.
        known = np.searchsorted(first, rows.slot, side="right").astype(np.int64) - 1
        beyond = np.asarray(rows.slot, np.int64) - len(members)
        return cls(np.maximum(known, beyond), at[rows.request], alone[rows.request])


class FurtherTitles:
    """What follows the positive rows of one head within its horizon.

    Choices of a member are in the order of their moments, and of one moment in that of the log. A later one counts if
    it came by the end of the horizon, its title is neither the row's own nor counted already, and it could be seen in
    the row's own request.
    """

    def __init__(self, rows: TrainingRows, head: str, moments: Moments, options: dict[str, Any]) -> None:
        self.most, self.half_life = int(options["most"]), float(options["half_life_s"]) * MICROSECONDS
        worth = np.nan_to_num(rows.labels[head]).clip(min=0) * rows.weights.get(head, np.float32(1))
        teaches = (worth > 0) & (np.asarray(rows.title) > 0)
        if len(rows.silent):
            teaches &= ~rows.silent
        row = np.nonzero(teaches)[0]
        self.row = row[np.lexsort((row, moments.at[row], moments.member[row]))]
        self.worth: Floats32 = worth[self.row].astype(np.float32)
        self.title = np.asarray(rows.title)[self.row].astype(np.int64)
        self.at, member = moments.at[self.row], moments.member[self.row]
        self.place = np.full(len(rows), -1, np.int64)
        self.place[self.row] = np.arange(len(self.row))
        end = _ends(member, self.at, int(float(options["within_s"]) * MICROSECONDS))
        self.end = np.where(moments.alone[self.row], np.arange(len(self.row)) + 1, end)
        self.earlier = _earlier(member, self.title)

    def of(self, row: Ints64, logged: int, available: Bools, group: Ints64) -> FurtherArrays:
        """Return the further titles of N rows of the training set; those from `logged` on are made ones, without any.

        `available` [G, T] is what could be seen, by `group`; no rows where everything always could.
        """
        place = self.place[row]
        place[logged:] = -1
        size = np.where(place < 0, 0, self.end[place] - place - 1) if len(self.end) else np.zeros(len(row), np.int64)
        step = np.arange(min(int(size.max(initial=0)), LOOK_AHEAD * self.most))
        kept = step < size[:, None]
        later = np.where(kept, place[:, None] + 1 + step, 0)
        kept &= self.earlier[later] < place[:, None]
        if len(available):
            kept &= available[group[:, None], self.title[later]]
        rank = kept.cumsum(axis=1)
        kept &= rank < self.most
        title = np.zeros((len(row), self.most - 1), np.int64)
        worth = np.zeros(title.shape, np.float64)
        which, _ = where = np.nonzero(kept)
        target, column = later[where], rank[where] - 1
        age = self.at[target] - self.at[place[which]]
        title[which, column] = self.title[target]
        worth[which, column] = self.worth[target] * np.exp2(-age / self.half_life)
        own = np.where(place < 0, 1.0, self.worth[place]) if len(self.worth) else np.ones(len(row))
        return FurtherArrays(title, (worth / (own + worth.sum(axis=1))[:, None]).astype(np.float32))


def _ends(member: Ints64, at: Ints64, within: int) -> Ints64:
    """Return [P] the first choice that comes too late for each, of choices in the order of member and moment."""
    moments = np.unique(at)
    # Moments by rank, so that member and moment fit into one number.
    size = len(moments) + 1
    key = member * size + np.searchsorted(moments, at)
    last = member * size + np.searchsorted(moments, at + within, side="right")
    return np.searchsorted(key, last).astype(np.int64)


def _earlier(member: Ints64, title: Ints64) -> Ints64:
    """Return [P] the place of the member's last choice of the same title before each, -1 where there is none."""
    order = np.lexsort((np.arange(len(title)), title, member))
    same = (member[order][1:] == member[order][:-1]) & (title[order][1:] == title[order][:-1])
    found = np.full(len(title), -1, np.int64)
    found[order[1:][same]] = order[:-1][same]
    return found
