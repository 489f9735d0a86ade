"""Random histories and entity rows: the store against pandas `merge_asof`, row by row and in the sum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import PAIR_TTL, TASTE_TTL, Warehouse, moment
from playbill_feast.conformance.reference import merge_asof_reference

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


def assert_equals_reference(warehouse: Warehouse, history: list[dict[str, Any]], rows: pd.DataFrame) -> None:
    """Compare every row and every sum of four views that hold the same history under different keys."""
    for view, column in COLUMNS.items():
        warehouse.write(view, *({**value, column: value["value"]} for value in history))
    result = warehouse.get(rows, FEATURES)
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

    def test_sums_equal_merge_asof(self, warehouse: Warehouse) -> None:
        """Random histories (ties, nulls, few keys) and rows (slates, duplicates, unknown and null keys)."""

        @settings(max_examples=self.random_cases, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            history=st.lists(_HISTORY, min_size=1, max_size=40).map(_history),
            rows=st.lists(_ROW, min_size=1, max_size=25).map(_rows),
        )
        def check(history: list[dict[str, Any]], rows: pd.DataFrame) -> None:
            assert_equals_reference(warehouse, history, rows)

        check()

    def test_a_long_log_with_a_hot_key_equals_merge_asof(self, warehouse: Warehouse) -> None:
        """Two thousand values, half of them of one member, and as many rows."""
        rng = np.random.default_rng(20240101)
        size = 2000
        members = np.where(rng.random(size) < 0.5, "m0", np.char.add("m", rng.integers(0, 200, size).astype(str)))
        titles = np.char.add("t", rng.integers(0, 20, size).astype(str))
        hours, values = rng.integers(0, 400, size), rng.normal(size=size).round(3)
        drawn = zip(members.tolist(), titles.tolist(), hours.tolist(), values.tolist(), strict=True)
        order = rng.permutation(size)
        rows = _rows(list(zip(members[order], titles, (hours + rng.integers(0, 50, size)).tolist(), strict=True)))
        assert_equals_reference(warehouse, _history(list(drawn)), rows)
