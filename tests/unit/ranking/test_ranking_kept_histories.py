"""What a scorer keeps of members' histories: scores are those of a history read anew, for every trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures.page_problem import AT, Features, Page, launches, make_page, make_scorer, title_rows
from playbill.datasets import Request
from playbill.ranking.scoring.scorer import Scorer

TRUNKS = {
    "gated_transformer": {},
    "hstu": {},
    "sasrec": {},
    "hstu with time": {"type": "hstu", "options": {"time_bias": True}},
}
TITLES, LONGEST = 150, 200
PLENTY = 2**24


def past_of(titles: tuple[str, ...], places: list[int]) -> pl.DataFrame:
    """Return plays of titles, an hour apart, the last one an hour before the request."""
    count = len(places)
    return pl.DataFrame(
        {
            "member_id": ["m"] * count,
            "seq": range(count),
            "event_at": [AT - timedelta(hours=count - place) for place in range(count)],
            "action": ["play"] * count,
            "title_id": [titles[place % TITLES] for place in places],
            "canvas": ["home"] * count,
            "device": ["tv"] * count,
            "language": ["en"] * count,
            "duration_s": np.full(count, 900, np.float32),
        },
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )


def keeping(plain: Scorer, most: int = PLENTY) -> Scorer:
    frames = title_rows(plain.title_ids), launches(plain.title_ids)
    return Scorer(plain.bundle, *frames, Features(), as_of=AT, kept_histories=most)


@pytest.fixture(scope="module", params=TRUNKS.items(), ids=list(TRUNKS))
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    name, trunk = request.param
    sizes = {"type": name, "dim": 16, "layers": 2, "heads": 2}
    return make_scorer(tmp_path_factory.mktemp("bundle"), TITLES, **sizes | trunk)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scorer], list[tuple[int, int]]]:
    """Note how many tokens each call finds kept, and how many it reads."""

    def watch(scorer: Scorer) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        original = scorer.network.trunk.extend

        def extend(tokens, cache, kept, **gaps):
            found.append((0 if cache is None else cache[0].keys.shape[2], tokens.shape[1]))
            return original(tokens, cache, kept, **gaps)

        monkeypatch.setattr(scorer.network.trunk, "extend", extend)
        return found

    return watch


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for head, values in expected.items():
        np.testing.assert_allclose(found[head], values, rtol=1e-4, atol=1e-5)


def test_a_history_that_grows_scores_as_if_it_were_read_anew(plain: Scorer, reads) -> None:
    scorer, titles = keeping(plain), plain.title_ids
    found = reads(scorer)
    lengths = (0, 1, 2, 3, 4, 4, 60, 61, LONGEST - 1, LONGEST, LONGEST + 1, LONGEST + 2)
    for length in lengths:
        # Its oldest event stays where it is, as that of a member does.
        history = past_of(titles, list(range(LONGEST + 5))).head(length)
        request = Request("home", AT, "m", country="US", history=history)
        assert_same(scorer.score([request]), plain.score([request]))
    # (kept, read): all but the last event is kept, so an event more is two tokens, and none is none; a window that slid
    # is read anew.
    grown = [(0, 1), (0, 2), (1, 2), (2, 2), (3, 2), (4, 57), (60, 2), (61, 139), (199, 2)]
    assert found == [*grown, (0, LONGEST + 1), (0, LONGEST + 1)]


def test_an_event_that_merges_into_the_last_token_is_read(plain: Scorer, reads) -> None:
    scorer, titles = keeping(plain), plain.title_ids
    found = reads(scorer)
    for places in ([1, 2, 3], [1, 2, 3, 3], [1, 2, 3, 3, 4]):
        request = Request("home", AT, "m", history=past_of(titles, [1, 2, 3, 3, 4]).head(len(places)))
        assert_same(scorer.score([request]), plain.score([request]))
    assert found == [(0, 4), (3, 1), (3, 2)]


def test_a_history_with_another_past_is_read_anew(plain: Scorer, reads) -> None:
    scorer, titles = keeping(plain), plain.title_ids
    found = reads(scorer)
    first = past_of(titles, [1, 2, 3, 4])
    late = first.with_columns(duration_s=pl.when(pl.col("seq") == 1).then(9_000.0).otherwise(pl.col("duration_s")))
    for history in (first, late, past_of(titles, [5, 1, 2, 3, 4]), first.head(2)):
        request = Request("home", AT, "m", history=history)
        assert_same(scorer.score([request]), plain.score([request]))
    assert [kept for kept, _ in found] == [0] * 4


def test_members_do_not_share_what_is_kept_and_the_oldest_give_way(plain: Scorer, reads) -> None:
    length = 20
    one = Request("home", AT, "m0", history=past_of(plain.title_ids, list(range(length))))
    scorer = keeping(plain)
    scorer.score([one])
    # events; the state; two blocks' keys, values and rows that are mixed
    size = 7 * 8 * length + 4 * 16 + 2 * 4 * 16 * (2 * length + 6)
    scorer = keeping(plain, 2 * size)
    found = reads(scorer)
    for member in ("m0", "m1", "m0", "m2", "m0", "m1"):
        scorer.score([replace(one, member_id=member)])
    assert len(found) == 4, "the first is kept throughout, and the second gave way to the third"


def test_a_refreshed_scorer_keeps_nothing_of_what_was_read_with_other_titles(plain: Scorer, reads) -> None:
    scorer = keeping(plain)
    request = Request("home", AT, "m", history=past_of(plain.title_ids, [1, 2, 3]))
    scorer.score([request])
    state = title_rows(plain.title_ids), launches(plain.title_ids), AT + timedelta(days=9)
    later = scorer.refreshed(*state)
    found = reads(later)
    assert_same(later.score([request]), plain.refreshed(*state).score([request]))
    later.score([request])
    assert found == [(0, 4)]


def test_a_page_is_read_on_from_what_is_kept(plain: Scorer, reads) -> None:
    scorer, page = keeping(plain), make_page(plain, rows=6, events=40)
    found = reads(scorer)
    scored(scorer, page)
    expected = scored(plain, page)
    np.testing.assert_allclose(scored(scorer, page), expected, rtol=1e-4, atol=1e-5)
    assert len(found) == 1, "asked again, it is not read"


def scored(scorer: Scorer, page: Page) -> np.ndarray:
    found: np.ndarray = scorer.score_page(page.requests, page.blends, page.candidates).scores
    return found


def test_several_members_are_read_together_and_nothing_of_them_is_kept(plain: Scorer, reads) -> None:
    scorer, titles = keeping(plain), plain.title_ids
    found = reads(scorer)
    requests = [Request("home", AT, f"m{size}", history=past_of(titles, list(range(size)))) for size in (3, 5)]
    assert_same(scorer.score(requests), plain.score(requests))
    nobody = [Request("home", AT, None, history=past_of(titles, [1, 2])), Request("home", AT, "m")]
    for request in nobody:
        assert_same(scorer.score([request]), plain.score([request]))
    assert found == []
