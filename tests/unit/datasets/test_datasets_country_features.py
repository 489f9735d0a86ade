"""Features of titles in a country: trained on, and read again at a request, in the country of that request."""

from __future__ import annotations

import types

import numpy as np
import polars as pl
import pytest

from playbill.datasets import Encoder, build, build_training_set, make_split
from playbill.datasets.encoding.requests import Request, encode_requests
from playbill.datasets.encoding.titles import read_snapshots, snapshot_values
from playbill.datasets.encoding.tokens import situations, taken_apart


@pytest.fixture
def local(features):
    """The fixture's features, and the plays of a title in each country before a moment."""

    class Local(type(features)):
        def __init__(self, interactions):
            super().__init__(interactions)
            self.plays, self.newest = interactions.filter(pl.col("action") == "play"), interactions["event_at"].max()

        def schema(self, service):
            own = super().schema(service)
            there = types.SimpleNamespace(name="there__plays", entity="title_country", kind="numeric", item=None)
            return types.SimpleNamespace(**vars(own) | {"columns": (*own.columns, there)})

        def title_snapshots(self, service, moments, title_ids, countries):
            found = super().title_snapshots(service, moments, title_ids)
            there = np.full((len(moments), len(title_ids), 1), np.nan, np.float32)
            for place, (moment, country) in enumerate(zip(moments, countries, strict=True)):
                if country is not None:
                    there[place, :, 0] = [counted(self.plays, moment, country, title) for title in title_ids]
            values = np.concatenate([found.values, there], axis=2)
            columns = (*found.columns, "there__plays")
            return types.SimpleNamespace(columns=columns, values=values, categorical=found.categorical)

    return Local


def counted(plays: pl.DataFrame, moment, country: str, title: str) -> int:
    own = (pl.col("event_at") < moment) & (pl.col("country") == country) & (pl.col("title_id") == title)
    return plays.filter(own).height


def spread(interactions: pl.DataFrame) -> pl.DataFrame:
    """The log with members in two countries, and one in none that is known."""
    number = pl.col("member_id").str.slice(1).cast(pl.Int64)
    named = pl.when(number % 3 == 0).then(pl.lit("US")).when(number % 3 == 1).then(pl.lit("NL")).otherwise(pl.lit("ZZ"))
    return interactions.with_columns(country=named)


@pytest.fixture
def built(tables, resolved, local, clock):
    tables.log = spread(tables.log)
    source = local(tables.log)
    return source, build_training_set(tables, resolved, make_split("leave_one_out", tables.log), source, clock)


def test_each_request_is_trained_with_the_numbers_of_its_own_country(built, tables) -> None:
    _, data = built
    state = data.encoder.state
    assert state.country_columns == ("there__plays",)
    assert state.title_snapshot == ("popularity__plays", "there__plays")
    names = (None, *state.countries)
    assert set(state.countries) == {"US", "NL"}
    for request in range(0, len(data.snapshot), 7):
        values = data.titles.snapshots[data.snapshot[request], 1:, 1]
        country = names[data.context.country[request]]
        floors, code = taken_apart(data.context.moment[request : request + 1])
        assert names[code[0]] == country
        moment = pl.Series(floors).cast(pl.Datetime("us", "UTC"))[0]
        plays = tables.log.filter(pl.col("action") == "play")
        expected = [np.nan if country is None else counted(plays, moment, country, title) for title in state.titles]
        np.testing.assert_array_equal(values, np.array(expected, np.float32))


def test_a_request_reads_what_the_training_row_of_its_moment_read(built) -> None:
    source, data = built
    names = (None, *data.encoder.state.countries)
    for row in range(0, len(data.snapshot), 11):
        at = pl.Series([data.context.moment[row] - data.context.country[row]]).cast(pl.Datetime("us", "UTC"))[0]
        canvas = data.encoder.state.canvases[data.context.canvas[row] - 1]
        encoded = encode_requests(data.encoder, [Request(canvas, at, country=names[data.context.country[row]])])
        found = read_snapshots(source, data.encoder, encoded.moments)
        served = snapshot_values(found, data.encoder.state.title_snapshot)
        np.testing.assert_array_equal(served[0], data.titles.snapshots[data.snapshot[row]])


def test_a_country_that_training_never_saw_has_none(built) -> None:
    source, data = built
    at = source.newest
    encoded = encode_requests(data.encoder, [Request("home", at, country="BR"), Request("home", at)])
    served = snapshot_values(read_snapshots(source, data.encoder, encoded.moments), data.encoder.state.title_snapshot)
    assert served.shape[0] == 1
    assert np.isnan(served[0, 1:, 1]).all()
    assert not np.isnan(served[0, 1:, 0]).any()


def test_what_does_not_fit_into_memory_is_read_at_fewer_moments_of_the_same_country(
    tables, resolved, local, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.log = spread(tables.log)
    split = make_split("leave_one_out", tables.log)
    whole = build_training_set(tables, resolved, split, local(tables.log), clock)
    size = whole.titles.snapshots[0].nbytes
    monkeypatch.setattr(build, "SNAPSHOT_BYTES", 4 * size)
    data = build_training_set(tables, resolved, split, local(tables.log), clock)
    assert len(data.titles.snapshots) < len(whole.titles.snapshots)
    known = data.context.country > 0
    values = data.titles.snapshots[data.snapshot, 1:, 1]
    assert np.isnan(values[~known]).all()
    assert not np.isnan(values[known]).any()


def test_an_encoder_without_such_features_is_written_as_before(training_set) -> None:
    assert "country_columns" not in training_set.encoder.to_json()
    state = training_set.encoder.state.model_copy(update={"country_columns": ("popularity__plays",)})
    assert Encoder.from_json(Encoder(state).to_json()).state == state


def test_situations_are_in_order_of_time_and_can_be_taken_apart() -> None:
    floors = np.array([3_600_000_000, 7_200_000_000, 3_600_000_000], np.int64)
    codes = np.array([2, 0, 9_999], np.int64)
    found = situations(floors, codes)
    assert (np.argsort(found) == [0, 2, 1]).all()
    for own, back in zip((floors, codes), taken_apart(found), strict=True):
        np.testing.assert_array_equal(own, back)
