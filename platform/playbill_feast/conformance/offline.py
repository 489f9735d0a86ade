"""The suite that an offline store inherits, with its tests by dates and its comparison with pandas `merge_asof`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.data_source import DataSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill_feast.conformance.cells import cells, in_folder
from playbill_feast.conformance.offline_repository import (
    PAIR_TTL,
    TASTE_TTL,
    OfflineRepository,
    at,
    file_source,
    fill_file,
    moment,
    open_offline_repository,
    source_table,
)
from playbill_feast.conformance.offline_rows import RowTests, TimeTests, ValueTests


def merge_asof_reference(
    rows: pd.DataFrame, values: pd.DataFrame, keys: Sequence[str], ttl: timedelta | None, feature: str
) -> list[Any]:
    """Return a feature's value for every row, in order, as `pandas.merge_asof` finds it; None where nothing held.

    `rows` have the keys and `event_timestamp`, `values` (the history) `created_timestamp` and the feature too. A view
    without entity has no keys; a null key matches nothing.
    """
    by = list(keys)
    left = rows[[*by, "event_timestamp"]].assign(place=np.arange(len(rows))).dropna(subset=[*by, "event_timestamp"])
    newest = values.dropna(subset=by).sort_values(["event_timestamp", "created_timestamp"])
    newest = newest.drop_duplicates([*by, "event_timestamp"], keep="last")
    joined = pd.merge_asof(
        left.sort_values("event_timestamp"),
        newest[[*by, "event_timestamp", feature]],
        on="event_timestamp",
        by=by or None,
        tolerance=pd.Timedelta(ttl) if ttl else None,
    )
    newest_values: list[Any] = [None] * len(rows)
    for place, value in zip(joined["place"], cells(joined[feature]), strict=True):
        newest_values[place] = value
    return newest_values


def fill(repository: OfflineRepository) -> None:
    """Member m1 at hours 0, 1 (corrected once) and 2, member m2 at hour 1."""
    repository.write(
        "taste",
        at(1, member_id="m1", created_timestamp=moment(3), x=1.5),
        at(0, member_id="m1", x=0.0),
        at(1, member_id="m1", created_timestamp=moment(1), x=1.0),
        at(2, member_id="m1", x=2.0),
        at(1, member_id="m2", x=9.0),
    )


def triples(frame: pd.DataFrame) -> list[tuple[str, pd.Timestamp, float]]:
    """Return (member, moment, x) of a frame, sorted."""
    times = pd.to_datetime(frame["event_timestamp"], utc=True)
    return sorted(zip(frame["member_id"], times, cells(frame["x"]), strict=True))


class PullTests:
    """Dates include both of their ends; a moment just outside is left out."""

    def test_a_snapshot_by_dates_has_every_moment_of_every_key(self, repository: OfflineRepository) -> None:
        """Without entity rows, each moment of a key between the dates is a row with the value that held then."""
        fill(repository)
        result = repository.get(
            None, ["taste:x"], start_date=moment(0).to_pydatetime(), end_date=moment(2).to_pydatetime()
        )
        assert triples(result) == [
            ("m1", moment(0), 0.0),
            ("m1", moment(1), 1.5),
            ("m1", moment(2), 2.0),
            ("m2", moment(1), 9.0),
        ]

    def test_a_snapshot_leaves_out_what_lies_outside_its_dates(self, repository: OfflineRepository) -> None:
        """A microsecond before the start or after the end is outside."""
        fill(repository)
        dates = {
            "start_date": moment(0, microseconds=1).to_pydatetime(),
            "end_date": moment(2, microseconds=-1).to_pydatetime(),
        }
        assert triples(repository.get(None, ["taste:x"], **dates)) == [("m1", moment(1), 1.5), ("m2", moment(1), 9.0)]

    def test_the_latest_of_each_key_between_two_moments(self, repository: OfflineRepository) -> None:
        """What materialization reads: one row per key, corrections applied, both ends included."""
        fill(repository)
        latest = "pull_latest_from_table_or_query"
        assert triples(repository.pull(latest, "taste", moment(0), moment(2))) == [
            ("m1", moment(2), 2.0),
            ("m2", moment(1), 9.0),
        ]
        assert triples(repository.pull(latest, "taste", moment(1), moment(2, microseconds=-1))) == [
            ("m1", moment(1), 1.5),
            ("m2", moment(1), 9.0),
        ]
        assert triples(repository.pull(latest, "taste", moment(-1), moment(0))) == [("m1", moment(0), 0.0)]

    def test_every_row_between_two_moments(self, repository: OfflineRepository) -> None:
        """The whole history, corrections and all, both ends included."""
        fill(repository)
        every = "pull_all_from_table_or_query"
        assert len(repository.pull(every, "taste", moment(0), moment(2))) == 5
        inner = repository.pull(every, "taste", moment(0, microseconds=1), moment(2, microseconds=-1))
        assert triples(inner) == [("m1", moment(1), 1.0), ("m1", moment(1), 1.5), ("m2", moment(1), 9.0)]

    def test_a_pull_of_a_view_without_entity(self, repository: OfflineRepository) -> None:
        """One newest row for everybody."""
        repository.write("weather", *(at(n, rain=float(n)) for n in (2, 1)))
        result = repository.pull("pull_latest_from_table_or_query", "weather", moment(0), moment(3))
        assert cells(result["rain"]) == [2.0]

    def test_written_rows_are_read_beside_the_old(self, repository: OfflineRepository) -> None:
        """Writing to the offline store adds to the history, and hides none of it."""
        old, new = (at(n, member_id="m1", entry=f"of hour {n}") for n in (2, 4))
        repository.write("journal", old)
        added = source_table(repository.views["journal"], [new]).to_pandas()
        repository.store.write_to_offline_store("journal", added, allow_registry_cache=False)
        rows = pd.DataFrame({"member_id": ["m1"] * 4, "event_timestamp": [moment(n) for n in (5, 4, 3, 1)]})
        assert cells(repository.get(rows, ["journal:entry"])["entry"]) == ["of hour 4", "of hour 4", "of hour 2", None]


FEATURES = ["taste:x", "fame:score", "pair:z", "weather:rain"]
COLUMNS = {"taste": "x", "fame": "score", "pair": "z", "weather": "rain"}
KEYS = {"taste": ["member_id"], "fame": ["title_id"], "pair": ["member_id", "title_id"], "weather": []}
TTLS = {"taste": TASTE_TTL, "fame": None, "pair": PAIR_TTL, "weather": None}

# Few keys and a grid of hours: hot keys, ties of event time and exact ttl edges come up by themselves.
_MEMBERS = st.sampled_from(["m1", "m2", "m3", None])
_TITLES = st.sampled_from(["t1", "t2", None])
_HOURS = st.integers(0, 40)
_VALUES = st.one_of(st.none(), st.integers(-8, 8).map(float))
_HISTORY = st.tuples(_MEMBERS, _TITLES, _HOURS, _VALUES)
_ROW = st.tuples(
    st.sampled_from(["m1", "m2", "m3", "m9", None]), st.sampled_from(["t1", "t2", "t9", None]), st.integers(-3, 80)
)


def _history(drawn: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return values with distinct creation times, so that exactly one of equal event times is right."""
    return [
        {
            "member_id": member,
            "title_id": title,
            "event_timestamp": moment(hours),
            "created_timestamp": moment(hours) + pd.Timedelta(minutes=(place * 7) % (len(drawn) + 7)),
            "value": value,
            "place": place,
        }
        for place, (member, title, hours, value) in enumerate(drawn)
    ]


def _rows(drawn: list[tuple[Any, ...]]) -> pd.DataFrame:
    members, titles, hours = zip(*drawn, strict=True)
    return pd.DataFrame(
        {"member_id": members, "title_id": titles, "event_timestamp": [moment(hour) for hour in hours]}
    ).assign(label=np.arange(len(drawn)))


def assert_equals_reference(repository: OfflineRepository, history: list[dict[str, Any]], rows: pd.DataFrame) -> None:
    """Compare every row and every sum of four views that hold the same history under different keys."""
    for view, column in COLUMNS.items():
        repository.write(view, *({**value, column: value["value"]} for value in history))
    result = repository.get(rows, FEATURES)
    assert list(result["label"]) == list(rows["label"]), "entity rows were lost or added"
    values = pd.DataFrame(history)
    for view, column in COLUMNS.items():
        expected = merge_asof_reference(rows, values, KEYS[view], TTLS[view], "value")
        assert cells(result[column]) == expected, f"{view}:{column} differs from merge_asof"
        known = [value for value in expected if value is not None]
        assert math.isclose(float(np.nansum(result[column].astype(float))), sum(known), abs_tol=1e-9)


class SumTests:
    """The property that every join must have: it equals the plain one."""

    random_cases: int = 40
    """Histories that hypothesis tries; set it lower for a slow store."""

    def test_sums_equal_merge_asof(self, repository: OfflineRepository) -> None:
        """Random histories (ties, nulls, few keys) and rows (slates, duplicates, unknown and null keys)."""

        @settings(max_examples=self.random_cases, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            history=st.lists(_HISTORY, min_size=1, max_size=40).map(_history),
            rows=st.lists(_ROW, min_size=1, max_size=25).map(_rows),
        )
        def check(history: list[dict[str, Any]], rows: pd.DataFrame) -> None:
            assert_equals_reference(repository, history, rows)

        check()

    def test_a_long_log_with_a_hot_key_equals_merge_asof(self, repository: OfflineRepository) -> None:
        """Two thousand values, half of them of one member, and as many rows."""
        rng = np.random.default_rng(20240101)
        size = 2000
        members = np.where(rng.random(size) < 0.5, "m0", np.char.add("m", rng.integers(0, 200, size).astype(str)))
        titles = np.char.add("t", rng.integers(0, 20, size).astype(str))
        hours, values = rng.integers(0, 400, size), rng.normal(size=size).round(3)
        drawn = zip(members.tolist(), titles.tolist(), hours.tolist(), values.tolist(), strict=True)
        order = rng.permutation(size)
        rows = _rows(list(zip(members[order], titles, (hours + rng.integers(0, 50, size)).tolist(), strict=True)))
        assert_equals_reference(repository, _history(list(drawn)), rows)


class OfflineStoreConformance(RowTests, TimeTests, ValueTests, PullTests, SumTests):
    """What any Feast offline store owes its users, as tests.

    Subclass it in a test module, name the subclass `Test...`, set `offline_store`. A store whose sources are
    not parquet files also overrides `make_source` and `write_source`.
    """

    offline_store: ClassVar[Mapping[str, Any]]
    """The `offline_store:` section of feature_store.yaml; `{folder}` in a text is the suite's own folder."""

    @classmethod
    def make_source(cls, name: str, folder: Path, **options: Any) -> DataSource:
        """Return the source of one view, once per class, in a folder that only this class uses.

        `options` are `timestamp_field`, `created_timestamp_column` (may be empty) and `field_mapping`, as every Feast
        source takes them.
        """
        return file_source(name, folder, **options)

    @classmethod
    def write_source(cls, source: DataSource, rows: pa.Table) -> None:
        """Make `rows` everything that the source holds, in that order; called at least once per test."""
        fill_file(source, rows)

    @pytest.fixture(scope="class")
    @classmethod
    def repository(cls, tmp_path_factory: pytest.TempPathFactory) -> OfflineRepository:
        """A registered repository on the store under test, for all tests of the class."""
        folder = tmp_path_factory.mktemp("offline_conformance")
        return open_offline_repository(folder, in_folder(cls.offline_store, folder), cls.make_source, cls.write_source)
