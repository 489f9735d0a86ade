"""The suite that an online store inherits, with its tests of keys, of registering views and of asynchronous calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from feast.types import Float64, String

from playbill_feast.conformance.cells import MEMBER, in_folder
from playbill_feast.conformance.online_repository import (
    OnlineAnswer,
    OnlineRepository,
    ago,
    answer_of,
    now,
    online_view,
    open_online_repository,
)
from playbill_feast.conformance.online_values import OnlineOrderTests, OnlineTtlTests, OnlineValueTests


class OnlineKeyTests:
    """Each requested row gets its own response."""

    def test_unknown_entities_are_not_found(self, repository: OnlineRepository) -> None:
        """Null, NOT_FOUND, no event time; the entities beside them are untouched."""
        repository.write("mood", now(member_id="here", x=1.0))
        answer = repository.read(["mood:x"], [{"member_id": name} for name in ("nobody", "here", "no one")])
        assert answer.values["x"] == [None, 1.0, None]
        assert answer.statuses["x"] == ["NOT_FOUND", "PRESENT", "NOT_FOUND"]
        assert [seconds > 0 for seconds in answer.event_seconds["x"]] == [False, True, False]

    def test_an_entity_asked_twice_is_answered_twice(self, repository: OnlineRepository) -> None:
        """One row per requested entity, in the order of the request."""
        rows = [{"member_id": f"twice_{n}", "event_timestamp": ago(seconds=1), "x": float(n)} for n in (1, 2)]
        repository.write("mood", *rows)
        requested = [f"twice_{n}" for n in (2, 1, 2, 9, 2)]
        answer = repository.read(["mood:x"], [{"member_id": name} for name in requested])
        assert answer.values["member_id"] == requested
        assert answer.values["x"] == [2.0, 1.0, 2.0, None, 2.0]

    def test_entities_may_come_as_columns(self, repository: OnlineRepository) -> None:
        """A dictionary of columns is the same request as a list of rows."""
        repository.write("mood", now(member_id="columns", x=1.0))
        names = ["nobody", "columns"]
        assert repository.read(["mood:x"], {"member_id": names}) == repository.read(
            ["mood:x"], [{"member_id": name} for name in names]
        )

    def test_features_are_found_by_name_in_any_order(self, repository: OnlineRepository) -> None:
        """Two views and four features: each name holds its own values in whatever order they were requested."""
        repository.write("taste", now(member_id="names", x=1.0, y="one"))
        repository.write("fame", now(title_id="names", score=0.5))
        repository.write("pair", now(member_id="names", title_id="names", z=7.0))
        requested = ["fame:score", "taste:y", "pair:z", "taste:x"]
        for features in (requested, requested[::-1], sorted(requested)):
            answer = repository.read(features, [{"title_id": "names", "member_id": "names"}])
            assert {name: answer.values[name] for name in ("x", "y", "z", "score")} == {
                "x": [1.0],
                "y": ["one"],
                "z": [7.0],
                "score": [0.5],
            }

    @pytest.mark.parametrize("size", [1, 100, 10_000])
    def test_batches_of_any_size(self, repository: OnlineRepository, size: int) -> None:
        """One request for one, a hundred and ten thousand entities, every third of them unknown."""
        known = [n for n in range(min(size, 600)) if n % 3 or size == 1]
        first = 10**9 + size * 10
        repository.write("wallet", *(now(account_id=first + n, credit=n + 0.5) for n in known))
        requested = [n % 600 for n in range(size)]
        answer = repository.read(["wallet:credit"], {"account_id": [first + n for n in requested]})
        stored = set(known)
        assert answer.values["credit"] == [n + 0.5 if n in stored else None for n in requested]

    def test_whole_number_keys(self, repository: OnlineRepository) -> None:
        """Negative, zero and beyond a float's precision: neighbours are different entities."""
        keys = [-1, 0, 2**53, 2**53 + 1]
        rows = [now(account_id=key, credit=float(place)) for place, key in enumerate(keys)]
        repository.write("wallet", *rows)
        answer = repository.read(["wallet:credit"], [{"account_id": key} for key in reversed(keys)])
        assert answer.values["credit"] == [3.0, 2.0, 1.0, 0.0]

    def test_composite_keys_do_not_run_into_each_other(self, repository: OnlineRepository) -> None:
        """(ab, c) is not (a, bc) nor (c, ab), and the order of keys in a request means nothing."""
        pairs = [("ab", "c"), ("a", "bc"), ("c", "ab")]
        rows = [now(member_id=member, title_id=title, z=float(place)) for place, (member, title) in enumerate(pairs)]
        repository.write("pair", *rows)
        requested = [*pairs, ("abc", ""), ("ab", "bc")]
        either_way = (
            [{"member_id": member, "title_id": title} for member, title in requested],
            [{"title_id": title, "member_id": member} for member, title in requested],
        )
        for entities in either_way:
            assert repository.read(["pair:z"], entities).values["z"] == [0.0, 1.0, 2.0, None, None]

    def test_a_view_without_entity_answers_every_row(self, repository: OnlineRepository) -> None:
        """Its one row, once materialized, is the same for everybody, and its stand-in key is not returned."""
        repository.load("weather", *({"event_timestamp": ago(hours=n), "rain": n / 2} for n in (3, 2, 4)))
        repository.write("mood", now(member_id="wet", x=1.0))
        answer = repository.read(["weather:rain", "mood:x"], [{"member_id": "wet"}, {"member_id": "dry"}])
        assert answer.values == {"member_id": ["wet", "dry"], "rain": [1.0, 1.0], "x": [1.0, None]}

    def test_full_feature_names(self, repository: OnlineRepository) -> None:
        """Two views with a feature of one name are distinguished by `view__feature`."""
        repository.write("taste", now(member_id="full", x=1.0, y="one"))
        repository.write("mood", now(member_id="full", x=2.0))
        answer = repository.read(["taste:x", "mood:x"], [{"member_id": "full"}], full_names=True)
        assert answer.values == {"member_id": ["full"], "taste__x": [1.0], "mood__x": [2.0]}

    def test_a_service_of_several_views_and_keys(self, repository: OnlineRepository) -> None:
        """One request over a member, a title, their pair and no entity at all."""
        repository.write("mood", now(member_id="service", x=1.0))
        repository.write("fame", now(title_id="service", score=0.5))
        repository.write("pair", now(member_id="service", title_id="service", z=3.0))
        entities = [{"member_id": "service", "title_id": name} for name in ("service", "other")]
        answer = repository.read(repository.store.get_feature_service("evening"), entities)
        assert answer.values["x"] == [1.0, 1.0]
        assert answer.values["score"] == [0.5, None]
        assert answer.values["z"] == [3.0, None]
        assert "rain" in answer.values

    def test_one_view_under_two_names_and_keys(self, repository: OnlineRepository) -> None:
        """A service reads a view for a member and, by a renamed key, for the member's friend."""
        rows = [{"member_id": f"friend_{n}", "event_timestamp": ago(seconds=1), "x": float(n)} for n in (1, 2)]
        repository.write("mood", *rows)
        entities = [{"member_id": "friend_1", "friend_id": "friend_2"}, {"member_id": "friend_2", "friend_id": "none"}]
        answer = repository.read(repository.store.get_feature_service("friends"), entities, full_names=True)
        assert answer.values["own__x"] == [1.0, 2.0]
        assert answer.values["friend__x"] == [2.0, None]


Another = Callable[..., OnlineRepository]


class LifecycleTests:
    """What `apply`, deletion and `teardown` do to stored values."""

    def test_applying_again_keeps_every_value(self, another: Another) -> None:
        """An unchanged repository may be applied as often as one likes."""
        repository = another("kept")
        repository.write("kept", now(member_id="m", x=1.0))
        repository.store.apply([MEMBER, *repository.views.values()])
        assert repository.one("kept:x", member_id="m") == 1.0

    def test_deleting_a_view_drops_only_its_own_values(self, another: Another) -> None:
        """The view beside it keeps its rows, and the deleted one, registered again, is empty."""
        repository = another("stays", "goes")
        for name in ("stays", "goes"):
            repository.write(name, now(member_id="m", x=1.0))
        goes = repository.views["goes"]
        repository.store.apply([MEMBER, repository.views["stays"]], objects_to_delete=[goes], partial=False)
        assert repository.one("stays:x", member_id="m") == 1.0
        repository.store.apply([MEMBER, *repository.views.values()])
        assert repository.status("goes:x", member_id="m") == "NOT_FOUND"
        assert repository.one("stays:x", member_id="m") == 1.0

    def test_teardown_leaves_other_projects_alone(self, another: Another) -> None:
        """Two projects in one database, with views and entities of the same names."""
        one, two = another("shared"), another("shared")
        for repository, x in ((one, 1.0), (two, 2.0)):
            repository.write("shared", now(member_id="m", x=x))
        assert [repository.one("shared:x", member_id="m") for repository in (one, two)] == [1.0, 2.0]
        two.store.teardown()
        assert one.one("shared:x", member_id="m") == 1.0

    def test_a_feature_added_later_is_null_in_old_rows(self, another: Another) -> None:
        """Old rows need no rebuilding, and new rows have both."""
        repository = another("grows")
        old = {"member_id": "old", "event_timestamp": ago(seconds=9), "x": 1.0}
        repository.write("grows", old)
        grown = online_view(repository.folder, "grows_more", [MEMBER], {"x": Float64, "added": String})
        grown.name = "grows"
        repository.store.apply([MEMBER, grown])
        wider = OnlineRepository(repository.store, {"grows": grown}, repository.folder)
        wider.write("grows", old | {"member_id": "new", "added": "value"})
        answer = wider.read(["grows:added", "grows:x"], [{"member_id": "old"}, {"member_id": "new"}])
        assert answer.values["added"] == [None, "value"]
        assert answer.values["x"] == [1.0, 1.0]

    def test_a_feature_removed_later_leaves_the_others(self, another: Another) -> None:
        """Values of the features that stay are still found in rows written with more."""
        repository = another("shrinks", features={"before": Float64, "x": Float64, "after": String})
        row = now(member_id="m", before=1.0, x=2.0, after="three")
        repository.write("shrinks", row)
        less = online_view(repository.folder, "shrinks", [MEMBER], {"x": Float64})
        repository.store.apply([MEMBER, less])
        assert repository.one("shrinks:x", member_id="m") == 2.0


FEATURES = ["taste:x", "taste:y", "fame:score", "weather:rain"]


class TwinTests:
    """`get_online_features_async` and `write_to_online_store_async`, for a store that says it has them."""

    def test_the_asynchronous_read_is_the_synchronous_one(
        self, repository: OnlineRepository, runner: asyncio.Runner
    ) -> None:
        """Values, statuses and event times agree, also of requests that run at once; or a plain refusal."""
        repository.write("taste", now(member_id="async", x=1.0, y="one"))
        repository.write("fame", now(title_id="async", score=0.5))
        entities = [{"member_id": name, "title_id": name} for name in ("async", "nobody")]

        async def read() -> list[OnlineAnswer]:
            request: dict[str, Any] = {"features": FEATURES, "entity_rows": entities}
            responses = await asyncio.gather(
                *(
                    repository.store.get_online_features_async(**request, full_feature_names=full)
                    for full in (False, True)
                )
            )
            return [answer_of(response) for response in responses]

        if repository.store._get_provider().async_supported.online.read:
            assert runner.run(read()) == [
                repository.read(FEATURES, entities, full_names=full) for full in (False, True)
            ]
        else:
            with pytest.raises(NotImplementedError):
                runner.run(read())

    def test_the_asynchronous_write_is_the_synchronous_one(
        self, repository: OnlineRepository, runner: asyncio.Runner
    ) -> None:
        """It is read back, and a late row loses; or a plain refusal."""

        async def write() -> None:
            for seconds, x in ((60, 1.0), (3600, 2.0)):
                row = {"member_id": "async_write", "event_timestamp": ago(seconds=seconds), "x": x}
                await repository.store.write_to_online_store_async("mood", df=repository.frame("mood", [row]))

        if repository.store._get_provider().async_supported.online.write:
            runner.run(write())
            assert repository.one("mood:x", member_id="async_write") == 1.0
        else:
            with pytest.raises(NotImplementedError):
                runner.run(write())


class OnlineStoreConformance(
    OnlineValueTests, OnlineKeyTests, OnlineOrderTests, OnlineTtlTests, LifecycleTests, TwinTests
):
    """What any Feast online store owes its users, as tests.

    Subclass it in a test module, name the subclass `Test...`, set `online_store`. Everything is written under
    project names that no other run has, and removed afterwards.
    """

    online_store: ClassVar[Mapping[str, Any]]
    """The `online_store:` section of feature_store.yaml; `{folder}` in a text is the suite's own folder."""
    enforces_ttl: ClassVar[bool] = True
    """What the store promises of values older than their view's ttl: True, null and OUTSIDE_MAX_AGE; False, the old
    value as PRESENT, as Feast's own stores serve it. The tests hold it to either."""

    @pytest.fixture(scope="class")
    @classmethod
    def repository(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineRepository]:
        """A registered repository on the store under test, for all tests of the class."""
        folder = tmp_path_factory.mktemp("online_conformance")
        repository = open_online_repository(folder, in_folder(cls.online_store, folder))
        yield repository
        repository.store.teardown()

    @pytest.fixture
    def another(self, tmp_path: Path) -> Iterator[Callable[..., OnlineRepository]]:
        """Return a maker of projects with a few member views, all in one database that no other test uses."""
        opened: list[OnlineRepository] = []

        def make(*names: str, features: Mapping[str, Any] | None = None) -> OnlineRepository:
            views = [online_view(tmp_path, name, [MEMBER], features or {"x": Float64}) for name in names]
            opened.append(open_online_repository(tmp_path, in_folder(self.online_store, tmp_path), views))
            return opened[-1]

        yield make
        for one in opened:
            one.store.teardown()

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, repository: OnlineRepository) -> Iterator[asyncio.Runner]:
        """One event loop for the class, closed as a server closes it: clients may keep connections in it."""
        with asyncio.Runner() as runner:
            yield runner
            runner.run(repository.store.close())
