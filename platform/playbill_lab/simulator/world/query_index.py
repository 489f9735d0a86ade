"""Matching what is typed with names: prefixes of words by binary search, slips by letters in common.

Axis letters: N queries, T titles, E entries (a name from one of its words on), H buckets of letter pairs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

BUCKETS = 1024
LATER_WORD_SCORE = 0.8
"""Of a match that starts at a later word, against one that starts at the first."""
SLIP_SCORE = 0.6
"""Of a match by letters in common, at most."""
SLIP_THRESHOLD = 0.6
"""Share of a query's letter pairs that a name must have to match without a common prefix."""
_LAST = "\U0010ffff"


@dataclass(frozen=True, eq=False)
class NameIndex:
    """Names in order, to find those that go on from what was typed.

    Args:
        entries: [E] names from each of their words on, sorted.
        title: [E] whose they are.
        weight: [E] 1 from the first word on, less from a later one.
        size: [E] letters of the whole name.
        pairs: [names, H] 1 where a name has letter pairs of a bucket.
        starts: [T] first name of each title; names of a title lie together.
    """

    entries: npt.NDArray[np.str_]
    title: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    size: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]

    @classmethod
    def make(cls, names: Sequence[str], of_title: npt.NDArray[np.int64]) -> NameIndex:
        """Index names.

        Args:
            names: Plain names, those of one title together, titles in order.
            of_title: [T, languages] places in `names`; the smallest of a row is the title's first name.
        """
        starts = np.asarray(of_title.min(axis=1))
        owner = np.searchsorted(starts, np.arange(len(names)), side="right") - 1
        rows = [
            (name[at:], int(owner[place]), 1.0 if at == 0 else LATER_WORD_SCORE, len(name))
            for place, name in enumerate(names)
            for at in (0, *(at + 1 for at, letter in enumerate(name) if letter == " "))
        ]
        rows.sort()
        entries, title, weight, size = zip(*rows, strict=True)
        return cls(
            entries=np.array(entries),
            title=np.array(title, np.int64),
            weight=np.array(weight, np.float32),
            size=np.array(size, np.int64),
            pairs=letter_pairs(names),
            starts=starts,
        )

    @cached_property
    def _names_of_pair(self) -> npt.NDArray[np.uint16]:
        """[buckets, names] of 0 and 1."""
        return np.ascontiguousarray(self.pairs.T).astype(np.uint16)

    def scores(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Match plain queries.

        A name (or what follows one of its words) that goes on from the query scores by the place of that word and by
        how much of the name is typed. Where none does, titles score by the share of the query's letter pairs that a
        name of theirs has.

        Args:
            queries: [N] plain texts.

        Returns:
            [N, T] from 0 to 1.
        """
        found = np.zeros((len(queries), len(self.starts)), np.float32)
        lengths = np.array([len(query) for query in queries], np.int64)
        low = np.searchsorted(self.entries, np.array(queries, dtype=np.str_), side="left")
        high = np.searchsorted(self.entries, np.array([query + _LAST for query in queries], dtype=np.str_))
        counts = np.where(lengths > 0, high - low, 0)
        row = np.repeat(np.arange(len(queries)), counts)
        entry = np.repeat(low - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        typed = lengths[row] / self.size[entry]
        values = self.weight[entry] * (0.5 + 0.5 * typed).astype(np.float32)
        np.maximum.at(found, (row, self.title[entry]), values)
        without = np.flatnonzero((counts == 0) & (lengths > 2))
        if without.size:
            found[without] = self._by_letters([queries[at] for at in without.tolist()])
        return found

    def _by_letters(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        row, bucket = np.nonzero(letter_pairs(queries))
        count = np.bincount(row, minlength=len(queries))
        # A query has a dozen pairs of the many: their rows are added up, nothing is multiplied by zeros.
        has = self._names_of_pair[bucket]
        shared = np.add.reduceat(has, np.cumsum(count) - count, axis=0)
        best = np.maximum.reduceat(shared, self.starts, axis=1) / np.maximum(count, 1)[:, None].astype(np.float32)
        found: npt.NDArray[np.float32] = np.where(best >= SLIP_THRESHOLD, SLIP_SCORE * best, 0).astype(np.float32)
        return found


def letter_pairs(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return which letter pairs texts have, [N, H] of 0 and 1; the text's beginning counts as a letter."""
    found = np.zeros((len(texts), BUCKETS), np.float32)
    rows, buckets = [], []
    for row, text in enumerate(texts):
        padded = "^" + text
        rows += [row] * len(text)
        buckets += [zlib.crc32(padded[at : at + 2].encode()) % BUCKETS for at in range(len(text))]
    found[rows, buckets] = 1.0
    return found
