from __future__ import annotations

import time
import types
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from playbill.clock import to_microseconds
from playbill.datasets import Encoder, EncoderState, Request
from playbill.datasets.encoding.requests import encode_requests
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.definitions.specs.head import HISTORY_TERMS
from playbill.errors import UnknownNameError
from playbill.models import ContextBatch, HeadConfig, HistoryBatch, Network, NetworkConfig
from playbill.models.config import HistoryTermsConfig
from playbill.ranking.blend import blend
from playbill.ranking.scoring import title_moments
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.history_terms import played_by_members
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptBiases, KeptSnapshots

AT = datetime(2024, 3, 4, 10, 30, tzinfo=UTC)
TRAINED = tuple(str(number) for number in range(1, 31))


class Features:
    def __init__(self) -> None:
        self.calls: list[list[datetime]] = []

    def title_snapshots(self, service: str, moments: list, title_ids: tuple) -> types.SimpleNamespace:
        assert service == "f"
        self.calls.append(list(moments))
        values = np.zeros((len(moments), len(title_ids), 2), np.float32)
        values[:, :, 1] = [[(moment - AT).days * 10.0] for moment in moments]
        categorical = pl.DataFrame({"title_id": title_ids, "profile__maturity": ["PG"] * len(title_ids)})
        columns = ("popularity__other", "popularity__plays")
        return types.SimpleNamespace(columns=columns, values=values, categorical=categorical)


def frame_of_titles(title_ids: tuple[str, ...]) -> pl.DataFrame:
    count = len(title_ids)
    return pl.DataFrame(
        {
            "title_id": title_ids,
            "name": [f"Word{title} of the Name" for title in title_ids],
            "names": [None] * count,
            "kind": ["film"] * count,
            "genres": [["Drama"]] * count,
            "release_date": [AT] * count,
        },
        schema_overrides={
            "names": pl.List(pl.Struct({"language": pl.String, "name": pl.String})),
            "release_date": pl.Datetime("us", "UTC"),
        },
    )


def launches(title_ids: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        {"title_id": title_ids, "country": "*", "available_from": AT - timedelta(days=30)},
        schema_overrides={"available_from": pl.Datetime("us", "UTC")},
    )


def past(length: int, seed: int = 0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "member_id": ["m"] * length,
            "seq": range(length),
            "event_at": [AT - timedelta(hours=length - place) for place in range(length)],
            "action": ["play"] * length,
            "title_id": [TRAINED[at] for at in draw.integers(0, 30, length)],
            "canvas": ["home"] * length,
            "device": pl.Series([None] * length, dtype=pl.String),
            "language": pl.Series([None] * length, dtype=pl.String),
            "duration_s": pl.Series([None] * length, dtype=pl.Float32),
        },
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    contexts = {"home": ("country", "hour_of_week"), "search": ("query", "country"), "similar": ("source_title",)}
    canvases = {
        name: CanvasSpec.model_validate(
            {"name": name, "version": 1, "context": context, "blend": {"play": 1.0}, "metric": "play"}
        )
        for name, context in contexts.items()
    }
    heads = {"play": {"label": "play", "loss": "softmax"}, "up": {"label": "play", "loss": "bce"}}
    model = {"name": "m", "version": 1, "features": "f", "canvases": list(canvases), "heads": heads}
    resolved = ResolvedModel(
        model=ModelSpec.model_validate(model),
        labels={"play": LabelSpec.model_validate({"name": "play", "version": 1, "from": {"action": "play"}})},
        rewards={},
        canvases=canvases,
        rows={},
    )
    state = EncoderState(
        history_length=20,
        merge=True,
        titles=TRAINED,
        actions=("play",),
        canvases=("home", "search"),
        countries=("US-MN",),
        devices=(),
        languages=(),
        genres=("Drama",),
        kinds=("film",),
        original_languages=(),
        year_edges=(1990,),
        metadata=("genres", "kind", "name", "release_year"),
        text_buckets=4096,
        snapshot_hours=24,
        canvas_fields=contexts,
        service="f",
        service_version="v",
        numeric=("activity__plays",),
        title_snapshot=("popularity__plays",),
        title_categorical={"profile__maturity": ("PG",)},
    )
    encoder = Encoder(state)
    config = NetworkConfig.model_validate(
        {
            **encoder.network_sizes(),
            "trunk": {"dim": 16, "heads": 2},
            "heads": tuple(HeadConfig(name=name, loss=head["loss"]) for name, head in heads.items()),
        }
    )
    torch.manual_seed(1)
    network = Network(config)
    for name, parameter in network.named_parameters():
        if not name.endswith("match"):
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("bundles") / "one"
    plays = np.array([0, *range(len(TRAINED))])
    write_bundle(folder, resolved=resolved, encoder=encoder, config=config, weights=network.state_dict(), plays=plays)
    return read_bundle(folder)


@pytest.fixture
def scorer(bundle) -> Scorer:
    return Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), Features(), as_of=AT)


def test_every_head_scores_every_title(scorer) -> None:
    scores = scorer.score([Request("home", AT, "m", history=past(5)), Request("home", AT)])
    assert set(scores) == {"play", "up", "similarity"}
    assert all(values.shape == (2, 30) and values.dtype == np.float32 for values in scores.values())
    assert all(np.isfinite(values).all() for values in scores.values())
    assert scorer.title_ids == TRAINED
    assert scorer.score([])["play"].shape == (0, 30)


def test_only_the_heads_asked_for_are_scored(scorer) -> None:
    requested = [Request("home", AT, "m", history=past(5)), Request("similar", AT, source_title_id="3")]
    every, some = scorer.score(requested), scorer.score(requested, ["similarity", "up"])
    assert list(some) == ["up", "similarity"]
    for head, values in some.items():
        np.testing.assert_array_equal(values, every[head])
    with pytest.raises(UnknownNameError, match="Did you mean 'play'"):
        scorer.score(requested, ["plya"])


def test_a_request_scores_the_same_alone_and_in_company(scorer, monkeypatch) -> None:
    requests = [
        Request(
            "home" if place % 3 else "search",
            AT + timedelta(days=place % 4),
            "m",
            query="word7",
            history=past(place),
        )
        for place in range(40)
    ]
    together = scorer.score(requests)["play"]
    for place in (0, 1, 17, 39):
        assert np.allclose(scorer.score([requests[place]])["play"][0], together[place], atol=1e-4)
    monkeypatch.setattr("playbill.ranking.scoring.scorer.BATCH_SLOTS", 30)
    assert np.allclose(scorer.score(requests)["play"], together, atol=1e-4)


def test_similarity_is_to_the_source_title_and_needs_one(scorer) -> None:
    requested = [Request("similar", AT, source_title_id="3"), Request("similar", AT, source_title_id="no such title")]
    named, unnamed = scorer.score(requested)["similarity"]
    assert scorer.title_ids[int(named.argmax())] == "3"
    assert named.max() == pytest.approx(1.0, abs=1e-5)
    assert not unnamed.any()


def test_the_title_that_is_searched_for_comes_first(scorer) -> None:
    scores = scorer.score([Request("search", AT, query="word17"), Request("search", AT, query="Word2 of")])["play"]
    assert [scorer.title_ids[column] for column in scores.argmax(axis=1)] == ["17", "2"]


def test_later_titles_are_scored_from_metadata(bundle, scorer) -> None:
    every = (*TRAINED, "new")
    grown = scorer.refreshed(frame_of_titles(every), launches(every), AT)
    assert grown.title_ids == every
    assert grown.network is scorer.network
    request = Request("search", AT, "m", query="wordnew", history=past(6))
    scores = grown.score([request])["play"]
    assert grown.title_ids[int(scores[0].argmax())] == "new"
    assert np.allclose(scores[0, :30], scorer.score([request])["play"][0], atol=1e-4)
    with_it = pl.concat([past(6), past(1).with_columns(title_id=pl.lit("new"))])
    assert np.isfinite(grown.score([replace(request, history=with_it)])["play"]).all()


def test_snapshots_are_read_once_for_each_day_and_by_name(bundle) -> None:
    features = Features()
    scorer = Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), features, as_of=AT)
    begun = len(features.calls)
    requests = [Request("home", AT + timedelta(hours=3 * place)) for place in range(12)]
    scorer.score(requests)
    scorer.score(requests)
    assert len(features.calls) == begun + 1
    day = AT.replace(hour=0, minute=0)
    assert features.calls[-1] == [day, day + timedelta(days=1)]
    scorer.remember([AT + timedelta(days=9)])
    assert len(features.calls) == begun + 2
    scorer.score([Request("home", AT + timedelta(days=9))])
    assert len(features.calls) == begun + 2
    last = np.array([to_microseconds(day + timedelta(days=9))])
    assert (scorer.moments.column(last, 0)[0, 1:] == 80.0).all(), "the column is found by its name"


def test_snapshots_in_memory_are_bounded(bundle, monkeypatch) -> None:
    kept = KeptSnapshots(most=2 * 31 * 4)
    scorer = Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), Features(), as_of=AT, snapshots=kept)
    for day in range(10):
        scorer.score([Request("home", AT + timedelta(days=day))])
    assert len(kept) <= 3


def test_biases_that_are_kept_by_moment_and_canvas_are_those_of_the_network(bundle, monkeypatch) -> None:
    """Kept biases against those that the network works out for every request anew."""
    network = bundle.network()
    with torch.no_grad():
        for head in network.title_heads().values():
            head.snapshot.normal_()
            head.snapshot_canvas.weight.normal_()
    scorer = Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), Features(), as_of=AT, network=network)
    days, canvases = [0, 1, 0, 3, 1], ["home", "home", "search", "home", "search"]
    requested = [
        Request(canvas, AT + timedelta(days=day), "m", history=past(5 + day))
        for day, canvas in zip(days, canvases, strict=True)
    ]
    monkeypatch.setattr("playbill.ranking.scoring.title_moments.CELLS_AT_ONCE", 2 * 31)
    made: list[int] = []
    plain_tables = title_moments.bias_tables
    monkeypatch.setattr(title_moments, "bias_tables", lambda *a: (made.append(len(a[2])), plain_tables(*a))[1])
    found = scorer.score(requested)
    assert sum(made) == 5  # each (moment, canvas) once
    again = scorer.score(requested[::-1])
    assert sum(made) == 5
    encoded = encode_requests(scorer.encoder, requested)
    history, context = HistoryBatch.from_arrays(encoded.history), ContextBatch.from_arrays(encoded.context)
    plain = network.scores(history, context, scorer.inputs, scorer.moments.at(encoded.moments))
    for head, values in plain.items():
        np.testing.assert_allclose(found[head], values[:, 1:].numpy(), atol=1e-5)
        np.testing.assert_allclose(again[head][::-1], found[head], atol=1e-5)
    assert np.abs(found["play"][0] - found["play"][1]).max() > 0.1


def test_kept_biases_are_bounded() -> None:
    kept = KeptBiases(most=3 * 40)
    for moment in range(10):
        kept.of([(moment, 0, ())], lambda keys: [torch.zeros(10) for _ in keys])
    made: list[int] = []

    def make(keys):
        made.extend(moment for moment, *_ in keys)
        return [torch.zeros(10) for _ in keys]

    for moment in (7, 8, 9, 6):
        kept.of([(moment, 0, ())], make)
    assert made == [6], "the last three are kept"


def test_without_features_all_are_missing(bundle) -> None:
    scorer = Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), None, as_of=AT)
    assert np.isfinite(scorer.score([Request("home", AT)])["play"]).all()


def test_what_is_known_only_after_does_not_change_a_score(scorer) -> None:
    """A request carries no field of its own outcome, and later rows of the same member are not its history."""
    base = scorer.score([Request("home", AT, "m", history=past(8))])["play"]
    noisy = past(8).with_columns(progress=pl.lit(0.3), recorded_at=pl.lit(AT), season=pl.lit(9))
    assert np.array_equal(scorer.score([Request("home", AT, "m", history=noisy)])["play"], base)


def test_one_request_is_fast(scorer) -> None:
    request = Request("home", AT, "m", history=past(20))
    scorer.score([request])
    begun = time.perf_counter()
    for _ in range(10):
        scorer.score([request])
    assert (time.perf_counter() - begun) / 10 < 0.2


def test_requests_that_share_a_past_score_as_if_each_had_its_own(scorer) -> None:
    shared, other = past(7), past(4, seed=1)
    requested = [Request("search", AT, "m", query=text, history=shared) for text in ("w", "word1", "name")]
    requested += [Request("home", AT, "n", history=other), Request("home", AT)]
    apart = [
        replace(request, history=None if request.history is None else request.history.clone()) for request in requested
    ]
    together, alone = scorer.score(requested), scorer.score(apart)
    for head in together:
        np.testing.assert_allclose(together[head], alone[head], rtol=1e-5, atol=1e-5)


def test_a_kept_state_is_read_once_and_scores_alike(bundle) -> None:
    frames = frame_of_titles(TRAINED), launches(TRAINED)
    plain = Scorer(bundle, *frames, Features(), as_of=AT)
    keeping = Scorer(bundle, *frames, Features(), as_of=AT, kept_states=3, network=bundle.network())
    first = [Request("home", AT, "m", history=past(length, seed=length)) for length in (3, 9)]
    again = [replace(request, canvas="search", query="word2") for request in first] + [Request("home", AT)]
    keeping.score(first)
    read = []
    original = keeping.network.last_states
    keeping.network.last_states = lambda history, *rest: read.append(history.title.shape) or original(history, *rest)
    kept, expected = keeping.score(again), plain.score(again)
    assert all(shape == (1, 1) for shape in read)
    for head in kept:
        np.testing.assert_allclose(kept[head], expected[head], rtol=1e-5, atol=1e-5)
    many = [Request("home", AT, "m", history=past(2, seed=seed)) for seed in range(6)]
    keeping.score(many)
    for requests, longest in ((many[3:], 1), (many[:3], 2)):
        read.clear()
        keeping.score(requests)
        assert max(length for _, length in read) == longest, "the last three are kept"


@pytest.fixture
def with_terms(bundle) -> Scorer:
    """The model with terms of histories on its head `play`: all on home, none on other canvases."""
    own = HistoryTermsConfig.model_validate({"terms": HISTORY_TERMS, "heads": ["play"], "popularity": 0})
    network = Network(bundle.config.model_copy(update={"history_terms": own}))
    network.load_state_dict({**network.state_dict(), **bundle.network().state_dict()})
    assert network.history_terms is not None
    log = pl.concat([past(8, seed).with_columns(member_id=pl.lit(str(seed))) for seed in range(20)])
    network.history_terms.fit(played_by_members(log, bundle.encoder))
    network.history_terms.weights[0, 1] = torch.tensor([0.3, 0.2, 0.1, 0.4, 0.5])
    return Scorer(bundle, frame_of_titles(TRAINED), launches(TRAINED), Features(), as_of=AT, network=network)


def test_terms_of_histories_are_added_to_their_head_on_their_canvas(scorer, with_terms) -> None:
    home, search = Request("home", AT, "m", history=past(6)), Request("search", AT, "m", query="w", history=past(6))
    plain, added = scorer.score([home, search]), with_terms.score([home, search])
    np.testing.assert_array_equal(added["up"], plain["up"])
    np.testing.assert_allclose(added["play"][1], plain["play"][1], atol=1e-5)
    parts = with_terms.term_parts(home, "play")
    assert list(parts) == list(HISTORY_TERMS)
    expected = plain["play"][0] + sum(weight * values for weight, values in parts.values())
    np.testing.assert_allclose(added["play"][0], expected, atol=1e-4)
    assert np.abs(added["play"][0] - plain["play"][0]).max() > 0.1
    assert with_terms.term_parts(search, "play") == {}
    assert with_terms.term_parts(home, "up") == {}


def test_a_page_has_the_terms_too(with_terms) -> None:
    own = past(6)
    requested = [Request("home", AT, "m", history=own, row=row) for row in (None, "one")]
    requested.append(Request("search", AT, "m", query="w", history=own))
    blends = [{"play": 1.0}, {"up": 0.5, "play": 2.0}, {"play": 1.0}]
    mask = np.ones((3, 30), np.bool_)
    page, scores = with_terms.score_page(requested, blends, mask), with_terms.score(requested)
    for row, weights in enumerate(blends):
        heads = {head: values[row] for head, values in scores.items()}
        expected = blend(heads, {"play": "softmax", "up": "bce"}, weights, mask[row])
        np.testing.assert_allclose(page.scores[row], expected, atol=1e-3)


def test_requests_with_terms_score_the_same_alone_and_in_company(with_terms) -> None:
    shared = past(9)
    requested = [
        Request("home", AT + timedelta(days=place % 3), "m", history=shared if place % 2 else past(place))
        for place in range(12)
    ]
    together = with_terms.score(requested)["play"]
    for place, request in enumerate(requested):
        np.testing.assert_allclose(with_terms.score([request])["play"][0], together[place], atol=1e-4)


def test_without_title_features_the_week_adds_nothing(bundle, with_terms) -> None:
    blind = Scorer(
        bundle, frame_of_titles(TRAINED), launches(TRAINED), None, as_of=AT, network=with_terms.network
    ).term_parts(Request("home", AT, "m", history=past(6)), "play")
    assert not blind["popular_7d"][1].any()
    assert np.abs(blind["ease"][1]).max() > 0


def test_only_plays_are_read_as_history(with_terms) -> None:
    own = past(6)
    thumbs = own.with_columns(action=pl.lit("thumbs_up"))
    parts = with_terms.term_parts(Request("home", AT, "m", history=thumbs), "play")
    assert not any(values.any() for name, (_, values) in parts.items() if name != "popular_7d")


class Different(Features):
    """Titles with numbers and categories of their own, in some order of titles."""

    def __init__(self, numbers: np.ndarray | None = None, categories: np.ndarray | None = None) -> None:
        super().__init__()
        plain = np.arange(len(TRAINED))
        self.numbers = plain if numbers is None else numbers
        self.categories = plain if categories is None else categories

    def title_snapshots(self, service: str, moments: list, title_ids: tuple) -> types.SimpleNamespace:
        found = super().title_snapshots(service, moments, title_ids)
        found.values[:, :, 1] += self.numbers
        found.values[:, self.numbers % 4 == 0, 1] = np.nan
        rated = [("PG", "R", None)[title % 3] for title in self.categories.tolist()]
        found.categorical = pl.DataFrame({"title_id": title_ids, "profile__maturity": rated})
        return found


@pytest.mark.parametrize("feature", ["popularity__plays", "profile__maturity"])
def test_a_scorer_with_a_feature_in_other_places_is_one_made_with_them(bundle, with_terms, feature) -> None:
    state, order = (frame_of_titles(TRAINED), launches(TRAINED)), np.random.default_rng(3).permutation(len(TRAINED))
    network = with_terms.network
    with torch.no_grad():
        for head in network.title_heads().values():
            head.snapshot.normal_()
            head.snapshot_canvas.weight.normal_()
    days = [AT, AT + timedelta(days=2), AT]
    requests = [Request(name, at, history=past(6)) for name, at in zip(("home", "home", "search"), days, strict=True)]

    def made(features: Features) -> Scorer:
        return Scorer(bundle, *state, features, as_of=AT, kept_states=10, network=network)

    number = feature == "popularity__plays"
    first, alone = made(Different()), made(Different(order, None) if number else Different(None, order))
    expected, before, read = alone.score(requests), first.score(requests), []
    original = network.last_states
    network.last_states = lambda history, *rest: read.append(history.title.shape) or original(history, *rest)
    other = first.with_shuffled(feature, order)
    found = other.score(requests)
    assert ({shape[1] for shape in read} == {1}) == number  # a number leaves the pasts that were read
    for head in expected:
        np.testing.assert_allclose(found[head], expected[head], rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(first.score(requests)[head], before[head], rtol=1e-5, atol=1e-5)
    assert any(np.abs(found[head] - before[head]).max() > 1e-3 for head in before)
    week = [one.term_parts(requests[0], "play")["popular_7d"][1] for one in (other, alone, first)]
    np.testing.assert_array_equal(week[0], week[1])
    assert np.array_equal(week[0], week[2]) != number


def test_numbers_of_titles_are_kept_as_what_differs() -> None:
    draw, kept = np.random.default_rng(4), KeptSnapshots()
    first = draw.random((40, 3)).astype(np.float32)
    first[::3, 1] = np.nan
    moments = {0: first}
    for moment in range(1, 5):
        moments[moment] = first.copy()
        moments[moment][moment, 0] = moment
        moments[moment][:, 2] += moment
        moments[moment][:moment, 1] = np.nan if moment % 2 else 5.0
    for moment, values in moments.items():
        kept.keep(moment, values)
    for moment, values in moments.items():
        np.testing.assert_array_equal(kept.of(moment), values)
        for place in range(3):
            np.testing.assert_array_equal(kept.column(moment, place), values[:, place])
    assert kept.nbytes < 5 * first.nbytes // 2, "one of three columns is another at each moment"
    assert kept.missing([3, 9, 9]) == [9]


class ByCountry(Features):
    """Titles whose number depends on the country; nothing is known of an unknown one."""

    known = ("NL", "US-MN")

    def title_snapshots(
        self, service: str, moments: list, title_ids: tuple, countries: list | None = None
    ) -> types.SimpleNamespace:
        found = super().title_snapshots(service, moments, title_ids)
        for place, country in enumerate(countries or [None] * len(moments)):
            found.values[place, :, 1] = np.arange(len(title_ids)) + len(country) if country in self.known else np.nan
        return found


@pytest.fixture
def source() -> ByCountry:
    return ByCountry()


@pytest.fixture
def abroad(bundle, source) -> Scorer:
    state = bundle.encoder.state.model_copy(
        update={"countries": ("NL", "US-MN"), "country_columns": ("popularity__plays",)}
    )
    sizes = bundle.config.model_dump() | Encoder(state).network_sizes() | {"trunk": bundle.config.trunk}
    network = Network(NetworkConfig.model_validate(sizes))
    torch.manual_seed(2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    own = replace(bundle, encoder=Encoder(state), config=network.config)
    return Scorer(own, frame_of_titles(TRAINED), launches(TRAINED), source, as_of=AT, network=network)


def test_a_title_in_a_country_has_its_number_there(abroad) -> None:
    """Requests that differ in their country alone, in one pass: the head's weights tell what that adds."""
    countries = ("NL", "US-MN", "BR", None)
    requests = [Request("similar", AT, country=country) for country in ("NL", "US-MN")]
    requests += [Request("home", AT, country=country) for country in countries]
    found = abroad.score(requests)["play"]
    # A canvas whose requests carry no country reads none, whatever was sent.
    np.testing.assert_array_equal(found[0], found[1])
    head, dynamic = abroad.network.title_heads()["play"], abroad.network.titles.dynamic
    home = abroad.encoder.canvas_index(pl.Series(["home"]))[0]
    weights = (head.snapshot + head.snapshot_canvas.weight[home]).detach()

    def added(country: str | None) -> np.ndarray:
        raw = np.full((1, 31, 1), np.nan, np.float32)
        if country in ("NL", "US-MN"):
            raw[0, 1:, 0] = np.arange(30) + len(country)
        plain = dynamic.plain(torch.from_numpy(raw))
        return (plain.values @ plain.weights(weights))[0, 1:].detach().numpy()

    alone = np.stack([abroad.score([request])["play"][0] for request in requests])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    np.testing.assert_array_equal(found[4], found[5])
    assert np.abs(added("NL") - added("US-MN")).max() > 1e-3
    nowhere = ByCountry()
    nowhere.known = ()
    given = (abroad.bundle, frame_of_titles(TRAINED), launches(TRAINED), nowhere)
    unread = Scorer(*given, as_of=AT, network=abroad.network).score(requests)["play"]
    for place, country in enumerate(countries, 2):
        np.testing.assert_allclose(found[place] - unread[place], added(country) - added(None), atol=1e-4)


def test_numbers_in_countries_are_read_with_the_requests_once(abroad, source) -> None:
    abroad.remember([AT])
    assert len(source.calls) == 1  # of categories, when the scorer was made
    abroad.score([Request("home", AT, country=country) for country in ("NL", "US-MN", "NL")])
    abroad.score([Request("home", AT, country="NL")])
    assert [len(moments) for moments in source.calls] == [1, 2]
