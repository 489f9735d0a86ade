"""Impressions as rows of training: from which state, about what, with what weight."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import fields
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import Encoder, TrainingSet, make_split
from playbill.datasets.examples.rows import request_starts, sample_of_requests

BCE = {"play": {"label": "play", "loss": "bce"}}
LATER = ("row", "row_position", "by_name")
"""Fields of contexts that the record does not know."""
AS_BEFORE = "63c4dfa3acdf14e5"
"""Of the batches of the made log without impressions, from before impressions were rows."""


def batches_digest(training_set: TrainingSet) -> str:
    total = hashlib.sha256()
    for epoch in range(2):
        for history, context, targets in training_set.epoch(epoch):
            for part in (history, context):
                for field in (own for own in fields(part) if own.name not in LATER):
                    total.update(np.ascontiguousarray(getattr(part, field.name)).tobytes())
            for values in (targets.title, targets.weight, *(targets.labels[head] for head in sorted(targets.labels))):
                total.update(values.tobytes())
    return total.hexdigest()[:16]


def test_a_log_without_impressions_gives_the_batches_it_always_gave(training_set) -> None:
    assert batches_digest(training_set) == AS_BEFORE


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return service.log()


@pytest.fixture(scope="module")
def shown(log) -> TrainingSet:
    return service.training_set(service.model(BCE), log)


def plain_rows(log: pl.DataFrame, encoder: Encoder) -> list[tuple[bytes, str, float]]:
    """Titles of the state, title and label of every row of the play head, worked out event by event."""
    train = make_split("leave_one_out", log).events(log, "train").sort("member_id", "seq").to_dicts()
    found = []
    for event in train:
        own = [other for other in train if other["member_id"] == event["member_id"]]
        request = [other for other in own if other["request_id"] == event["request_id"]]
        first = min(other["seq"] for other in request) if event["action"] == "impression" else event["seq"]
        played = any(other["action"] == "play" and other["title_id"] == event["title_id"] for other in request)
        before = [other for other in own if other["seq"] < event["seq"] and other["action"] != "impression"]
        if event["action"] == "play":
            if before and before[-1]["title_id"] == event["title_id"]:
                continue  # Part of a token that has its row.
            label = 1.0
        elif event["action"] == "impression" and not played:
            label = 0.0
        else:
            continue
        tokens: list[tuple[str, int, int]] = []
        for other in own:
            if other["action"] == "impression":
                continue
            if tokens and tokens[-1][0] == other["title_id"]:
                tokens[-1] = (tokens[-1][0], tokens[-1][1], other["seq"])
            else:
                tokens.append((other["title_id"], other["seq"], other["seq"]))
        past = [title for title, _, last in tokens if last < first][-8:]
        found.append((encoder.title_rows.encode(past).astype(np.int64).tobytes(), event["title_id"], label))
    return sorted(found)


def read_rows(training_set: TrainingSet, head: str = "play") -> list[tuple[bytes, str, float]]:
    found = []
    for batch in training_set.epoch(0):
        width = batch.history.title.shape[1]
        window, seen = np.divmod(batch.context.state, width + 1)
        names = training_set.encoder.title_rows.decode(batch.targets.title)
        for row, label in enumerate(batch.targets.labels[head].tolist()):
            past = batch.history.title[window[row], : seen[row]]
            found.append((past.tobytes(), names[row], label))
    return sorted(found)


def test_every_impression_is_learnt_from_the_state_before_its_request(log) -> None:
    # Windows overlap nowhere and are as long as the longest history, so every state is whole.
    resolved = service.model(BCE, history={"length": 64}, training={"stride": 64, "batch_slots": 200, "seed": 3})
    training_set = service.training_set(resolved, log)
    plain = [(past[-8 * 8 :], title, label) for past, title, label in plain_rows(log, training_set.encoder)]
    fast = [(past[-8 * 8 :], title, label) for past, title, label in read_rows(training_set)]
    assert len(fast) > 500
    assert sorted(fast) == sorted(plain)


def test_short_windows_read_every_row_once(log, shown) -> None:
    assert [row[1:] for row in sorted(read_rows(shown), key=lambda row: row[1:])] == sorted(
        row[1:] for row in plain_rows(log, shown.encoder)
    )


def test_impressions_of_one_request_share_its_encoded_context(log, shown) -> None:
    train = make_split("leave_one_out", log).events(log, "train")
    requests = train.filter(pl.col("action") == "impression")["request_id"].n_unique()
    assert len(shown.context.canvas) == requests + shown.rows.next.sum()
    assert len(shown.rows) > 2 * len(shown.context.canvas)


def events_of(*actions: tuple[str, str, str | None]) -> pl.DataFrame:
    """One member's events, (action, title, request), an hour apart, and a second member who has been held out."""
    rows = [
        {"member_id": "a", "seq": place, "event_at": service.START + timedelta(hours=place)}
        | {"action": action, "title_id": title, "request_id": request}
        for place, (action, title, request) in enumerate(actions)
    ]
    other = [
        {"member_id": "b", "seq": place, "event_at": service.START + timedelta(hours=place)}
        | {"action": "play", "title_id": f"t{place + 1:02d}"}
        for place in range(4)
    ]
    return service.frame(rows + other)


def states_of(training_set: TrainingSet, title: str) -> list[list[str]]:
    found = []
    for batch in training_set.epoch(0):
        window, seen = np.divmod(batch.context.state, batch.history.title.shape[1] + 1)
        code = training_set.encoder.title_rows.encode([title])[0]
        for row in np.nonzero((batch.targets.title == code) & (batch.targets.labels["play"] == 0))[0]:
            past = batch.history.title[window[row], : seen[row]]
            found.append(training_set.encoder.title_rows.decode(past))
    return found


def test_a_token_that_an_impression_falls_into_is_not_in_its_state() -> None:
    """Plays of one title around a request are one token, whose second half is later than the request."""
    log = events_of(
        ("play", "t05", None),
        ("play", "t06", None),
        ("impression", "t07", "r"),
        ("play", "t06", "r"),
        ("play", "t08", None),
        ("play", "t09", None),
        ("play", "t10", None),
    )
    training_set = service.training_set(service.model(BCE), log)
    assert states_of(training_set, "t07") == [["t05"]]


def test_what_the_request_led_to_is_not_in_the_state_of_its_later_impressions() -> None:
    log = events_of(
        ("play", "t05", None),
        ("impression", "t06", "r"),
        ("play", "t06", "r"),
        ("impression", "t07", "r"),
        ("play", "t08", None),
        ("play", "t09", None),
        ("play", "t10", None),
    )
    training_set = service.training_set(service.model(BCE), log)
    assert states_of(training_set, "t07") == [["t05"]]
    row = int(np.nonzero(training_set.rows.title == training_set.encoder.title_rows.encode(["t07"])[0])[0][0])
    context = training_set.context.numeric[training_set.rows.request[row], 0]
    assert context == 1, "features are those of the request's first event, an hour after the start"


def test_a_title_shown_after_the_last_play_and_to_someone_who_never_played() -> None:
    rows = [
        {"member_id": "a", "seq": 0, "event_at": service.START, "action": "play", "title_id": "t01"},
        {"member_id": "a", "seq": 1, "event_at": service.START, "action": "impression", "title_id": "t02"},
        {"member_id": "c", "seq": 0, "event_at": service.START, "action": "impression", "title_id": "t03"},
    ]
    for row in rows[1:]:
        row["request_id"] = f"r{row['member_id']}"
    other = events_of().with_columns(event_id="x" + pl.col("event_id"))
    training_set = service.training_set(
        service.model(BCE), pl.concat([service.frame(rows), other]).sort("member_id", "seq")
    )
    assert states_of(training_set, "t02") == [["t01"]]
    assert states_of(training_set, "t03") == [[]]


def test_a_sample_of_each_request_is_weighted_up_to_all_of_it(log, shown) -> None:
    heads = {"play": {**BCE["play"], "negatives": {"policy": "shown_not_played", "count": 2}}}
    sampled = service.training_set(service.model(heads), log)
    zeros = sampled.rows.labels["play"] == 0
    weights = sampled.rows.weights["play"]
    assert zeros.sum() < 0.6 * (shown.rows.labels["play"] == 0).sum()
    assert weights[zeros].sum() == pytest.approx((shown.rows.labels["play"] == 0).sum(), rel=1e-6)
    assert (weights[~zeros] == 1).all()
    requests, counts = np.unique(sampled.rows.request[zeros], return_counts=True)
    assert counts.max() == 2
    totals = np.bincount(sampled.rows.request[zeros], weights=weights[zeros])[requests]
    np.testing.assert_allclose(totals, np.round(totals), rtol=1e-5)
    again = service.training_set(service.model(heads), log)
    np.testing.assert_array_equal(again.rows.title, sampled.rows.title)


def test_every_title_of_a_request_is_as_likely_to_be_in_its_sample() -> None:
    labels, requests = np.zeros(7, np.float32), np.array([0, 0, 0, 0, 0, 9, 9])
    kept = np.zeros(7)
    for seed in range(600):
        values, weights = sample_of_requests(labels, requests, np.random.default_rng(seed).random(7), 2)
        assert np.isnan(values[:5]).sum() == 3
        assert weights[5:].tolist() == [1, 1]
        kept += ~np.isnan(values)
    np.testing.assert_allclose(kept[:5] / 600, 0.4, atol=0.06)
    assert kept[5:].tolist() == [600, 600]


def test_a_ranking_head_learns_nothing_from_what_was_not_played(log) -> None:
    ranked = service.training_set(service.model({"play": {"label": "play", "loss": "softmax"}}), log)
    assert ranked.rows.next.all()
    assert (ranked.rows.labels["play"] == 1).all()


def test_made_rows_come_from_plays_alone(log) -> None:
    heads = {"rank": {"label": "play", "loss": "softmax"}, **BCE}
    resolved = service.model(heads, tasks={"home": {"from": "co_play", "share": 1.0}})
    training_set = service.training_set(resolved, log)
    batches = [*training_set.epoch(0)]
    logged = len(training_set.rows)
    made = sum(len(batch.targets.title) for batch in batches) - logged
    assert 0 < made < int(training_set.rows.next.sum())
    for batch in batches:
        labels = batch.targets.labels
        assert not (np.isnan(labels["rank"]) & np.isnan(labels["play"])).any()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_impressions_too(shown, world: int) -> None:
    whole = sorted(title for batch in shown.epoch(1) for title in batch.targets.title.tolist())
    parts = [title for rank in range(world) for batch in shown.epoch(1, rank, world) for title in batch.targets.title]
    assert sorted(int(title) for title in parts) == whole


def test_saved_loaded_and_pickled_give_the_same_rows(shown, tmp_path) -> None:
    shown.save(tmp_path)
    for other in (TrainingSet.load(tmp_path), pickle.loads(pickle.dumps(shown))):
        assert batches_digest(other) == batches_digest(shown)
        assert len(other.states) == len(shown.states)
        assert (other.strata, other.rewards) == (shown.strata, shown.rewards)


def test_the_first_event_of_each_request() -> None:
    log = events_of(("impression", "t01", "r"), ("play", "t05", None), ("play", "t01", "r"), ("impression", "t02", "q"))
    assert request_starts(log)[:4].tolist() == [0, 1, 0, 3]
    assert request_starts(log)[4:].tolist() == [4, 5, 6, 7]


def test_rows_remember_their_token(shown) -> None:
    own = np.nonzero(shown.token_row >= 0)[0]
    assert (shown.rows.title[shown.token_row[own]] == shown.tokens[own, 0]).all()
    assert len(own) == shown.rows.next.sum()
