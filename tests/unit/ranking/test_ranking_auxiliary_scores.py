"""Terms of a blend in a scorer: what a title is like, and what answers a query for what is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from playbill.datasets import Encoder, EncoderState, Request, title_arrays
from playbill.definitions.specs import CanvasSpec, ResolvedModel
from playbill.errors import UnknownNameError
from playbill.models import HeadConfig, Network, NetworkConfig, TitleConfig, TitleInputs
from playbill.models.item_similarity import Likeness
from playbill.models.metadata_similarity import YEAR_BUCKETS
from playbill.ranking.scoring import auxiliary_scores as terms
from playbill.ranking.scoring import similar_titles as alike_titles
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.similar_titles import AlikeTitles

AT = datetime(2025, 3, 1, tzinfo=UTC)
TRAINED = tuple(f"t{number}" for number in range(12))
NAMES = (
    *("Amber", "Birch", "Cedar", "Daisy", "Elder", "Fern", "Ginkgo"),
    *("Hazel", "Iris", "Jasmine", "Kelp", "Laurel", "Amber 2", "Nettle"),
)
CONTEXTS = {"search": ["query"], "similar": ["source_title"]}
BLENDS = {
    "search": {"play": 1.0, "text": 16.0, "text_neighbours": 4.0},
    "similar": {"play": 1.0, "likeness": 4.0},
}


def titles(ids: tuple[str, ...]) -> pl.DataFrame:
    """Even numbers are horror, odd ones comedy; each has a name of its own."""
    numbers = [int(title[1:]) for title in ids]
    return pl.DataFrame(
        {
            "title_id": ids,
            "name": [NAMES[number] for number in numbers],
            "names": [None] * len(ids),
            "kind": ["film"] * len(ids),
            "genres": [["horror" if number % 2 == 0 else "comedy"] for number in numbers],
            "original_language": ["en"] * len(ids),
            "release_date": [AT] * len(ids),
            "synopsis": [None] * len(ids),
        },
        schema_overrides={
            "names": pl.List(pl.Struct({"language": pl.String, "name": pl.String})),
            "synopsis": pl.String,
        },
    )


def launches(ids: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        {"title_id": ids, "country": "*", "available_from": AT},
        schema_overrides={"available_from": pl.Datetime("us", "UTC")},
    )


def encoder() -> Encoder:
    known = {"actions": ("play",), "canvases": ("search", "similar"), "countries": (), "devices": (), "languages": ()}
    metadata = {"genres": ("comedy", "horror"), "kinds": ("film",), "original_languages": ("en",), "year_edges": ()}
    return Encoder(
        EncoderState(
            history_length=10,
            merge=True,
            titles=TRAINED,
            **known,
            **metadata,
            metadata=("genres", "kind", "original_language", "release_year", "name", "synopsis"),
            snapshot_hours=24,
            canvas_fields={name: tuple(fields) for name, fields in CONTEXTS.items()},
            service="none",
            service_version="",
        )
    )


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> Scorer:
    return made_scorer(tmp_path_factory.mktemp("terms") / "bundle", companions=5)


def made_scorer(folder: Path, companions: int) -> Scorer:
    """Train nothing, and fit what is learnt of pairs of titles."""
    own = encoder()
    sizes = own.network_sizes()
    config = NetworkConfig(
        length=10,
        trunk={"dim": 8, "layers": 1, "heads": 1},
        titles=TitleConfig(**sizes["titles"], neighbours=5, companions=companions),
        events=sizes["events"],
        context=sizes["context"],
        text=sizes["text"],
        heads=(HeadConfig(name="play", loss="softmax"),),
    )
    torch.manual_seed(1)
    network = Network(config)
    fit(network, own)
    spec = {"version": 1, "metric": "play"}
    canvases = {
        name: CanvasSpec.model_validate({"name": name, "context": CONTEXTS[name], "blend": BLENDS[name], **spec})
        for name in CONTEXTS
    }
    model = {"name": "m", "version": 1, "features": "none", "canvases": list(CONTEXTS)}
    model["heads"] = {"play": {"label": "play", "loss": "softmax"}}
    label = {"name": "play", "version": 1, "from": {"action": "play"}, "matures_after": "0h"}
    resolved = ResolvedModel.model_validate(
        {"model": model, "labels": {"play": label}, "rewards": {}, "canvases": canvases, "rows": {}}
    )
    plays = np.ones(len(TRAINED) + 1, np.float32)
    write_bundle(folder, resolved=resolved, encoder=own, config=config, weights=network.state_dict(), plays=plays)
    every = (*TRAINED, "t12", "t13")
    return Scorer(read_bundle(folder), titles(every), launches(every), None, as_of=AT)


def fit(network: Network, own: Encoder) -> None:
    """Let members watch horror, or comedy."""
    arrays = title_arrays(
        own,
        titles(TRAINED),
        launches(TRAINED),
        plays=np.ones(len(TRAINED) + 1, np.float32),
        as_of=AT,
        snapshots=np.zeros((0, len(TRAINED) + 1, 0), np.float32),
    )
    draw = np.random.default_rng(2)
    pasts = [draw.permutation(np.arange(1 + number % 2, 13, 2))[:4] for number in range(200)]
    title, member = np.concatenate(pasts), np.repeat(np.arange(200), 4)
    network.likeness.fit(title, member, TitleInputs.from_arrays(arrays), seed=1)
    network.companions.fit(title, member)


def ask(scorer: Scorer, **fields: str) -> dict[str, np.ndarray]:
    request = Request(canvas="search" if "query" in fields else "similar", at=AT, **fields)
    return {name: values[0] for name, values in scorer.score([request]).items()}


def column(scorer: Scorer, title: str) -> int:
    return scorer.title_ids.index(title)


def test_a_title_of_today_is_like_those_of_its_genre_before_anyone_has_played_it(scorer):
    found = ask(scorer, source_title_id="t12")["likeness"]
    horror = [column(scorer, f"t{number}") for number in range(0, 12, 2)]
    comedy = [column(scorer, f"t{number}") for number in range(1, 12, 2)]
    assert found[horror].min() > found[comedy].max()


def test_a_sequel_of_today_comes_first_beside_its_first_part_and_the_other_way_round(scorer):
    """Nobody has played it; title 0 is "Amber", title 12 "Amber 2"."""
    first = ask(scorer, source_title_id="t0")["likeness"]
    others = np.delete(first, [column(scorer, "t0"), column(scorer, "t12")])
    assert first[column(scorer, "t12")] > others.max() + 2
    back = ask(scorer, source_title_id="t12")["likeness"]
    assert back[column(scorer, "t0")] > np.delete(back, [column(scorer, "t0"), column(scorer, "t12")]).max() + 2


def test_a_title_is_most_like_itself(scorer):
    found = ask(scorer, source_title_id="t3")["likeness"]
    assert found[column(scorer, "t3")] == found.max()


def test_a_version_that_learnt_no_companions_has_the_lift_alone(scorer, tmp_path):
    before = made_scorer(tmp_path / "bundle", companions=0)
    assert not [name for name in before.network.state_dict() if name.startswith("companions.")]
    found, lift = ask(before, source_title_id="t0")["likeness"], ask(scorer, source_title_id="t0")["likeness"]
    assert found[column(before, "t12")] < lift[column(scorer, "t12")] - 2


def test_a_name_that_arrived_today_is_found_and_its_neighbours_answer_beside_it(scorer):
    found = ask(scorer, query="nettl")
    assert scorer.title_ids[int(found["text"].argmax())] == "t13"
    near = found["text_neighbours"]
    comedy = [column(scorer, f"t{number}") for number in range(1, 12, 2)]
    horror = [column(scorer, f"t{number}") for number in range(0, 12, 2)]
    assert near[comedy].min() > near[horror].max(), "the title itself may not be shown, its like may"


def test_terms_are_nothing_where_a_request_has_neither_query_nor_source(scorer):
    found = scorer.score([Request(canvas="similar", at=AT)], ("likeness", "co_play", "semantic", "text"))
    assert all((values == 0).all() for values in found.values())


def test_the_rows_of_a_page_get_the_same_terms(scorer):
    request = Request(canvas="similar", at=AT, source_title_id="t3")
    single = scorer.score([request], ("play", "likeness"))
    candidates = np.ones((1, len(scorer.title_ids)), np.bool_)
    page = scorer.score_page([request], [{"likeness": 2.0}], candidates)
    assert page.scores[0] == pytest.approx(2 * single["likeness"][0], abs=1e-5)


def test_a_term_that_was_not_learnt_is_refused(scorer):
    with pytest.raises(UnknownNameError, match="likenes"):
        scorer.score([Request(canvas="similar", at=AT)], ("likenes",))


def test_a_canvas_without_a_query_cannot_blend_its_text():
    with pytest.raises(ValueError, match="'text' needs 'query' in 'context'"):
        CanvasSpec.model_validate(
            {"name": "home", "version": 1, "context": ["member"], "blend": {"text": 1.0}, "metric": "play"}
        )


def plain_posterior(likeness: Likeness, sources: np.ndarray, index: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the log lift of every pair, each count and expectation as an array over all titles."""
    margin, strength, lift = likeness.margin.numpy().astype(np.float64), float(likeness.strength), np.exp(prior)
    expected = (margin[index[sources]][:, None] * margin[None, :])[:, index]
    counts = np.zeros((len(sources), len(margin)))
    neighbour, played = likeness.neighbour.numpy()[index[sources]], likeness.played.numpy()[index[sources]]
    np.put_along_axis(counts, neighbour.astype(np.int64), played, axis=1)
    counts[:, 0] = 0
    rest = likeness.rest.numpy()[index[sources]][:, None] * expected * lift
    played = np.where(counts[:, index] > 0, counts[:, index], rest)
    return np.log((played + strength * lift) / (expected + strength))


def plain_kin(alike: AlikeTitles, sources: np.ndarray) -> np.ndarray:
    """Return how much titles belong together, every part of it as an array over all titles."""
    metadata, companions, every = alike.metadata, alike.network.companions, np.arange(alike.metadata.count)

    def standardised(rows: np.ndarray) -> np.ndarray:
        spread = rows[:, 1:].std(axis=1, keepdims=True)
        return np.where(spread > 1e-6, (rows - rows[:, 1:].mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9), 0)

    own = (np.arange(len(sources)), sources)
    genres = (metadata.genre_bags[sources] @ metadata.genre_bags.T).toarray()
    known = (metadata.year[sources, None] > 0) & (metadata.year > 0)
    year = np.where(known, np.exp(-np.abs(metadata.year[sources, None] - metadata.year) / YEAR_BUCKETS), 0)
    genres[own] = year[own] = 0
    links = np.zeros((len(sources), len(companions.title)))
    title, link = companions.title.numpy()[alike.index[sources]], companions.link.numpy()[alike.index[sources]]
    np.put_along_axis(links, title.astype(np.int64), link, axis=1)
    links[:, 0] = 0
    shared = standardised(genres)
    found = alike_titles.LINKS * links[:, alike.index] * (1 + np.sqrt(np.maximum(genres, 0)))
    found += alike_titles.GENRES * np.sign(shared) * np.abs(shared) ** alike_titles.GENRES_POWER
    found += alike_titles.YEAR * standardised(year)
    described = np.diff(metadata.genre_bags.indptr) > 0
    for row, source in enumerate(sources.tolist()):
        titles, like = alike.names.near(source, lambda some, row=row: genres[row, some], described)
        found[row, titles] += alike_titles.NAMES * like
    assert len(every) == found.shape[1]
    found[own] = 0
    return found


def test_likeness_by_groups_of_titles_is_that_of_every_pair(scorer):
    alike = scorer.terms.alike
    sources = np.arange(1, alike.metadata.count)
    weights = alike.network.likeness.weights.numpy().astype(np.float64)
    prior = weights[0] + alike.metadata.rows(sources) @ weights[1:]
    np.testing.assert_allclose(alike.semantic(sources), prior, atol=1e-5)
    lift = plain_posterior(alike.network.likeness, sources, alike.index, prior)
    np.testing.assert_allclose(alike.lift(sources), lift, atol=1e-5)
    apart = plain_posterior(alike.network.likeness, sources, alike.index, np.zeros_like(prior))
    np.testing.assert_allclose(alike.co_play(sources), apart, atol=1e-5)
    kin = plain_kin(alike, sources)
    np.testing.assert_allclose(alike.kin(sources), kin, atol=1e-4)
    found = alike_titles.LIFT * lift + alike_titles.KIN * np.maximum(kin - alike_titles.KIN_FROM, 0)
    found[np.arange(len(sources)), sources] = found.max(axis=1)
    np.testing.assert_allclose(alike.likeness(sources), found, atol=1e-3)
    assert np.abs(kin).max() > 2 * alike_titles.KIN_FROM, "some are beyond what is left of the lift alone"


def test_neighbours_of_the_best_matches_are_sums_of_their_likeness(scorer):
    queries = ("amb", "hazel", "t", "zzz", "iris")
    found = scorer.score([Request("search", AT, query=query) for query in queries], ["text", "text_neighbours"])
    matches = np.pad(found["text"], ((0, 0), (1, 0)))
    best = np.argsort(-matches, axis=1, kind="stable")[:, : terms.MATCHES]
    value = np.take_along_axis(matches, best, axis=1)
    weight = np.exp(terms.SHARPNESS * (value - value[:, :1])) * (value > 0)
    weight *= value[:, :1] / np.maximum(weight.sum(axis=1, keepdims=True), 1)
    like = np.zeros((matches.shape[1], matches.shape[1]))
    like[1:] = np.minimum(scorer.terms.alike.likeness(np.arange(1, matches.shape[1])), terms.NEAREST)
    plain = np.einsum("nm,nmt->nt", weight, like[best])[:, 1:]
    np.testing.assert_allclose(found["text_neighbours"], plain, atol=1e-4)
    assert np.abs(plain).max() > 0.5
