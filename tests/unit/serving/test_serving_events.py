from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.errors import DataError
from playbill.serving import ModelHandle, RecommendRequest
from playbill.serving.recording import EventDoor
from playbill.tables import Journal


@pytest.fixture
def door(own: Workspace) -> EventDoor:
    clock = FixedClock(world.NOW)
    served = world.serve_with(own, world.FakeScorer())
    return EventDoor(ModelHandle(served), Journal(own.database_url, clock), clock)


def play(**more: Any) -> dict[str, Any]:
    return {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home", **more}


def test_an_event_is_completed_with_the_clock_and_the_members_country(own: Workspace, door: EventDoor) -> None:
    result = door.accept([play(), play(event_id="e2", member_id="new", country="DE")])
    assert (result.accepted, result.duplicates) == (2, 0)
    rows = Journal(own.database_url).read()
    assert rows["event_at"].to_list() == [world.NOW, world.NOW]
    assert rows["country"].to_list() == ["FR", "DE"]
    assert door.accept([play(event_id="e3", member_id="nobody")]).accepted == 1
    assert Journal(own.database_url).read("nobody")["country"].to_list() == ["ZZ"]


def test_sending_an_event_again_changes_nothing(own: Workspace, door: EventDoor) -> None:
    door.accept([play()])
    result = door.accept([play(), play(event_id="e2", title_id="t6")])
    assert (result.accepted, result.duplicates) == (1, 1)


def test_the_members_next_request_reads_it(own: Workspace, door: EventDoor) -> None:
    scorer = world.FakeScorer()
    recommender = world.make_recommender(own, world.serve_with(own, scorer))
    ask = RecommendRequest(canvas="home", member_id="42", k=1, rows=False)
    assert recommender.recommend(ask).items[0].title_id == "t7"
    door.accept([play()])
    assert recommender.recommend(ask).items[0].title_id == "t6"
    assert scorer.requested[-1].history["title_id"].to_list()[-1] == "t7"


def test_a_member_known_only_by_events_has_a_history(own: Workspace, door: EventDoor) -> None:
    door.accept([play(member_id="new")])
    recommender = world.make_recommender(own, world.serve_with(own, world.FakeScorer()))
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="new", rows=False, country="FR"))
    assert "t7" not in [item.title_id for item in response.items]
    assert response.notes == ("member 'new' has events but no profile: country and language are unknown",)


def test_every_mistake_of_every_event_is_named_and_nothing_is_kept(own: Workspace, door: EventDoor) -> None:
    late = (world.NOW + timedelta(days=1)).isoformat()
    with pytest.raises(DataError) as caught:
        door.accept([play(), play(event_id="e2", title_id="t77"), play(event_id="e3", action="plai", event_at=late)])
    text = str(caught.value)
    assert "events[1].title_id: unknown title 't77'." in text
    assert "Did you mean 'play'" in text
    assert "after the clock" in text
    assert "events[0]" not in text
    assert Journal(own.database_url).read().is_empty()


@pytest.mark.parametrize(
    ("event", "where"),
    [
        ({"member_id": "42"}, "event_id"),
        (play(title_id=None), "title_id"),
        (play(title_id=5), "title_id"),
        (play(event_at="2024-05-01T00:00:00"), "event_at"),
        (play(progres=0.5), "progres"),
        (play(progress=1.5), "progress"),
        (play(member_id=["42"]), "member_id"),
    ],
)
def test_an_event_that_is_wrong_is_refused(door: EventDoor, event: dict[str, Any], where: str) -> None:
    with pytest.raises(DataError, match=where):
        door.accept([event])
