from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from playbill.definitions.specs.head import HISTORY_TERMS
from playbill.models.config import HistoryTermsConfig
from playbill.models.history_terms import HistoryTerms, Plays, WeekPlays, length_group, standardised, successors
from playbill.models.strongest import strongest

TITLES = 8


def plays(*histories: list[int], moments: list[list[int]] | None = None) -> Plays:
    owner = np.repeat(np.arange(len(histories)), [len(one) for one in histories]).astype(np.int64)
    title = np.array([title for one in histories for title in one], np.int64)
    progress = moments or [list(range(len(one))) for one in histories]
    moment = np.array([at for one in progress for at in one], np.int64)
    return Plays(owner, title, moment, len(histories))


def terms(*names: str, neighbours: int = 4) -> HistoryTerms:
    config = HistoryTermsConfig.model_validate(
        {"terms": names or HISTORY_TERMS, "heads": ["play"], "neighbours": neighbours, "popularity": 0}
    )
    return HistoryTerms(config, TITLES, 3)


def test_successors_count_less_the_later_they_come() -> None:
    found = np.expm1(successors(plays([1, 2, 3], [1, 2]), TITLES, 4).toarray())
    assert found[1, 2] == pytest.approx(2.0)
    assert found[1, 3] == pytest.approx(0.6)
    assert found[2, 1] == 0
    assert found[3].sum() == 0


def test_plays_of_one_moment_follow_each_other_alike() -> None:
    tied = successors(plays([1, 2], moments=[[5, 5]]), TITLES, 4).toarray()
    turned = successors(plays([2, 1], moments=[[5, 5]]), TITLES, 4).toarray()
    np.testing.assert_allclose(tied, turned)
    assert tied[1, 2] == tied[2, 1] > 0


def test_plays_of_one_moment_are_equally_old() -> None:
    np.testing.assert_allclose(plays([1, 2, 3, 4], moments=[[0, 7, 7, 9]]).later(), [3.0, 1.5, 1.5, 0.0])


def test_the_largest_weight_of_a_title_counts() -> None:
    own = plays([1, 2, 1], [3])
    found = own.matrix(np.array([0.2, 0.5, 1.0, 0.0]), TITLES).toarray()
    np.testing.assert_allclose(found[0, :3], [0, 1.0, 0.5])
    assert found[1].sum() == 0


def test_the_strongest_weights_are_kept() -> None:
    table = sparse.csr_array(np.array([[0, 0.1, -3.0, 2.0], [0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 0, 0]], np.float32))
    neighbour, value = strongest(table, 2)
    assert neighbour[0].tolist() == [2, 3]
    assert value[0].tolist() == [-3.0, 2.0]
    assert neighbour[2, 0] == 3
    assert value[1].sum() == 0


def test_terms_have_mean_0_and_deviation_1_over_what_was_not_played() -> None:
    generator = np.random.default_rng(1)
    own = terms()
    own.fit(plays(*[generator.integers(1, TITLES, 12).tolist() for _ in range(40)]))
    popular = generator.normal(size=(2, TITLES)).astype(np.float32)
    found = own.values(plays([1, 2, 3], []), WeekPlays(popular, np.arange(2)), TITLES)
    assert found.shape == (2, 5, TITLES)
    unseen = found[0][:, 4:]
    np.testing.assert_allclose(unseen.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(unseen.std(axis=1), 1, atol=1e-4)
    assert np.abs(found[1, :4]).sum() == 0, "without a history there is only popularity"
    assert np.abs(found[1, 4]).sum() > 0


def test_a_title_that_came_later_is_scored_like_one_that_nobody_played() -> None:
    own = terms("transitions", "item_knn")
    own.fit(plays([1, 2, 3], [1, 2], [2, 3]))
    grown = own.values(plays([1]), None, TITLES + 2)
    assert grown.shape == (1, 2, TITLES + 2)
    np.testing.assert_allclose(grown[0, :, TITLES], grown[0, :, TITLES - 1], atol=1e-6)


def test_terms_do_not_depend_on_what_else_is_asked() -> None:
    generator = np.random.default_rng(2)
    own = terms("transitions", "ease", "recent_ease", "item_knn")
    own.fit(plays(*[generator.integers(1, TITLES, 9).tolist() for _ in range(30)]))
    together = own.values(plays([1, 2], [3, 4, 5], [6]), None, TITLES)
    for place, history in enumerate(([1, 2], [3, 4, 5], [6])):
        np.testing.assert_array_equal(own.values(plays(history), None, TITLES)[0], together[place])


def test_what_a_member_played_next_comes_first() -> None:
    own = terms("transitions", "item_knn")
    own.fit(plays(*([[1, 2]] * 20), *([[3, 4]] * 20), *([[5, 6, 7]] * 20)))
    found = own.values(plays([3]), None, TITLES)[0]
    assert found.argmax(axis=1).tolist() == [4, 4]


def test_sums_are_those_of_standardised_terms() -> None:
    draw = np.random.default_rng(2)
    own = terms(*HISTORY_TERMS)
    own.fit(plays(*(draw.integers(1, TITLES, 6).tolist() for _ in range(30))))
    requested = plays([1, 2, 3, 2], [4], [], draw.integers(1, TITLES, 12).tolist())
    popular = draw.random((3, TITLES + 2)).astype(np.float32)
    popular[2] = 2.0
    popular = WeekPlays(popular, np.array([0, 1, 0, 2]))
    weights = draw.random((4, len(own.config.terms))).astype(np.float32)
    for week in (popular, None):
        plain = np.einsum("uk,ukt->ut", weights, own.values(requested, week, TITLES + 2))
        np.testing.assert_allclose(own.sums(requested, week, TITLES + 2, weights), plain, atol=2e-5)
    assert not own.sums(requested, popular, TITLES + 2, np.zeros_like(weights)).any()


def test_weights_are_by_canvas_and_length() -> None:
    own = terms("transitions")
    own.weights[0, 1, length_group(np.array([6]))[0], 0] = 0.5
    found = own.weights_of("play", np.array([1, 1, 2]), np.array([6, 4, 6]))
    assert found[:, 0].tolist() == [0.5, 0.0, 0.0]
    assert length_group(np.array([0, 1, 4, 5, 19, 20, 79, 80, 500])).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_tables_travel_with_the_weights() -> None:
    own, other = terms(), terms()
    own.fit(plays([1, 2, 3], [1, 2], [2, 3, 4]))
    own.weights[:] = 0.25
    other.load_state_dict(own.state_dict())
    requested = plays([1, 2])
    np.testing.assert_array_equal(own.values(requested, None, TITLES), other.values(requested, None, TITLES))
    assert torch.equal(own.weights, other.weights)


def test_an_empty_log_gives_empty_tables() -> None:
    own = terms()
    own.fit(plays())
    assert np.abs(own.values(plays([1, 2]), None, TITLES)).sum() == 0


def test_a_row_without_any_difference_is_0() -> None:
    values = np.full((1, 4), 3.0, np.float32)
    assert standardised(values, np.array([[False, True, True, True]])).tolist() == [[0, 0, 0, 0]]
