"""Small random event logs that are full of ties, window edges and things that are missing."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

START = datetime(2024, 3, 1, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")
ACTIONS = ("play", "play", "play", "thumbs_up", "thumbs_down", "search", "abandon", "impression")
ASKING_ACTIONS = ("remind_me", "trailer_view", "details_view", "my_list_add", "play", "remind_me")
TITLES = pl.DataFrame(
    {"title_id": [f"t{i}" for i in range(6)], "genres": [["A"], ["A", "B"], ["C"], None, [], ["B", "D"]]}
)
SPREADS = [timedelta(hours=3), timedelta(days=2), timedelta(days=40), timedelta(days=800)]
GENRES = dict(TITLES.iter_rows())


def random_log(count, seed, spread, members=4, countries=2, actions=ACTIONS):
    """Events of a few members on six titles; many share a moment, many fall on the edge of a window."""
    rng = np.random.default_rng(seed)
    step = spread / 40
    at = [START + step * int(rng.integers(40)) for _ in range(count)]
    action = rng.choice(actions, count).tolist()
    return pl.DataFrame(
        {
            "event_id": [f"e{i}" for i in range(count)],
            "member_id": [f"m{rng.integers(members)}" for _ in range(count)],
            "title_id": [None if name == "search" else f"t{rng.integers(6)}" for name in action],
            "action": action,
            "country": [f"C{rng.integers(countries)}" for _ in range(count)],
            "canvas": ["home"] * count,
            "progress": [float(rng.random()) if rng.random() < 0.7 else None for _ in range(count)],
            "event_at": at,
            "recorded_at": [moment + timedelta(hours=int(rng.integers(50))) for moment in at],
        },
        schema_overrides={"event_at": MOMENT, "recorded_at": MOMENT, "progress": pl.Float32, "title_id": pl.String},
    ).with_columns(pl.int_range(pl.len()).sort_by("event_at").alias("seq"))


def by_key(events, *keys):
    groups = {}
    for event in events.sort("event_at", "seq").to_dicts():
        groups.setdefault(tuple(event[key] for key in keys), []).append(event)
    return groups


def plain_states(groups, keys, moments, state):
    rows = [
        {**dict(zip(keys, key, strict=True)), "event_timestamp": at, **(state(own, at) or {})}
        for key, own in sorted(groups.items())
        for at in sorted(moments(own))
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def assert_same_states(found, expected):
    assert_frame_equal(found, expected.select(found.columns), check_dtypes=False, abs_tol=1e-6)
