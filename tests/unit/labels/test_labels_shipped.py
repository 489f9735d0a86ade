"""The shipped labels: equal to their sentences, disjoint where they must be, and never told too early."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.plain_labels import PLAIN, plain_labels
from playbill.definitions.specs import LabelSpec
from playbill.definitions.zoo import load_zoo
from playbill.errors import StateError
from playbill.labels import label_columns, label_events
from playbill.tables import polars_schema

ZOO = load_zoo(Path(__file__).parents[3] / "model_zoo")
LABELS = [ZOO.labels[name] for name in PLAIN]
START = datetime(2026, 1, 1, tzinfo=UTC)
TITLES = pl.DataFrame({"title_id": ["t", "u", "v"], "genres": [["Drama", "Comedy"], ["Comedy"], None]})
GENRES = {"t": ["Drama", "Comedy"], "u": ["Comedy"]}
ACTIONS = (
    ["impression"] * 6 + ["play"] * 6 + ["search", "thumbs_up", "thumbs_down", "my_list_add", "remind_me", "abandon"]
)
GAPS = [0, 0, 0, 0.02, 0.5, 1, 3.9, 4, 4.1, 20, 24, 30, 160]
"""Hours to the next event: at, just before and just after what windows and idle times turn on."""

EVENT = st.fixed_dictionaries(
    {
        "action": st.sampled_from(ACTIONS),
        "title_id": st.sampled_from(["t", "t", "u", "v", None]),
        "member_id": st.sampled_from(["m", "m", "n"]),
        "request_id": st.sampled_from(["r1", "r1", "r2", None]),
        "row_id": st.sampled_from(["a", "b", None]),
        "canvas": st.sampled_from(["home", "search", "coming_soon"]),
        "progress": st.sampled_from([None, 0.05, 0.1, 0.5, 0.9, 1.0]),
        "gap": st.sampled_from(GAPS),
        "late": st.sampled_from([0.0, 1.0]),
    }
)
EVENTS = st.lists(EVENT, min_size=1, max_size=16)


def log(events: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Lay events out in time. A play is recorded up to two hours later, and before the member's next event."""
    rows, hours = [], dict.fromkeys(("m", "n"), 0.0)
    for number, event in enumerate(events):
        hours[event["member_id"]] += event["gap"]
        rows.append(event | {"event_id": f"e{number}", "seq": number, "hours": hours[event["member_id"]]})
    for place, row in enumerate(rows):
        row["event_at"] = START + timedelta(hours=row["hours"])
        rest = [other["hours"] for other in rows[place + 1 :] if other["member_id"] == row["member_id"]]
        lag = min(2.0, (rest[0] if rest else 1e9) - row["hours"]) if row["action"] == "play" else 0.0
        row["recorded_at"] = row["event_at"] + timedelta(hours=lag * row["late"])
        row["country"] = "ZZ"
        title = row["title_id"] if row["action"] == "impression" else row["title_id"] or "u"
        row["title_id"] = None if row["action"] == "search" else title
    schema = polars_schema("interactions")
    return pl.DataFrame(rows, schema_overrides=schema).select(pl.col(name) for name in schema if name in rows[0])


def progress(frame: pl.DataFrame, as_of: datetime, labels: Sequence[LabelSpec] = LABELS) -> dict[str, dict[str, float]]:
    found = label_events(labels, frame, as_of, titles=TITLES)
    names = [label.name for label in labels]
    return {
        row["event_id"]: {name: row[name] for name in names if row[name] is not None}
        for row in found.iter_rows(named=True)
    }


@given(events=EVENTS, hours=st.sampled_from([5, 40, 200, 2000]))
@settings(max_examples=25, deadline=None)
def test_every_label_is_what_its_sentence_says(events: Sequence[dict[str, Any]], hours: int) -> None:
    frame, as_of = log(events), START + timedelta(hours=hours)
    assert progress(frame, as_of) == plain_labels(frame.to_pandas(), GENRES, as_of)


@given(events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_discovery_and_continuation_never_overlap_and_cover_every_play_that_counts(
    events: Sequence[dict[str, Any]],
) -> None:
    frame = log(events)
    found = progress(frame, START + timedelta(days=900))
    for row in frame.filter(pl.col("action") == "play", pl.col("title_id").is_not_null()).iter_rows(named=True):
        values = found.get(row["event_id"], {})
        both = [values.get(name) for name in ("discovery_play", "continue_play")]
        counts = row["progress"] is not None and row["progress"] >= 0.1
        assert sorted(both, key=str) == ([1.0, None] if counts else [None, None])


@given(events=EVENTS, first=st.integers(0, 400), more=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_published_value_does_not_change(events: Sequence[dict[str, Any]], first: int, more: int) -> None:
    frame = log(events)
    early = progress(frame, START + timedelta(hours=first))
    later = progress(frame, START + timedelta(hours=first + more))
    for event, values in early.items():
        assert values == {name: later[event][name] for name in values}


@given(events=EVENTS, hours=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_no_value_is_published_before_it_is_mature(events: Sequence[dict[str, Any]], hours: int) -> None:
    frame, as_of = log(events), START + timedelta(hours=hours)
    at = dict(frame.select("event_id", "event_at").iter_rows())
    for event, values in progress(frame, as_of).items():
        for name, value in values.items():
            label = ZOO.labels[name]
            age = label.matures_after if value else label.zeros_mature_after
            assert at[event] + age <= as_of


@given(events=EVENTS, hours=st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_what_is_not_known_yet_changes_nothing(events: Sequence[dict[str, Any]], hours: int) -> None:
    frame, as_of = log(events), START + timedelta(hours=hours)
    known = frame.filter(pl.col("event_at") < as_of, pl.col("recorded_at") <= as_of)
    assert progress(frame, as_of) == progress(known, as_of)


@given(events=EVENTS, block=st.integers(1, 20), shuffle=st.randoms())
@settings(max_examples=30, deadline=None)
def test_blocks_lazy_frames_and_the_order_of_rows_change_nothing(
    events: Sequence[dict[str, Any]], block: int, shuffle: Any
) -> None:
    frame, as_of = log(events), START + timedelta(days=30)
    whole = label_events(LABELS, frame, as_of, titles=TITLES)
    assert whole.equals(label_events(LABELS, frame, as_of, titles=TITLES, block=block))
    places = list(range(frame.height))
    shuffle.shuffle(places)
    mixed = frame[places]
    assert whole.equals(label_events(LABELS, mixed, as_of, titles=TITLES, block=block))
    assert whole.equals(label_events(LABELS, mixed.lazy(), as_of, titles=TITLES, block=block))
    aligned = mixed.select("event_id").with_columns(label_columns(LABELS, mixed, as_of, titles=TITLES))
    some = aligned.filter(pl.any_horizontal(pl.exclude("event_id").is_not_null())).sort("event_id")
    assert some.equals(whole.select("event_id", *PLAIN).sort("event_id"))


def test_times_that_go_back_within_a_member_count_as_the_latest_before() -> None:
    events = [{"action": "play", "title_id": "t", "progress": 0.95, "gap": gap} for gap in (10, 0, 1)]
    filled = [
        {"member_id": "m", "request_id": None, "row_id": None, "canvas": "home", "late": 0.0, **e} for e in events
    ]
    frame = log(filled).with_columns(
        event_at=pl.when(pl.col("seq") == 1).then(pl.lit(START)).otherwise("event_at").cast(pl.Datetime("us", "UTC"))
    )
    found = progress(frame, START + timedelta(days=30))
    assert [found[f"e{n}"]["quick_abandon"] for n in range(3)] == [0.0, 0.0, 0.0]
    assert [found[f"e{n}"]["abandon"] for n in range(3)] == [0.0, 0.0, 0.0]


def test_a_table_a_label_needs_is_named() -> None:
    usual = {"member_id": "m", "title_id": "t", "request_id": None, "row_id": None, "canvas": "home", "late": 0.0}
    frame = log([usual | {"action": "play", "progress": 1.0, "gap": 0}])
    with pytest.raises(StateError, match="prior_plays_of_rarest_genre needs the titles table"):
        label_events([ZOO.labels["discovery_genre"]], frame, START + timedelta(days=9))
