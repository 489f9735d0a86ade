"""What the online store serves at a moment is what history holds as of that moment: every view, any entity.

The views come from the registry: one that is added to feature_repo is tried without a change here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fixtures.online_parity import entities_of, forget, online_views, served_and_history, services_of_members
from fixtures.parity_world import DAY, MEMBERS, START, new_workspace, random_events, record
from fixtures.serving_world import TITLES
from playbill.config import Workspace
from playbill.features import FeatureDoor, build_features
from playbill.features.feast_door import FeastDoor

EVENTS = random_events(seed=11, count=220, recorded_late=0.1)
END = START + 60 * DAY
SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)

offsets = st.sampled_from([-SECOND, -MICROSECOND, timedelta(0), MICROSECOND, SECOND, timedelta(minutes=7)])
edges = st.sampled_from([timedelta(0), timedelta(minutes=30), timedelta(hours=1), DAY, 7 * DAY, 30 * DAY])
event_times = st.sampled_from(EVENTS.get_column("event_at").to_list())
# Around events and the moments when they leave a window.
moments = st.builds(lambda at, edge, offset: at + edge + offset, event_times, edges, offsets)
schedules = st.lists(moments, min_size=1, max_size=4, unique=True).map(sorted)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a log, its features built up to END and registered, and nothing in its online store."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    workspace = new_workspace(tmp_path_factory.mktemp("parity"), url)
    record(workspace, EVENTS, END)
    build_features(workspace, until=END)
    FeatureDoor(workspace).apply()
    yield workspace
    forget(FeastDoor(workspace).store)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=schedules)
def test_what_is_served_at_a_moment_is_its_history(
    world: Workspace, monkeypatch: pytest.MonkeyPatch, schedule: Sequence[datetime]
) -> None:
    def never(*_: Any) -> pl.DataFrame:
        raise AssertionError("values of the feature files were served in place of the online store's")

    monkeypatch.setattr("playbill.features.online.member_features", never)
    door = FeatureDoor(world)
    store = FeastDoor(world).store
    forget(store)
    for moment in schedule:
        door.materialize(moment)
        for service in services_of_members(door):
            served = door.online(service, [*MEMBERS, "nobody", None, MEMBERS[0]], moment)
            assert_frame_equal(served, door.member_features(service, served.select("member_id", "event_at")))
        for view in online_views(store):
            for name, served, history in served_and_history(store, view, entities_of(store, view), moment):
                assert served == history, (view.name, name, moment)


def test_the_log_has_what_the_property_is_about() -> None:
    assert EVENTS.get_column("event_at").n_unique() < EVENTS.height
    assert (EVENTS.get_column("recorded_at") > EVENTS.get_column("event_at")).any()
    assert set(EVENTS.get_column("member_id")) == set(MEMBERS)
    assert set(EVENTS.get_column("title_id")) == set(TITLES)
