"""A model that Playbill serves, as a policy of the simulated service: the same scorer, blends, rules and features.

Axis letters: N questions, U requests (questions that ask the same count once), T titles, K places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from playbill.arrays import AnyFloats, Bools, Floats32, Ints32, Ints64
from playbill.clock import from_microseconds
from playbill.datasets import Request
from playbill.definitions.specs import CandidatesSpec, ResolvedModel, RowSpec
from playbill.errors import ConfigError
from playbill.evaluation import CanvasScorer
from playbill.metrics.topk import NOT_LISTED, top_k
from playbill.ranking.blend import blend_rows, head_losses
from playbill.ranking.candidates import ABSENT, Catalogue, MemberHistory, Viewer, select
from playbill.ranking.scoring.scorer import Scorer
from playbill_lab.bridge.live_features import COUNTED_OF_TITLES, SimulationFeatures
from playbill_lab.simulator import Policy, PolicyRequest, Slates, World
from playbill_lab.simulator.policies.policies import MostPlayed, ScoredPolicy, same_list
from playbill_lab.simulator.world.canvases import CANVASES, DEVICES, ROWS
from playbill_lab.simulator.world.state import State

Key = tuple[int, str, str | None, int]
"""Request, canvas that is scored, query, source title. A request is a page: its rows are ranked from one scoring."""
Heads = Mapping[str, AnyFloats]


@dataclass(frozen=True)
class Question:
    """What one question comes down to."""

    key: Key
    blend: Mapping[str, float]  # Head -> weight
    rules: CandidatesSpec | None  # The zoo's rule about candidates; None where only the simulated service has one


class ModelPolicy(ScoredPolicy):
    """Answers with a model, as `serve` would: heads scored, blended by canvas or row, ranked among the candidates.

    A title is a candidate if the simulated service could show it (available there and then, not on the page yet) and
    the canvas's or row's own rule in the zoo allows it. Canvases that the model does not serve, and rows that the zoo
    ranks by a policy, are answered by `elsewhere`; `answered` counts both.

    Raises:
        ConfigError: The model has none of the simulated service's canvases, or the scorer none of its titles.
    """

    def __init__(
        self,
        name: str,
        scorer: Scorer,
        resolved: ResolvedModel,
        world: World,
        features: SimulationFeatures,
        elsewhere: Policy | None = None,
    ) -> None:
        self.name, self.scorer, self.resolved, self.world, self.features = name, scorer, resolved, world, features
        self.elsewhere: Policy = elsewhere or MostPlayed()
        self.answered = {"model": 0, "elsewhere": 0}
        self._check()
        columns = {title: place for place, title in enumerate(scorer.title_ids)}
        self._column = np.array([columns[title] for title in world.title_ids], np.int64)
        self._losses = head_losses(resolved)
        self._catalogue = Catalogue(world.title_ids.to_list(), world.titles, world.availability)
        self._served = np.array([canvas in resolved.canvases for canvas in CANVASES])
        canvas = next(canvas for canvas in CANVASES if canvas in resolved.canvases)
        self._with_features = CanvasScorer(scorer, resolved, canvas, features).with_features
        self._rows = {place: resolved.rows.get(row) for place, row in enumerate(ROWS)}
        self._by_policy = np.array([row is not None and row.blend is None for row in self._rows.values()] + [False])
        self._scored: dict[Key, Heads] = {}
        self._run: State | None = None
        self._day = -1
        self._plays = pl.DataFrame()

    def _check(self) -> None:
        if not set(CANVASES) & set(self.resolved.canvases):
            raise ConfigError(f"{self.name} serves none of the simulated canvases ({', '.join(CANVASES)})")
        known = set(self.scorer.title_ids)
        if unknown := [title for title in self.world.title_ids if title not in known]:
            what = f"{self.name} cannot score {len(unknown)} titles of the world, such as {unknown[0]}"
            raise ConfigError(f"{what}; make its scorer over the world's titles")

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Return the model's best candidates for each question; every propensity of its own is 1."""
        mine = self._mine(request)
        titles = np.full((len(request), request.places), -1, np.int32)
        propensity = np.zeros(titles.shape, np.float32)
        self.answered["model"] += int(mine.sum())
        self.answered["elsewhere"] += int((~mine).sum())
        if (own := np.flatnonzero(mine)).size:
            part = request.take(own)
            titles[own, : part.places] = self._best(part)
            propensity[own] = titles[own] >= 0
        if (rest := np.flatnonzero(~mine)).size:
            part = request.take(rest)
            others = self.elsewhere.answer(part, rng)
            titles[rest, : part.places] = others.titles[:, : part.places]
            propensity[rest, : part.places] = others.propensity[:, : part.places]
        return Slates(titles, propensity)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return 1 where a list is the model's own so far, else 0; other questions are `elsewhere`'s."""
        mine = self._mine(request)
        found = np.zeros(titles.shape, np.float32)
        if (own := np.flatnonzero(mine)).size:
            part = request.take(own)
            best = np.full((len(own), titles.shape[1]), -1, np.int32)
            best[:, : part.places] = self._best(part)
            found[own] = same_list(part, best, titles[own])
        if (rest := np.flatnonzero(~mine)).size:
            found[rest] = self.elsewhere.probabilities(request.take(rest), titles[rest])
        return found

    def logits(self, request: PolicyRequest) -> Floats32:
        """Return [N, T] blended scores, -inf where the zoo's rules allow no title; for policies built on this one.

        Raises:
            ConfigError: Some questions are not the model's, and who answers them has no scores.
        """
        mine = self._mine(request)
        found = np.empty((len(request), len(self.world.title_ids)), np.float32)
        if (own := np.flatnonzero(mine)).size:
            found[own] = self._blended(request.take(own))
        if (rest := np.flatnonzero(~mine)).size:
            if not isinstance(self.elsewhere, ScoredPolicy):
                raise ConfigError(f"{self.elsewhere.name} answers what {self.name} does not, and it has no scores")
            found[rest] = self.elsewhere.logits(request.take(rest))
        return found

    def _mine(self, request: PolicyRequest) -> Bools:
        mine: Bools = self._served[request.canvas] & ~self._by_policy[request.row]
        return mine

    def _best(self, request: PolicyRequest) -> Ints32:
        scores = self._blended(request)
        best = top_k(scores, request.places, request.candidates() & np.isfinite(scores)).astype(np.int32)
        best[best == NOT_LISTED] = -1
        best[np.arange(best.shape[1]) >= request.size[:, None]] = -1
        return best

    def _blended(self, request: PolicyRequest) -> Floats32:
        """Return [N, T] scores by the world's title numbers, -inf where a rule of the zoo forbids a title."""
        questions = self._questions(request)
        self._score(request, [question.key for question in questions])
        found = np.empty((len(questions), len(self._column)), np.float32)
        for weights, rows in _by_blend(questions):
            known = [self._scored[questions[row].key] for row in rows]
            logits = {head: np.stack([heads[head] for heads in known]) for head in weights}
            # Over every title instead of over candidates: that shifts a request's scores by one constant per head.
            found[rows] = blend_rows(logits, self._losses, weights)[:, self._column]
        for row, question in enumerate(questions):
            if question.rules is not None:
                found[row, ~self._allowed(request, row, question.rules)] = -np.inf
        return found

    def _questions(self, request: PolicyRequest) -> list[Question]:
        codes = zip(request.request.tolist(), request.canvas.tolist(), request.row.tolist(), strict=True)
        texts = zip(request.query.to_list(), request.source_title.tolist(), strict=True)
        return [self._question(*code, *text) for code, text in zip(codes, texts, strict=True)]

    def _question(self, request: int, canvas: int, row: int, query: str | None, source: int) -> Question:
        name, spec = CANVASES[canvas], self._rows.get(row)
        scored = self._scored_as(name, spec)
        reads = self.resolved.canvases[scored].context
        own = self.resolved.canvases[scored]
        key = (request, scored, query if "query" in reads else None, source if "source_title" in reads else ABSENT)
        if spec is not None and spec.blend is not None:
            return Question(key, spec.blend, spec.candidates)
        return Question(key, own.blend, own.candidates if row < 0 else None)

    def _scored_as(self, canvas: str, row: RowSpec | None) -> str:
        wanted = row.scored_as if row is not None else None
        return wanted if wanted in self.resolved.canvases else canvas

    def _allowed(self, request: PolicyRequest, row: int, rules: CandidatesSpec) -> Bools:
        member = int(request.member[row])
        viewer = Viewer(
            at=from_microseconds(int(request.at_us[row])),
            country=self.world.countries[request.country[row]],
            watched=np.flatnonzero(request.state.played[member]),
            source=int(request.source_title[row]),
            kids_profile=bool(self.world.people.kids[member]) or CANVASES[request.canvas[row]] == "kids",
            plays=lambda: request.state.played.sum(axis=0, dtype=np.int64),
            country_plays=lambda: request.state.plays_7d[request.country[row]],
            past=lambda: _past(request.state, member),
        )
        return select(self._catalogue, rules, viewer)

    def _score(self, request: PolicyRequest, keys: list[Key]) -> None:
        """Score what has not been scored yet; the rows of a page ask for the same scores."""
        self._begin_day(request)
        fresh = {key: row for row, key in enumerate(keys) if key not in self._scored}
        if not fresh:
            return
        places = np.array(list(fresh.values()), np.int64)
        requests = self._with_features(self._requests(request, list(fresh), places))
        self.scorer.remember([request.at for request in requests])
        heads = self.scorer.score(requests)
        for row, key in enumerate(fresh):
            self._scored[key] = {head: values[row] for head, values in heads.items()}

    def _begin_day(self, request: PolicyRequest) -> None:
        """Tell titles' ages anew every day, as a server does, and forget what was scored before."""
        run, day = request.state, request.state.day
        if run is self._run and day == self._day:
            return
        self._scored, self._run, self._day = {}, run, day
        morning = self.world.spec.start + timedelta(days=day)
        self.scorer = self.scorer.refreshed(self.world.titles, self.world.availability, morning)
        if self.features.reads_log and request.log is not None:
            self._plays = request.log.frame().filter(pl.col("action").is_in(COUNTED_OF_TITLES))

    def _requests(self, request: PolicyRequest, keys: list[Key], places: Ints64) -> list[Request]:
        past = request.history(places)
        if self.features.reads_log:
            self.features.follow(past, self._plays)
        histories = past.partition_by("member_id", as_dict=True)
        world, members = self.world, self.world.member_ids
        ids = members.gather(request.member[places].astype(np.int64)).to_list()
        return [
            Request(
                canvas=canvas,
                at=from_microseconds(int(request.at_us[row])),
                member_id=member,
                country=world.countries[request.country[row]],
                device=DEVICES[request.device[row]],
                language=world.languages[request.language[row]],
                query=query,
                source_title_id=None if source == ABSENT else world.title_ids[source],
                history=histories.get((member,)),
            )
            for member, (_, canvas, query, source), row in zip(ids, keys, places.tolist(), strict=True)
        ]


def _past(state: State, member: int) -> MemberHistory:
    """Return a member's past without moments: what was played and is not to be continued was finished long ago."""
    going, listed = (own[own >= 0].astype(np.int64) for own in (state.continuing[member], state.my_list[member]))
    played = np.flatnonzero(state.played[member])
    finished = np.setdiff1d(played, going)
    return MemberHistory(played, going, finished, np.zeros(len(finished), np.int64), listed)


def _by_blend(questions: Sequence[Question]) -> list[tuple[Mapping[str, float], list[int]]]:
    """Group questions whose heads are blended alike."""
    groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for row, question in enumerate(questions):
        groups.setdefault(tuple(question.blend.items()), []).append(row)
    return [(dict(weights), rows) for weights, rows in groups.items()]
