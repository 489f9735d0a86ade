"""Laws of candidate rules: nothing that is known later counts, and training, evaluation and serving agree."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fixtures import made_catalogue as made
from fixtures.made_catalogue import DAY, IDS, NOW
from playbill.datasets.availability import availability_states
from playbill.datasets.candidate_masks import Audience, Described
from playbill.definitions.specs import CandidatesSpec, CanvasSpec
from playbill.ranking.candidates import Catalogue, MemberHistory, Viewer, explain, past_of, select
from playbill.ranking.popularity import PlayLog
from playbill.tables import Vocabulary


def viewer(catalogue: Catalogue, history: pl.DataFrame, country: str = "DE", **more: object) -> Viewer:
    plays, past = PlayLog(catalogue, history), past_of(history, catalogue)
    return Viewer(
        NOW,
        country,
        watched=past.played,
        plays=lambda: plays.before(NOW),
        country_plays=lambda: plays.of_week(NOW, country),
        past=lambda: past,
        **more,  # type: ignore[arg-type]
    )


@settings(max_examples=60, deadline=None)
@given(titles=made.titles(), spans=made.availability(), rules=made.rules(), history=made.history())
def test_what_is_announced_after_a_request_changes_nothing_in_it(
    titles: pl.DataFrame, spans: pl.DataFrame, rules: CandidatesSpec, history: pl.DataFrame
) -> None:
    # What can be played is there to be seen; that a span will begin is known only from when it was recorded.
    known = spans.filter((pl.col("recorded_at") <= NOW) | (pl.col("available_from") <= NOW))
    now, later = (Catalogue(IDS, titles, own) for own in (known, spans))
    assert select(later, rules, viewer(later, history)).tolist() == select(now, rules, viewer(now, history)).tolist()


@settings(max_examples=60, deadline=None)
@given(titles=made.titles(), spans=made.availability(), rules=made.rules(personal=False), kids=st.booleans())
def test_what_training_masks_is_what_serving_would_not_show(
    titles: pl.DataFrame, spans: pl.DataFrame, rules: CandidatesSpec, kids: bool
) -> None:
    requested = [
        (NOW + hours * timedelta(hours=7), country) for hours in (-90, -1, 0, 1, 90) for country in ("DE", "ZZ")
    ]
    requests = pl.DataFrame(
        {"event_at": [at for at, _ in requested], "country": [country for _, country in requested], "canvas": "own"},
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )
    canvas = CanvasSpec(name="own", version=1, candidates=rules, blend={"play": 1.0}, metric="play")

    class Resolved:
        canvases = {"own": canvas}  # noqa: RUF012

    audience = Audience(Described.of(("", *IDS), titles), np.full(len(requested), kids))
    states, state = availability_states(Vocabulary("title", IDS), spans, requests, Resolved, audience)  # type: ignore[arg-type]
    mask = states.mask(state)[:, 1:] if len(states) else np.ones((len(requested), len(IDS)), np.bool_)
    catalogue = Catalogue(IDS, titles, spans)
    shown = [select(catalogue, rules, Viewer(at, country, kids_profile=kids)) for at, country in requested]
    assert mask.tolist() == np.stack(shown).tolist()


@settings(max_examples=60, deadline=None)
@given(titles=made.titles(), spans=made.availability(), rules=made.rules(), history=made.history())
def test_a_title_is_in_when_every_rule_allows_it(
    titles: pl.DataFrame, spans: pl.DataFrame, rules: CandidatesSpec, history: pl.DataFrame
) -> None:
    catalogue = Catalogue(IDS, titles, spans)
    asks = viewer(catalogue, history)
    mask = select(catalogue, rules, asks)
    for title in range(len(IDS)):
        assert mask[title] == all(explain(catalogue, rules, asks, title).values())


def plain_past(history: pl.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """In progress, finished and listed titles, newest first, event by event."""
    rows = list(history.iter_rows(named=True))
    found: tuple[list[tuple[int, str]], ...] = ([], [], [])
    for title in IDS:
        plays = [row for row in rows if row["title_id"] == title and row["action"] == "play"]
        if plays and plays[-1]["progress"] is not None:
            last = plays[-1]
            given_up = any(
                row["title_id"] == title and row["action"] == "abandon" and row["seq"] > last["seq"] for row in rows
            )
            done = last["progress"] >= 0.9 - 1e-6
            if done or not given_up:
                found[done].append((last["seq"], title))
        listed = [row for row in rows if row["title_id"] == title and row["action"].startswith("my_list")]
        if listed and listed[-1]["action"] == "my_list_add":
            found[2].append((listed[-1]["seq"], title))
    going, done, listed = ([title for _, title in sorted(own, reverse=True)] for own in found)
    return going, done, listed


@settings(max_examples=40, deadline=None)
@given(history=made.history())
def test_a_past_is_what_plain_loops_say(history: pl.DataFrame) -> None:
    catalogue = Catalogue(IDS, pl.DataFrame(schema={"title_id": pl.String, "name": pl.String, "names": pl.Null}), SPANS)
    past = past_of(history.sample(fraction=1.0, shuffle=True, seed=1), catalogue)
    own = [[IDS[column] for column in columns] for columns in (past.in_progress, past.finished, past.my_list)]
    assert tuple(own) == plain_past(history)
    finished = {IDS[column]: at for column, at in zip(past.finished, past.finished_at, strict=True)}
    for title, at in finished.items():
        last = history.filter((pl.col("title_id") == title) & (pl.col("action") == "play"))["event_at"].max()
        assert at == int(last.timestamp() * 1e6)  # type: ignore[union-attr]


SPANS = pl.DataFrame(
    {"title_id": IDS, "country": ["*"] * 8, "available_from": [NOW - 90 * DAY] * 8, "available_until": [None] * 8},
    schema_overrides={"available_from": pl.Datetime("us", "UTC"), "available_until": pl.Datetime("us", "UTC")},
)


def shown(rules: dict[str, object], asks: Viewer, spans: pl.DataFrame = SPANS, **columns: list[object]) -> str:
    base = {"title_id": IDS, "name": IDS, "names": [None] * 8}
    catalogue = Catalogue(IDS, pl.DataFrame({**base, **columns}), spans)
    mask = select(catalogue, CandidatesSpec.model_validate(rules), asks)
    return "".join(title for title, may in zip(IDS, mask, strict=True) if may)


def test_rules_about_the_members_own_past() -> None:
    at = [int((NOW - days * DAY).timestamp() * 1e6) for days in (20, 30, 31)]
    past = MemberHistory(np.arange(5), np.array([1, 0]), np.array([2, 3, 4]), np.array(at), np.array([7, 3]))
    asks = Viewer(NOW, "DE", watched=past.played, past=lambda: past)
    assert shown({"in_progress": True}, asks) == "ab"
    assert shown({"in_progress": False, "watched": True}, asks) == "cde"
    assert shown({"on_my_list": True}, asks) == "dh"
    assert shown({"on_my_list": False}, asks) == "abcefg"
    assert shown({"finished_before": "30d"}, asks) == "de"
    assert shown({"finished_before": "30d", "on_my_list": True}, asks) == "d"
    assert shown({"in_progress": True}, Viewer(NOW, "DE")) == ""


def test_the_top_of_a_country_is_among_what_can_be_had_there() -> None:
    asks = Viewer(NOW, "DE", country_plays=lambda: np.array([9, 8, 7, 7, 0, 0, 6, 5]))
    assert shown({"top_in_country": 3}, asks) == "abc"
    assert shown({"top_in_country": 3}, asks, SPANS.filter(pl.col("title_id") != "b")) == "acd"
    assert shown({"top_in_country": 8}, asks) == "abcdgh"
    kids = Viewer(NOW, "DE", kids_profile=True, country_plays=asks.country_plays)
    assert shown({"top_in_country": 2}, kids, kids=[None, False, True, False, True, True, True, True]) == "cg"
    assert shown({"top_in_country": 2, "kind": ["game"]}, asks, kind=["film"] * 6 + ["game"] * 2) == "gh"


def test_launches_are_counted_from_the_request() -> None:
    days = (-20, -10, -9, 0, 5, 28, 29, 60)
    launches = pl.Series([NOW + day * DAY for day in days], dtype=pl.Datetime("us", "UTC"))
    spans = SPANS.with_columns(available_from=launches, recorded_at=pl.lit(NOW - 99 * DAY).cast(launches.dtype))
    asks = Viewer(NOW, "DE")
    assert shown({"launched_within": "10d"}, asks, spans) == "bcd"
    assert shown({"launched_before": "10d"}, asks, spans) == "ab"
    assert shown({"available": "upcoming", "launches_within": "28d"}, asks, spans) == "ef"
    assert shown({"available": "upcoming", "launches_after": "28d"}, asks, spans) == "gh"
    late = spans.with_columns(recorded_at=pl.lit(NOW + timedelta(microseconds=1)).cast(launches.dtype))
    assert shown({"available": "upcoming"}, asks, late) == ""
    assert shown({"available": "upcoming"}, Viewer(NOW + timedelta(microseconds=1), "DE"), late) == "efgh"


def test_metadata_that_is_not_known_matches_no_rule() -> None:
    years = pl.Series([1994, 1995, 1999, 2000, None, None, None, None], dtype=pl.Int32)
    dates = pl.select(pl.datetime(years, 6, 1, time_zone="UTC")).to_series().to_list()
    asks = Viewer(NOW, "DE")
    assert shown({"released": {"since": 1995, "until": 1999}}, asks, release_date=dates) == "bc"
    assert shown({"released": {"until": 1994}}, asks, release_date=dates) == "a"
    assert shown({"origin": ["FR"]}, asks, countries=[["FR"], ["US", "FR"], [], None, *[["US"]] * 4]) == "ab"
    assert shown({"genres": ["A", "B"]}, asks, genres=[["A"], ["B", "A"], [], None, *[["B"]] * 4]) == "b"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"launches_within": "7d"}, "needs available: upcoming"),
        ({"available": "upcoming", "top_in_country": 10}, "needs available: now"),
        ({"in_progress": True, "watched": False}, "nothing satisfies both 'in_progress' and watched: false"),
        ({"finished_before": "1d", "in_progress": True}, "nothing satisfies both"),
        ({"launched_within": "7d", "launched_before": "8d"}, "no launch satisfies both"),
        ({"released": {"since": 2000, "until": 1999}}, "no year is from 2000 on and until 1999"),
        ({"kind": ["movie"]}, "unknown kind of title 'movie'"),
    ],
)
def test_rules_that_nothing_can_satisfy_are_refused(rules: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CandidatesSpec.model_validate(rules)
