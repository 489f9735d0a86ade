"""Direct models of a shown title's reward, cross-fitted by member, for the doubly robust estimators.

Axis letters: S slates, T titles, n logged rows, F features. A member's rows are predicted by a model that was fitted
without that member: fitted on its own rows it would repeat their noise, and doubly robust estimates would be biased.
Source: Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from playbill.arrays import Floats32, Floats64, Indices, Mask
from playbill.errors import ConfigError, StateError

DirectKind = Literal["ridge", "boosted"]

FOLDS = 3
_PRIOR = 20.0  # rows that a mean is pulled to the overall mean by
_CELLS_AT_ONCE = 2_000_000
_MOST_BOOSTED_CELLS = 60_000_000


@dataclass(frozen=True)
class DirectLog:
    """What a direct model learns from."""

    members: Indices  # [S] member of each slate, dense codes
    groups: Indices  # [S] code of the request's group, such as its country; dense from 0
    scores: Floats64  # [S, T] the target model's scores
    candidates: Mask  # [S, T]
    slates: Indices  # [n] slate of each row
    positions: Indices  # [n] place of each row
    titles: Indices  # [n] title column of each row; -1 = not in the catalogue, and then not learned from
    reward: Floats64  # [n]


@dataclass(frozen=True)
class DirectModel:
    """What was learned: `quality` [S, T] is each title's mean reward, `factor` [K] what a place multiplies it by.

    `fit` is the share of the rewards' variance that held-out predictions explain (R squared); it may be negative.
    """

    quality: Floats32
    factor: Floats64
    fit: float

    def of_rows(self, slates: Indices, positions: Indices, titles: Indices) -> Floats64:
        """Return [n] predictions of logged rows; 0 for a title that is not in the catalogue."""
        value = self.quality[slates, np.maximum(titles, 0)] * self.factor[positions]
        return np.where(titles >= 0, value, 0.0)


def fit_direct(log: DirectLog, kind: DirectKind = "ridge", *, folds: int = FOLDS, seed: int = 0) -> DirectModel:
    """Fit a direct model on some members and predict the others, in turn.

    Features: the title's mean reward and number of rows, the group's mean reward, and the target model's score
    against the request's other candidates, all from the rows of other folds. `ridge` is linear in them and fast;
    `boosted` is gradient-boosted trees, for at most 60 million slate x title cells.

    Raises:
        ConfigError: An unknown kind, fewer than two folds, or more cells than trees can predict.
        StateError: Fewer members than folds.
    """
    cells = log.scores.size
    if kind not in ("ridge", "boosted") or folds < 2:
        raise ConfigError(f"a direct model is 'ridge' or 'boosted' with at least 2 folds, got '{kind}', {folds}")
    if kind == "boosted" and cells > _MOST_BOOSTED_CELLS:
        raise ConfigError(f"'boosted' predicts at most {_MOST_BOOSTED_CELLS:,} cells, got {cells:,}; take 'ridge'")
    people = int(log.members.max(initial=-1)) + 1
    if people < folds:
        raise StateError(f"a direct model with {folds} folds needs as many members, got {people}")
    fold = np.random.default_rng(seed).permutation(people)[log.members] % folds
    standard = _standardised(log.scores, log.candidates)
    factor = _place_factor(log)
    quality = np.zeros(log.scores.shape, dtype=np.float32)
    for held in range(folds):
        _predict_fold(log, kind, standard, factor, fold, held, quality, seed)
    model = DirectModel(quality, factor, 0.0)
    predicted = model.of_rows(log.slates, log.positions, log.titles)
    rest, whole = np.mean((log.reward - predicted) ** 2), np.var(log.reward)
    return DirectModel(quality, factor, float(1.0 - rest / whole) if whole > 0.0 else 0.0)


def _predict_fold(
    log: DirectLog,
    kind: DirectKind,
    standard: Floats32,
    factor: Floats64,
    fold: Indices,
    held: int,
    quality: Floats32,
    seed: int,
) -> None:
    """Fit on every other fold and write the held one's [S, T] predictions into `quality`."""
    learned = (fold[log.slates] != held) & (log.titles >= 0)
    slates, titles = log.slates[learned], log.titles[learned]
    reward = log.reward[learned] / np.maximum(factor[log.positions[learned]], 1e-6)
    table = _Means.of(log, slates, titles, reward)
    learner = _learner(kind, seed)
    learner.fit(table.features(standard[slates, titles], log.groups[slates], titles), reward)
    width = quality.shape[1]
    for part in _parts(np.flatnonzero(fold == held), width):
        rows = np.repeat(part, width)
        columns = np.tile(np.arange(width), part.size)
        found = learner.predict(table.features(standard[rows, columns], log.groups[rows], columns))
        quality[part] = found.reshape(part.size, width)


@dataclass(frozen=True)
class _Means:
    title: Floats64
    seen: Floats64
    group: Floats64

    @classmethod
    def of(cls, log: DirectLog, slates: Indices, titles: Indices, reward: Floats64) -> _Means:
        overall = float(reward.mean()) if reward.size else 0.0
        groups = int(log.groups.max(initial=0)) + 1
        title, seen = _smoothed(titles, reward, log.scores.shape[1], overall)
        return cls(title, np.log1p(seen), _smoothed(log.groups[slates], reward, groups, overall)[0])

    def features(self, standard: Floats32, groups: Indices, titles: Indices) -> Floats64:
        """Return [n, F]."""
        title = self.title[titles]
        return np.stack([title, self.seen[titles], self.group[groups], standard, standard * title], axis=1)


def _smoothed(codes: Indices, reward: Floats64, size: int, overall: float) -> tuple[Floats64, Floats64]:
    count = np.bincount(codes, minlength=size).astype(np.float64)
    total = np.bincount(codes, weights=reward, minlength=size)
    return (total + _PRIOR * overall) / (count + _PRIOR), count


def _place_factor(log: DirectLog) -> Floats64:
    """[K] mean reward at each place over the mean at all places."""
    overall = float(log.reward.mean())
    places = int(log.positions.max(initial=0)) + 1
    if overall == 0.0:
        return np.ones(places)
    means, _ = _smoothed(log.positions, log.reward, places, overall)
    # A mean of the other sign would turn predictions round; such a place is taken as worth nothing
    return np.maximum(means / overall, 0.0)


def _standardised(scores: Floats64, candidates: Mask) -> Floats32:
    """[S, T] scores minus the mean of the request's candidates, over their spread, cut at six spreads."""
    count = np.maximum(candidates.sum(axis=1, keepdims=True), 1)
    kept = np.where(candidates, scores, 0.0)
    mean = kept.sum(axis=1, keepdims=True) / count
    spread = np.sqrt(np.where(candidates, (scores - mean) ** 2, 0.0).sum(axis=1, keepdims=True) / count)
    standard: Floats32 = np.clip((scores - mean) / np.maximum(spread, 1e-9), -6.0, 6.0).astype(np.float32)
    return standard


def _learner(kind: DirectKind, seed: int) -> Any:
    if kind == "ridge":
        return make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    return HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15, min_samples_leaf=40, random_state=seed)


def _parts(rows: Indices, width: int) -> Iterator[Indices]:
    step = max(1, _CELLS_AT_ONCE // max(1, width))
    for start in range(0, rows.size, step):
        yield rows[start : start + step]
