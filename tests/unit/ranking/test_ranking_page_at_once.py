"""A page scored at once against every row scored, blended and ranked by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from fixtures.page_problem import AT, HEADS, Features, launches, losses, make_page, make_scorer, title_rows
from playbill.errors import UnknownNameError
from playbill.ranking.blend import blend, rank


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return make_scorer(tmp_path_factory.mktemp("page") / "bundle", 120, dim=16)


@pytest.fixture(scope="module")
def page(scorer):
    return make_page(scorer, rows=9, events=30)


def plain(scorer, page, row):
    own = {head: values[0] for head, values in scorer.score([page.requests[row]]).items()}
    return blend(own, losses(scorer), page.blends[row], page.candidates[row])


def test_every_row_is_blended_and_listed_as_if_it_were_alone(scorer, page):
    found = scorer.score_page(page.requests, page.blends, page.candidates)
    assert len(found) == 9
    for row in range(9):
        expected = plain(scorer, page, row)
        np.testing.assert_allclose(found.scores[row], expected, rtol=1e-4, atol=1e-4)
        listed, best = rank(expected, page.candidates[row], 10), found.best(row, 10)
        np.testing.assert_array_equal(best.columns, listed.columns)
        np.testing.assert_allclose(best.scores, listed.scores, rtol=1e-4, atol=1e-4)


def test_rows_with_a_query_find_names(scorer, page):
    searched = replace(page.requests[0], canvas="search", query="wordt00017")
    alone = scorer.score([searched])["discovery_play"][0]
    requested = [searched, page.requests[1]]
    found = scorer.score_page(requested, [{"discovery_play": 1.0}] * 2, np.ones((2, 120), bool))
    assert scorer.title_ids[int(found.best(0, 1).columns[0])] == "t00017"
    np.testing.assert_array_equal(np.argsort(-found.scores[0])[:20], np.argsort(-alone)[:20])
    everything = np.ones(120, bool)
    unrequested = blend(
        {"discovery_play": scorer.score([page.requests[1]])["discovery_play"][0]},
        losses(scorer),
        {"discovery_play": 1.0},
        everything,
    )
    np.testing.assert_allclose(found.scores[1], unrequested, rtol=1e-4, atol=1e-4)


def test_the_past_is_read_once_and_only_heads_of_the_blends_are_asked(scorer, page, monkeypatch):
    shapes, requested = [], []
    states = scorer.network.last_states
    monkeypatch.setattr(
        scorer.network,
        "last_states",
        lambda history, *rest: shapes.append(history.title.shape) or states(history, *rest),
    )
    for head, name in zip(scorer.network.heads, HEADS, strict=True):
        monkeypatch.setattr(
            head, "queries", lambda state, old=head.queries, name=name: requested.append(name) or old(state)
        )
    scorer.score_page(page.requests, page.blends, page.candidates)
    assert [shape[0] for shape in shapes] == [1]
    assert sorted(requested) == sorted({head for weights in page.blends for head in weights} - {"similarity"})


def test_another_moment_is_scored_with_its_own_features(scorer, page):
    """The biases that are kept belong to a moment and a canvas."""
    scorer.score_page(page.requests, page.blends, page.candidates)
    for days in (3, 0, 5):
        later = [replace(request, at=AT + timedelta(days=days)) for request in page.requests]
        found = scorer.score_page(later, page.blends, page.candidates)
        alone = replace(page, requests=tuple(later))
        np.testing.assert_allclose(found.scores[4], plain(scorer, alone, 4), rtol=1e-4, atol=1e-4)


def test_a_kept_state_serves_a_page_too(scorer, page):
    keeping = type(scorer)(
        scorer.bundle,
        title_rows(scorer.title_ids),
        launches(scorer.title_ids),
        Features(),
        as_of=AT,
        network=scorer.network,
        kept_states=2,
    )
    first = keeping.score_page(page.requests, page.blends, page.candidates)
    read, shapes = keeping.network.last_states, []
    keeping.network.last_states = lambda history, *rest: (
        shapes.append(tuple(history.title.shape)) or read(history, *rest)
    )
    try:
        again = keeping.score_page(page.requests, page.blends, page.candidates)
    finally:
        keeping.network.last_states = read
    assert shapes == [(1, 1)]
    np.testing.assert_allclose(first.scores, again.scores, rtol=1e-4, atol=1e-4)


def test_requests_of_two_moments_and_uneven_lists_are_refused(scorer, page):
    later = [page.requests[0], replace(page.requests[1], at=AT + timedelta(days=2))]
    with pytest.raises(ValueError, match="one moment"):
        scorer.score_page(later, page.blends[:2], page.candidates[:2])
    with pytest.raises(ValueError, match="9 requests, 8 blends"):
        scorer.score_page(page.requests, page.blends[:8], page.candidates)
    with pytest.raises(UnknownNameError, match="Did you mean 'completion'"):
        scorer.score_page(page.requests[:1], [{"completon": 1.0}], page.candidates[:1])
    assert len(scorer.score_page([], [], page.candidates[:0])) == 0
