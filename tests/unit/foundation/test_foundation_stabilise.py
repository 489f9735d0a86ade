"""Stabilised vectors: scores stay, the space stays, and what cannot be aligned is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.errors import DataError
from playbill.foundation.stabilise import PublishedTitles, stabilising_map

WIDTH, TITLES, MEMBERS = 8, 60, 200
IDS = tuple(f"t{number}" for number in range(TITLES))


def vectors(seed, width=WIDTH):
    """Return members and titles whose axes have very different strengths."""
    draws = np.random.default_rng(seed)
    stretch = np.geomspace(1, 30, width)
    return (
        (draws.normal(size=(MEMBERS, width)) * stretch).astype(np.float32),
        (draws.normal(size=(TITLES, width)) / stretch[::-1]).astype(np.float32),
    )


def retrained(members, titles, seed):
    """Return the same scores in a space that is turned and stretched."""
    draws = np.random.default_rng(seed)
    turns = [np.linalg.qr(draws.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2)]
    space = turns[0] * np.geomspace(0.3, 3, WIDTH) @ turns[1]
    return (members @ np.linalg.inv(space).T).astype(np.float32), (titles @ space).astype(np.float32)


def cosines(a, b):
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@given(st.integers(0, 10_000), st.booleans())
def test_no_score_changes(seed, again):
    members, titles = vectors(seed)
    before = PublishedTitles(IDS, vectors(seed + 1)[1]) if again else None
    space = stabilising_map(members, titles, IDS, before)
    plain = members.astype(np.float64) @ titles.T.astype(np.float64)
    moved = space.of_members(members).astype(np.float64) @ space.of_titles(titles).T.astype(np.float64)
    assert np.abs(plain - moved).max() < 1e-5 * np.abs(plain).max()


@given(st.integers(0, 10_000))
def test_a_space_that_is_only_turned_and_stretched_comes_back(seed):
    members, titles = vectors(seed)
    first = stabilising_map(members, titles, IDS)
    published = PublishedTitles(IDS, first.of_titles(titles))
    other_members, other_titles = retrained(members, titles, seed)
    space = stabilising_map(other_members, other_titles, IDS, published)
    assert cosines(space.of_titles(other_titles), published.vectors).min() > 0.999
    assert cosines(space.of_members(other_members), first.of_members(members)).min() > 0.999


def test_stabilising_what_is_stable_changes_nothing():
    members, titles = vectors(3)
    first = stabilising_map(members, titles, IDS)
    members, titles = first.of_members(members), first.of_titles(titles)
    space = stabilising_map(members, titles, IDS, PublishedTitles(IDS, titles))
    np.testing.assert_allclose(space.of_titles(titles), titles, atol=1e-4)
    np.testing.assert_allclose(space.of_members(members), members, atol=1e-4 * np.abs(members).max())


def test_members_and_titles_are_spread_alike():
    members, titles = vectors(5)
    space = stabilising_map(members, titles, IDS)
    of_members, of_titles = space.of_members(members), space.of_titles(titles)
    moments = of_members.T @ of_members / MEMBERS, of_titles.T @ of_titles / TITLES
    np.testing.assert_allclose(*moments, atol=1e-3 * moments[0].max())


def test_no_number_of_a_vector_is_a_weak_axis_of_its_own():
    """A frozen reader that standardises each number would blow up what a weak axis gets of a strong one."""
    members, titles = vectors(6)
    space = stabilising_map(members, titles, IDS)
    of_titles = space.of_titles(titles)
    axes = np.linalg.eigvalsh(of_titles.T @ of_titles)
    assert axes.max() > 100 * axes.min()
    strengths = (of_titles**2).mean(axis=0)
    assert strengths.max() < 20 * strengths.min()


def test_an_axis_that_no_member_uses_stays_invertible():
    members, titles = vectors(7)
    members[:, 2] = 0
    space = stabilising_map(members, titles, IDS)
    np.testing.assert_allclose(
        space.of_members(members) @ space.of_titles(titles).T, members @ titles.T, atol=1e-3 * np.abs(titles).max()
    )


def test_new_titles_are_carried_along():
    members, titles = vectors(9)
    first = stabilising_map(members, titles[:40], IDS[:40])
    published = PublishedTitles(IDS[:40], first.of_titles(titles[:40]))
    space = stabilising_map(*retrained(members, titles, 1), IDS, published)
    assert space.common == 40
    found = space.of_titles(retrained(members, titles, 1)[1])
    assert cosines(found[40:], first.of_titles(titles)[40:]).min() > 0.99


def test_too_few_titles_in_common_are_refused():
    members, titles = vectors(11)
    before = PublishedTitles((*IDS[: WIDTH - 1], "gone", "gone too"), titles[: WIDTH + 1])
    with pytest.raises(DataError, match=r"7 titles were published before, and vectors of 8 numbers need 8"):
        stabilising_map(members, titles, IDS, before)


def test_another_width_starts_a_lineage_and_says_so():
    members, titles = vectors(13)
    before = PublishedTitles(IDS, vectors(13, width=4)[1])
    space = stabilising_map(members, titles, IDS, before)
    assert (space.common, space.note) == (0, "vectors are 8 wide, those published before 4")


def test_vectors_that_are_no_numbers_are_refused_together():
    members, titles = vectors(15)
    members[3, 0], titles[[1, 4], 2] = np.nan, np.inf
    with pytest.raises(DataError) as refused:
        stabilising_map(members, titles, IDS)
    assert "members: have 1 rows" in str(refused.value)
    assert "titles: have 2 rows" in str(refused.value)
