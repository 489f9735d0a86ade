"""A title in a country, through Feast: share, percentile and launch there, at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fixtures import plain_features as plain
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.errors import DefinitionError
from playbill.features import FeatureDoor, build_features
from playbill.features.feast_door import FeastDoor
from playbill.tables import Tables

DAY = timedelta(days=1)
START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three countries; title t0 opens everywhere and earlier in NL, the others everywhere."""
    from fixtures.random_log import MOMENT, TITLES, random_log

    workspace = ProjectFolder(tmp_path_factory.mktemp("world"), ProjectSettings()).workspace("world")
    catalogue = TITLES.with_columns(
        pl.col("title_id").alias("name"),
        pl.lit("film").alias("kind"),
        *(pl.lit(START - DAY, dtype=MOMENT).alias(name) for name in ("valid_from", "recorded_at")),
    )
    spans = catalogue.select("title_id", "recorded_at", pl.lit("*").alias("country")).with_columns(
        pl.lit(START + 5 * DAY, dtype=MOMENT).alias("available_from")
    )
    early = spans.head(1).with_columns(
        pl.lit("C0").alias("country"), pl.lit(START + 2 * DAY, dtype=MOMENT).alias("available_from")
    )
    with Tables(workspace).replace() as writer:
        writer.write("titles", catalogue)
        writer.write("availability", pl.concat([spans, early]))
        writer.write("interactions", random_log(400, 8, 50 * DAY, members=9, countries=3))
    build_features(workspace, until=START + 60 * DAY)
    FeatureDoor(workspace).apply()
    return workspace


def retrieved(world: Workspace, moments: list[datetime]) -> list[dict]:
    rows = [
        {"title_id": f"t{title}", "country": f"C{country}", "event_timestamp": at, "request_at": at}
        for at in moments
        for title in range(6)
        for country in range(3)
    ]
    store = FeastDoor(world).store
    service = store.get_feature_service("title_country_v1")
    found = store.get_historical_features(pd.DataFrame(rows), service, full_feature_names=True).to_df()
    return found.astype(object).where(found.notna(), None).to_dict("records")


def plays_in(events: list[dict], at: datetime, days: int) -> dict[str, int]:
    hour = at.replace(minute=0, second=0, microsecond=0)
    counts: dict[str, int] = {}
    for event in events:
        if event["action"] == "play" and hour - days * DAY < plain.hour_after(event["event_at"]) <= hour:
            counts[event["title_id"]] = counts.get(event["title_id"], 0) + 1
    return counts


def level(count: int) -> int:
    edges = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    return sum(count >= edge for edge in edges)


def test_share_and_percentile_are_of_the_country_at_that_moment(world: Workspace) -> None:
    events = Tables(world).interactions().to_dicts()
    moments = [START + timedelta(days=day, hours=7, minutes=20) for day in (1, 9, 20, 33, 49)]
    seen = set()
    for row in retrieved(world, moments):
        own = [event for event in events if event["country"] == row["country"]]
        at = row["event_timestamp"].to_pydatetime()
        for days in (7, 30):
            counts = plays_in(own, at, days)
            expected = counts.get(row["title_id"], 0) / sum(counts.values()) if counts else None
            assert row[f"title_country_standing__share_{days}d"] == pytest.approx(expected, abs=1e-5)
        levels = {title: level(count) for title, count in plays_in(own, at, 30).items()}
        mine = levels.get(row["title_id"], 0)
        fewer = sum(other < mine for other in levels.values())
        equal = sum(other == mine for other in levels.values())
        expected = 100 * (fewer + equal / 2) / len(levels) if mine else 0.0 if levels else None
        assert row["title_country_standing__percentile_30d"] == pytest.approx(expected, abs=1e-4)
        seen.add(expected)
    assert len(seen) > 10


def test_a_title_launches_where_it_launches(world: Workspace) -> None:
    at = START + 10 * DAY
    days = {
        (r["title_id"], r["country"]): r["title_country_age__days_since_launch_there"] for r in retrieved(world, [at])
    }
    assert days[("t0", "C0")] == 8.0
    assert days[("t0", "C1")] == 5.0
    assert days[("t1", "C0")] == 5.0


def test_snapshots_of_titles_in_countries_are_what_feast_retrieves(world: Workspace) -> None:
    door = FeatureDoor(world)
    columns = [column.name for column in door.schema("title_country_v1").columns]
    assert {column.entity for column in door.schema("title_country_v1").columns} == {"title_country"}
    moments = [START + timedelta(days=day) for day in (1, 9, 33)]
    rows = {
        (row["event_timestamp"].to_pydatetime(), row["country"], row["title_id"]): row
        for row in retrieved(world, moments)
    }
    pairs = [(at, country) for at in moments for country in ("C0", "C2", None)]
    titles = [f"t{title}" for title in range(6)]
    found = door.title_snapshots("title_country_v1", [at for at, _ in pairs], titles, [where for _, where in pairs])
    assert found.columns == tuple(columns)
    assert found.values.shape == (len(pairs), 6, len(columns))
    for place, (at, country) in enumerate(pairs):
        for title_place, title in enumerate(titles):
            row = rows.get((at, country, title), dict.fromkeys(columns))
            expected = np.array([row[name] for name in columns], np.float32)
            np.testing.assert_array_equal(found.values[place, title_place], expected)
    assert np.isnan(found.values[[2, 5, 8]]).all()
    assert not np.isnan(found.values[[3, 4]]).all()


def test_features_of_a_title_in_a_country_come_behind_those_of_the_title(world: Workspace) -> None:
    door, at = FeatureDoor(world), START + 9 * DAY
    plain_columns = door.title_snapshots("everycanvas_v3", [at, at], ["t0"]).columns
    found = door.title_snapshots("everycanvas_v4", [at, at], ["t0", "t1"], ["C0", "C1"])
    assert found.columns[: len(plain_columns)] == plain_columns
    there = found.columns.index("title_country_age__days_since_launch_there")
    assert found.values[:, 0, there].tolist() == [7.0, 4.0]
    assert door.title_snapshots("everycanvas_v4", [at], ["t0"]).columns == plain_columns


def test_a_service_of_titles_alone_has_nothing_to_serve_of_a_member(world: Workspace) -> None:
    served = FeatureDoor(world).served("title_country_v1", ["m1", None], START + 9 * DAY)
    assert served.rows.columns == ["member_id", "event_at"]
    assert (served.rows.height, served.values_at.width, served.from_store.to_list()) == (2, 0, [True, True])


def test_only_numbers_of_a_title_in_a_country_enter_a_model(world: Workspace, tmp_path) -> None:
    from feast import FeatureService, FeatureView, Field, FileSource
    from feast.types import String

    store = FeastDoor(world).store
    entities = [store.get_entity(name) for name in ("title", "country")]
    source = FileSource(name="labels_there", path=str(tmp_path / "none.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="labels_there", entities=entities, schema=[Field(name="label", dtype=String)], source=source
    )
    store.apply([view, FeatureService(name="labels_there_v1", features=[view])])
    with pytest.raises(DefinitionError, match="only numbers can enter a model"):
        FeatureDoor(world).schema("labels_there_v1")
