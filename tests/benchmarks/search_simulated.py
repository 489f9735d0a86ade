"""Search on the simulated service: what members wanted is known, whether it can be shown or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from asked_service import Service
from search_measures import (
    QUERY_LENGTHS,
    Searches,
    accuracy,
    first_titles,
    nearness,
    target_ranks,
)

from playbill.datasets import Request
from playbill.datasets.encoding.text import fold
from playbill.evaluation.beside import Matching, NameMatch
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder
from playbill.metrics.bootstrap import member_bootstrap
from playbill.ranking.scoring.scorer import Scorer

HEAD, TEXT, NEAR = "new_play", "text", "text_neighbours"
BLENDS = {
    "head alone": {HEAD: 1.0},
    "text alone": {TEXT: 1.0},
    "head and text": {HEAD: 1.0, TEXT: 16.0},
    "all": {HEAD: 1.0, TEXT: 16.0, NEAR: 4.0},
}
WEIGHTS = {TEXT: (0.0, 8.0, 16.0, 24.0, 32.0), NEAR: (0.0, 2.0, 4.0, 8.0)}
MADE = ("person", "genre")
LOST = 0.97
"""Share of the best accuracy for known titles that a blend must keep; among those the nearest lists win."""


@dataclass(frozen=True)
class PolicyRequest:
    """N searches with all that judges an answer.

    Args:
        searches: As they were typed.
        candidates: [N, T].
        target: [N] column of what was wanted, `UNKNOWN` where it has no id.
        liked: [N, T] how much its member would like each title: the truth, from 0 on.
        like: [N, T] how like what was wanted each title is: the truth; nan where nothing that has an id was.
        terms: Name -> [N, T] scores.
    """

    searches: Searches
    candidates: np.ndarray
    target: np.ndarray
    liked: np.ndarray
    like: np.ndarray
    terms: dict[str, np.ndarray]

    def score(self, blend: dict[str, float]) -> np.ndarray:
        """Return [N, T] blended scores; a constant per search does not matter."""
        return sum(weight * self.terms[name] for name, weight in blend.items() if weight)

    def take(self, chosen: np.ndarray) -> PolicyRequest:
        """Return some of the searches."""
        cut = {name: values[chosen] for name, values in self.terms.items()}
        arrays = (self.candidates, self.target, self.liked, self.like)
        return PolicyRequest(self.searches.keep(chosen), *(values[chosen] for values in arrays), cut)


def ask(own: Service, scorer: Scorer, searches: Searches) -> PolicyRequest:
    """Score searches with everything that is compared."""
    world = own.world
    catalogue = TitleOrder(tuple(scorer.title_ids))
    requests = searches.requests()
    scorer.remember([request.at for request in requests])
    found = {name: [] for name in (HEAD, TEXT, NEAR)}
    for start in range(0, len(requests), 512):
        for name, values in scorer.score(requests[start : start + 512], tuple(found)).items():
            found[name].append(values)
    terms = {name: np.concatenate(parts) for name, parts in found.items()}
    plays = own.log.events.filter((pl.col("action") == "play") & (pl.col("event_at") < own.validation))
    shares = np.bincount(catalogue.codes(plays["title_id"]), minlength=len(catalogue)) / max(plays.height, 1)
    names = world.titles.with_columns(column=pl.Series(catalogue.codes(world.titles["title_id"]))).sort("column")[
        "name"
    ]
    prefix = Matching(NameMatch([" ".join(fold(name).split()) for name in names]), Shares(shares))
    terms |= {"popular": np.tile(shares, (len(requests), 1)), "prefix match": prefix.score(requests)}
    target = catalogue.codes(searches.frame["wanted"])
    order = catalogue.places_in(world.title_ids.to_list())
    vectors = world.truth.vector[order]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    like = np.where(target[:, None] == UNKNOWN, np.nan, np.maximum(unit[target] @ unit.T, 0.0))
    members = TitleOrder(tuple(world.member_ids.to_list())).codes(searches.frame["member_id"])
    liked = np.maximum(world.truth.taste[members] @ vectors.T, 0.0)
    return PolicyRequest(searches, searches.candidates(world.availability, catalogue), target, liked, like, terms)


@dataclass(frozen=True)
class Shares:
    """A popularity list."""

    shares: np.ndarray

    def score(self, requests: list[Request]) -> np.ndarray:
        """Return the same [N, T] for every request."""
        return np.tile(self.shares, (len(requests), 1))


def logged(own: Service) -> tuple[Searches, Searches]:
    """Return the searches of the week that chooses and of the one that judges, for what their members wanted."""
    found = Searches.logged(own.log.events, own.validation)
    wanted = found.frame.select("request_id").join(own.wanted, on="request_id", how="left", maintain_order="left")
    found = found.wanting(wanted["title"])
    late = (found.frame["at"] >= own.test).to_numpy()
    return found.keep(~late), found.keep(late)


def choose(requested: PolicyRequest) -> tuple[dict[str, float], list[dict]]:
    """Pick the weights of the blend: known titles first, and of those as good the nearest for what is not there."""
    grid = []
    for text in WEIGHTS[TEXT]:
        for near in WEIGHTS[NEAR]:
            blend = {HEAD: 1.0, TEXT: text, NEAR: near}
            rows = judged(requested, requested.score(blend))
            known, away = rows["known"]["ndcg@10"], rows["away"]["nearness"]
            grid.append({"blend": blend, "known": float(np.nanmean(known)), "away": float(np.nanmean(away))})
    enough = LOST * max(row["known"] for row in grid)
    best = max((row for row in grid if row["known"] >= enough), key=lambda row: row["away"])
    return best["blend"], grid


def judged(requested: PolicyRequest, scores: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return metric -> one value per search, nan outside the group, for each group by what was wanted.

    known: it can be shown here. away: the service knows it, but it cannot be shown here, or not yet. nowhere: no
    title has the name.
    """
    lists = first_titles(scores, requested.candidates)
    ranks = target_ranks(scores, requested.candidates, requested.target)
    known, nowhere = ~np.isnan(ranks), requested.target == UNKNOWN
    filled = (lists != UNKNOWN).any(axis=1).astype(np.float64)
    like = np.nan_to_num(requested.like)
    return {
        "known": {name: np.where(known, values, np.nan) for name, values in accuracy(ranks).items()},
        "away": {"nearness": np.where(~known & ~nowhere, nearness(lists, like, requested.candidates), np.nan)},
        "nowhere": {"taste": np.where(nowhere, nearness(lists, requested.liked, requested.candidates), np.nan)},
        "all": {"filled": filled},
    }


def table(requested: PolicyRequest, arms: dict[str, np.ndarray], resamples: int) -> dict:
    """Return arm -> group -> metric -> mean, interval and n."""
    members = requested.searches.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return {
        name: {
            group: {metric: mean(values, members, resamples) for metric, values in metrics.items()}
            for group, metrics in judged(requested, scores).items()
        }
        for name, scores in arms.items()
    }


def keystrokes(searches: Searches) -> dict[str, Searches]:
    """Return query length -> the searches of four letters and more as they stood after so many letters."""
    letters = searches.frame["query"].str.strip_chars().str.len_chars()
    long = searches.keep((letters >= 4).to_numpy())
    cut = {length: long.frame["query"].str.slice(0, int(length)).str.strip_chars_end() for length in QUERY_LENGTHS[:3]}
    return {**{length: long.asking(text) for length, text in cut.items()}, QUERY_LENGTHS[3]: long}


def mean(values: np.ndarray, members: np.ndarray, resamples: int) -> dict | None:
    """Return the mean of what is a number, its 95 % interval by members, and n; None where nothing is."""
    there = ~np.isnan(values)
    if not there.any():
        return None
    _, own = np.unique(members[there], return_inverse=True)
    interval = member_bootstrap(own, values[there], resamples=resamples)
    return {"value": interval.value, "interval": [interval.low, interval.high], "n": int(there.sum())}


def made(own: Service, searches: Searches, kind: str, letters: int | None) -> Searches:
    """Return the searches of known titles with another query: a character's name, or a genre, and its first letters."""
    titles = own.world.titles.select("title_id", "characters", "genres")
    column = {"person": "characters", "genre": "genres"}[kind]
    facts = searches.frame.select(title_id="wanted").join(titles, on="title_id", how="left", maintain_order="left")
    text = facts[column].list.first().fill_null("").str.replace_all("_", " ").str.to_lowercase()
    cut = text if letters is None else text.str.slice(0, letters).str.strip_chars_end()
    return searches.asking(cut).keep((cut.str.len_chars() > 0).to_numpy())


def sharing(own: Service, requested: PolicyRequest, titles: tuple[str, ...], kind: str) -> np.ndarray:
    """Return [N, T] whether each title has the character or genre of the query."""
    column = {"person": "characters", "genre": "genres"}[kind]
    world = own.world
    lists = dict(zip(world.titles["title_id"].to_list(), world.titles[column].to_list(), strict=True))
    first = [lists[title][0] for title in requested.searches.frame["wanted"]]
    has = {value: np.array([value in (lists[title] or []) for title in titles]) for value in set(first)}
    return np.stack([has[value] for value in first])
