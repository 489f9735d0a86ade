"""A request's query and row come from the events of the same request that lie before, and from nowhere else."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.datasets import request_context

EVENT = st.fixed_dictionaries(
    {
        "member_id": st.sampled_from(["m1", "m2"]),
        "request_id": st.sampled_from(["r1", "r2", None]),
        "action": st.sampled_from(["search", "impression", "play"]),
        "canvas": st.sampled_from(["search", "home", "row_ranking"]),
        "row_id": st.sampled_from(["genre_rows:drama", "genre_rows:horror", "popular", None]),
        "query": st.sampled_from(["a", "ab", "", None]),
        "position": st.sampled_from([0, 3, None]),
    }
)
TYPES = {"request_id": pl.String, "row_id": pl.String, "query": pl.String, "position": pl.Int32}


def log_of(events: list[dict]) -> pl.DataFrame:
    rows = [{**event, "seq": place} for place, event in enumerate(events)]
    return pl.DataFrame(rows, schema_overrides=TYPES)


def by_loop(event: dict, log: list[dict]) -> tuple[str | None, str | None, int | None]:
    query, position = event["query"], None
    for other in sorted(log, key=lambda row: row["seq"]):
        same = other["member_id"] == event["member_id"] and other["request_id"] == event["request_id"] is not None
        if not same or other["seq"] >= event["seq"]:
            continue
        if event["query"] is None and other["query"] is not None:
            query = other["query"]
        opened = other["canvas"] == "row_ranking" and other["action"] == "impression"
        if opened and other["position"] is not None and other["row_id"] == event["row_id"] is not None:
            position = other["position"]
    return query, event["row_id"] and event["row_id"].partition(":")[0], position


@given(st.lists(EVENT, min_size=1, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_event_reads_what_a_plain_loop_finds(events, draw):
    log = log_of(events)
    requested = log[draw.sample(range(len(events)), len(events))]
    found = request_context(requested, log)
    wanted = [by_loop(event, log.to_dicts()) for event in requested.to_dicts()]
    assert found.select("query", "row", "row_position").rows() == wanted
    assert found.drop("query", "row", "row_position").equals(requested.drop("query"))
    assert request_context(found, log).equals(found), "a second call changes nothing"


def test_what_happens_after_an_event_cannot_reach_it():
    same = {"member_id": "m1", "request_id": "r1", "canvas": "search", "row_id": None, "position": None}
    log = log_of(
        [
            {**same, "action": "play", "query": None},
            {**same, "action": "search", "query": "late"},
            {**same, "action": "play", "query": None},
        ]
    )
    assert request_context(log, log)["query"].to_list() == [None, "late", "late"]


def test_a_log_without_requests_and_rows_says_nothing():
    log = pl.DataFrame({"member_id": ["m"], "seq": [0], "action": ["play"], "canvas": ["home"]})
    assert request_context(log, log).select("query", "row", "row_position").rows() == [(None, None, None)]
