"""A model as a policy of the simulated service: what it lists, how surely, and that luck is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.datasets import Request
from playbill.definitions.specs import CandidatesSpec, ResolvedModel, RowSpec
from playbill.errors import ConfigError
from playbill.evaluation import CanvasScorer
from playbill_lab.ab.experiment import Test as AbTest
from playbill_lab.ab.experiment import measured, simulated_ab
from playbill_lab.ab.report import MEASURES
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import Switching
from playbill_lab.simulator import World, load_policy, simulate
from playbill_lab.simulator.policies.policies import EpsilonGreedy
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world.canvases import CANVASES, DEVICES, GEMS_FOR_YOU, RULE_ROWS, TRENDING, WATCH_IT_AGAIN

BASE = "plackett_luce"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def with_rows(model: ResolvedModel) -> ResolvedModel:
    """Two rows with rules of their own, one of them with fewer titles than places, and one ranked by a policy."""
    gems = {"available": "now", "popularity_percentile": {"below": 20}, "watched": False}
    rows = {
        "gems_for_you": {"blend": {"objective": 1.0}, "candidates": gems},
        "watch_it_again": {"blend": {"objective": 1.0}, "candidates": {"available": "now", "watched": True}},
        "trending": {"policy": "popular_7d"},
    }
    made = {
        name: RowSpec.model_validate({"name": name, "version": 1, "title": {"en": name}, "canvas": "home", **row})
        for name, row in rows.items()
    }
    return model.model_copy(update={"rows": made})


def served(small, policy, look: Callable[[PolicyRequest, Slates], None]) -> pl.DataFrame:
    """Let a policy serve the days after the log, look at every round that it answers, and return the whole log."""

    def watch(request, slates, _response):
        if request.state.day >= small.from_day:
            free = np.flatnonzero(~np.isin(request.row, RULE_ROWS))
            look(request.take(free), Slates(slates.titles[free], slates.propensity[free]))

    switching = Switching(load_policy(BASE), policy, small.from_day)
    return simulate(small.world, switching, keep_log=True, watch=watch).interactions


@dataclass(frozen=True)
class Answer:
    """What was answered to one question, and what has to be known to answer it in plain Python."""

    request: Request
    day: int
    row: int
    size: int
    allowed: frozenset[int]
    titles: list[int]


def test_lists_are_those_of_plain_scoring(small) -> None:
    """Every question asked alone: its past read from the finished log, scored by evaluation's code, ranked plainly."""
    policy, answers, began = small.policy(with_rows), [], {}

    def look(request: PolicyRequest, slates: Slates) -> None:
        # The rows of a page are scored once, when its first one is asked for.
        for name, at in zip(request.request.tolist(), request.at_us.tolist(), strict=True):
            began.setdefault((request.state.day, name), at)
        for place in np.flatnonzero(np.isin(request.row, (-1, GEMS_FOR_YOU, WATCH_IT_AGAIN)))[:4].tolist():
            if CANVASES[request.canvas[place]] in policy.resolved.canvases:
                at = began[request.state.day, int(request.request[place])]
                answers.append(noted(policy, request, slates, place, at))

    log = served(small, policy, look).sort("member_id", "seq")
    request = {(one.request.canvas, one.row) for one in answers}
    assert request >= {("billboard", -1), ("home", GEMS_FOR_YOU), ("home", WATCH_IT_AGAIN)}
    assert any(len(one.titles) < one.size for one in answers if one.row == GEMS_FOR_YOU)
    for one in answers:
        assert one.titles == plain_list(policy, one, log)
    assert policy.answered["model"] > 0
    assert policy.answered["elsewhere"] > 0


def noted(policy: ModelPolicy, request: PolicyRequest, slates: Slates, place: int, at: int) -> Answer:
    world, member, row = policy.world, int(request.member[place]), int(request.row[place])
    question = Request(
        canvas=CANVASES[request.canvas[place]],
        at=EPOCH + timedelta(microseconds=at),
        member_id=world.member_ids[member],
        country=world.countries[request.country[place]],
        device=DEVICES[request.device[place]],
        language=world.languages[request.language[place]],
    )
    seen = request.state.played[member] > 0
    allowed = seen if row == WATCH_IT_AGAIN else ~seen
    titles_allowed = set(np.flatnonzero(request.candidates()[place] & allowed).tolist())
    if row == GEMS_FOR_YOU:
        titles_allowed &= least_played(request.state.played.sum(axis=0).tolist(), had(world, question))
    titles = [title for title in slates.titles[place].tolist() if title >= 0]
    return Answer(question, request.state.day, row, int(request.size[place]), frozenset(titles_allowed), titles)


def had(world: World, request: Request) -> list[int]:
    """Titles that can be had in the member's country at that moment."""
    spans = world.availability.filter(
        pl.col("country").is_in([request.country, "*"]),
        pl.col("available_from") <= request.at,
        pl.col("available_until").is_null() | (pl.col("available_until") > request.at),
    )
    places = {title: place for place, title in enumerate(world.title_ids)}
    return sorted({places[title] for title in spans["title_id"]})


def least_played(plays: list[int], among: list[int]) -> set[int]:
    """Titles of which fewer than 20 in 100 have less plays, ties counted by half."""
    shares = {
        title: sum((plays[other] < plays[title]) + 0.5 * (plays[other] == plays[title]) for other in among)
        for title in among
    }
    return {title for title, share in shares.items() if share < 0.2 * len(among)}


def plain_list(policy: ModelPolicy, answer: Answer, log: pl.DataFrame) -> list[int]:
    world, request = policy.world, answer.request
    past = log.filter(pl.col("member_id") == request.member_id, pl.col("event_at") < request.at)
    morning = world.spec.start + timedelta(days=answer.day)
    scorer = policy.scorer.refreshed(world.titles, world.availability, morning)
    alone = replace(request, history=past if past.height else None)
    scores = CanvasScorer(scorer, policy.resolved, request.canvas, NoFeatures()).score([alone])[0]
    by_title = dict(zip(scorer.title_ids, scores.tolist(), strict=True))
    ranked = sorted(answer.allowed, key=lambda title: -by_title[world.title_ids[title]])
    return ranked[: answer.size]


def test_propensities_are_those_of_the_list(small) -> None:
    policy, rounds = small.policy(with_rows), []

    def look(request: PolicyRequest, slates: Slates) -> None:
        again = policy.probabilities(request, slates.titles)
        np.testing.assert_array_equal(again, slates.propensity[:, : again.shape[1]])
        if slates.titles.shape[1] < 2:
            return
        swapped = slates.titles.copy()
        swapped[:, :2] = swapped[:, 1::-1]
        mine = np.isin(request.canvas, [CANVASES.index(name) for name in policy.resolved.canvases])
        mine &= (request.row != TRENDING) & (slates.titles[:, :2] >= 0).all(axis=1)
        assert (slates.propensity[mine, :2] == 1.0).all()
        assert (policy.probabilities(request, swapped)[mine] == 0.0).all()
        rounds.append(int(mine.sum()))

    served(small, policy, look)
    assert sum(rounds) > 50


def test_a_model_that_explores_shows_titles_as_often_as_it_says(small) -> None:
    policy = EpsilonGreedy(small.policy(), epsilon=0.4)
    draws, checked = 4000, []

    def look(request: PolicyRequest, _slates: Slates) -> None:
        if checked or not (request.canvas == CANVASES.index("billboard")).any():
            return
        one = int(np.flatnonzero(request.canvas == CANVASES.index("billboard"))[0])
        many = policy.answer(request.take(np.full(draws, one)), np.random.default_rng(1))
        for title in np.unique(many.titles[:, 0]):
            shown = many.titles[:, 0] == title
            texts = float(many.propensity[shown, 0].max())
            assert (many.propensity[shown, 0] == np.float32(texts)).all()
            assert float(shown.mean()) == pytest.approx(texts, abs=5 * (texts * (1 - texts) / draws) ** 0.5)
        each = {int(title): float(many.propensity[many.titles[:, 0] == title, 0][0]) for title in many.titles[:, 0]}
        checked.append(sum(each.values()))

    served(small, policy, look)
    assert checked == [pytest.approx(1.0, abs=0.02)]


def test_a_model_against_itself_differs_in_nothing_and_another_policy_does(small) -> None:
    arms = {"one": small.policy(), "two": small.policy(), "other": load_policy("uniform")}
    found = simulated_ab(small.world, arms, AbTest(small.from_day, load_policy(BASE)))
    for measure in MEASURES:
        gap = found.of("two", measure).difference
        assert gap is not None
        assert gap == (0.0, 0.0, 0.0)
    other = found.of("other").difference
    assert other is not None
    assert other.value != 0.0


def test_one_policy_serves_run_after_run_alike(small) -> None:
    """What it remembers of a run is not carried into the next."""
    policy, test = small.policy(), AbTest(small.from_day, load_policy(BASE))
    first = measured(small.world, policy, test)
    other = measured(small.world, policy, test, seed=9)
    assert other.equals(measured(small.world, small.policy(), test, seed=9))
    assert not other.equals(first)
    assert measured(small.world, policy, test).equals(first)


def test_a_model_of_another_service_is_refused_as_a_policy(small) -> None:
    def elsewhere(model: ResolvedModel) -> ResolvedModel:
        canvas = model.canvases["home"].model_copy(update={"name": "tab_1", "candidates": CandidatesSpec()})
        return model.model_copy(update={"canvases": {"tab_1": canvas}})

    with pytest.raises(ConfigError, match="serves none of the simulated canvases"):
        small.policy(elsewhere)
    scorer = small.fitted.scorer(small.world, NoFeatures())
    scorer.title_ids = scorer.title_ids[:-1]
    with pytest.raises(ConfigError, match="cannot score 1 titles of the world"):
        ModelPolicy("model", scorer, small.fitted.bundle.resolved, small.world, NoFeatures())
