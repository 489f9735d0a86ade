"""Policies that fill pages, each with exact propensities, and drawing ranked lists by weights (Plackett and Luce).

A list is drawn place by place. `answer` gives the probability of each title at its place given the places before,
`probabilities` the same for any other lists: the quantities of off-policy evaluation. Axis letters: N questions, T
titles, K places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyFloats, Bools, Floats32, Floats64, Ints32, Ints64
from playbill_lab.simulator.engine.choices import every_leaning
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.policies.table import POLICIES, own_policy
from playbill_lab.simulator.world.behaviour_model import LAW


def repeated(titles: Ints32) -> Bools:
    """Return [N, K]: the title is on the list before that place."""
    same = titles[:, :, None] == titles[:, None, :]
    found: Bools = np.tril(same, -1).any(axis=2)
    return found


def first_arrivals(luck: Floats32, weight: Floats32, wanted: NDArray[np.int16], size: int) -> Ints32:
    """Return [N, size] winners of the race, in order; -1 beyond the candidates or the size wanted."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        arrival = np.divide(luck, weight, out=luck)
    count = min(size, arrival.shape[1])
    front = np.argpartition(arrival, count - 1, axis=1)[:, :count]
    times = np.take_along_axis(arrival, front, 1)
    order = np.argsort(times, axis=1, kind="stable")
    times, front = np.take_along_axis(times, order, 1), np.take_along_axis(front, order, 1)
    real = np.isfinite(times) & (np.arange(count) < wanted[:, None])
    found = np.full((len(weight), size), -1, np.int32)
    found[:, :count] = np.where(real, front, -1)
    return found


def placed(weight: Floats32, titles: Ints32) -> Floats32:
    """Return [N, K] conditional probabilities of lists under weights [N, T]; 0 for what cannot come there."""
    own = np.take_along_axis(weight, np.maximum(titles, 0), 1).astype(np.float64) * (titles >= 0)
    total = weight.sum(axis=1, dtype=np.float64)[:, None]
    # What is left is added up from the end, where small weights are not lost beside large ones.
    rest = np.maximum(total - own.sum(axis=1, keepdims=True), 0.0)
    left = rest + np.cumsum(own[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.divide(own, left, out=np.zeros_like(own), where=own > 0), np.float32)


CHUNK = 512  # Questions scored at once. A draw belongs to a chunk of this size, so that threads do not change it

_DEEPEST, _LOWEST = 30.0, np.float32(-1e30)


class Policy(Protocol):
    """Anything that fills pages."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Fill one list for each question, from `request.candidates()` alone."""
        ...

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return [N, K]: the probability that it puts each title at its place, given the places before; 0 for -1."""
        ...


def load_policy(name: str) -> Policy:
    """Return a registered policy, or your own by `module:attribute`: a policy, or what returns one when it is called.

    Installed packages register policies through the entry points `playbill.policies`.

    Raises:
        UnknownNameError: There is none of this name.
        ConfigError: There is no such module or attribute, or calling it failed.
        DefinitionError: It is no policy; everything that it lacks is named.
    """
    if ":" in name:
        return own_policy(name)
    policy: Policy = POLICIES[name].load()()
    return policy


class ScoredPolicy:
    """Base of policies that rank by a score: draws lists from a softmax of it (Plackett and Luce).

    Subclasses give `logits`. Lists are drawn by an exponential race, equal to the Gumbel top-k trick (Kool, van
    Hoof and Welling, ICML 2019): title t arrives at time E_t / exp(logit_t), and the first K are the list.
    """

    name = "scored"

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return a new array [N, T], float32: log odds of candidates; what is said of others does not matter."""
        raise NotImplementedError

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Draw a list for each question."""
        size = request.places
        titles = np.full((len(request), size), -1, np.int32)
        propensity = np.zeros((len(request), size), np.float32)
        request.candidates()
        for chunk, seed in zip(chunks(request), rng.integers(2**63, size=-(-len(request) // CHUNK)), strict=True):
            part = request.take(chunk)
            weight = self.weights(part)
            luck = np.random.Generator(np.random.SFC64(int(seed))).standard_exponential(weight.shape, np.float32)
            titles[chunk] = first_arrivals(luck, weight, part.size, size)
            propensity[chunk] = placed(weight, titles[chunk])
        return Slates(titles, propensity)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return the probabilities of other lists."""
        found = np.zeros(titles.shape, np.float32)
        for chunk in chunks(request):
            found[chunk] = placed(self.weights(request.take(chunk)), titles[chunk])
        found[repeated(titles)] = 0.0
        return found

    def weights(self, request: PolicyRequest) -> Floats32:
        """Return [N, T]: how likely each title is to be drawn next, up to a factor; 0 where it is no candidate."""
        candidates = request.candidates()
        weight = self.logits(request)
        np.copyto(weight, _LOWEST, where=~candidates)
        weight -= weight.max(axis=1, keepdims=True)
        np.maximum(weight, -_DEEPEST, out=weight)
        np.exp(weight, out=weight)
        weight *= candidates
        return weight


class PlackettLuce(ScoredPolicy):
    """The service's own policy: popularity, a taste estimated from the member's plays, and chance.

    log odds = (popularity log(1 + plays of 7 days) + taste liking + match of what was typed) / temperature.
    The liking of a title is the share of the member's plays with its genres and language, plus likeness to the
    source title where there is one.
    """

    name = "plackett_luce"

    def __init__(
        self, temperature: float = 1.0, popularity: float = 0.2, taste: float = 3.0, language: float = 1.5
    ) -> None:
        self.temperature, self.popularity, self.taste, self.language = temperature, popularity, taste, language

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T]."""
        catalogue, state = request.world.catalogue, request.state
        genres = self.taste * shares(state.genre_plays[request.member])
        sourced = np.flatnonzero(request.source_title >= 0)
        genres[sourced] += 1.5 * catalogue.genre[request.source_title[sourced]]
        spoken = state.language_plays[request.member] + request.world.people.speaks[request.member]
        here = np.eye(len(state.log_plays_7d), dtype=np.float32)[request.country]
        # One product of small matrices is several times faster than adding up [N, T] arrays.
        asks = np.concatenate([genres, self.language * shares(spoken), here], axis=1) / np.float32(self.temperature)
        found: Floats32 = np.asarray(asks @ self._facts(request), np.float32)
        if request.any_typed:
            found += np.float32(12.0 / self.temperature) * request.matches()
        effects = request.world.effects
        if effects is not None and effects.spec.service_sequels:
            every = np.broadcast_to(np.arange(len(catalogue), dtype=np.int32), found.shape)
            found += effects.spec.service_sequels * effects.next_parts(state.recent[request.member], every)
        return found

    def _facts(self, request: PolicyRequest) -> Floats32:
        """Return [G + L + C, T]: each title's genres, its language, its popularity by country."""
        catalogue, popular = request.world.catalogue, self.popularity * request.state.log_plays_7d
        spoken = np.arange(len(catalogue.languages))[:, None] == catalogue.language
        return np.concatenate([catalogue.genre.T, spoken, popular]).astype(np.float32)


class BestFirst(ScoredPolicy):
    """Base of policies that always show the candidates of the highest scores, in that order."""

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Return the best of each question; every propensity is 1."""
        return best(request, self.logits)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return 1 where a list is the policy's own so far, else 0."""
        return same_list(request, best(request, self.logits).titles, titles)


class MostPlayed(BestFirst):
    """The most played of the last seven days in the country."""

    name = "popular"

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T]."""
        found = request.state.log_plays_7d[request.country]
        return found + 12.0 * request.matches() if request.any_typed else found


class BestAppeal(BestFirst):
    """An oracle, for studies: what the member would click most surely."""

    name = "best_appeal"

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T] the probability of a click."""
        return np.asarray(every_leaning(request).click, np.float32)


class BestValue(BestFirst):
    """An oracle, for studies: what adds most to the member's satisfaction, in the mean."""

    name = "best_value"

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T] the expected change of satisfaction if a title is looked at."""
        leaning = every_leaning(request)
        return np.asarray(leaning.click * leaning.play * LAW.satisfying(leaning.satisfaction_logit), np.float32)


class EqualChance(ScoredPolicy):
    """Every order of the candidates is equally likely."""

    name = "uniform"

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return zeros."""
        return np.zeros((len(request), len(request.world.catalogue)), np.float32)


class EpsilonGreedy(ScoredPolicy):
    """At each place any candidate left with probability epsilon (over 0), else the best one by the base's score."""

    name = "epsilon_greedy"

    def __init__(self, base: ScoredPolicy | None = None, epsilon: float = 0.1) -> None:
        if not 0 < epsilon <= 1:
            raise ValueError(f"epsilon must be in (0, 1], got {epsilon:g}")
        self.base, self.epsilon = base or PlackettLuce(), epsilon

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return the base's scores."""
        return self.base.logits(request)

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Draw a list for each question."""
        size = request.places
        titles = np.full((len(request), size), -1, np.int32)
        propensity = np.zeros((len(request), size), np.float32)
        for chunk in chunks(request):
            part = request.take(chunk)
            luck = rng.random((len(part), size, 2))
            titles[chunk], propensity[chunk] = self._walk(part, luck, None)
        return Slates(titles, propensity)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return the probabilities of other lists."""
        found = np.zeros(titles.shape, np.float32)
        for chunk in chunks(request):
            found[chunk] = self._walk(request.take(chunk), None, titles[chunk])[1]
        return found

    def _walk(self, request: PolicyRequest, luck: Floats64 | None, given: Ints32 | None) -> tuple[Ints32, Floats32]:
        """Go through the places; draw titles, or take given ones, and note the probability of each."""
        left = request.candidates().copy()
        logits, rows = self.logits(request), np.arange(len(request))
        size = request.places if given is None else given.shape[1]
        titles = np.full((len(request), size), -1, np.int32) if given is None else given
        found = np.zeros((len(request), size), np.float32)
        for place in range(size):
            count = left.sum(axis=1)
            best_title = np.where(left, logits, -np.inf).argmax(axis=1)
            if luck is not None:
                nth = np.minimum((luck[:, place, 1] * count).astype(np.int64), count - 1)
                anyone = (np.cumsum(left, axis=1) > nth[:, None]).argmax(axis=1)
                drawn = np.where(luck[:, place, 0] < self.epsilon, anyone, best_title)
                titles[:, place] = np.where((count > 0) & (place < request.size), drawn, -1)
            title = titles[:, place]
            there = (title >= 0) & left[rows, title]
            chance = self.epsilon / np.maximum(count, 1) + (1 - self.epsilon) * (title == best_title)
            found[:, place] = np.where(there, np.minimum(chance, 1.0), 0.0)
            left[rows[there], title[there]] = False
        return titles, found


def best(request: PolicyRequest, score: Callable[[PolicyRequest], Floats32]) -> Slates:
    """Return the candidates of the highest scores, the smaller number first among equals; every propensity is 1."""
    size = request.places
    titles = np.full((len(request), size), -1, np.int32)
    for chunk in chunks(request):
        part = request.take(chunk)
        scored = np.where(part.candidates(), score(part), -np.inf)
        order = np.argsort(-scored, axis=1, kind="stable")[:, :size]
        real = np.isfinite(np.take_along_axis(scored, order, 1)) & (np.arange(order.shape[1]) < part.size[:, None])
        titles[chunk, : order.shape[1]] = np.where(real, order, -1)
    return Slates(titles, (titles >= 0).astype(np.float32))


def same_list(request: PolicyRequest, own: Ints32, titles: Ints32) -> Floats32:
    """Return 1 where `titles` are a deterministic policy's `own` up to and with that place, else 0."""
    same = (own[:, : titles.shape[1]] == titles) & (titles >= 0)
    return np.asarray(np.logical_and.accumulate(same, axis=1), np.float32)


def chunks(request: PolicyRequest) -> Iterator[Ints64]:
    """Yield the places of at most `CHUNK` questions at a time."""
    for first in range(0, len(request), CHUNK):
        yield np.arange(first, min(first + CHUNK, len(request)))


def shares(counts: AnyFloats) -> Floats32:
    """Bring each row of counts to a sum of 1, or leave it zero."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0), np.float32)
