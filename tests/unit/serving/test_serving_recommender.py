from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fixtures import serving_world as world
from playbill.config import Workspace
from playbill.errors import IntegrityError, RequestError, ServiceError, StateError
from playbill.serving import NotFoundError, RecommendRequest, RecommendResponse
from playbill.serving.request_context import find_title


@pytest.fixture
def ask(stocked: Workspace) -> Any:
    scorer = world.FakeScorer()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, scorer))

    def answer(**fields: Any) -> RecommendResponse:
        scorer.requested.clear()
        return recommender.recommend(RecommendRequest(**fields))

    answer.scorer = scorer  # type: ignore[attr-defined]
    return answer


def ids(response: RecommendResponse) -> list[str]:
    return [item.title_id for item in response.items]


def test_a_list_is_ranked_by_the_model_without_watched_unavailable_and_coming_titles(ask: Any) -> None:
    response = ask(canvas="home", member_id="42", k=4, rows=False)
    assert ids(response) == ["t7", "t6", "t5", "t4"]
    assert [item.position for item in response.items] == [0, 1, 2, 3]
    assert response.items[0].name == "Heat"
    assert (response.model, response.version, response.policy, response.reason) == ("tiny", 1, "model", None)
    assert response.notes == ()


def test_the_country_decides_and_comes_from_the_member_unless_asked(ask: Any) -> None:
    assert "t7" in ids(ask(canvas="search", member_id="42", query="a"))
    assert "t7" not in ids(ask(canvas="search", member_id="7", query="a"))
    assert "t7" in ids(ask(canvas="search", member_id="7", query="a", country="FR"))
    assert "t7" not in ids(ask(canvas="search", member_id="42", query="a", country="ZZ"))


def test_an_unknown_country_counts_as_unknown_and_says_so(ask: Any) -> None:
    response = ask(canvas="search", member_id="42", query="a", country="XX")
    assert "t7" not in ids(response)
    assert response.notes == ("country 'XX' was never seen: it counts as unknown (ZZ)",)
    assert ask.scorer.requested[0].country == "ZZ"


def test_search_reads_the_query_and_keeps_its_last_space(ask: Any) -> None:
    assert ids(ask(canvas="search", member_id="7", query="emm", k=1)) == ["t4"]
    ask(canvas="search", query="emma ")
    assert ask.scorer.requested[0].query == "emma "


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_query_is_the_page_before_the_first_key(ask: Any, empty: str) -> None:
    response = ask(canvas="search", member_id="42", query=empty, k=2)
    assert ids(response) == ["t7", "t6"]
    assert ask.scorer.requested[0].query is None
    assert "before the first key" in response.notes[0]


def test_a_missing_field_that_a_canvas_needs_is_refused(ask: Any) -> None:
    with pytest.raises(RequestError, match="'search' needs a query"):
        ask(canvas="search", member_id="42")
    with pytest.raises(RequestError, match="needs a source title"):
        ask(canvas="more_like_this", member_id="42")


def test_a_field_that_a_canvas_does_not_read_is_ignored_with_a_note(ask: Any) -> None:
    response = ask(canvas="home", query="emma", source_title_id="nobody", rows=False)
    assert sorted(note.split(" reads ")[1] for note in response.notes if "reads" in note) == [
        "no query: it was ignored",
        "no source title: it was ignored",
    ]


def test_unknown_names_come_with_the_nearest_ones(ask: Any) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'search'"):
        ask(canvas="serch", query="a")
    with pytest.raises(NotFoundError, match="unknown title 't99'"):
        ask(canvas="more_like_this", source_title_id="t99")


def test_more_like_this_is_about_its_source_and_leaves_it_out(ask: Any) -> None:
    response = ask(canvas="more_like_this", member_id="7", source_title_id="t4", k=4)
    assert ids(response) == ["t6", "t2", "t0", "t5"]


def test_coming_soon_shows_only_what_launches_later(ask: Any) -> None:
    assert ids(ask(canvas="coming_soon", member_id="42")) == ["t9", "t8"]
    after = ask(canvas="coming_soon", member_id="42", at=world.NOW + 40 * world.DAY)
    assert ids(after) == []
    assert "no candidates after filtering (rule `available: upcoming`)" in after.notes


def test_an_unknown_member_is_answered_by_the_model_and_said(ask: Any) -> None:
    response = ask(canvas="home", member_id="nobody", rows=False)
    assert response.policy == "model"
    assert response.notes == ("member 'nobody' is unknown: answered without a history",)
    assert ask.scorer.requested[0].history.is_empty()
    assert ask(canvas="home", rows=False).notes == ("no member was given: answered without a history",)


def test_a_kids_profile_sees_only_titles_for_kids(ask: Any) -> None:
    assert ids(ask(canvas="home", member_id="kid", rows=False)) == ["t6", "t2"]
    shown = [item.title_id for row in ask(canvas="home", member_id="kid").rows for item in row.items]
    assert set(shown) <= {"t6", "t2"}


def test_names_come_in_the_language_of_the_request_or_the_member(ask: Any) -> None:
    assert ask(canvas="search", member_id="7", query="emma").items[0].name == "Emma auf Deutsch"
    assert ask(canvas="search", member_id="7", query="emma", language="fr").items[0].name == "Emma"
    assert ask(canvas="home", member_id="7").rows[0].title == "Für dich"


def test_a_request_without_a_moment_comes_after_everything_up_to_the_clock(ask: Any) -> None:
    response = ask(canvas="home", member_id="42", rows=False)
    assert response.at == world.NOW + timedelta(microseconds=1)


def test_only_events_strictly_before_the_moment_are_read(ask: Any) -> None:
    ask(canvas="home", member_id="42", at=world.NOW - 10 * world.DAY, rows=False)
    assert ask.scorer.requested[0].history["title_id"].to_list() == ["t0", "t0"]
    ask(canvas="home", member_id="42", at=world.NOW - 9 * world.DAY, rows=False)
    assert ask.scorer.requested[0].history["title_id"].to_list() == ["t0", "t0", "t1"]


def test_a_member_is_unknown_before_the_profile_was(ask: Any) -> None:
    response = ask(canvas="home", member_id="42", at=world.NOW - 600 * world.DAY, rows=False)
    assert any("unknown" in note for note in response.notes)


def test_home_is_a_page_of_rows_without_repeats(ask: Any) -> None:
    response = ask(canvas="home", member_id="42", k=2)
    assert [(row.row_id, row.title, row.position) for row in response.rows] == [
        ("picks", "For you", 0),
        ("because:t0", "Because you watched Alien", 1),
        ("popular", "popular", 2),
    ]
    shown = [item.title_id for row in response.rows for item in row.items]
    assert shown == ["t7", "t6", "t4", "t2", "t3", "t5"]
    assert {request.canvas for request in ask.scorer.requested} == {"home", "more_like_this"}
    assert {request.row for request in ask.scorer.requested} == {None, "picks", "because", "genres"}
    assert len({id(request.history) for request in ask.scorer.requested}) == 1, "the history is read once"


def test_rows_can_be_left_out_and_canvases_without_rows_say_so(ask: Any) -> None:
    assert ask(canvas="home", member_id="42", rows=False).rows is None
    response = ask(canvas="search", member_id="42", query="a", rows=True)
    assert response.rows is None
    assert response.notes == ("canvas 'search' has no rows",)


def test_a_page_for_someone_unknown_has_no_generated_rows(ask: Any) -> None:
    assert [row.row_id for row in ask(canvas="home", k=2).rows] == ["picks", "popular"]


def test_titles_are_found_by_id_or_name(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    assert find_title(served, "t3") == find_title(served, "dune") == find_title(served, "Dune auf Deutsch") == "t3"
    with pytest.raises(NotFoundError, match="Did you mean 'Fargo'"):
        find_title(served, "Fargoo")


def test_features_reach_the_model_as_of_the_request(stocked: Workspace) -> None:
    scorer, features = world.FakeScorer(), world.FakeFeatures()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, scorer), features)
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42", rows=False))
    assert scorer.requested[0].features == {"activity__plays_30d": 3.0}
    assert features.requested == [("tiny_v1", response.at)]


@pytest.mark.parametrize(
    "error", [ServiceError("store is down"), StateError("not applied"), ConnectionError("refused")]
)
def test_a_feature_store_that_is_down_is_noted_and_features_are_missing(stocked: Workspace, error: Exception) -> None:
    scorer = world.FakeScorer()
    features = world.FakeFeatures(error)
    recommender = world.make_recommender(stocked, world.serve_with(stocked, scorer), features)
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42", rows=False))
    assert response.policy == "model"
    assert scorer.requested[0].features == {}
    assert "imputed as missing" in response.notes[0]


def test_a_feature_store_that_lost_its_values_is_noted(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    recommender = world.make_recommender(stocked, served, world.FakeFeatures(empty=True))
    known = recommender.recommend(RecommendRequest(canvas="home", member_id="42", rows=False))
    assert [note for note in known.notes if "holds nothing of this member" in note] == [known.notes[0]]
    unknown = recommender.recommend(RecommendRequest(canvas="home", member_id="nobody", rows=False))
    assert not [note for note in unknown.notes if "online store" in note]


def test_without_an_approved_model_the_canvas_fallback_answers(stocked: Workspace) -> None:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, None, version=None))
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42", k=3))
    assert (response.policy, response.reason, response.version) == ("popular_7d", "no approved model", None)
    assert ids(response) == ["t3", "t5", "t2"]
    assert response.rows is not None
    assert response.rows[0].row_id == "picks"
    assert response.notes == ("answered by the fallback popular_7d: no approved model",)


def test_a_model_that_fails_is_answered_for_by_the_fallback(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer(fails=True))
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42"))
    assert response.policy == "popular_7d"
    assert response.reason == "the model failed: RuntimeError"


def test_title_features_that_cannot_be_read_leave_the_model_its_other_inputs(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer(fails=True), plain_scorer=world.FakeScorer())
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42", k=1))
    assert response.policy == "model"
    assert ids(response) == ["t7"]
    assert "title features cannot be read" in response.notes[0]


def test_a_request_is_logged_with_its_facts_and_everything_shown(stocked: Workspace) -> None:
    log = world.FakeLog()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()), log=log)
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42", k=2, device="tv"))
    request, slates = log.rows[0]
    assert request["request_id"] == response.request_id
    assert (request["model"], request["model_version"], request["policy"]) == ("tiny", "1", "model")
    assert json.loads(request["context"])["country"] == "FR"
    facts = json.loads(request["facts"])
    assert facts["features"] == {"activity__plays_30d": 3.0}
    assert facts["history_events"] == 3
    shown = [(row.row_id, row.position, item.position, item.title_id) for row in response.rows for item in row.items]
    logged = [(s["row_id"], s["row_position"], s["position"], s["title_id"]) for s in slates]
    assert logged == shown
    assert len({s["candidate_set_id"] for s in slates if s["row_id"] == "picks"}) == 1


def test_features_are_read_by_what_the_request_says_and_else_by_its_member(stocked: Workspace) -> None:
    """A country never seen counts as unknown there too, and the log says what was read by, for parity."""
    log, features = world.FakeLog(), world.FakeFeatures()
    fields = ("canvas", "country", "device", "language")
    served = world.serve_with(stocked, world.FakeScorer(), request_fields=fields)
    recommender = world.make_recommender(stocked, served, features, log)
    recommender.recommend(RecommendRequest(canvas="home", member_id="7", device="tv"))
    recommender.recommend(RecommendRequest(canvas="home", member_id="7", country="XX", language="fr"))
    expected = [("home", "DE", "tv", "de"), ("home", "ZZ", None, "fr")]
    assert [tuple((given or {}).values()) for given in features.fields] == expected
    logged = [json.loads(request["facts"])["request"] for request, _ in log.rows]
    assert [tuple(given[name] for name in fields) for given in logged] == expected


def test_a_model_whose_features_read_nothing_of_a_request_is_told_nothing(stocked: Workspace) -> None:
    log, features = world.FakeLog(), world.FakeFeatures()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()), features, log)
    recommender.recommend(RecommendRequest(canvas="home", member_id="7", device="tv"))
    assert features.fields == [None]
    assert "request" not in json.loads(log.rows[0][0]["facts"])


def test_a_list_without_rows_is_logged_as_one_slate(stocked: Workspace) -> None:
    log = world.FakeLog()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()), log=log)
    recommender.recommend(RecommendRequest(canvas="search", query="a", k=3))
    assert [(s["row_id"], s["row_position"], s["position"]) for s in log.rows[0][1]] == [(None, 0, n) for n in range(3)]


def test_refused_requests_are_not_logged(stocked: Workspace) -> None:
    log = world.FakeLog()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()), log=log)
    with pytest.raises(RequestError):
        recommender.recommend(RecommendRequest(canvas="search"))
    assert log.rows == []


def test_a_model_is_warmed_on_every_canvas_and_a_broken_one_is_seen(stocked: Workspace) -> None:
    scorer = world.FakeScorer()
    world.serve_with(stocked, scorer).warm(world.NOW)
    assert [request.canvas for request in scorer.requested] == ["home", "search", "more_like_this", "coming_soon"]
    with pytest.raises(IntegrityError, match="does not score home by play"):
        world.serve_with(stocked, world.FakeScorer(shift=float("nan"))).warm(world.NOW)


def test_a_scorer_of_other_titles_is_refused(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    with pytest.raises(IntegrityError, match="not those of its catalogue"):
        type(served)("tiny", served.resolved, served.snapshot, world.FakeScorer(title_ids=("t0",)), version=1)


def test_every_rule_says_why_a_title_is_in_or_out(stocked: Workspace) -> None:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()))
    request = RecommendRequest(canvas="home", member_id="42", k=3)
    page = recommender.recommend(request)
    for row in page.rows or ():
        for item in row.items:
            found = {place.name: place for place in recommender.explain(request, item.title_id).places}
            assert found[row.row_id].position == item.position
            assert found[row.row_id].verdict == f"at place {item.position + 1}"
            assert all(found[row.row_id].rules.values())
    coming = {place.name: place.verdict for place in recommender.explain(request, "t8").places}
    assert coming["home"] == "excluded by available: now"
    watched = {place.name: place for place in recommender.explain(request, "t0").places}
    assert not watched["home"].rules["watched"]
    with pytest.raises(NotFoundError, match="Did you mean 't0'"):
        recommender.explain(request, "t00")
