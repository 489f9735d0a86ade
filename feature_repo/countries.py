"""Features of a title in a country: how it is received there, how it stands among others, when it came."""

from datetime import timedelta

import numpy as np
import pandas as pd
from contexts import request
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, UnixTimestamp
from titles import title, title_profile

country = Entity(name="country", join_keys=["country"], value_type=ValueType.STRING)

# Read for thousands of titles at a time, from files as dense snapshots. No request reads them one by one, so they
# are not kept online.
title_country_profile = FeatureView(
    name="title_country_profile",
    entities=[title, country],
    ttl=timedelta(0),
    online=False,
    schema=[Field(name="launched_at", dtype=UnixTimestamp)],
    source=FileSource(
        name="title_country_profile",
        path="title_country_profile.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="When the title came to the country, for titles that come to countries one by one.",
)

title_country_popularity = FeatureView(
    name="title_country_popularity",
    entities=[title, country],
    ttl=timedelta(0),
    online=False,
    schema=[
        Field(name="log_plays_1d", dtype=Float32),
        Field(name="log_plays_7d", dtype=Float32),
        Field(name="log_plays_30d", dtype=Float32),
        Field(name="log_plays_365d", dtype=Float32),
        Field(name="log_plays_total", dtype=Float32),
        Field(name="thumbs_up_share", dtype=Float32),
    ],
    source=FileSource(
        name="title_country_popularity",
        path="title_country_popularity.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="How the title has been received in the country up to the last full hour.",
)

country_popularity = FeatureView(
    name="country_popularity",
    entities=[country],
    ttl=timedelta(0),
    online=False,
    schema=[
        Field(name="log_country_plays_1d", dtype=Float32),
        Field(name="log_country_plays_7d", dtype=Float32),
        Field(name="log_country_plays_30d", dtype=Float32),
        Field(name="log_country_plays_365d", dtype=Float32),
        Field(name="log_country_plays_total", dtype=Float32),
        Field(name="titles_30d", dtype=Float32),
        Field(name="levels_30d", dtype=Array(Float32)),
    ],
    source=FileSource(
        name="country_popularity",
        path="country_popularity.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="What a title is measured against in the country: its plays, and how many titles have how many.",
)


@on_demand_feature_view(
    sources=[
        title_country_popularity[["log_plays_7d", "log_plays_30d"]],
        country_popularity[["log_country_plays_7d", "log_country_plays_30d", "levels_30d"]],
    ],
    schema=[
        Field(name="share_7d", dtype=Float32),
        Field(name="share_30d", dtype=Float32),
        Field(name="percentile_30d", dtype=Float32),
    ],
)
def title_country_standing(inputs: pd.DataFrame) -> pd.DataFrame:
    """The title's part of the country's plays, and the percentage of the country's titles with fewer in 30 days.

    Titles of one level (1, 2, 3, 4, 6, 8, 12 ... plays) are equals: half of them count as fewer. A title without plays
    is at 0; all is null where nothing was played.
    """
    own = {days: np.expm1(inputs[f"log_plays_{days}d"].fillna(0.0).to_numpy("float64")) for days in (7, 30)}
    all_plays = {days: np.expm1(inputs[f"log_country_plays_{days}d"].to_numpy("float64")) for days in (7, 30)}
    share = {days: own[days] / np.where(all_plays[days] > 0.5, all_plays[days], np.nan) for days in (7, 30)}
    levels = np.array(sorted({2**power for power in range(13)} | {3 * 2**power for power in range(11)}))
    level = np.searchsorted(levels, np.rint(own[30]), side="right")
    known = (inputs["levels_30d"].notna() & (all_plays[30] > 0.5)).to_numpy()
    percentile = np.full(len(inputs), np.nan)
    if known.any():
        below = np.stack(list(inputs["levels_30d"][known]))
        edges = np.column_stack([np.zeros(len(below)), below, np.ones(len(below))])
        place = np.minimum(level[known], below.shape[1])[:, None]
        middle = (np.take_along_axis(edges, place, 1) + np.take_along_axis(edges, place + 1, 1))[:, 0] * 50
        percentile[known] = np.where(level[known] > 0, middle, 0.0)
    return pd.DataFrame(
        {
            "share_7d": share[7].astype("float32"),
            "share_30d": share[30].astype("float32"),
            "percentile_30d": percentile.astype("float32"),
        }
    )


@on_demand_feature_view(
    sources=[title_country_profile, title_profile[["launched_everywhere_at"]], request],
    schema=[Field(name="days_since_launch_there", dtype=Float32)],
)
def title_country_age(inputs: pd.DataFrame) -> pd.DataFrame:
    """Days since the title came to the country, negative before it."""
    at = pd.to_datetime(inputs["request_at"], utc=True).dt.floor("s")
    there = pd.to_datetime(inputs["launched_at"], utc=True)
    everywhere = pd.to_datetime(inputs["launched_everywhere_at"], utc=True)
    launched = there.where(there.notna() & ~(everywhere < there), everywhere).dt.floor("s")
    days = (at - launched).dt.total_seconds() / 86_400
    return pd.DataFrame({"days_since_launch_there": days.astype("float32")})
