"""Likeness of titles: the log where it speaks, metadata where it does not, and how far each is trusted."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from playbill.models import TitleInputs
from playbill.models import item_similarity as likeness
from playbill.models.item_similarity import Likeness, chance, first_plays_together
from playbill.models.metadata_similarity import KINDS, TitleLikeness

TITLES, GENRES = 41, 4
"""Titles 1 to 40 of genres 1 to 4 in turn; 0 is padding."""


def inputs(genre: np.ndarray) -> TitleInputs:
    count = len(genre)
    nothing, starts = torch.zeros(0, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    index = torch.arange(count)
    known = torch.from_numpy(genre)
    return TitleInputs(
        index=index,
        genres=known[1:],
        genre_offsets=(index - 1).clamp(min=0),
        kind=torch.ones(count, dtype=torch.int64),
        language=index % 3,
        release_year=torch.zeros(count, dtype=torch.int64),
        name_grams=nothing,
        name_offsets=starts,
        synopsis_grams=nothing,
        synopsis_offsets=starts,
        age_days=torch.zeros(count),
        plays=torch.zeros(count),
        has_id=torch.ones(count, dtype=torch.bool),
        numeric=torch.zeros(count, 0),
        categorical=torch.zeros(count, 0, dtype=torch.int64),
        snapshots=torch.zeros(0, count, 0),
    )


def genre_log(members: int = 400, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Members who watch one genre, and titles 1 and 2 together although they share none."""
    draw = np.random.default_rng(seed)
    title, member = [], []
    for number in range(members):
        genre = draw.integers(GENRES)
        own = draw.choice(np.arange(3 + (genre - 2) % GENRES, TITLES - 4, GENRES), 4, replace=False).tolist()
        own += [1, 2] if number % 2 else []
        title += own
        member += [number] * len(own)
    return np.array(title), np.array(member)


@pytest.fixture
def titles() -> TitleInputs:
    return inputs(np.append(0, (np.arange(1, TITLES) - 1) % GENRES + 1))


@pytest.fixture
def fitted(titles) -> Likeness:
    found = Likeness(TITLES, TITLES)
    found.fit(*genre_log(), titles, seed=5)
    return found


def test_what_of_metadata_counts_is_learnt_from_the_log(fitted):
    weights = dict(zip(KINDS, fitted.weights[1:].tolist(), strict=True))
    assert weights["genres"] > 1.0
    assert abs(weights["language"]) < 0.3 < weights["genres"]


def test_a_title_that_nobody_has_played_is_liked_by_its_metadata_alone(fitted, titles):
    alike = TitleLikeness.of(titles)
    new = np.array([40])
    prior = fitted.prior(new, alike)
    assert fitted.posterior(new, np.arange(TITLES), prior) == pytest.approx(prior, abs=1e-6)
    same_genre = alike.rows(new)[0, :, KINDS.index("genres")] == 1
    assert prior[0, same_genre].min() > prior[0, ~same_genre].max()


def test_a_title_that_came_after_training_has_a_place_too(fitted, titles):
    later = inputs(np.append(titles.genres.numpy()[:0], np.append(0, (np.arange(1, TITLES + 1) - 1) % GENRES + 1)))
    index = np.append(np.arange(TITLES), 0)
    prior = fitted.prior(np.array([TITLES]), TitleLikeness.of(replace(later, index=torch.from_numpy(index))))
    assert fitted.posterior(np.array([TITLES]), index, prior)[0] == pytest.approx(prior[0], abs=1e-6)


def test_what_is_played_together_again_and_again_outweighs_metadata(fitted, titles):
    prior = fitted.prior(np.array([1]), TitleLikeness.of(titles))
    posterior = fitted.posterior(np.array([1]), np.arange(TITLES), prior)
    in_the_log = posterior[0, 3 : TITLES - 4]
    assert in_the_log.max() < posterior[0, 2]
    assert prior[0, 2] < prior[0, 5], "titles 1 and 5 share a genre, 1 and 2 do not"


def test_similarity_is_the_posterior_mean_of_each_pair(fitted, titles):
    """Parity with the formula written out, when every neighbour is kept."""
    title, member = genre_log()
    counts = first_plays_together(title, member, TITLES).toarray()
    margin = chance(first_plays_together(title, member, TITLES))
    prior = fitted.prior(np.arange(1, TITLES), TitleLikeness.of(titles))
    found = fitted.posterior(np.arange(1, TITLES), np.arange(TITLES), prior)
    k = float(fitted.strength)
    for s in (1, 5, 17):
        for t in (2, 9, 21, 38):
            mean = (counts[s, t] + k * np.exp(prior[s - 1, t])) / (margin[s] * margin[t] + k)
            assert found[s - 1, t] == pytest.approx(np.log(mean), abs=1e-4)


def test_neighbours_that_were_not_kept_count_as_their_rest_does(titles):
    short = Likeness(TITLES, 3)
    short.fit(*genre_log(), titles, seed=5)
    prior = short.prior(np.array([5]), TitleLikeness.of(titles))
    found = short.posterior(np.array([5]), np.arange(TITLES), prior)[0]
    kept = short.neighbour[5].numpy()
    assert set(np.argsort(-found[1:])[:2] + 1) <= set(kept.tolist()) | {5}


def test_in_a_large_log_a_sample_of_titles_says_what_chance_would_bring_together(titles, monkeypatch):
    exact, sampled = Likeness(TITLES, 3), Likeness(TITLES, 3)
    exact.fit(*genre_log(), titles, seed=5)
    monkeypatch.setattr(likeness, "COMPARED", 10)
    sampled.fit(*genre_log(), titles, seed=5)
    assert torch.equal(sampled.neighbour, exact.neighbour)
    assert torch.equal(sampled.played, exact.played)
    assert sampled.rest.numpy() == pytest.approx(exact.rest.numpy(), rel=0.1, abs=0.02)
    assert not torch.equal(sampled.rest, exact.rest), "this log was not large"


def test_titles_that_nobody_has_played_cost_no_memory_and_no_time():
    count = 50_000
    found, wide = Likeness(count, 5), inputs(np.append(0, np.arange(1, count) % GENRES + 1))
    tracemalloc.start()
    found.fit(*genre_log(), wide, seed=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert found.neighbour[1:3, 0].tolist() == [2, 1]


def test_episodes_of_one_series_count_once():
    once = first_plays_together(np.array([3, 4]), np.array([0, 0]), 6)
    often = first_plays_together(np.array([3, 3, 3, 4, 3, 4]), np.zeros(6, np.int64), 6)
    assert (once != often).nnz == 0


def test_a_log_without_co_plays_teaches_nothing(titles):
    found = Likeness(TITLES, 10)
    found.fit(np.array([1, 2, 3]), np.array([0, 1, 2]), titles, seed=1)
    assert found.weights.eq(0).all()
    prior = found.prior(np.array([1]), TitleLikeness.of(titles))
    assert np.isfinite(found.posterior(np.array([1]), np.arange(TITLES), prior)).all()


def test_a_model_whose_blends_do_not_use_similarity_keeps_none():
    assert not Likeness(TITLES, 0).state_dict()
