"""Events become tokens at three levels of merging: what a token keeps, and that it never tells of what comes later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import shown_service as service
from playbill.datasets.encoding.tokens import FIELDS, OUTCOME_FACTS, REQUEST_FACTS, Codes, duration_buckets, tokens_of
from playbill.datasets.examples.rows import next_slots, slots_of
from playbill.features.members import member_session
from playbill.schema import SESSION_PAUSE
from playbill.tables import Vocabulary

START = datetime(2024, 1, 1, tzinfo=UTC)
LEVELS = (False, "session", True)
ACTIONS = ("play", "thumbs_up", "my_list_add", "abandon")
CODES = {
    merge: Codes(
        titles=Vocabulary("title", ["a", "b", "c"]),
        actions=Vocabulary("action", ACTIONS),
        canvases=Vocabulary("canvas", ["home", "search"]),
        devices=Vocabulary("device", ["tv", "phone"]),
        languages=Vocabulary("language", ["en"]),
        merge=merge,
    )
    for merge in LEVELS
}
PAUSES = (timedelta(0), timedelta(minutes=5), SESSION_PAUSE, SESSION_PAUSE + timedelta(seconds=1), timedelta(days=3))

event = st.fixed_dictionaries(
    {
        "member_id": st.sampled_from(["x", "y"]),
        "pause": st.sampled_from(PAUSES),
        "action": st.sampled_from([*ACTIONS, "impression", "impression"]),
        "title_id": st.sampled_from(["a", "a", "b", "c", "beyond", None]),
        "canvas": st.sampled_from(["home", "search"]),
        "device": st.sampled_from(["tv", "phone", None]),
        "duration_s": st.one_of(st.none(), st.floats(0, 10_000, width=32)),
    }
)
logs = st.lists(event, min_size=1, max_size=30)
levels = st.sampled_from(LEVELS)


def frame_of(events: list[dict]) -> pl.DataFrame:
    """Return the log of events, each so long after the one before it of the same member."""
    now, rows = dict.fromkeys("xy", START), []
    for seq, own in enumerate(events):
        now[own["member_id"]] += own["pause"]
        rows.append({**own, "seq": seq, "event_at": now[own["member_id"]]})
    return service.frame(rows)


@given(events=logs, merge=levels)
@settings(max_examples=120, deadline=None)
def test_a_token_keeps_the_total_time_and_the_set_of_actions_of_its_events(events: list[dict], merge) -> None:
    frame = frame_of(events)
    tokens = tokens_of(frame, CODES[merge])
    kept = frame.with_row_index().filter(pl.col("action") != "impression", pl.col("title_id").is_in(["a", "b", "c"]))
    assert tokens.event_rows.tolist() == kept["index"].to_list(), "each event on a title is in one token, in its order"
    for number, (values, seconds) in enumerate(zip(tokens.values, tokens.seconds, strict=True)):
        own = frame[tokens.event_rows[tokens.event_token == number]]
        told = dict(zip(FIELDS, values.tolist(), strict=True))
        assert own["title_id"].unique().to_list() == CODES[merge].titles.decode([told["title"]])
        assert {name for place, name in enumerate(ACTIONS) if told["actions"] >> place & 1} == set(own["action"])
        known = own["duration_s"].drop_nulls().cast(pl.Float64).to_list()
        assert np.isnan(seconds) if not known else seconds == pytest.approx(sum(known), rel=1e-12)
        assert told["duration"] == duration_buckets(np.array([seconds]))[0]


@given(events=logs)
@settings(max_examples=60, deadline=None)
def test_coarser_levels_put_whole_tokens_of_finer_ones_together(events: list[dict]) -> None:
    frame = frame_of(events)
    fine, middle, coarse = (tokens_of(frame, CODES[merge]) for merge in LEVELS)
    assert len(fine) == len(fine.event_rows)
    assert len(coarse) <= len(middle) <= len(fine)
    for one, other in ((fine, middle), (middle, coarse)):
        assert set(np.unique(one.event_token, return_index=True)[1]) >= set(
            np.unique(other.event_token, return_index=True)[1]
        )


@given(events=logs)
@settings(max_examples=60, deadline=None)
def test_sessions_end_where_the_features_of_sessions_say(events: list[dict]) -> None:
    """The longest pause within a session is the same in both, to the microsecond."""
    frame = frame_of([{**own, "action": "play", "title_id": "a", "member_id": "x"} for own in events])
    names = pl.DataFrame({"title_id": ["a"], "genres": [["drama"]]})
    opened = member_session(frame, names)["started_at"]
    tokens = tokens_of(frame, CODES["session"])
    assert len(tokens) == opened.n_unique()


@given(events=logs, merge=levels, data=st.data())
@settings(max_examples=200, deadline=None)
def test_what_a_state_reads_holds_no_event_of_its_moment_or_later(events: list[dict], merge, data) -> None:
    """In training, and of the same request when its history is made into tokens in evaluation and serving."""
    frame = frame_of(events).sort("member_id", "seq")
    at = data.draw(st.integers(0, frame.height - 1))
    member = frame["member_id"].rle_id().to_numpy().astype(np.int64)
    whole = tokens_of(frame, CODES[merge])
    read = int(slots_of(whole, member[[at]], np.array([at]))[0]) - int(member[at])
    first = int(np.sum(whole.member < member[at]))
    held = whole.event_rows[(whole.event_token >= first) & (whole.event_token < read)]
    assert (held < at).all()
    assert (member[held] == member[at]).all()
    past = frame[:at].filter(pl.col("member_id") == frame["member_id"][at])
    requested = tokens_of(past, CODES[merge])
    count = read - first
    assert len(requested) - count in (0, 1), "but that the last token may go on, both read the same"
    assert np.array_equal(requested.values[:count], whole.values[first:read])


@given(events=logs, merge=levels)
@settings(max_examples=100, deadline=None)
def test_the_state_that_predicts_a_token_has_read_none_of_its_events(events: list[dict], merge) -> None:
    frame = frame_of(events).sort("member_id", "seq")
    tokens = tokens_of(frame, CODES[merge])
    slots = next_slots(tokens)
    for number in range(len(tokens)):
        moment = tokens.event_rows[tokens.event_token == number].min()
        read = int(slots[number]) - int(tokens.member[number])
        assert (tokens.event_rows[tokens.event_token < read] < moment).all()


def test_fields_are_facts_of_the_request_or_of_its_outcome() -> None:
    assert sorted(FIELDS) == sorted((*REQUEST_FACTS, *OUTCOME_FACTS))


def test_a_training_set_of_each_level_says_how_many_events_its_tokens_hold() -> None:
    log = service.log()
    events = {}
    for merge in ("none", "session", "same_title"):
        built = service.training_set(
            service.model({"play": {"label": "play", "loss": "softmax"}}, history={"length": 8, "merge": merge}), log
        )
        events[merge] = (built.events, len(built.tokens))
    assert events["none"][0] == events["none"][1]
    assert len({held for held, _ in events.values()}) == 1
    assert events["none"][1] > events["session"][1] >= events["same_title"][1]
