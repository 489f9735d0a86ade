"""The targets of a batch: titles, labels, weights, what could be seen, and negatives.

Letters: N rows of the batch, R of the training set, G states of the batch, T titles, S titles drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Ints64
from playbill.datasets.arrays import FurtherArrays, NegativeArrays, TargetArrays
from playbill.datasets.availability import KeptMasks, States
from playbill.datasets.batching.horizon import FurtherTitles
from playbill.datasets.encoding.row_entries import PageRows
from playbill.datasets.examples.negatives import NegativePolicy, Pool, shown_titles, usable_titles
from playbill.datasets.examples.rows import TrainingRows


class TargetAssembler:
    """Looks up what rows teach.

    `state` [m] is the state of each request, `softmax` are the heads that made rows train, `attributes` auxiliary head
    -> [T, W] of titles: such a head learns from the row of each next token.
    """

    def __init__(
        self,
        rows: TrainingRows,
        states: States,
        state: AnyInts,
        softmax: frozenset[str],
        policies: Mapping[str, NegativePolicy],
        pages: PageRows | None = None,
        further: Mapping[str, FurtherTitles] | None = None,
        attributes: Mapping[str, Ints64] | None = None,
    ) -> None:
        self.rows, self.states, self.state, self.further = rows, states, state, further or {}
        self.attributes = attributes or {}
        self.softmax, self.policies, self.pages = softmax, policies, pages or PageRows.none()
        self._frequencies: dict[str, Floats32] = {}
        self._masks = KeptMasks(states)

    def arrays(self, row: Ints64, logged: int, drawn: Mapping[str, tuple[Ints64, Floats32]]) -> TargetArrays:
        """Return the targets of N rows of the training set, which from `logged` on are made ones, with their draws."""
        title = self.rows.title[row].astype(np.int64)
        labels = {name: values[row].astype(np.float32) for name, values in self.rows.labels.items()}
        attributes = {name: values[title] for name, values in self.attributes.items()}
        for name, own in attributes.items():
            labels[name] = np.where(self.rows.next[row] & (own > 0).any(axis=1), 1, np.nan).astype(np.float32)
        for name in labels.keys() - self.softmax:
            labels[name][logged:] = np.nan
        if len(self.rows.silent):
            for values in labels.values():
                values[:logged][self.rows.silent[row[:logged]]] = np.nan
        available, group = self._available(row)
        further = {head: own.of(row, logged, available, group) for head, own in self.further.items()}
        return TargetArrays(
            title=title,
            labels=labels,
            weight=self._weight(row),
            weights={name: values[row].astype(np.float32) for name, values in self.rows.weights.items()},
            available=available,
            group=group,
            negatives={
                head: self._negatives(policy, row, _targets(title, further.get(head)), available, group, *drawn[head])
                for head, policy in self.policies.items()
            },
            attributes=attributes,
            further=further,
            rows=self.pages.around(row),
        )

    def total_weights(self, row: Ints64, made: float) -> dict[str, float]:
        """Return head -> what its rows weigh together, for heads whose rows weigh differently.

        `row` are rows that an epoch reads, repeats counted; `made` rows are made for each that can be made into others.
        """
        shared, known = self._weight(row), self.rows.title[row] > 0
        found = {}
        for head, labels in self.rows.labels.items():
            own = self.rows.weights.get(head)
            if own is None and not len(self.rows.copies):
                continue
            label = labels[row]
            weight = shared if own is None else shared * own[row]
            if head in self.softmax:
                weight = weight * label.clip(min=0) * (self._label_weight(row) + made * self.rows.next[row])
            else:
                weight = weight * self._label_weight(row)
            total = float(np.where(known & ~np.isnan(label), weight, 0).sum(dtype=np.float64))
            found[head] = total
        return found

    def _weight(self, row: Ints64) -> Floats32:
        if not len(self.rows.copies):
            return np.ones(len(row), np.float32)
        return (1 / self.rows.copies[row]).astype(np.float32)

    def _label_weight(self, row: Ints64) -> Floats32:
        """Return [N] 1 for a row that teaches something itself, else 0."""
        ones = np.ones(len(row), np.float32)
        return np.where(self.rows.silent[row], np.float32(0), ones) if len(self.rows.silent) else ones

    def _available(self, row: Ints64) -> tuple[Bools, Ints64]:
        if not len(self.states):
            return np.zeros((0, 0), np.bool_), np.zeros(0, np.int64)
        states, group = np.unique(self.state[self.rows.request[row]], return_inverse=True)
        return self._masks.of(states.astype(np.int64)), group.astype(np.int64)

    def _negatives(
        self,
        policy: NegativePolicy,
        row: Ints64,
        targets: Ints64,
        available: Bools,
        group: Ints64,
        drawn: Ints64,
        expected: Floats32,
    ) -> NegativeArrays:
        shown = np.zeros((len(row), 0), np.int64)
        if policy.shown != 0:
            shown = shown_titles(self.rows.slate, self.rows.slate_offsets, row, policy.shown)
            seen = available[group[:, None], shown] if len(available) else shown > 0
            chosen = np.logical_or.reduce([shown == own[:, None] for own in targets.T])
            shown = np.where(seen & ~chosen, shown, 0)
        return NegativeArrays(
            title=drawn,
            expected=expected[drawn],
            usable=usable_titles(drawn, targets, available, group, shown),
            shown=shown,
        )

    def draw(self, row: Ints64, plays: Floats32, seed: tuple[int, ...]) -> dict[str, tuple[Ints64, Floats32]]:
        """Draw the negatives of a whole batch, by [T] plays, before ranks share it out."""
        possible: Bools = np.ones(len(plays), np.bool_)
        if len(self.states) and len(row):
            seen = self._masks.of(np.unique(self.state[self.rows.request[row]]).astype(np.int64))
            possible = np.logical_or.reduce(seen, axis=0)
        possible[0] = False
        found = {}
        for place, (head, policy) in enumerate(self.policies.items()):
            positive = row[self.rows.labels[head][row] > 0]
            targets = self.rows.title[positive].astype(np.int64)
            pool = Pool(targets, possible, plays, self._frequency(head, len(plays)))
            found[head] = policy.draw(pool, np.random.default_rng((*seed, place)))
        return found

    def _frequency(self, head: str, titles: int) -> Floats32:
        if head not in self._frequencies:
            positive = self.rows.labels[head] > 0
            weights = self.rows.copies[positive] if len(self.rows.copies) else None
            counts = np.bincount(self.rows.title[positive], weights=weights, minlength=titles)
            self._frequencies[head] = (counts / max(counts.sum(), 1)).astype(np.float32)
        return self._frequencies[head]


def _targets(title: Ints64, further: FurtherArrays | None) -> Ints64:
    """Return [N, 1 + F] every target of each row, 0 where there are no more."""
    return title[:, None] if further is None else np.concatenate([title[:, None], further.title], axis=1)
