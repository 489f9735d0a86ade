"""Catalogues, members and rules of any kind, for laws that must hold of all of them."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import strategies as st

from playbill.definitions.specs import CandidatesSpec
from playbill.tables import polars_schema

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
IDS = tuple("abcdefgh")
GENRES = ("drama", "comedy", "thriller")
COUNTRIES = ("US", "DE", "*")

moments = st.integers(-60, 60).map(lambda days: NOW + days * DAY)


@st.composite
def titles(draw):
    """Every title with some metadata, much of it not known."""
    rows = [
        {
            "title_id": title,
            "valid_from": NOW - 90 * DAY,
            "recorded_at": NOW - 90 * DAY,
            "name": f"Title {title}",
            "names": None,
            "kind": draw(st.sampled_from(["film", "series", "game"])),
            "genres": draw(st.lists(st.sampled_from(GENRES), max_size=2, unique=True)),
            "original_language": draw(st.sampled_from(["en", "de", None])),
            "countries": draw(st.sampled_from([["US"], ["DE", "US"], None])),
            "release_date": draw(st.sampled_from([NOW - 9000 * DAY, NOW - 400 * DAY, None])),
            "kids": draw(st.sampled_from([True, False, None])),
            "characters": draw(st.sampled_from([["Ann"], ["Ann", "Bo"], [], None])),
        }
        for title in IDS
    ]
    return pl.DataFrame(rows, schema={name: polars_schema("titles")[name] for name in rows[0]})


@st.composite
def availability(draw):
    """Spans that begin before and after now, known before they begin or not."""
    rows = []
    for title in IDS:
        for country in draw(st.lists(st.sampled_from(COUNTRIES), max_size=2)):
            start = draw(moments)
            end = draw(st.one_of(st.none(), st.integers(1, 60).map(lambda days, start=start: start + days * DAY)))
            rows.append((title, country, start, end, draw(moments)))
    names = ("title_id", "country", "available_from", "available_until", "recorded_at")
    return pl.DataFrame(rows, schema={name: polars_schema("availability")[name] for name in names}, orient="row")


@st.composite
def history(draw):
    """A member's events before now, in order."""
    actions = ["play", "abandon", "my_list_add", "my_list_remove", "thumbs_up", "thumbs_down", "impression"]
    events = draw(
        st.lists(
            st.tuples(
                st.sampled_from([*IDS, "stranger"]),
                st.sampled_from(actions),
                st.sampled_from([0.05, 0.5, 0.9, 1.0, None]),
            ),
            max_size=25,
        )
    )
    rows = [
        {
            "event_id": f"e{number}",
            "member_id": "m",
            "seq": number,
            "event_at": NOW - (len(events) - number) * 3 * DAY,
            "recorded_at": NOW - (len(events) - number) * 3 * DAY,
            "action": action,
            "title_id": title,
            "canvas": "home",
            "country": "DE",
            "progress": progress,
        }
        for number, (title, action, progress) in enumerate(events)
    ]
    return pl.DataFrame(rows, schema=polars_schema("interactions"))


_days = st.one_of(st.none(), st.integers(1, 40).map(lambda days: timedelta(days=days)))
_requested = st.sampled_from([None, None, None, None, True, False])


@st.composite
def rules(draw, *, personal=True):
    """Rules about titles and launches and, where wanted, about popularity and the member's past."""
    wanted = {
        "available": draw(st.sampled_from(["now", "upcoming"])),
        "kids": draw(_requested),
        "kind": draw(st.sampled_from([*[None] * 5, ("film",), ("game", "series")])),
        "genres": draw(st.sampled_from([*[None] * 7, ("drama",), ("drama", "comedy")])),
        "origin": draw(st.sampled_from([*[None] * 5, ("DE",)])),
        "characters": draw(st.sampled_from([*[None] * 5, ("Bo",)])),
        "released": draw(st.sampled_from([*[None] * 5, {"since": 2020}])),
    }
    ahead = wanted["available"] == "upcoming"
    for name in ("launches_within", "launches_after") if ahead else ("launched_within", "launched_before"):
        wanted[name] = draw(_days)
    if personal:
        wanted["watched"] = draw(_requested)
        wanted["on_my_list"] = draw(_requested)
        wanted["popularity_percentile"] = draw(st.sampled_from([None, {"below": 60}]))
        if not ahead:
            wanted["top_in_country"] = draw(st.sampled_from([None, 3]))
            wanted["in_progress"] = draw(st.sampled_from([None, True])) if wanted["watched"] is not False else None
    texts = {name: value for name, value in wanted.items() if value is not None}
    try:
        return CandidatesSpec.model_validate(texts)
    except ValueError:
        return CandidatesSpec(available=wanted["available"])
