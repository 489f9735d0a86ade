"""Answers that are kept for a while, and answers that are not ready in time."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.serving import FactReader, ModelHandle, Recommender
from playbill.serving.messages import RecommendRequest
from playbill.serving.profile import AnswerCache, Deadline, OutOfTimeError, Profile
from playbill.tables import Tables


@pytest.fixture
def ask(stocked):
    """Make a recommender of a profile, and what is in its hands."""

    def make(profile=None, **scorer):
        own = SimpleNamespace(scorer=world.FakeScorer(**scorer), log=world.FakeLog(), features=world.FakeFeatures())
        own.handle = ModelHandle(world.serve_with(stocked, own.scorer))
        facts = FactReader(Tables(stocked), own.features)
        own.recommender = Recommender(
            own.handle, facts, FixedClock(world.NOW), own.log.write, profile=profile or Profile()
        )
        own.ask = lambda **request: own.recommender.recommend(RecommendRequest.model_validate(request))
        return own

    return make


def titles(response):
    return [item.title_id for item in response.items]


def test_a_kept_answer_is_given_again_with_its_age_and_logged_as_a_request_of_its_own(ask):
    own = ask(Profile.named("cached"))
    first, again = (own.ask(canvas="home", member_id="42", k=3) for _ in range(2))
    assert len(own.features.requested) == 1, "nothing is read for the second one"
    assert titles(first) == titles(again)
    assert (first.age_s, again.age_s > 0) == (0.0, True)
    assert first.request_id != again.request_id
    assert [row["request_id"] for row, _ in own.log.rows] == [first.request_id, again.request_id]
    assert len({len(slates) for _, slates in own.log.rows}) == 1


def test_anything_else_that_is_asked_is_answered_anew(ask, stocked):
    own = ask(Profile.named("cached"))
    own.ask(canvas="home", member_id="42", k=3)
    for request in (
        {"member_id": "43", "k": 3},
        {"member_id": "42", "k": 4},
        {"member_id": "42", "k": 3, "device": "tv"},
    ):
        assert own.ask(canvas="home", **request).age_s == 0.0
    own.handle.swap(world.serve_with(stocked, world.FakeScorer(), version=2))
    newer = own.ask(canvas="home", member_id="42", k=3)
    assert (newer.version, newer.age_s) == (2, 0.0)


def test_a_fresh_server_keeps_nothing(ask):
    own = ask()
    assert [own.ask(canvas="home", member_id="42").age_s for _ in range(2)] == [0.0, 0.0]
    assert len(own.features.requested) == 2


def test_a_fallback_is_not_kept(ask):
    own = ask(Profile.named("cached"), fails=True)
    own.ask(canvas="home", member_id="42")
    own.scorer.fails = False
    recovered = own.ask(canvas="home", member_id="42")
    assert (recovered.policy, recovered.age_s) == ("model", 0.0)


def test_a_request_that_takes_too_long_gets_the_canvas_fallback(ask):
    own = ask()
    own.scorer.gate = threading.Event()
    began = time.perf_counter()
    late = own.ask(canvas="home", member_id="42", k=3, timeout_ms=30)
    took = time.perf_counter() - began
    own.scorer.gate.set()
    assert (late.policy, late.reason) == ("popular_7d", "timed out after 30 ms")
    assert "answered by the fallback popular_7d: timed out after 30 ms" in late.notes
    assert took < 2
    assert titles(late), "a list all the same"
    assert "t0" not in titles(late), "what the member has watched is known, so it is left out"
    in_time = own.ask(canvas="home", member_id="42", k=3, timeout_ms=30_000)
    assert (in_time.policy, in_time.reason) == ("model", None)


def test_a_feature_store_that_hangs_costs_no_more_than_the_time_and_kids_stay_safe(ask, stocked):
    own = ask(Profile(timeout_ms=30))
    hangs = threading.Event()
    served = own.features.served
    own.features.served = lambda *requested: hangs.wait(10) and served(*requested)
    kids = [row for row in Tables(stocked).members().iter_rows(named=True) if row["kids_profile"]]
    late = own.ask(canvas="home", member_id=kids[0]["member_id"])
    hangs.set()
    assert late.reason == "timed out after 30 ms"
    assert "the member's history and features were not read in time" in late.notes
    allowed = {row["title_id"] for row in Tables(stocked).titles().iter_rows(named=True) if row["kids"]}
    assert titles(late)
    assert set(titles(late)) <= allowed


def test_mistakes_of_a_request_are_told_within_its_time_too(ask):
    own = ask(Profile(timeout_ms=5_000))
    with pytest.raises(Exception, match="unknown canvas 'hom'"):
        own.ask(canvas="hom")
    with pytest.raises(ValidationError, match="timeout_ms"):
        own.ask(canvas="home", timeout_ms=0)


def test_answers_are_forgotten_by_age_and_by_number():
    now = [0.0]
    kept = AnswerCache(seconds=10, most=2, timer=lambda: now[0])
    kept.put("a", 1, since=0.0)
    now[0] = 10.0
    assert kept.get("a") == (1, 10.0)
    now[0] = 10.5
    assert kept.get("a") is None
    for name in ("b", "c"):
        kept.put(name, name, since=now[0])
    kept.get("b")
    kept.put("d", "d", since=now[0])
    assert [kept.get(name) is not None for name in ("b", "c", "d")] == [True, False, True]


def test_an_answer_is_as_old_as_what_it_was_made_of():
    now = [5.0]
    kept = AnswerCache(seconds=10, timer=lambda: now[0])
    kept.put("a", 1, since=2.0)
    assert kept.get("a") == (1, 3.0)


def test_work_that_has_not_begun_when_its_time_is_over_is_dropped():
    deadline, busy, done = Deadline(workers=1), threading.Event(), []
    for work in (lambda: busy.wait(10), lambda: done.append(1)):
        with pytest.raises(OutOfTimeError):
            deadline.run(work, 0.02)
    busy.set()
    assert deadline.run(lambda: 7, 5) == 7
    assert done == []
    with pytest.raises(TimeoutError, match="its own"):
        deadline.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")), 5)
