"""Delayed feedback: predict outcomes of immature plays from partial observations.

Mature plays are cut at random ages, so that a model sees each of them as it once was, with its age as an input; then
it answers for young plays at their own age. It reads what happened after the recommendation, so it may weigh
training examples and never score a request.

Source: "Recommending for long-term member satisfaction at Netflix", Netflix TechBlog, August 2024; Tang et al.,
RecSys 2023, DOI 10.1145/3604915.3608873.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import Floats64, Ints64
from playbill.clock import MICROSECOND, to_microseconds
from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.resolved import matures_after
from playbill.errors import DataError, IntegrityError, Problem, StateError
from playbill.rewards.partial_observations import FEATURES, CumulativeCounts, PartialObservations
from playbill.rewards.values import BoundTerm, bound_terms, known_at, term_values
from playbill.tables.frames import utc_literal

_CHUNK = 500_000
_MOST_CANVASES = 200


@dataclass(frozen=True, slots=True)
class DelayedSettings:
    """How a delayed-feedback model is fitted."""

    snapshots: int = 3
    """Ages at which each mature play is cut."""
    most: int = 300_000
    """Snapshots at most for each term; plays are drawn when there are more."""
    trees: int = 150
    """Boosting rounds."""
    leaves: int = 31
    """Leaves of a tree at most."""
    learning_rate: float = 0.05
    """Step of a boosting round: few trees want a larger one."""
    youngest: timedelta = timedelta(minutes=5)
    """Least age of a snapshot."""
    seed: int = 17
    """Seed of draws and ages."""


@dataclass(frozen=True, slots=True)
class MaturePlays:
    """Plays whose outcome is final, and the outcome of each. Letter m counts them."""

    rows: Ints64
    """[m] numbers of rows of the log."""
    began: Ints64
    """[m] microseconds."""
    outcome: NDArray[np.float32]
    """[m] 0 or 1."""
    span: int
    """Microseconds after which an outcome is final."""


@dataclass(frozen=True, slots=True)
class _TermModel:
    """A classifier, how plays came out before, and the inputs that were ever known; the others say nothing."""

    classifier: Any
    past: HistoricalRates
    inputs: Ints64

    def probability(
        self, seen: PartialObservations, rows: Ints64, at: Ints64, canvases: tuple[str, ...]
    ) -> NDArray[np.float32]:
        if isinstance(self.classifier, float):
            return np.full(len(rows), self.classifier, np.float32)
        features = _inputs(seen, self.past, rows, at, canvases)[:, self.inputs]
        return np.asarray(self.classifier.predict_proba(features)[:, 1], np.float32)


def _inputs(
    seen: PartialObservations, past: HistoricalRates, rows: Ints64, at: Ints64, canvases: tuple[str, ...]
) -> NDArray[np.float32]:
    before = past.features(seen.log["title_id"][rows], seen.log["member_id"][rows], at)
    return np.concatenate([seen.features(rows, at, canvases), before], axis=1)


class DelayedFeedback:
    """Models of delayed terms, one per term. Kept in memory only: it is fitted anew wherever it is needed."""

    def __init__(
        self,
        models: Mapping[str, _TermModel],
        canvases: tuple[str, ...],
        availability: pl.DataFrame | None,
        as_of: datetime,
    ) -> None:
        self._models, self._canvases, self._availability = dict(models), canvases, availability
        self.as_of = as_of

    @classmethod
    def fit(
        cls,
        reward: RewardSpec,
        labels: Mapping[str, LabelSpec],
        outcomes: pl.DataFrame,
        log: pl.DataFrame,
        as_of: datetime,
        availability: pl.DataFrame | None = None,
        settings: DelayedSettings | None = None,
    ) -> DelayedFeedback:
        """Learn every delayed term of a reward from plays that were mature at `as_of`; nothing later is looked at.

        Args:
            reward: The reward.
            labels: Its labels by plain name.
            outcomes: event_id and a column per label, see `labels.label_events`.
            log: Rows of the canonical log.
            as_of: Nothing later is learnt from.
            availability: The canonical table, for the age of titles.
            settings: Sizes and seed.

        Raises:
            StateError: No play is old enough for a delayed term.
            DataError: A delayed term's label has values other than 0 and 1.
        """
        settings = settings or DelayedSettings()
        known = known_at(log, as_of)
        seen = PartialObservations(known, availability)
        canvases = _canvases(known)
        models = {}
        for term in bound_terms(reward, labels):
            if term.delayed:
                plays = mature_plays(term, outcomes, known, as_of)
                models[term.name] = _fit_term(term, plays, seen, canvases, settings)
        return cls(models, canvases, availability, as_of)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms it speaks of."""
        return tuple(self._models)

    def predict(
        self, requested: Mapping[str, NDArray[np.int64]], log: pl.DataFrame, as_of: datetime
    ) -> dict[str, NDArray[np.float32]]:
        """Return term -> [m] expected outcomes of plays, 0 to 1, each at its own age; see `DelayedPredictor`.

        Raises:
            IntegrityError: It was fitted on what became known only after `as_of`.
        """
        if as_of < self.as_of:
            raise IntegrityError(
                f"delayed terms of {as_of.isoformat()} are predicted from what was known at {self.as_of.isoformat()}"
            )
        seen = PartialObservations(log, self._availability)
        moment = to_microseconds(as_of)
        return {term: self.predict_at(term, seen, rows, np.full(len(rows), moment)) for term, rows in requested.items()}

    def predict_at(self, term: str, seen: PartialObservations, rows: Ints64, at: Ints64) -> NDArray[np.float32]:
        """Return [m] the expected outcome of rows [m] of a log, from what was known of each at its moment [m]."""
        model = self._models[term]
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            parts.append(model.probability(seen, rows[part], at[part], self._canvases))
        return np.concatenate(parts)


def mature_plays(term: BoundTerm, outcomes: pl.DataFrame, known: pl.DataFrame, as_of: datetime) -> MaturePlays:
    """Return the plays whose outcome for a term was final at `as_of`.

    A mature play of which the label says nothing has the outcome 0, as it has in the reward.

    Raises:
        StateError: There are none.
        DataError: An outcome is neither 0 nor 1.
    """
    span = matures_after(term.spec, term.label, "play")
    plays = known.with_row_index("row").filter(
        (pl.col("action") == "play")
        & pl.col("title_id").is_not_null()
        & (pl.col("event_at") + span <= utc_literal(as_of))
    )
    if plays.is_empty():
        raise StateError(
            f"delayed term '{term.name}': no play is {format_duration(span)} old at {as_of.isoformat()}, so there is "
            "nothing to learn from; use a longer log, or take the term out of 'delayed'"
        )
    outcome = term_values(term.name, term.spec, term.label, outcomes, known, plays).fill_null(0.0).to_numpy()
    if odd := int(((outcome != 0) & (outcome != 1)).sum()):
        what = f"{odd} of {len(outcome)} values are neither 0 nor 1, and only such outcomes can be predicted"
        raise DataError(f"label {term.name}", [Problem("value", what, "Take it out of the reward's 'delayed'.")])
    return MaturePlays(
        rows=plays["row"].to_numpy().astype(np.int64),
        began=plays["event_at"].to_physical().to_numpy(),
        outcome=outcome,
        span=span // MICROSECOND,
    )


def _fit_term(
    term: BoundTerm, plays: MaturePlays, seen: PartialObservations, canvases: tuple[str, ...], settings: DelayedSettings
) -> _TermModel:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng([settings.seed, zlib.crc32(term.name.encode())])
    chosen = np.arange(len(plays.rows))
    if len(chosen) * settings.snapshots > settings.most:
        chosen = np.sort(rng.choice(chosen, max(1, settings.most // settings.snapshots), replace=False))
    chosen = np.repeat(chosen, settings.snapshots)
    ages = _draw_ages(len(chosen), plays.span, settings, rng)
    outcome = plays.outcome[chosen]
    titles, members = seen.log["title_id"][plays.rows], seen.log["member_id"][plays.rows]
    past = HistoricalRates(titles, members, plays.began + plays.span, plays.outcome)
    if outcome.min() == outcome.max():
        return _TermModel(float(outcome[0]), past, np.arange(0))
    features = _inputs(seen, past, plays.rows[chosen], plays.began[chosen] + ages, canvases)
    inputs = np.nonzero(np.isfinite(features).any(axis=0))[0]
    classifier = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        max_leaf_nodes=settings.leaves,
        learning_rate=settings.learning_rate,
        min_samples_leaf=100,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=inputs == FEATURES.index("canvas"),
        random_state=settings.seed,
    )
    return _TermModel(classifier.fit(features[:, inputs], outcome), past, inputs)


def _draw_ages(count: int, span: int, settings: DelayedSettings, rng: np.random.Generator) -> Ints64:
    """Draw [count] ages in microseconds: half of them even over the span, half even over its logarithm."""
    youngest = min(settings.youngest // MICROSECOND, span)
    even = rng.uniform(youngest, span, count)
    early = np.exp(rng.uniform(np.log(youngest), np.log(span), count))
    return np.where(rng.random(count) < 0.5, even, early).astype(np.int64)


def _canvases(log: pl.DataFrame) -> tuple[str, ...]:
    """Return the most frequent canvases; the rest is nan to the model."""
    if "canvas" not in log.columns:
        return ()
    counts = log.group_by(pl.col("canvas").cast(pl.String)).len().filter(pl.col("canvas").is_not_null())
    ordered = counts.sort(["len", "canvas"], descending=[True, False])
    return tuple(ordered["canvas"].head(_MOST_CANVASES).to_list())


PAST = ("title_rate", "title_final_plays", "member_rate", "member_final_plays")
"""Columns of `HistoricalRates.features`."""

_PRIOR_PLAYS = 10.0
_ENOUGH_PLAYS = 30.0


class HistoricalRates:
    """Past outcomes by title and by member: n mature plays [n], looked up at any moment.

    A play counts from the moment its outcome is final on (`final`, microseconds), so the rates for a younger play never
    have its own outcome in them. Rates are shrunk to the rate of all plays so far as by ten plays more.
    """

    def __init__(self, titles: pl.Series, members: pl.Series, final: Ints64, outcome: NDArray[np.float32]) -> None:
        totals = {"outcome": outcome.astype(np.float64), "plays": np.ones(len(outcome))}
        self._all = CumulativeCounts(np.zeros(len(final), np.int64), final, totals)
        self._ids = {"title": _numbered(titles), "member": _numbered(members)}
        self._by = {
            "title": CumulativeCounts(_codes(titles, self._ids["title"]), final, totals),
            "member": CumulativeCounts(_codes(members, self._ids["member"]), final, totals),
        }

    def features(self, titles: pl.Series, members: pl.Series, at: Ints64) -> NDArray[np.float32]:
        """Return [m, len(PAST)] for titles [m], members [m] and moments [m] in microseconds."""
        everyone = np.zeros(len(at), np.int64)
        before = self._all.position(everyone, at)
        start = self._all.start(everyone)
        plays = self._all.total("plays", start, before)
        rate = np.where(plays > 0, self._all.total("outcome", start, before) / np.maximum(plays, 1.0), np.nan)
        columns = [
            column
            for kind, ids in (("title", titles), ("member", members))
            for column in self._shrunk(kind, ids, at, rate)
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _shrunk(self, kind: str, ids: pl.Series, at: Ints64, rate: Floats64) -> tuple[Floats64, Floats64]:
        ledger, codes = self._by[kind], _codes(ids, self._ids[kind])
        start, now = ledger.start(codes), ledger.position(codes, at)
        plays = ledger.total("plays", start, now)
        shrunk = (ledger.total("outcome", start, now) + _PRIOR_PLAYS * rate) / (plays + _PRIOR_PLAYS)
        return shrunk, np.minimum(plays, _ENOUGH_PLAYS)


def _numbered(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids.unique(maintain_order=True)}).with_row_index("code")


def _codes(ids: pl.Series, numbered: pl.DataFrame) -> Ints64:
    """Return the number of each id, or one that no row has."""
    joined = pl.DataFrame({"id": ids}).join(numbered, on="id", how="left", maintain_order="left")
    return joined["code"].cast(pl.Int64).fill_null(numbered.height).to_numpy()
