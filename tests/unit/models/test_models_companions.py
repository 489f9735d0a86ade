"""What the log puts beside a title: EASE's weights for the most played, cosines for the rest, nothing for new ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from playbill.models.companions import SHRINKAGE, TRUSTED_PLAYS, Companions
from playbill.models.ease import binary_plays, solve_most_played

TITLES = 21


def log(seed: int = 0, members: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Everybody plays title 1; titles come in pairs (2, 3), (4, 5), ... that are mostly played together."""
    draw = np.random.default_rng(seed)
    title, member = [], []
    for number in range(members):
        first = 2 * draw.integers(1, 10, 2)
        own = {1, *first.tolist(), *(first + 1).tolist()} if draw.random() < 0.8 else {1, int(first[0])}
        title += sorted(own)
        member += [number] * len(own)
    return np.array(title), np.array(member)


def fitted(keep: int = TITLES, solved: int = TITLES) -> Companions:
    found = Companions(TITLES, keep)
    found.fit(*log(), solved=solved)
    return found


@pytest.mark.parametrize("solved", [TITLES, 0, 6])
def test_the_other_one_of_a_pair_comes_before_what_everybody_plays(solved):
    links = fitted(solved=solved).links(np.arange(2, 20), np.arange(TITLES)).toarray()
    partner = np.arange(2, 20) ^ 1
    assert (links.argmax(axis=1) == partner).mean() > (0.9 if solved in (0, TITLES) else 0.7)
    assert not links[:, 0].any(), "title 0 is none"


def test_a_title_without_plays_and_one_that_came_later_have_no_links():
    index = np.append(np.arange(TITLES), 0)
    links = fitted().links(np.array([20, TITLES]), index)
    assert links.shape == (2, TITLES + 1)
    assert not links.nnz
    assert not fitted().links(np.array([2]), index)[0, TITLES]


def test_the_strongest_are_kept():
    whole = fitted().links(np.array([4]), np.arange(TITLES)).toarray()[0]
    short = fitted(keep=2).links(np.array([4]), np.arange(TITLES)).toarray()[0]
    assert np.flatnonzero(short).tolist() == sorted(np.argsort(-whole)[:2].tolist())


@pytest.mark.parametrize("solved", [0, 6, TITLES])
def test_links_are_those_of_the_formula_over_whole_rows(solved):
    title, member = log()
    plays = binary_plays(title, member, TITLES)
    played = np.asarray(plays.sum(axis=0)).ravel()
    most, weights = solve_most_played(plays, 150.0, solved)
    rows = (plays.T @ plays).toarray() / (np.sqrt(np.outer(played, played)) + SHRINKAGE)
    np.fill_diagonal(rows, 0)
    rows[most] = 0
    rows[np.ix_(most, most)] = weights
    trust = np.sqrt(played / (played + TRUSTED_PLAYS))
    real = rows[:, 1:]  # without the padding
    spread = np.maximum(real.std(axis=1, keepdims=True), 1e-9)
    apart = (rows - real.mean(axis=1, keepdims=True)) / spread
    plain = np.where(rows > 0, np.log1p(np.maximum(apart, 0) * trust[:, None]), 0)
    plain[played == 0] = 0
    found = fitted(solved=solved).links(np.arange(TITLES), np.arange(TITLES)).toarray()
    assert found == pytest.approx(plain, abs=1e-5)


def test_titles_that_nobody_has_played_cost_no_memory_and_no_time():
    title, member = log()
    found = Companions(100_000, 5)
    tracemalloc.start()
    found.fit(title + np.arange(len(title)) % 3 * 30_000, member, solved=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert found.link.any()


def test_few_plays_are_trusted_less():
    few = Companions(TITLES, TITLES)
    few.fit(*log(members=8))
    assert few.link.max() < fitted().link.max()


def test_companions_are_deterministic():
    assert all(torch.equal(a, b) for a, b in zip(fitted().buffers(), fitted().buffers(), strict=True))


@pytest.mark.parametrize("events", [0, 1])
def test_a_log_of_next_to_nothing_links_nothing(events):
    found = Companions(TITLES, 5)
    found.fit(np.full(events, 3), np.zeros(events, np.int64))
    assert not found.link.any()


def test_a_model_whose_blends_do_not_use_companions_keeps_none():
    nothing = Companions(TITLES, 0)
    nothing.fit(*log())
    assert not nothing.state_dict()
