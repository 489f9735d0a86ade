"""The baselines that stand beside a model on every canvas: fitted once for a log, asked as the canvas is.

For a query they rank the titles that match what was typed, for a source title its neighbours, and where nothing can be
played yet they read reminders as plays. All rank the model's own candidates.
Axis letters: N requests, T titles.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from playbill.arrays import Bools
from playbill.datasets import Request
from playbill.datasets.encoding.text import fold as fold_text
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.definitions.specs import CanvasSpec, ResolvedModel
from playbill.definitions.specs.measures import BESIDE
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.cases.boundaries import assert_fitted_before
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import PLAY
from playbill.evaluation.cases.score_function import ScoreFunction, Scores

MOST_TITLES = {"ease": 8_000, "item_knn": 100_000}
"""Baseline -> titles up to which it stands beside every model. EASE inverts a T x T matrix: 4 CPU seconds at
4,000 titles, eight times as many at twice the titles. Named in `baselines`, it is fitted up to its own limit."""
_LAST = chr(0x10FFFF)


def chosen(
    baselines: Sequence[str] | None, case: EvaluationCase, resolved: ResolvedModel
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a case's baselines, and notes about those that are left out.

    Given names are taken as they are; by default those of every model and the model's own, without those that a
    catalogue of this size would make slow.
    """
    if baselines is not None:
        return tuple(dict.fromkeys(baselines)), ()
    names, size = tuple(dict.fromkeys((*BESIDE, *resolved.model.evaluate.baselines))), len(case.catalogue)
    left = {name: MOST_TITLES[name] for name in names if size > MOST_TITLES.get(name, size)}
    notes = tuple(
        f"'{name}' is left out: it is slow with {size:,} titles (it stands beside every model up to {most:,}); "
        f"`playbill evaluate --baselines {name}` fits it all the same"
        for name, most in left.items()
    )
    return tuple(name for name in names if name not in left), notes


@dataclass
class Beside:
    """Baselines of one log, each fitted when it is first asked for and then shared by all canvases.

    A baseline may depend on the titles, the log and the moment a replay has got to, not on the canvas.
    """

    _fitted: dict[tuple[object, ...], ScoreFunction] = field(default_factory=dict)

    def of(self, names: Iterable[str], case: EvaluationCase, resolved: ResolvedModel) -> dict[str, ScoreFunction]:
        """Return baselines as a case's canvas asks them.

        Raises:
            UnknownNameError: No baseline has the name.
            ConfigError: The catalogue is too large for one of them.
            IntegrityError: One would be fitted on plays at or after a request of the case.
        """
        spec = resolved.canvas(case.canvas)
        actions = _actions(spec, resolved)
        known = replace(case, log=case.log.counting(actions)) if actions else case
        typed = NameMatch(folded_names(case)) if "query" in spec.context else None
        found: dict[str, ScoreFunction] = {}
        for name in dict.fromkeys(names):
            function = self._fit(name, known, actions)
            if actions:
                function = CountingAsPlays(function, actions)
            if "source_title" in spec.context:
                function = FromSource(function, alone=name == "item_knn")
            found[name] = function if typed is None else Matching(function, typed)
        return found

    def _fit(self, name: str, case: EvaluationCase, actions: tuple[str, ...]) -> ScoreFunction:
        key = (name, actions, case.log.protocol in TIME_PROTOCOLS, case.log.fitted_until)
        if key not in self._fitted:
            self._fitted[key] = build_baseline(name, case)
        assert_fitted_before(case)
        return self._fitted[key]


def _actions(spec: CanvasSpec, resolved: ResolvedModel) -> tuple[str, ...]:
    """Return the actions that count as plays on a canvas of what cannot be played yet; none on any other."""
    rule = resolved.labels[spec.metric].events
    if spec.candidates.available == "now" or rule is None:
        return ()
    return tuple(sorted({PLAY, *rule.action}))


@dataclass(frozen=True)
class _Wrapped:
    function: ScoreFunction

    @property
    def title_ids(self) -> Sequence[str]:
        """The baseline's titles."""
        return self.function.title_ids


@dataclass(frozen=True)
class CountingAsPlays(_Wrapped):
    """A baseline that reads other actions of a history as plays, as it was fitted."""

    actions: tuple[str, ...]

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return the baseline's [N, T] scores."""
        counted = pl.col("action").cast(pl.String).is_in(self.actions)
        as_plays = pl.when(counted).then(pl.lit(PLAY)).otherwise("action").alias("action")
        pasts = (None if one.history is None else one.history.with_columns(as_plays) for one in requests)
        return self.function.score([replace(one, history=past) for one, past in zip(requests, pasts, strict=True)])


@dataclass(frozen=True)
class FromSource(_Wrapped):
    """A baseline asked about the title that a list is about, as if the member had just played it.

    `alone`: the source stands for the whole history, else it is added to it.
    """

    alone: bool

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return the baseline's [N, T] scores; a request without a source is asked as it is."""
        return self.function.score([self._about(one) for one in requests])

    def _about(self, request: Request) -> Request:
        if request.source_title_id is None:
            return request
        source = pl.DataFrame({"title_id": [request.source_title_id], "action": [PLAY]})
        if self.alone or request.history is None:
            return replace(request, history=source)
        past = request.history.select(pl.col("title_id", "action").cast(pl.String))
        return replace(request, history=pl.concat([past, source]))


@dataclass(frozen=True)
class Matching(_Wrapped):
    """The search that every product starts with: titles with a word for each typed one, in a baseline's order.

    The last typed word may be unfinished. It knows no typing mistakes: titles that do not match follow, in the same
    order.
    """

    names: NameMatch

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T]: 2 for a match, plus the baseline's scores brought to [0, 1]."""
        raw = self.function.score(requests)
        low, high = raw.min(axis=1, keepdims=True), raw.max(axis=1, keepdims=True)
        scores: Scores = np.subtract(raw, low, dtype=np.float64)
        scores /= np.maximum(np.subtract(high, low, dtype=np.float64), np.finfo(np.float64).tiny)
        for row, request in zip(scores, requests, strict=True):
            row[self.names.matches(fold_text(request.query or ""))] += 2.0
        return scores


class NameMatch:
    """Which names ([T], folded) have a word that begins like each typed one."""

    def __init__(self, names: Sequence[str]) -> None:
        words = pl.DataFrame({"word": pl.Series(names, dtype=pl.String).str.split(" ")}).with_row_index("title")
        words = words.explode("word").sort("word")
        # A list: a search in a polars series costs a thousand times as much. Both order texts by code point.
        self._words, self._titles, self._count = words["word"].to_list(), words["title"].to_numpy(), len(names)

    def matches(self, query: str) -> Bools:
        """Return [T] for a folded query; everything matches where nothing readable was typed."""
        found = np.ones(self._count, dtype=np.bool_)
        for word in query.split():
            first, last = (bisect_left(self._words, end) for end in (word, word + _LAST))
            own = np.zeros(self._count, dtype=np.bool_)
            own[self._titles[first:last]] = True
            found &= own
        return found


def folded_names(case: EvaluationCase) -> list[str]:
    """Return the catalogue's folded names, [T], without years in brackets."""
    ordered = pl.DataFrame({"title_id": case.catalogue.title_ids}).join(
        case.tables.titles.select("title_id", "name"), on="title_id", how="left", maintain_order="left"
    )
    plain = ordered["name"].fill_null("").str.replace(r"\s*\(\d{4}\)\s*$", "")
    return [" ".join(fold_text(name).split()) for name in plain]
