"""Tests of keys: which entity gets which row, in which order, under which name."""

from __future__ import annotations

import pytest

from playbill_feast.conformance.online_repository import Serving, ago


class OnlineKeyTests:
    """Rows asked, rows answered."""

    def test_unknown_entities_are_not_found(self, serving: Serving) -> None:
        """Null, NOT_FOUND, no event time; the entities beside them are untouched."""
        serving.write("mood", {"member_id": "here", "event_timestamp": ago(seconds=1), "x": 1.0})
        answer = serving.read(["mood:x"], [{"member_id": name} for name in ("nobody", "here", "no one")])
        assert answer.values["x"] == [None, 1.0, None]
        assert answer.statuses["x"] == ["NOT_FOUND", "PRESENT", "NOT_FOUND"]
        assert [seconds > 0 for seconds in answer.event_seconds["x"]] == [False, True, False]

    def test_an_entity_asked_twice_is_answered_twice(self, serving: Serving) -> None:
        """One row per entity asked, in the order asked."""
        rows = [{"member_id": f"twice_{n}", "event_timestamp": ago(seconds=1), "x": float(n)} for n in (1, 2)]
        serving.write("mood", *rows)
        asked = [f"twice_{n}" for n in (2, 1, 2, 9, 2)]
        answer = serving.read(["mood:x"], [{"member_id": name} for name in asked])
        assert answer.values["member_id"] == asked
        assert answer.values["x"] == [2.0, 1.0, 2.0, None, 2.0]

    def test_entities_may_come_as_columns(self, serving: Serving) -> None:
        """A dictionary of columns asks the same as a list of rows."""
        serving.write("mood", {"member_id": "columns", "event_timestamp": ago(seconds=1), "x": 1.0})
        names = ["nobody", "columns"]
        assert serving.read(["mood:x"], {"member_id": names}) == serving.read(
            ["mood:x"], [{"member_id": name} for name in names]
        )

    def test_features_are_found_by_name_in_any_order(self, serving: Serving) -> None:
        """Two views and four features: each name holds its own values however they were asked for."""
        at = ago(seconds=1)
        serving.write("taste", {"member_id": "names", "event_timestamp": at, "x": 1.0, "y": "one"})
        serving.write("fame", {"title_id": "names", "event_timestamp": at, "score": 0.5})
        serving.write("pair", {"member_id": "names", "title_id": "names", "event_timestamp": at, "z": 7.0})
        asked = ["fame:score", "taste:y", "pair:z", "taste:x"]
        for features in (asked, asked[::-1], sorted(asked)):
            answer = serving.read(features, [{"title_id": "names", "member_id": "names"}])
            assert {name: answer.values[name] for name in ("x", "y", "z", "score")} == {
                "x": [1.0],
                "y": ["one"],
                "z": [7.0],
                "score": [0.5],
            }

    @pytest.mark.parametrize("size", [1, 100, 10_000])
    def test_batches_of_any_size(self, serving: Serving, size: int) -> None:
        """One request for one, a hundred and ten thousand entities, every third of them unknown."""
        known = [n for n in range(min(size, 600)) if n % 3 or size == 1]
        at = ago(seconds=1)
        first = 10**9 + size * 10
        serving.write("wallet", *({"account_id": first + n, "event_timestamp": at, "credit": n + 0.5} for n in known))
        asked = [n % 600 for n in range(size)]
        answer = serving.read(["wallet:credit"], {"account_id": [first + n for n in asked]})
        stored = set(known)
        assert answer.values["credit"] == [n + 0.5 if n in stored else None for n in asked]

    def test_whole_number_keys(self, serving: Serving) -> None:
        """Negative, zero and beyond a float's precision: neighbours are different entities."""
        keys = [-1, 0, 2**53, 2**53 + 1]
        at = ago(seconds=1)
        rows = [{"account_id": key, "event_timestamp": at, "credit": float(place)} for place, key in enumerate(keys)]
        serving.write("wallet", *rows)
        answer = serving.read(["wallet:credit"], [{"account_id": key} for key in reversed(keys)])
        assert answer.values["credit"] == [3.0, 2.0, 1.0, 0.0]

    def test_composite_keys_do_not_run_into_each_other(self, serving: Serving) -> None:
        """(ab, c) is not (a, bc) nor (c, ab), and the order of keys in a request means nothing."""
        pairs = [("ab", "c"), ("a", "bc"), ("c", "ab")]
        at = ago(seconds=1)
        rows = [
            {"member_id": member, "title_id": title, "event_timestamp": at, "z": float(place)}
            for place, (member, title) in enumerate(pairs)
        ]
        serving.write("pair", *rows)
        asked = [*pairs, ("abc", ""), ("ab", "bc")]
        either_way = (
            [{"member_id": member, "title_id": title} for member, title in asked],
            [{"title_id": title, "member_id": member} for member, title in asked],
        )
        for entities in either_way:
            assert serving.read(["pair:z"], entities).values["z"] == [0.0, 1.0, 2.0, None, None]

    def test_a_view_without_entity_answers_every_row(self, serving: Serving) -> None:
        """Its one row, once materialized, is the same for everybody, and its stand-in key is not told."""
        serving.load("weather", *({"event_timestamp": ago(hours=n), "rain": n / 2} for n in (3, 2, 4)))
        serving.write("mood", {"member_id": "wet", "event_timestamp": ago(seconds=1), "x": 1.0})
        answer = serving.read(["weather:rain", "mood:x"], [{"member_id": "wet"}, {"member_id": "dry"}])
        assert answer.values == {"member_id": ["wet", "dry"], "rain": [1.0, 1.0], "x": [1.0, None]}

    def test_full_feature_names(self, serving: Serving) -> None:
        """Two views with a feature of one name are told apart by `view__feature`."""
        at = ago(seconds=1)
        serving.write("taste", {"member_id": "full", "event_timestamp": at, "x": 1.0, "y": "one"})
        serving.write("mood", {"member_id": "full", "event_timestamp": at, "x": 2.0})
        answer = serving.read(["taste:x", "mood:x"], [{"member_id": "full"}], full_names=True)
        assert answer.values == {"member_id": ["full"], "taste__x": [1.0], "mood__x": [2.0]}

    def test_a_service_of_several_views_and_keys(self, serving: Serving) -> None:
        """One request over a member, a title, their pair and no entity at all."""
        at = ago(seconds=1)
        serving.write("mood", {"member_id": "service", "event_timestamp": at, "x": 1.0})
        serving.write("fame", {"title_id": "service", "event_timestamp": at, "score": 0.5})
        serving.write("pair", {"member_id": "service", "title_id": "service", "event_timestamp": at, "z": 3.0})
        entities = [{"member_id": "service", "title_id": name} for name in ("service", "other")]
        answer = serving.read(serving.store.get_feature_service("evening"), entities)
        assert answer.values["x"] == [1.0, 1.0]
        assert answer.values["score"] == [0.5, None]
        assert answer.values["z"] == [3.0, None]
        assert "rain" in answer.values

    def test_one_view_under_two_names_and_keys(self, serving: Serving) -> None:
        """A service reads a view for a member and, by a renamed key, for the member's friend."""
        rows = [{"member_id": f"friend_{n}", "event_timestamp": ago(seconds=1), "x": float(n)} for n in (1, 2)]
        serving.write("mood", *rows)
        entities = [{"member_id": "friend_1", "friend_id": "friend_2"}, {"member_id": "friend_2", "friend_id": "none"}]
        answer = serving.read(serving.store.get_feature_service("friends"), entities, full_names=True)
        assert answer.values["own__x"] == [1.0, 2.0]
        assert answer.values["friend__x"] == [2.0, None]
