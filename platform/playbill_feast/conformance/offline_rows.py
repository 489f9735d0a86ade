"""Tests of entity rows, times and values: no row is lost or moved, and each gets the value that held at its moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import PAIR_TTL, TASTE_TTL, OfflineRepository, at, friends, moment

MEMBER_FIRST, TITLE_FIRST = ["taste:x", "fame:score"], ["fame:score", "taste:x"]


def fill(repository: OfflineRepository) -> None:
    """Members m1 and m2 and titles t1 and t2, each with one value from hour 0 on."""
    repository.write("taste", *(at(member_id=f"m{n}", x=float(n)) for n in (1, 2)))
    repository.write("fame", *(at(title_id=f"t{n}", score=n / 10) for n in (1, 2)))


class RowTests:
    """Entity rows in, the same rows out."""

    @pytest.mark.parametrize("features", [MEMBER_FIRST, TITLE_FIRST], ids=["member_view_first", "title_view_first"])
    def test_slate_rows_are_all_kept(self, repository: OfflineRepository, features: list[str]) -> None:
        """Three titles shown to one member at one moment are three rows, whichever view comes first."""
        fill(repository)
        slate = pd.DataFrame(
            {"member_id": ["m1"] * 3, "title_id": ["t2", "t1", "t9"], "event_timestamp": [moment(1)] * 3}
        )
        result = repository.get(slate, features)
        assert list(result["title_id"]) == ["t2", "t1", "t9"]
        assert cells(result["x"]) == [1.0, 1.0, 1.0]
        assert cells(result["score"]) == [0.2, 0.1, None]

    @pytest.mark.parametrize("label", [[0, 1, 0], [1, 1, 1]], ids=["labels_differ", "rows_equal"])
    def test_exact_duplicates_are_kept(self, repository: OfflineRepository, label: list[int]) -> None:
        """A key and moment seen three times are three rows, with the labels they came with."""
        fill(repository)
        rows = pd.DataFrame({"member_id": ["m1"] * 3, "event_timestamp": [moment(1)] * 3, "label": label})
        result = repository.get(rows, ["taste:x"])
        assert list(result["label"]) == label
        assert cells(result["x"]) == [1.0, 1.0, 1.0]

    def test_output_has_the_order_of_the_input(self, repository: OfflineRepository) -> None:
        """Rows come back in the order given, not sorted by time or key, whatever the frame's index."""
        fill(repository)
        hours = [5, 1, 4, 2, 3, 0]
        rows = pd.DataFrame(
            {"member_id": ["m2", "m1"] * 3, "event_timestamp": [moment(hour) for hour in hours], "place": range(6)},
            index=[3, 3, 0, 9, 1, 2],
        )
        result = repository.job(rows, ["taste:x"]).to_df()
        assert list(result["place"]) == list(range(6))
        assert cells(result["x"]) == [2.0, 1.0] * 3

    def test_given_columns_and_the_given_frame_stay_as_they_are(self, repository: OfflineRepository) -> None:
        """Labels and other columns pass through, and the caller's frame is not written to."""
        fill(repository)
        rows = pd.DataFrame(
            {"member_id": ["m2", "m1"], "event_timestamp": [moment(2), moment(1)], "label": [0.5, 0.25]}
        )
        before = rows.copy(deep=True)
        result = repository.get(rows, ["taste:x"])
        pd.testing.assert_frame_equal(rows, before)
        assert list(result["label"]) == [0.5, 0.25]
        assert list(pd.to_datetime(result["event_timestamp"], utc=True)) == [moment(2), moment(1)]

    def test_rows_whose_history_is_all_expired_are_kept_with_null(self, repository: OfflineRepository) -> None:
        """A key whose every value is older than the ttl still gives its row."""
        fill(repository)
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "event_timestamp": [moment(100), moment(1)]})
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [None, 2.0]

    def test_rows_whose_history_lies_all_ahead_are_kept_with_null(self, repository: OfflineRepository) -> None:
        """A key whose every value is later than the row still gives its row, and nothing of the future."""
        fill(repository)
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "event_timestamp": [moment(-1), moment(1)]})
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [None, 2.0]

    def test_unknown_keys_are_null(self, repository: OfflineRepository) -> None:
        """A key that no source has gives its row with nulls."""
        fill(repository)
        rows = pd.DataFrame({"member_id": ["m9", "m1"], "event_timestamp": [moment(1)] * 2})
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [None, 1.0]

    def test_null_text_keys_are_kept_and_match_nothing(self, repository: OfflineRepository) -> None:
        """A row without a key is kept, and does not meet values without a key."""
        repository.write("taste", at(member_id=None, x=7.0), at(member_id="m1", x=1.0))
        rows = pd.DataFrame({"member_id": [None, "m1"], "event_timestamp": [moment(1)] * 2})
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [None, 1.0]

    def test_null_whole_number_keys_are_kept(self, repository: OfflineRepository) -> None:
        """The same for keys that are whole numbers, which pandas turns into floats when one is missing."""
        repository.write("wallet", at(account_id=7, credit=1.5))
        rows = pd.DataFrame({"account_id": [7, None], "event_timestamp": [moment(1)] * 2})
        assert cells(repository.get(rows, ["wallet:credit"])["credit"]) == [1.5, None]


TEXT = ["2024-01-01T02:00:00", "2024-01-01T02:00:00"]
SORTS_OF_TIME = [
    pytest.param(TEXT, id="text"),
    pytest.param([f"{text}Z" for text in TEXT], id="text_utc"),
    pytest.param([pd.Timestamp(text) for text in TEXT], id="naive"),
    pytest.param([pd.Timestamp("2024-01-01T11:00", tz="Asia/Tokyo")] * 2, id="zoned"),
    pytest.param([datetime(2024, 1, 1, 2, tzinfo=UTC)] * 2, id="utc"),
]


def of_member(times: list[pd.Timestamp], member: str = "m1") -> pd.DataFrame:
    """Return entity rows of one member at several moments."""
    return pd.DataFrame({"member_id": [member] * len(times), "event_timestamp": times})


def value(hours: float, x: float, **more: Any) -> dict[str, Any]:
    """Return one row of the view `taste` for member m1."""
    return {"member_id": "m1", "event_timestamp": moment(hours), "x": x, **more}


class TimeTests:
    """The newest value at or before the row's moment, not older than the ttl."""

    def test_a_value_holds_from_its_own_moment_on(self, repository: OfflineRepository) -> None:
        """At the very moment of a value it is seen; one microsecond before, the earlier one is."""
        repository.write("taste", value(2, 2.0), value(1, 1.0))
        rows = of_member([moment(2), moment(2, microseconds=-1), moment(1, microseconds=-1)])
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [2.0, 1.0, None]

    def test_age_of_exactly_the_ttl_is_kept_and_a_microsecond_more_is_null(self, repository: OfflineRepository) -> None:
        """The ttl's edge belongs to the value."""
        repository.write("taste", value(0, 1.0))
        repository.write("pair", at(member_id="m1", title_id="t1", z=3.0))
        edges = [moment() + ttl + pd.Timedelta(microseconds=over) for ttl in (TASTE_TTL, PAIR_TTL) for over in (0, 1)]
        result = repository.get(of_member(edges).assign(title_id="t1"), ["taste:x", "pair:z"])
        assert cells(result["x"]) == [1.0, None, None, None]
        assert cells(result["z"]) == [3.0, 3.0, 3.0, None]

    def test_a_ttl_of_none_or_zero_is_no_limit(self, repository: OfflineRepository) -> None:
        """Ten years later the value still holds."""
        repository.write("fame", at(title_id="t1", score=0.5))
        repository.write("age", at(title_id="t1", days=3))
        rows = pd.DataFrame({"title_id": ["t1"], "event_timestamp": [moment(24 * 3650)]})
        result = repository.get(rows, ["fame:score", "age:days"])
        assert cells(result["score"]) == [0.5]
        assert cells(result["days"]) == [3]

    @pytest.mark.parametrize("later_first", [True, False], ids=["later_written_first", "later_written_last"])
    def test_of_equal_event_times_the_later_created_wins(
        self, repository: OfflineRepository, later_first: bool
    ) -> None:
        """A correction is the row of the same moment that was created later, wherever it stands in the file."""
        first, later = (value(0, float(hour), created_timestamp=moment(hour)) for hour in (1, 2))
        repository.write("taste", *((later, first) if later_first else (first, later)))
        assert cells(repository.get(of_member([moment(3)]), ["taste:x"])["x"]) == [2.0]

    def test_the_later_event_wins_over_the_later_created(self, repository: OfflineRepository) -> None:
        """Creation decides between equal event times only: late data is not newer data."""
        repository.write(
            "taste", value(2, 2.0, created_timestamp=moment(2)), value(1, 1.0, created_timestamp=moment(9))
        )
        assert cells(repository.get(of_member([moment(3)]), ["taste:x"])["x"]) == [2.0]

    def test_values_created_after_the_row_can_be_left_out(self, repository: OfflineRepository) -> None:
        """`filter_by_created_timestamp`: only what had been written by the row's moment; or a plain refusal."""
        repository.write(
            "taste",
            value(0, 1.0, created_timestamp=moment(0)),
            value(1, 2.0, created_timestamp=moment(4)),
            value(2, 3.0, created_timestamp=moment(5)),
        )
        rows = of_member([moment(3), moment(4), moment(4.5), moment(5)])
        options = {"filter_by_created_timestamp": True}
        if repository.offline.supports_filter_by_created_timestamp:
            assert cells(repository.get(rows, ["taste:x"], **options)["x"]) == [1.0, 2.0, 2.0, 3.0]
        else:
            with pytest.raises(NotImplementedError):
                repository.get(rows, ["taste:x"], **options)
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [3.0] * 4

    @pytest.mark.parametrize("times", SORTS_OF_TIME)
    def test_times_of_every_sort_mean_one_moment(self, repository: OfflineRepository, times: list[Any]) -> None:
        """Text, naive (UTC) and zoned times at 02:00 UTC see the value of 02:00 and not that of 02:30."""
        repository.write("taste", value(2, 1.0), value(2.5, 2.0))
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": times})
        assert cells(repository.get(rows, ["taste:x"])["x"]) == [1.0, None]

    def test_the_time_column_may_have_another_name(self, repository: OfflineRepository) -> None:
        """One time column, whatever its name, is the row's moment."""
        repository.write("taste", value(0, 1.0))
        rows = of_member([moment(1), moment(7)]).rename(columns={"event_timestamp": "seen_at"})
        result = repository.get(rows, ["taste:x"])
        assert cells(result["x"]) == [1.0, None]
        assert "seen_at" in result.columns


class ValueTests:
    """What comes back, and under which name."""

    def test_arrays_of_numbers_and_of_text(self, repository: OfflineRepository) -> None:
        """Arrays come back whole and in order; an empty one is not a null one."""
        repository.write(
            "lists", at(member_id="m1", tags=["b", "a"], vector=[0.5, -1.0]), at(member_id="m2", tags=[], vector=None)
        )
        rows = pd.DataFrame({"member_id": ["m2", "m1", "m9"], "event_timestamp": [moment(1)] * 3})
        result = repository.get(rows, ["lists:tags", "lists:vector"])
        assert cells(result["tags"]) == [[], ["b", "a"], None]
        assert cells(result["vector"]) == [None, [0.5, -1.0], None]

    def test_a_null_value_is_null_and_not_the_one_before(self, repository: OfflineRepository) -> None:
        """The newest row counts as a whole, its nulls too."""
        repository.write("taste", at(0, member_id="m1", x=1.0, y="old"), at(1, member_id="m1", x=None, y="new"))
        rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": [moment(2)]})
        result = repository.get(rows, ["taste:x", "taste:y"])
        assert cells(result["x"]) == [None]
        assert cells(result["y"]) == ["new"]

    def test_whole_numbers_stay_exact(self, repository: OfflineRepository) -> None:
        """A 64-bit number beyond a float's precision is not rounded."""
        exact = 2**53 + 1
        repository.write("age", at(title_id="t1", days=exact))
        rows = pd.DataFrame({"title_id": ["t1"], "event_timestamp": [moment(1)]})
        assert repository.job(rows, ["age:days"]).to_arrow().column("days").to_pylist() == [exact]

    def test_arrow_and_pandas_say_the_same(self, repository: OfflineRepository) -> None:
        """`to_arrow` and `to_df` of one question agree."""
        repository.write("taste", at(member_id="m1", x=1.0, y="why"))
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": [moment(1)] * 2})
        features = ["taste:x", "taste:y"]
        table, frame = repository.job(rows, features).to_arrow(), repository.job(rows, features).to_df()
        for feature, known in {"x": 1.0, "y": "why"}.items():
            assert table.column(feature).to_pylist() == cells(frame[feature])
            assert set(cells(frame[feature])) == {known, None}

    def test_columns_are_mapped_to_features(self, repository: OfflineRepository) -> None:
        """A source column of another name is found through the source's field mapping, and needs no created time."""
        repository.write("mapped", at(member_id="m1", v=4.0))
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": [moment(1)] * 2})
        assert cells(repository.get(rows, ["mapped:value"])["value"]) == [4.0, None]

    def test_join_keys_can_be_renamed(self, repository: OfflineRepository) -> None:
        """One view serves a member and the member's friend in one service, each under its own name."""
        repository.write("taste", *(at(member_id=f"m{n}", x=float(n)) for n in (1, 2)))
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "friend_id": ["m2", "m9"], "event_timestamp": [moment(1)] * 2})
        result = repository.get(rows, friends(repository.views["taste"]), full_feature_names=True)
        assert cells(result["own__x"]) == [1.0, 2.0]
        assert cells(result["friend__x"]) == [2.0, None]

    def test_a_view_without_entity_holds_for_every_row(self, repository: OfflineRepository) -> None:
        """Its newest value at the row's moment, with and beside views that have keys."""
        repository.write("taste", at(member_id="m1", x=1.0))
        repository.write("weather", *(at(n, rain=float(n)) for n in (2, 1)))
        rows = pd.DataFrame({"member_id": ["m1", "m1", "m9"], "event_timestamp": [moment(n) for n in (3, 1.5, 0)]})
        result = repository.get(rows, ["weather:rain", "taste:x"])
        assert cells(result["rain"]) == [2.0, 1.0, None]
        assert cells(result["x"]) == [1.0, 1.0, None]

    def test_full_feature_names(self, repository: OfflineRepository) -> None:
        """`view__feature` with full names, `feature` without."""
        repository.write("taste", at(member_id="m1", x=1.0))
        rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": [moment(1)]})
        full = repository.get(rows, ["taste:x"], full_feature_names=True)
        short = repository.get(rows, ["taste:x"])
        assert "x" not in full.columns
        assert cells(full["taste__x"]) == cells(short["x"]) == [1.0]

    def test_on_demand_features_are_computed_row_by_row(self, repository: OfflineRepository) -> None:
        """An on-demand view sees the joined value and the request's own column of the same row."""
        repository.write("taste", *(at(member_id=f"m{n}", x=float(n)) for n in (1, 2)))
        rows = pd.DataFrame(
            {"member_id": ["m2", "m1"], "event_timestamp": [moment(2), moment(1)], "boost": [10.0, 20.0]}
        )
        result = repository.get(rows, ["taste:x", "boosted:boosted_x"])
        assert cells(result["x"]) == [2.0, 1.0]
        assert cells(result["boosted_x"]) == [12.0, 21.0]
