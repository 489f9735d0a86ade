from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.clock import to_microseconds
from playbill.datasets import Encoder, Request, title_arrays
from playbill.datasets.encoding.requests import encode_requests
from playbill.datasets.encoding.tokens import (
    FIELDS,
    duration_buckets,
    floor_moment,
    gap_buckets,
    hour_of_week,
    year_buckets,
    year_edges,
)
from playbill.errors import DataError, IntegrityError

AT = datetime(2024, 3, 4, 10, 30, tzinfo=UTC)


@pytest.fixture
def encoder(training_set) -> Encoder:
    return training_set.encoder


def column(tokens, name: str) -> list[int]:
    return tokens.values[:, FIELDS.index(name)].tolist()


def event(seq: int, title: str | None, action: str = "play", **more) -> dict:
    at = AT + timedelta(minutes=seq)
    return {"member_id": "m", "seq": seq, "event_at": at, "action": action, "title_id": title, **more}


def test_merging_keeps_total_duration_and_the_set_of_actions(encoder, make_interactions) -> None:
    events = make_interactions(
        [
            event(0, "7", duration_s=400.0),
            event(1, "7", "thumbs_up"),
            event(2, "7", duration_s=900.0),
            event(3, "8", "thumbs_down"),
            event(4, "7", duration_s=100.0),
        ]
    )
    tokens = encoder.tokens(events)
    assert encoder.title_rows.decode(column(tokens, "title")) == ["7", "8", "7"]
    bits = {name: 1 << place for place, name in enumerate(encoder.state.actions)}
    assert column(tokens, "actions") == [
        bits["play"] | bits["thumbs_up"],
        bits["thumbs_down"],
        bits["play"],
    ]
    expected = duration_buckets(np.array([1300.0, np.nan, 100.0])).tolist()
    assert column(tokens, "duration") == expected
    assert expected[1] == 0, "no duration is unknown, not short"


def test_round_trip_over_the_made_log(encoder, interactions) -> None:
    tokens = encoder.tokens(interactions)
    frame = interactions[tokens.event_rows].with_columns(token=tokens.event_token)
    assert frame.height == interactions.height
    truth = frame.group_by("token", maintain_order=True).agg(
        pl.col("action"), pl.col("duration_s").sum(), pl.col("title_id").unique(), pl.col("member_id").unique()
    )
    assert truth["title_id"].list.len().max() == truth["member_id"].list.len().max() == 1
    names = encoder.state.actions
    for bits, actions in zip(column(tokens, "actions"), truth["action"].to_list(), strict=True):
        assert {name for place, name in enumerate(names) if bits >> place & 1} == set(actions)
    assert column(tokens, "duration") == duration_buckets(truth["duration_s"].to_numpy()).tolist()


def test_without_merging_each_event_is_a_token(encoder, interactions) -> None:
    plain = Encoder(encoder.state.model_copy(update={"merge": False}))
    assert len(plain.tokens(interactions)) == interactions.height
    assert len(encoder.tokens(interactions)) < interactions.height


def test_members_never_share_a_token(encoder, make_interactions) -> None:
    events = make_interactions([{**event(0, "7"), "member_id": name} for name in ("a", "b")])
    tokens = encoder.tokens(events)
    assert len(tokens) == 2
    assert column(tokens, "gap") == [0, 0], "the gap starts anew with each member"


def test_impressions_and_unknown_titles_are_no_tokens(encoder, make_interactions) -> None:
    events = make_interactions(
        [event(0, "7"), event(1, "9", "impression"), event(2, None, "search"), event(3, "no such"), event(4, "7")]
    )
    tokens = encoder.tokens(events)
    assert len(tokens) == 1
    assert tokens.event_rows.tolist() == [0, 4]


def test_unknown_values_are_zero(encoder, make_interactions) -> None:
    tokens = encoder.tokens(make_interactions([event(0, "7", canvas="billboard", device="fridge", language="xx")]))
    assert [column(tokens, name) for name in ("canvas", "device", "language", "duration")] == [[0]] * 4


def test_one_member_encodes_as_among_all(encoder, interactions) -> None:
    everyone = encoder.tokens(interactions)
    for number, (_, own) in enumerate(interactions.group_by("member_id", maintain_order=True)):
        alone = encoder.tokens(own)
        assert np.array_equal(alone.values, everyone.values[everyone.member == number])


def test_online_encoding_equals_training(training_set, interactions, features) -> None:
    """The request of a training target, made again from outside, gives the arrays of the training row."""
    encoder, length = training_set.encoder, training_set.encoder.state.history_length
    batch_rows = {}
    for batch in training_set.epoch(0):
        width = batch.history.title.shape[1]
        for row in np.nonzero(batch.context.canvas == encoder.vocabulary("canvas").encode(["home"])[0])[0]:
            window, seen = divmod(int(batch.context.state[row]), width + 1)
            batch_rows[(batch.history.title[window, :seen].tobytes(), int(batch.targets.title[row]))] = (
                batch,
                int(row),
                window,
                seen,
            )
    requested = features.requested[0]
    everything = features.member_features("small_v1", requested).to_dicts()
    compared = 0
    for index, row in enumerate(requested.iter_rows(named=True)):
        past = interactions.filter((pl.col("member_id") == row["member_id"]) & (pl.col("event_at") < row["event_at"]))
        values = everything[index]
        request = Request("home", row["event_at"], row["member_id"], row["country"], history=past, features=values)
        online = encode_requests(encoder, [request])
        target = int(training_set.tokens[training_set.token_row == index, 0][0])
        key = (online.history.title[0, : online.history.length[0]].tobytes(), target)
        if key not in batch_rows or not 3 <= online.history.length[0] <= length:
            continue
        batch, place, window, seen = batch_rows[key]
        for name in ("title", "actions", "canvas", "duration", "device"):
            assert np.array_equal(getattr(batch.history, name)[window, :seen], getattr(online.history, name)[0, :seen])
        # A window that starts late has a gap before its first token, as the online history has.
        assert np.array_equal(batch.history.gap[window, 1:seen], online.history.gap[0, 1:seen])
        for name in ("country", "device", "language", "hour_of_week"):
            assert int(getattr(batch.context, name)[place]) in (0, int(getattr(online.context, name)[0]))
        assert np.array_equal(batch.context.numeric[place], online.context.numeric[0], equal_nan=True)
        assert np.array_equal(batch.context.categorical[place], online.context.categorical[0])
        assert training_set.context.moment[index] == online.moments[online.context.snapshot[0]]
        compared += 1
    assert compared > 100


def test_history_is_cut_to_the_newest_tokens(encoder, interactions) -> None:
    longest = interactions.filter(pl.col("member_id") == interactions["member_id"].mode()[0])
    online = encode_requests(encoder, [Request("home", AT, history=longest), Request("home", AT)])
    kept = encoder.state.history_length
    assert online.history.length.tolist() == [kept, 0]
    assert online.history.title[0].tolist() == encoder.tokens(longest).values[-kept:, 0].tolist()
    assert online.context.state.tolist() == [kept, kept + 1]


def test_what_a_canvas_lacks_is_imputed(encoder) -> None:
    requested = {"country": "US-MN", "query": "star", "source_title_id": "7"}
    online = encode_requests(encoder, [Request(name, AT, **requested) for name in ("home", "search", "more_like_this")])
    context = online.context
    assert (context.country > 0).all()
    assert (context.hour_of_week > 0).tolist() == [True, False, True]
    assert (context.source_title > 0).tolist() == [False, False, True]
    assert np.diff(context.query_offsets, append=len(context.query_grams)).astype(bool).tolist() == [
        False,
        True,
        False,
    ]


def test_canvases_without_training_rows_and_unknown_places_are_zero(encoder) -> None:
    requests = [Request("coming_soon", AT, country="ZZ"), Request("home", AT, country="XX-YY", device="fridge")]
    context = encode_requests(encoder, requests).context
    assert context.canvas.tolist()[0] == 0 < context.canvas.tolist()[1]
    assert context.country.tolist() == context.device.tolist() == [0, 0]


def test_missing_and_infinite_features_are_nan(encoder) -> None:
    given = [{}, {"activity__plays": 3}, {"activity__plays": None}, {"activity__plays": float("inf")}]
    numeric = encode_requests(encoder, [Request("home", AT, features=values) for values in given]).context.numeric
    assert numeric[1, 0] == 3
    assert np.isnan(numeric[[0, 2, 3], 0]).all()


def test_the_state_survives_json(encoder, interactions) -> None:
    again = Encoder.from_json(encoder.to_json())
    assert again.version == encoder.version
    assert np.array_equal(again.tokens(interactions).values, encoder.tokens(interactions).values)
    with pytest.raises(IntegrityError, match="cannot be read"):
        Encoder.from_json(encoder.to_json().replace('"merge"', '"merged"'))


def test_later_titles_get_rows_behind_the_trained_ones(
    encoder, titles, availability, make_interactions, training_set
) -> None:
    grown = encoder.with_titles(["new", "7"])
    assert grown.title_rows.size == encoder.title_rows.size + 1
    assert grown.version == encoder.version
    assert len(grown.tokens(make_interactions([event(0, "new")]))) == 1
    new = titles[:1].with_columns(title_id=pl.lit("new"), name=pl.lit("Brand New"))
    arrays = title_arrays(
        grown,
        pl.concat([titles, new]),
        availability,
        plays=np.append(training_set.plays, 0),
        as_of=AT,
        snapshots=np.zeros((1, grown.title_rows.size, 1), np.float32),
    )
    assert arrays.index[-1] == 0
    assert not arrays.has_id[-1]
    assert np.isnan(arrays.age_days[-1])
    assert arrays.genres[arrays.genre_offsets[-1] :].size == 1


def test_title_arrays_hold_what_is_known_of_each_title(training_set, encoder) -> None:
    arrays = training_set.titles
    count = encoder.title_rows.size
    assert all(
        len(getattr(arrays, name)) == count
        for name in ("index", "kind", "language", "release_year", "name_offsets", "synopsis_offsets", "plays")
    )
    assert (arrays.index == np.arange(count)).all()
    assert arrays.has_id[0] == np.False_
    assert np.diff(arrays.genre_offsets, append=len(arrays.genres))[:5].tolist() == [0, 1, 2, 0, 0]
    assert arrays.language[1:3].tolist() == [1, 0]
    assert np.diff(arrays.synopsis_offsets, append=len(arrays.synopsis_grams))[1] == 64
    assert np.isnan(arrays.age_days[-1]), "the last title has no launch"
    assert arrays.age_days[1] == pytest.approx(375)
    assert (arrays.categorical[1:, 0] > 0).all()
    assert arrays.release_year[1] < arrays.release_year[40]


def test_metadata_the_model_does_not_read_is_left_out(encoder, titles, availability, training_set) -> None:
    bare = Encoder(encoder.state.model_copy(update={"metadata": ()}))
    arrays = title_arrays(
        bare, titles, availability, plays=training_set.plays, as_of=AT, snapshots=training_set.titles.snapshots
    )
    assert arrays.genres.size == arrays.synopsis_grams.size == 0
    assert not arrays.kind.any()
    assert arrays.name_grams.size, "search still needs names"


def test_a_title_with_two_rows_is_refused(encoder, titles, availability, training_set) -> None:
    twice = pl.concat([titles, titles[:1]])
    with pytest.raises(DataError, match="several times"):
        title_arrays(
            encoder,
            twice,
            availability,
            plays=training_set.plays,
            as_of=AT,
            snapshots=training_set.titles.snapshots,
        )


def test_gaps_hours_and_years_fall_into_their_buckets() -> None:
    assert gap_buckets(np.array([np.nan, 0, 59, 60, 1e9])).tolist() == [0, 1, 1, 2, 13]
    monday, sunday = datetime(2024, 1, 1, 0, 5, tzinfo=UTC), datetime(2024, 1, 7, 23, 5, tzinfo=UTC)
    assert hour_of_week(np.array([to_microseconds(monday), to_microseconds(sunday)])).tolist() == [1, 168]
    assert floor_moment(AT, 24) == AT.replace(hour=0, minute=0)
    assert floor_moment(datetime(1969, 12, 31, 12, tzinfo=UTC), 24) == datetime(1969, 12, 31, tzinfo=UTC)
    edges = year_edges(list(range(1950, 2000)), 5)
    assert year_buckets(np.array([np.nan, 1900.0, 1999.0, 2050.0]), edges).tolist() == [0, 1, 5, 5]
