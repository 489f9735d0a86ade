"""What of a feature service reached a model: how often each feature has a value, and what it is worth.

Importance is by permutation (Breiman 2001): one feature's values change places between the requests (or titles) of the
validation fold, and the held-out titles' ranks show what that costs. A feature that others replace has little of it.
Axis letters: N requests, M targets, T titles, S moments.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64
from playbill.datasets import Request, Split, TrainingSet
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import AlignedScorer, MemberFeatures, with_features
from playbill.features import feature_of

if TYPE_CHECKING:  # it imports torch
    from playbill.ranking.scoring.scorer import Scorer

PASSES = 6_000  # requests scored in all; many features are tried on fewer requests each
MOST_REQUESTS, FEWEST_REQUESTS = 128, 32
CELLS = 2_500_000  # requests times titles that one trial scores at most: of a large catalogue fewer requests are tried
CUT_OFF = 10


@dataclass(frozen=True, slots=True)
class FeatureUse:
    """One feature of a model."""

    feature: str  # `view__feature`
    of: str  # `title`, or `request` for what is known of a member or a request
    coverage: float  # share of the training requests that have a value, or of titles at the training snapshots' moments
    # mean rise of ln(rank) of the held-out titles when its values change places; None = not measured
    importance: float | None = None
    error: float | None = None  # standard error of that mean
    ndcg: float | None = None  # mean loss of ndcg@10

    @property
    def worse(self) -> float | None:
        """How many times further down the held-out titles stand, less one: 0.05 is 5 % further down."""
        return None if self.importance is None else float(np.expm1(self.importance))


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """Every feature of a model, the most important one first."""

    canvas: str  # on which importance was measured
    requests: int  # requests of the validation fold that it was measured on
    features: tuple[FeatureUse, ...]  # feature by feature
    note: str = ""  # why importance could not be measured, where it could not

    @property
    def absent(self) -> tuple[str, ...]:
        """Features without a single value in training."""
        return tuple(one.feature for one in self.features if one.coverage == 0.0)

    def table(self) -> pl.DataFrame:
        """Return a row per feature."""
        return pl.DataFrame(
            [
                {
                    "feature": one.feature,
                    "of": one.of,
                    "coverage": one.coverage,
                    "missing": 1.0 - one.coverage,
                    "importance (rise of ln rank)": one.importance,
                    "standard error": one.error,
                    f"loss of ndcg@{CUT_OFF}": one.ndcg,
                }
                for one in self.features
            ],
            infer_schema_length=None,
        )

    def lines(self, most: int = 5) -> list[str]:
        """Return what is said in the terminal of the features that have values."""
        best = [f"{one.feature} {one.worse:+.1%}" for one in self.features[:most] if one.worse is not None]
        lines = []
        if best:
            where = f"{self.requests} validation requests on {self.canvas}"
            lines.append(f"features that ranks depend on most ({where}, values permuted): {', '.join(best)}")
        if self.note:
            lines.append(f"importance of features was not measured: {self.note}")
        return lines


def feature_report(
    scorer: Scorer,
    data: TrainingSet,
    split: Split,
    tables: EvaluationTables,
    resolved: ResolvedModel,
    features: MemberFeatures,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureReport:
    """Measure how often each feature has a value and how much ranks depend on it. The same seed, the same numbers."""
    known = coverage(data)
    state = data.encoder.state
    titles = {*state.title_snapshot, *state.title_categorical, *map(feature_of, state.title_vectors)}
    uses = [FeatureUse(name, "title" if name in titles else "request", share) for name, share in known.items()]
    canvas = _canvas(resolved)
    try:
        case = _sampled(build_case(tables, split, resolved, canvas, fold="validation"), len(uses), seed)
    except StateError as error:
        return FeatureReport(canvas, 0, tuple(uses), str(error))
    trial = _Trial(scorer, case, resolved, canvas, features)
    found = []
    for done, use in enumerate(uses):
        found.append(trial.measured(use, np.random.default_rng([seed, zlib.crc32(use.feature.encode())])))
        if progress is not None:
            progress(done + 1, len(uses))
    found.sort(key=lambda use: (-(use.importance or 0.0), use.feature))
    return FeatureReport(canvas, len(case), tuple(found))


def coverage(data: TrainingSet) -> dict[str, float]:
    """Return the share of training requests, or of titles at the snapshots' moments, that have each feature.

    The numbers of a vector are one feature: they are there together.
    """
    state, context = data.encoder.state, data.context
    snapshots, categorical = data.titles.snapshots[:, 1:], data.titles.categorical[1:]
    known = (
        (state.numeric, ~np.isnan(context.numeric)),
        (state.categorical, context.categorical > 0),
        (state.title_snapshot, ~np.isnan(snapshots)),
        (state.title_categorical, categorical > 0),
        (state.title_vectors, ~np.isnan(data.titles.numeric[1:])),
    )
    return {
        feature_of(name): float(np.mean(present[..., place])) if present.size else 0.0
        for names, present in known
        for place, name in enumerate(names)
    }


def _canvas(resolved: ResolvedModel) -> str:
    names = (resolved.main_canvas, *resolved.canvases)
    return next((name for name in names if resolved.canvas(name).target == "title"), resolved.main_canvas)


def _sampled(case: EvaluationCase, features: int, seed: int) -> EvaluationCase:
    """Return the case with as many requests as time allows, by their moments."""
    most = min(MOST_REQUESTS, max(FEWEST_REQUESTS, PASSES // (features + 1)))
    count = min(len(case), most, max(FEWEST_REQUESTS, CELLS // max(1, len(case.catalogue))))
    chosen = np.random.default_rng(seed).choice(len(case), count, replace=False)
    return case.keep(np.isin(case.rows, chosen)).in_time_order()[0]


class _Trial:
    """The sampled requests, scored once as they are and once for each feature."""

    def __init__(
        self, scorer: Scorer, case: EvaluationCase, resolved: ResolvedModel, canvas: str, features: MemberFeatures
    ) -> None:
        self.case, self.canvas, self.resolved, self._scorer = case, canvas, resolved, scorer
        self._chunks = list(case.chunks())
        requested = [request for chunk in self._chunks for request in chunk.requests]
        self._requests = with_features(requested, resolved.model.features, features)
        self._ranks = self._ranked(self._scorer, self._requests)

    def measured(self, use: FeatureUse, generator: np.random.Generator) -> FeatureUse:
        """Return a feature with what ranks lose when its values change places."""
        if use.coverage == 0.0:
            return replace(use, importance=0.0, error=0.0, ndcg=0.0)
        ranks = self._shuffled_titles(use, generator) if use.of == "title" else self._shuffled_requests(use, generator)
        ranked = (self._ranks > 0) & (ranks > 0)
        if not ranked.any():
            return use
        before, after = self._ranks[ranked], ranks[ranked]
        rise = np.log(after) - np.log(before)
        return replace(
            use,
            importance=float(rise.mean()),
            error=float(rise.std() / np.sqrt(len(rise))),
            ndcg=float(np.mean(_gain(before) - _gain(after))),
        )

    def _shuffled_requests(self, use: FeatureUse, generator: np.random.Generator) -> Floats64:
        order = generator.permutation(len(self._requests))
        known = [{**(request.features or {})} for request in self._requests]
        values = [{name: of for name, of in known[place].items() if feature_of(name) == use.feature} for place in order]
        if len(set(map(str, values))) < 2:
            return self._ranks
        shuffled = [
            replace(request, features={name: of for name, of in own.items() if feature_of(name) != use.feature} | value)
            for request, own, value in zip(self._requests, known, values, strict=True)
        ]
        return self._ranked(self._scorer, shuffled)

    def _shuffled_titles(self, use: FeatureUse, generator: np.random.Generator) -> Floats64:
        order = generator.permutation(len(self._scorer.title_ids))
        return self._ranked(self._scorer.with_shuffled(use.feature, order), self._requests)

    def _ranked(self, scorer: Scorer, requests: Sequence[Request]) -> Floats64:
        function = CanvasScorer(scorer, self.resolved, self.canvas, None)
        aligned = AlignedScorer(self.canvas, function, self.case.catalogue)
        ranks = []
        for chunk in self._chunks:
            part = requests[chunk.start : chunk.start + len(chunk.requests)]
            scores, mask = aligned.score(part, chunk.candidates)
            ranks.append(metrics.target_ranks(scores, chunk.rows, chunk.columns, mask))
        return np.concatenate(ranks).astype(np.float64)


def _gain(ranks: Floats64) -> Floats64:
    return np.where(ranks <= CUT_OFF, 1.0 / np.log2(ranks + 1.0), 0.0)
