"""Tests of registering: views come, change and go, and each takes along only what is its own."""

from __future__ import annotations

from collections.abc import Callable

from feast.types import Float64, String

from playbill_feast.conformance.online_repository import MEMBER, Serving, ago, online_view

Another = Callable[..., Serving]


class LifecycleTests:
    """What `apply`, deletion and `teardown` do to stored values."""

    def test_applying_again_keeps_every_value(self, another: Another) -> None:
        """An unchanged repository may be applied as often as one likes."""
        serving = another("kept")
        serving.write("kept", {"member_id": "m", "event_timestamp": ago(seconds=1), "x": 1.0})
        serving.store.apply([MEMBER, *serving.views.values()])
        assert serving.one("kept:x", member_id="m") == 1.0

    def test_deleting_a_view_drops_only_its_own_values(self, another: Another) -> None:
        """The view beside it keeps its rows, and the deleted one, registered again, is empty."""
        serving = another("stays", "goes")
        for name in ("stays", "goes"):
            serving.write(name, {"member_id": "m", "event_timestamp": ago(seconds=1), "x": 1.0})
        goes = serving.views["goes"]
        serving.store.apply([MEMBER, serving.views["stays"]], objects_to_delete=[goes], partial=False)
        assert serving.one("stays:x", member_id="m") == 1.0
        serving.store.apply([MEMBER, *serving.views.values()])
        assert serving.status("goes:x", member_id="m") == "NOT_FOUND"
        assert serving.one("stays:x", member_id="m") == 1.0

    def test_teardown_leaves_other_projects_alone(self, another: Another) -> None:
        """Two projects in one database, with views and entities of the same names."""
        one, two = another("shared"), another("shared")
        for serving, x in ((one, 1.0), (two, 2.0)):
            serving.write("shared", {"member_id": "m", "event_timestamp": ago(seconds=1), "x": x})
        assert [serving.one("shared:x", member_id="m") for serving in (one, two)] == [1.0, 2.0]
        two.store.teardown()
        assert one.one("shared:x", member_id="m") == 1.0

    def test_a_feature_added_later_is_null_in_old_rows(self, another: Another) -> None:
        """Old rows need no rebuilding, and new rows have both."""
        serving = another("grows")
        old = {"member_id": "old", "event_timestamp": ago(seconds=9), "x": 1.0}
        serving.write("grows", old)
        grown = online_view(serving.folder, "grows_more", [MEMBER], {"x": Float64, "added": String})
        grown.name = "grows"
        serving.store.apply([MEMBER, grown])
        wider = Serving(serving.store, {"grows": grown}, serving.folder)
        wider.write("grows", old | {"member_id": "new", "added": "value"})
        answer = wider.read(["grows:added", "grows:x"], [{"member_id": "old"}, {"member_id": "new"}])
        assert answer.values["added"] == [None, "value"]
        assert answer.values["x"] == [1.0, 1.0]

    def test_a_feature_removed_later_leaves_the_others(self, another: Another) -> None:
        """Values of the features that stay are still found in rows written with more."""
        serving = another("shrinks", features={"before": Float64, "x": Float64, "after": String})
        row = {"member_id": "m", "event_timestamp": ago(seconds=1), "before": 1.0, "x": 2.0, "after": "three"}
        serving.write("shrinks", row)
        less = online_view(serving.folder, "shrinks", [MEMBER], {"x": Float64})
        serving.store.apply([MEMBER, less])
        assert serving.one("shrinks:x", member_id="m") == 2.0
