"""Countries' weights on held-out requests: the canvas as it is served, with one set of weights after the other.

Histories are read once for all of them: weights of countries come after the trunk, whose states a scorer keeps.
Letters: N requests, G countries, E sets of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import Floats64
from playbill.continual.pooling import SEED, choose, country_gains
from playbill.datasets import Request
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.score_function import MemberFeatures, Scores
from playbill.evaluation.measure import measure
from playbill.metrics import Interval, MemberBootstrap
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.country_adapters import Adapter, set_adapters

CUT = 10
MOST_REQUESTS = 2_000  # of a country on the validation fold
LEAST_MEMBERS = 8  # with examples, and with validation requests: with fewer nothing can be told from chance
METRIC = f"ndcg@{CUT}"


class _AdaptedCanvas:
    """One set of weights on a canvas; what was looked up of a chunk's requests is shared with the other sets."""

    def __init__(self, canvas: CanvasScorer, adapters: Mapping[int, Adapter], looked_up: _LookedUp) -> None:
        self._canvas, self._adapters, self._looked_up = canvas, adapters, looked_up

    @property
    def title_ids(self) -> Sequence[str]:
        """The titles the model scores."""
        return self._canvas.title_ids

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] blended scores with these weights."""
        set_adapters(self._canvas.scorer.network, self._adapters)
        return self._canvas.score(self._looked_up.of(requests))


class _LookedUp:
    """Features of the requests that were asked about last: every set of weights is asked about the same ones."""

    def __init__(self, canvas: CanvasScorer) -> None:
        self._canvas = canvas
        self._last: tuple[Sequence[Request], Sequence[Request]] = ((), ())

    def of(self, requests: Sequence[Request]) -> Sequence[Request]:
        if self._last[0] is not requests:
            self._last = (requests, self._canvas.with_features(requests))
        return self._last[1]


def ndcg_by_request(
    case: EvaluationCase,
    scorer: Scorer,
    resolved: ResolvedModel,
    features: MemberFeatures | None,
    sets: Sequence[Mapping[int, Adapter]],
) -> Floats64:
    """Return [E, N] NDCG@10 of a case's requests with each set of weights, all of the same countries.

    The scorer's network has the last set afterwards.
    """
    canvas = CanvasScorer(scorer, resolved, case.canvas, None)
    looked_up = _LookedUp(CanvasScorer(scorer, resolved, case.canvas, features))
    functions = {str(place): _AdaptedCanvas(canvas, own, looked_up) for place, own in enumerate(sets)}
    found = measure(case, functions, (CUT,))
    return np.stack([own.values[METRIC] for own in found.values()])


def some_requests(case: EvaluationCase, countries: Sequence[str], most: int) -> EvaluationCase:
    """Return the requests from some countries, of each at most so many, drawn at random."""
    country = case.frame["country"]
    kept = np.zeros(len(case), np.bool_)
    for place, code in enumerate(sorted(countries)):
        own = np.flatnonzero((country == code).fill_null(False).to_numpy())
        kept[np.random.default_rng((SEED, place)).permutation(own)[:most]] = True
    return case.keep(kept[case.rows])


@dataclass(frozen=True)
class Choice:
    """What the validation fold says."""

    taken: dict[str, tuple[int, float]]  # country -> which of its weights, and their gain
    members: dict[str, int]  # country -> members with a request
    best: dict[str, float]  # country with members enough -> the best of its gains


def interval_of(frame: pl.DataFrame, values: Floats64) -> Interval:
    """Return the mean of a number of each request, with its interval over members."""
    codes = frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return MemberBootstrap(codes, seed=SEED).intervals(values[:, None])[0]


def choose_weights(
    case: EvaluationCase,
    scorer: Scorer,
    resolved: ResolvedModel,
    features: MemberFeatures | None,
    start: Mapping[int, Adapter],
    paths: Mapping[int, Sequence[Adapter]],
    known: Sequence[str],
) -> Choice:
    """Choose each country's weights among those of its path, or none, on requests that none of them has seen.

    Args:
        case: The validation fold of a canvas.
        scorer: Its network has low-rank weights of countries.
        resolved: The definition of the version.
        features: Of members and requests.
        start: What countries have now, by index.
        paths: What they may have, from the most cautious one on, by index; all of one length.
        known: The version's countries.
    """
    codes = [known[index - 1] for index in paths]
    case = some_requests(case, codes, MOST_REQUESTS)
    members = dict(case.frame.group_by("country").agg(pl.col("member_id").n_unique()).iter_rows())
    judged = [code for code in codes if members.get(code, 0) >= LEAST_MEMBERS]
    if not judged:
        return Choice({}, members, {})
    length = min(len(path) for path in paths.values())
    sets = [start, *({index: path[place] for index, path in paths.items()} for place in range(length))]
    gains = country_gains(case.frame, ndcg_by_request(case, scorer, resolved, features, sets), judged)
    chosen, means, _ = choose(gains.means, gains.errors, gains.requests)
    taken = {
        code: (int(place), float(means[row, place]))
        for row, (code, place) in enumerate(zip(judged, chosen, strict=True))
        if place >= 0
    }
    return Choice(taken, members, {code: float(means[row].max()) for row, code in enumerate(judged)})
