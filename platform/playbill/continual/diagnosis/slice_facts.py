"""What the slices of a log are like: the facts that may explain why a model does worse in one of them.

Distances between two lists of plays are Jensen-Shannon divergences in bits (Lin, IEEE Transactions on Information
Theory 1991), 0 for equal shares of titles, 1 for lists without a title in common. Small lists differ by chance alone,
so from each distance is taken what two random samples of the same sizes would have: the facts of small and large slices
can be compared.
Axis letters: N requests, M targets, E events, G slices, T titles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices, Mask
from playbill.datasets.examples.sampling import UNKNOWN_BAND
from playbill.evaluation import EvaluationCase
from playbill.evaluation.cases.case import launches
from playbill.evaluation.cases.event_log import UNKNOWN, microseconds
from playbill.evaluation.cases.slices import DAY_US, add_tenure
from playbill.ranking.candidates import NEVER
from playbill.schema import UNKNOWN_COUNTRY

NEW_DAYS = 30  # a title is new so long after its launch
COLD_HISTORY = 5  # a member with fewer plays is cold
COLD_TITLE = 10  # a title with fewer plays in training is cold
SAMPLES = 8  # random samples behind what a distance is by chance


class Fact(NamedTuple):
    """One fact of slices."""

    label: str
    harmful: int  # 1 where more of it makes a slice harder, -1 where less of it does, 0 where neither is expected


FACTS: dict[str, Fact] = {
    "events": Fact("training events", -1),
    "members": Fact("training members", -1),
    "history": Fact("median plays before a request", -1),
    "catalogue": Fact("share of titles available", 0),
    "shared_plays": Fact("targets that others play too", -1),
    "language_match": Fact("targets in the language of the request", -1),
    "popularity_divergence": Fact("plays other titles than the rest (JS)", 1),
    "new_titles": Fact(f"targets under {NEW_DAYS} days old", 1),
    "drift": Fact("plays changed since training (JS)", 1),
    "cold_members": Fact(f"requests with under {COLD_HISTORY} plays before", 1),
    "cold_titles": Fact(f"targets with under {COLD_TITLE} training plays", 1),
    "calibration": Fact("ln(predicted / observed) of yes-or-no heads", 0),
    "lead": Fact("model minus popularity", -1),
}
LOGARITHMIC = ("events", "members", "history")  # facts whose ratios count

PARTS: dict[str, str] = {
    "mainstream": "targets that are less popular",
    "local_titles": "targets that only this slice plays",
    "cold_titles": FACTS["cold_titles"].label,
    "new_titles": FACTS["new_titles"].label,
    "foreign_language": "targets in another language than the request's",
    "catalogue": "more titles to choose from",
}
"""Facts of single requests, in which a gap is taken apart."""


def event_groups(case: EvaluationCase, by: str) -> pl.Series:
    """Return [E] the slice of each event of a case's log."""
    frame = case.log.frame
    if by == "tenure":
        return add_tenure(frame.select("member_id", at="event_at"), case.tables)["tenure"]
    return frame[by].cast(pl.String).fill_null(UNKNOWN_BAND)


@dataclass(frozen=True)
class SliceLog:
    """A case and its log, by slice."""

    case: EvaluationCase
    names: tuple[str, ...]  # [G]
    requests: Indices  # [N] slice of each request
    events: Indices  # [E] slice of each event, -1 where it is of none that has requests

    @classmethod
    def of(cls, case: EvaluationCase, by: str) -> SliceLog:
        """Divide a case by one of its slice columns."""
        named = case.frame[by].cast(pl.String).fill_null(UNKNOWN_BAND)
        names = tuple(sorted(named.unique().to_list()))
        code = {name: place for place, name in enumerate(names)}
        requests = named.replace_strict(code, return_dtype=pl.Int64).to_numpy()
        events = event_groups(case, by).replace_strict(code, default=-1, return_dtype=pl.Int64).to_numpy()
        return cls(case, names, requests, events)

    @cached_property
    def history(self) -> Indices:
        """[N] plays before each request."""
        played = np.concatenate([[0], np.cumsum(self.case.log.plays)])
        positions = self.case.positions
        found: Indices = played[positions] - played[self.case.log.starts[positions]]
        return found

    @cached_property
    def train_plays(self) -> Floats64:
        """[G, T] plays of each slice in training."""
        return self._plays(self.case.log.trained())

    @cached_property
    def all_train_plays(self) -> Floats64:
        """[T] plays in training, those of slices without requests too."""
        return _counts(self.case.log.column[self.case.log.trained() & self.case.log.plays], len(self.case.catalogue))

    @cached_property
    def test_plays(self) -> Floats64:
        """[G, T] plays of each slice in the held-out fold."""
        return self._plays((self.case.log.frame["fold"] == self.case.fold).fill_null(False).to_numpy())

    @cached_property
    def is_new(self) -> Mask:
        """[M] whether each target launched in the request's country at most `NEW_DAYS` ago, or has yet to."""
        case = self.case
        requested = case.frame[case.rows]
        launch = launches(case.rule.catalogue, requested["country"].to_list(), case.columns)
        age = microseconds(requested["at"]) - np.where(launch == NEVER, 0, launch)
        found: Mask = (launch != NEVER) & (age < NEW_DAYS * DAY_US)
        return found

    @cached_property
    def elsewhere(self) -> Floats64:
        """[M] training plays of each target outside the slice of its request."""
        own = self.train_plays[self.requests[self.case.rows], self.case.columns]
        found: Floats64 = self.all_train_plays[self.case.columns] - own
        return found

    @cached_property
    def foreign(self) -> Floats64:
        """[M] 1 where a target's original language is another than that of the request, nan where one is not known."""
        case = self.case
        members = case.tables.members
        requested = case.frame.select("member_id", "language")
        if "language" in members.columns:
            own = members.select("member_id", own="language")
            requested = requested.join(own, on="member_id", how="left", maintain_order="left")
            requested = requested.with_columns(pl.coalesce("language", "own").alias("language"))
        spoken = case.rule.catalogue.described.frame["original_language"][case.columns]
        wanted = requested["language"][case.rows]
        # A language is that of its region too: pt-BR speaks pt.
        base = [one.str.to_lowercase().str.split("-").list.first() for one in (spoken, wanted)]
        return (base[0] != base[1]).cast(pl.Float64).fill_null(float("nan")).to_numpy()

    @cached_property
    def available(self) -> Floats64:
        """[N] share of the catalogue that can be played at each request, on its day."""
        catalogue, frame = self.case.rule.catalogue, self.case.frame
        keys = frame.select(pl.col("country").fill_null(UNKNOWN_COUNTRY), pl.col("at").dt.truncate("1d"))
        each = keys.unique(maintain_order=True)
        shares = [float(catalogue.available(at, country).mean()) for country, at in each.iter_rows()]
        found = keys.join(each.with_columns(share=pl.Series(shares)), on=["country", "at"], maintain_order="left")
        return found["share"].to_numpy()

    def request_facts(self) -> dict[str, Floats64]:
        """Return [N] facts of requests, see `PARTS`, those that the log knows; of several targets their mean."""
        plays = self.all_train_plays[self.case.columns]
        cold = plays < COLD_TITLE
        found = {
            "mainstream": -np.log1p(plays),
            "local_titles": ((self.elsewhere < COLD_TITLE) & ~cold).astype(np.float64),
            "cold_titles": cold.astype(np.float64),
            "new_titles": self.is_new.astype(np.float64),
            "foreign_language": self.foreign,
        }
        by_request = {name: self._by_request(values) for name, values in found.items()}
        by_request["catalogue"] = np.log(np.maximum(self.available, 1.0 / len(self.case.catalogue)))
        known = {name: np.where(np.isnan(one), np.nanmean(one), one) for name, one in by_request.items() if _known(one)}
        return {name: values for name, values in known.items() if np.ptp(values) > 0.0}

    def facts(self, lead: Floats64, calibration: Floats64, seed: int = 0) -> dict[str, Floats64]:
        """Return [G] facts of slices, see `FACTS`; nan where one is not known.

        `lead` [N] is the model minus popularity, `calibration` [G].
        """
        train = self.case.log.trained()
        of_train = self.events[train]
        events = np.bincount(of_train[of_train >= 0], minlength=len(self.names)).astype(np.float64)
        generator = np.random.default_rng(seed)
        return {
            "events": events,
            "members": self._members(train),
            "history": np.array([np.median(self.history[self.requests == place]) for place in range(len(self.names))]),
            "catalogue": self._mean(self.available),
            "shared_plays": self._target_mean((self.elsewhere >= COLD_TITLE).astype(np.float64)),
            "language_match": self._target_mean(1.0 - self.foreign),
            "popularity_divergence": self._divergence(generator),
            "new_titles": self._target_mean(self.is_new.astype(np.float64)),
            "drift": self._drift(generator),
            "cold_members": self._mean((self.history < COLD_HISTORY).astype(np.float64)),
            "cold_titles": self._target_mean((self.all_train_plays[self.case.columns] < COLD_TITLE).astype(np.float64)),
            "calibration": calibration,
            "lead": self._mean(lead),
        }

    def _plays(self, fold: Mask) -> Floats64:
        used = fold & self.case.log.plays & (self.events >= 0)
        size = len(self.case.catalogue)
        flat = self.events[used] * size + self.case.log.column[used]
        return _counts(flat, len(self.names) * size).reshape(len(self.names), size)

    def _members(self, fold: Mask) -> Floats64:
        pairs = self.case.log.frame.select("member_id", slice=pl.Series(self.events)).filter(pl.Series(fold)).unique()
        found = pairs["slice"].to_numpy()
        return np.bincount(found[found >= 0], minlength=len(self.names)).astype(np.float64)

    def _divergence(self, generator: np.random.Generator) -> Floats64:
        found = np.full(len(self.names), np.nan)
        for place, own in enumerate(self.train_plays):
            others = self.all_train_plays - own
            if own.sum() > 0 and others.sum() > 0:
                drawn = [_sample(generator, own.sum(), others) for _ in range(SAMPLES)]
                chance = np.mean([jensen_shannon(one, others) for one in drawn])
                found[place] = jensen_shannon(own, others) - float(chance)
        return found

    def _drift(self, generator: np.random.Generator) -> Floats64:
        found = np.full(len(self.names), np.nan)
        for place, (before, after) in enumerate(zip(self.train_plays, self.test_plays, strict=True)):
            if before.sum() > 0 and after.sum() > 0:
                both = before + after
                sizes = (before.sum(), after.sum())
                drawn = [[_sample(generator, size, both) for size in sizes] for _ in range(SAMPLES)]
                chance = np.mean([jensen_shannon(*pair) for pair in drawn])
                found[place] = jensen_shannon(before, after) - float(chance)
        return found

    def _mean(self, values: Floats64) -> Floats64:
        return _group_mean(self.requests, values, len(self.names))

    def _target_mean(self, values: Floats64) -> Floats64:
        return _group_mean(self.requests[self.case.rows], values, len(self.names))

    def _by_request(self, values: Floats64) -> Floats64:
        return _group_mean(self.case.rows, values, len(self.case))


def jensen_shannon(left: Floats64, right: Floats64) -> float:
    """Return the divergence of two [T] lists of counts, in bits, from 0 to 1; neither may be empty."""
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2.0

    def relative_entropy(one: Floats64) -> float:
        held = one > 0
        return float(np.sum(one[held] * np.log2(one[held] / middle[held])))

    return max(0.0, (relative_entropy(p) + relative_entropy(q)) / 2.0)


def distances(facts: Mapping[str, Floats64], usable: Mask) -> dict[str, Floats64]:
    """Return fact -> [G] how far each slice is from the usable others, in their standard deviations.

    Positive is in the direction that makes a slice harder; a fact without such a direction keeps its sign. NaN where it
    is not known, or where fewer than two others or no spread among them say how far is far.
    """
    return {name: _distance(name, values, usable) for name, values in facts.items()}


def _distance(name: str, values: Floats64, usable: Mask) -> Floats64:
    values = np.log1p(values) if name in LOGARITHMIC else values
    found = np.full(values.size, np.nan)
    known = usable & ~np.isnan(values)
    for place in np.nonzero(~np.isnan(values))[0]:
        others = values[known & (np.arange(values.size) != place)]
        if others.size >= 2 and others.std(ddof=1) > 0:
            found[place] = (values[place] - others.mean()) / others.std(ddof=1)
    return found * (FACTS[name].harmful or 1)


def _known(values: Floats64) -> bool:
    return bool(np.isfinite(values).any())


def _counts(values: Indices, size: int) -> Floats64:
    return np.bincount(values[values != UNKNOWN], minlength=size).astype(np.float64)


def _sample(generator: np.random.Generator, size: float, weights: Floats64) -> Floats64:
    return generator.multinomial(int(size), weights / weights.sum()).astype(np.float64)


def _group_mean(groups: Indices, values: Floats64, size: int) -> Floats64:
    known = ~np.isnan(values)
    count = np.bincount(groups[known], minlength=size)
    sums = np.bincount(groups[known], values[known], minlength=size)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
