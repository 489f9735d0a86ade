"""Whatever is typed, a query gets a full list and an answer that says what of it was read; so do context fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.datasets.encoding.text import QUERY_LETTERS, normalise_query, typed_text
from playbill.definitions.specs import CONTEXTS, ContextColumn
from playbill.errors import RequestError
from playbill.registry import Plugin
from playbill.serving import RecommendRequest, RecommendResponse, WatcherStatus
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor
from playbill.tables import Journal

WEATHER = ContextColumn("outside.weather")
TEMPERATURE = ContextColumn("outside.celsius", "numeric")


@pytest.fixture(scope="module")
def search(stocked: Workspace) -> Any:
    scorer = world.FakeScorer()
    recommender = world.make_recommender(stocked, world.serve_with(stocked, scorer))

    def ask(query: str) -> tuple[str | None, RecommendResponse]:
        scorer.requested.clear()
        response = recommender.recommend(RecommendRequest(canvas="search", member_id="42", query=query))
        return scorer.requested[0].query, response

    return ask


def test_an_answer_to_what_no_title_has_says_so(search: Any) -> None:
    _, nothing = search("tarantino")
    note = "no title matches 'tarantino' by name, character, genre, year or synopsis"
    assert f"{note}: the model ranks by the rest of the request" in nothing.notes
    assert nothing.items, "the list is what the model makes of the rest"
    assert not [note for note in search("dune")[1].notes if note.startswith("no title matches")]


UNREADABLE = "nothing in the query can be read: titles are ranked as before the first key"
EMPTY = "the query is empty: titles are ranked as before the first key"
HEBREW = "\u05d4\u05d0\u05e8\u05d9 \u05e4\u05d5\u05d8\u05e8"
TYPED = {
    "ten thousand characters": ("star " * 2_000, "star " * 40, "has 10000 characters: the first 200 were read"),
    "emoji among words": (
        "star \U0001f680 wars",
        "star \U0001f680 wars",
        "emoji and symbols in the query are not read",
    ),
    "emoji alone": ("\U0001f680\u2764\ufe0f", None, UNREADABLE),
    "control characters": ("st\x01ar\x07 wars", "star wars", "2 control or invisible characters"),
    "a tab between words": ("star\twars", "star wars", None),
    "zero width": ("\u200b\u200d\ufeff", None, UNREADABLE),
    "zero width within a word": ("st\u200bar", "star", "1 control or invisible character"),
    "right to left": (HEBREW, HEBREW, None),
    "marks of direction": ("\u202emmA\u202c", "mmA", "2 control or invisible characters"),
    "mixed scripts": ("Дюна dune 沙丘", "Дюна dune 沙丘", None),
    "only spaces": (" \u3000 ", None, EMPTY),
    "only punctuation": ("!?%", None, UNREADABLE),
    "a space at the end": ("emma ", "emma ", None),
}


@pytest.mark.parametrize("case", TYPED)
def test_a_query_is_read_as_the_guide_says(search: Any, case: str) -> None:
    query, read, note = TYPED[case]
    requested, response = search(query)
    assert requested == read
    assert len(response.items) >= 3
    assert (
        any(note in texts for texts in response.notes)
        if note
        else not any("query" in texts for texts in response.notes)
    )


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_a_list(search: Any, query: str) -> None:
    requested, response = search(query)
    assert len(response.items) >= 3
    assert requested is None or (len(requested) <= QUERY_LETTERS and requested.strip())


def test_over_http_what_was_typed_never_fails(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    log = world.FakeLog()
    recommender = world.make_recommender(stocked, served, log=log)
    clock = FixedClock(world.NOW)
    door = EventDoor(recommender.handle, Journal(stocked.database_url, clock), clock)
    with world.http(create_app(Services(recommender, door, WatcherStatus))) as client:
        for query, _, _ in TYPED.values():
            answer = client.post("/v1/recommend", json={"canvas": "search", "query": query})
            assert answer.status_code == 200, query
            assert len(answer.json()["items"]) >= 3
        assert client.post("/v1/recommend", json={"canvas": "search", "query": "x" * 100_001}).status_code == 422
        half = b'{"canvas": "search", "query": "a\\ud800b"}'
        sent = {"content": half, "headers": {"content-type": "application/json"}}
        answer = client.post("/v1/recommend", **sent)
        assert answer.status_code == 422
        assert [problem["where"] for problem in answer.json()["problems"]] == ["query"]
    assert len(log.rows) == len(TYPED)
    assert not any("\x00" in request["context"] for request, _ in log.rows)


@given(st.text(max_size=300))
def test_reading_twice_is_reading_once_and_training_reads_the_same(query: str) -> None:
    once = normalise_query(query).text
    assert normalise_query(once).text == once == typed_text(query)


@pytest.fixture
def outside(own_plugins: None, stocked: Workspace) -> Any:
    """The service, its home page told the weather by a package outside."""
    CONTEXTS.claim("weather", Plugin(f"{__name__}:WEATHER"))
    CONTEXTS.claim("temperature", Plugin(f"{__name__}:TEMPERATURE"))
    scorer = world.FakeScorer()
    served = world.serve_with(stocked, scorer)
    home = served.resolved.canvases["home"]
    progress = home.model_copy(update={"context": (*home.context, "weather", "temperature")})
    served.resolved.canvases["home"] = progress
    recommender = world.make_recommender(stocked, served)

    def ask(canvas: str = "home", **fields: Any) -> tuple[Any, RecommendResponse]:
        scorer.requested.clear()
        response = recommender.recommend(RecommendRequest(canvas=canvas, member_id="42", **fields))
        return scorer.requested[0], response

    yield ask
    served.resolved.canvases["home"] = home


def test_fields_of_outside_packages_reach_the_model(outside: Any) -> None:
    requested, response = outside(context={"weather": "rain", "temperature": 12})
    assert (requested.features["weather"], requested.features["temperature"]) == ("rain", 12)
    assert not any("context field" in note for note in response.notes)
    _, response = outside(context={"weather": "rain"})
    assert "context field 'temperature' was not given: it is imputed" in response.notes
    _, response = outside("search", query="a", context={"weather": "rain"})
    assert "canvas 'search' reads no weather: it was ignored" in response.notes


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({"wether": "rain"}, "context.wether: unknown context field 'wether'. Did you mean 'weather'?"),
        ({"temperature": "mild"}, "context.temperature: 'mild' is no number"),
        ({"device": "tv"}, "context.device: 'device' is no field of an outside package"),
    ],
)
def test_mistakes_in_context_fields_are_named(outside: Any, context: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError) as failed:
        outside(context=context)
    assert text in str(failed.value)


def test_a_canvas_without_member_says_that_it_ranks_for_all_alike(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    coming = served.resolved.canvases["coming_soon"]
    nameless = coming.model_copy(update={"context": ("country",)})
    canvases = {**served.resolved.canvases, "coming_soon": nameless}
    other = replace(served, resolved=served.resolved.model_copy(update={"canvases": canvases}))
    request = RecommendRequest(canvas="coming_soon", member_id="42")
    note = "canvas 'coming_soon' reads no member: the model ranks for all members alike"
    assert note not in world.make_recommender(stocked, served).recommend(request).notes
    assert note in world.make_recommender(stocked, other).recommend(request).notes
