from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import CandidatesSpec
from playbill.ranking.candidates import ABSENT, NEVER, Catalogue, Viewer, popularity_percentile, select
from playbill.tables import polars_schema

DAY = timedelta(days=1)
NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
IDS = ("a", "b", "c", "d")


def titles(**columns: list[Any]) -> pl.DataFrame:
    base: dict[str, list[Any]] = {
        "title_id": list(IDS),
        "name": ["Alien", "Brazil", "Casablanca", "Dune"],
        "names": [None, [{"language": "de", "name": "Brasilien"}], None, None],
        "genres": [["Horror", "Sci-Fi"], ["Comedy"], None, ["Sci-Fi"]],
        "kids": [False, True, None, False],
    }
    frame = pl.DataFrame({**base, **columns}, schema_overrides={"names": polars_schema("titles")["names"]})
    return frame


def availability(*rows: tuple[str, str, datetime, datetime | None]) -> pl.DataFrame:
    data = [
        {
            "title_id": title,
            "country": country,
            "available_from": start,
            "available_until": end,
            "recorded_at": min(start, NOW - 400 * DAY),
        }
        for title, country, start, end in rows
    ]
    return pl.DataFrame(data, schema=polars_schema("availability"))


def catalogue_of(*rows: tuple[str, str, datetime, datetime | None]) -> Catalogue:
    spans = rows or tuple((title, "*", NOW - 30 * DAY, None) for title in IDS)
    return Catalogue(IDS, titles(), availability(*spans))


def test_availability_is_closed_at_its_start_and_open_at_its_end() -> None:
    catalogue = catalogue_of(("a", "*", NOW, None), ("b", "*", NOW - DAY, NOW), ("c", "*", NOW - DAY, NOW + DAY))
    assert catalogue.available(NOW, "DE").tolist() == [True, False, True, False]
    assert catalogue.available(NOW - timedelta(microseconds=1), "DE").tolist() == [False, True, True, False]


def test_a_title_counts_in_its_own_country_and_where_it_is_everywhere() -> None:
    catalogue = catalogue_of(("a", "DE", NOW - DAY, None), ("b", "*", NOW - DAY, None), ("c", "FR", NOW - DAY, None))
    assert catalogue.available(NOW, "DE").tolist() == [True, True, False, False]
    assert catalogue.available(NOW, "ZZ").tolist() == [False, True, False, False]


def test_any_of_several_spans_makes_a_title_available() -> None:
    catalogue = catalogue_of(("a", "DE", NOW - 9 * DAY, NOW - 8 * DAY), ("a", "DE", NOW - DAY, NOW + DAY))
    assert catalogue.available(NOW, "DE")[0]
    assert not catalogue.available(NOW - 3 * DAY, "DE")[0]


def test_upcoming_is_a_first_launch_later_in_that_country() -> None:
    catalogue = catalogue_of(
        ("a", "DE", NOW + DAY, None),
        ("b", "DE", NOW - 9 * DAY, NOW - DAY),
        ("b", "DE", NOW + DAY, None),
        ("c", "FR", NOW + DAY, None),
        ("d", "*", NOW, None),
    )
    assert catalogue.upcoming(NOW, "DE").tolist() == [True, False, False, False]
    assert catalogue.launches("DE")[2] == NEVER


def test_titles_without_any_availability_are_neither_available_nor_upcoming() -> None:
    catalogue = Catalogue(IDS, titles(), availability())
    assert not catalogue.available(NOW, "DE").any()
    assert not catalogue.upcoming(NOW, "DE").any()


def test_columns_follow_the_given_order_and_leave_out_strangers() -> None:
    catalogue = catalogue_of()
    assert catalogue.columns(["d", "nobody", None, "a"]).tolist() == [3, 0]
    assert catalogue.column("nobody") == ABSENT


def test_names_come_in_the_members_language_or_as_they_are() -> None:
    catalogue = catalogue_of()
    assert catalogue.name(1, "de") == "Brasilien"
    assert catalogue.name(1, "fr") == "Brazil"
    assert catalogue.name(0, "de") == "Alien"
    assert catalogue.find("brasilien") == ("b",) == catalogue.find("b")
    assert catalogue.find("nothing") == ()


def test_a_title_without_a_row_is_named_by_its_id() -> None:
    catalogue = Catalogue(("a", "ghost"), titles(), availability())
    assert catalogue.name(1) == "ghost"
    assert not catalogue.kids[1]


def test_every_rule_must_hold() -> None:
    catalogue = catalogue_of()
    viewer = Viewer(NOW, "DE", watched=np.array([0]), source=3)
    assert select(catalogue, CandidatesSpec(), viewer).tolist() == [True] * 4
    assert select(catalogue, CandidatesSpec(watched=False), viewer).tolist() == [False, True, True, True]
    assert select(catalogue, CandidatesSpec(watched=True), viewer).tolist() == [True, False, False, False]
    assert select(catalogue, CandidatesSpec(exclude_source=True), viewer).tolist() == [True, True, True, False]
    both = CandidatesSpec(watched=False, exclude_source=True, kids=False)
    assert select(catalogue, both, viewer).tolist() == [False, False, True, False]


def test_a_kids_profile_sees_only_titles_marked_for_kids_whatever_the_canvas_says() -> None:
    catalogue = catalogue_of()
    assert select(catalogue, CandidatesSpec(), Viewer(NOW, "DE", kids_profile=True)).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert not select(catalogue, CandidatesSpec(kids=False), Viewer(NOW, "DE", kids_profile=True)).any()


def test_new_releases_are_launched_within_the_span() -> None:
    catalogue = catalogue_of(
        ("a", "*", NOW - 7 * DAY, None),
        ("b", "*", NOW - 7 * DAY - timedelta(microseconds=1), None),
        ("c", "*", NOW + DAY, None),
        ("d", "*", NOW, None),
    )
    rules = CandidatesSpec.model_validate({"launched_within": "7d"})
    assert select(catalogue, rules, Viewer(NOW, "DE")).tolist() == [True, False, False, True]


def test_popularity_percentile_counts_ties_by_half_and_only_among_candidates() -> None:
    plays = np.array([10, 0, 0, 99])
    among = np.array([True, True, True, False])
    percentiles = popularity_percentile(plays, among)
    assert percentiles[:3] == pytest.approx([100 * 2.5 / 3, 100 / 3, 100 / 3])
    assert np.isnan(percentiles[3])


def test_popularity_rules_read_the_plays_before_the_request() -> None:
    catalogue = catalogue_of()
    viewer = Viewer(NOW, "DE", plays=lambda: np.array([5, 4, 3, 2]))
    gems = CandidatesSpec.model_validate({"popularity_percentile": {"below": 60}})
    hits = CandidatesSpec.model_validate({"popularity_percentile": {"above": 60}})
    assert select(catalogue, gems, viewer).tolist() == [False, False, True, True]
    assert select(catalogue, hits, viewer).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="needs the plays"):
        select(catalogue, gems, Viewer(NOW, "DE"))


def test_selecting_changes_nothing_for_the_next_request() -> None:
    catalogue = catalogue_of()
    select(catalogue, CandidatesSpec(exclude_source=True, kids=True), Viewer(NOW, "DE", source=0))
    assert select(catalogue, CandidatesSpec(), Viewer(NOW, "DE")).all()
