"""Features of a member: who they are, and what they have been doing."""

from datetime import timedelta

import pandas as pd
from contexts import request
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, String, UnixTimestamp

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)

# A source that lacks a column of the profile has nulls there. Paths start from the workspace's features folder.
member_profile = FeatureView(
    name="member_profile",
    entities=[member],
    ttl=timedelta(0),
    schema=[
        Field(name="country", dtype=String),
        Field(name="language", dtype=String),
        Field(name="kids_profile", dtype=Float32),
        Field(name="age", dtype=Float32),
        Field(name="gender", dtype=String),
        Field(name="occupation", dtype=String),
        Field(name="joined_at", dtype=UnixTimestamp),
    ],
    source=FileSource(
        name="member_profile",
        path="member_profile.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="Who the member is.",
)

# A value has its own row for every event that leaves a window, so it never goes stale by itself. The ttl forgets
# members that have been away for a year.
member_activity = FeatureView(
    name="member_activity",
    entities=[member],
    ttl=timedelta(days=365),
    schema=[
        Field(name="log_plays_1d", dtype=Float32),
        Field(name="log_plays_7d", dtype=Float32),
        Field(name="log_plays_30d", dtype=Float32),
        Field(name="log_plays_total", dtype=Float32),
        Field(name="distinct_genres", dtype=Float32),
        Field(name="thumbs_up_share", dtype=Float32),
        Field(name="last_play_at", dtype=UnixTimestamp),
    ],
    source=FileSource(
        name="member_activity",
        path="member_activity.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="What the member has done, strictly before the moment that is asked about.",
)


@on_demand_feature_view(
    sources=[member_profile, member_activity, request],
    schema=[
        Field(name="tenure_days", dtype=Float32),
        Field(name="days_since_last_play", dtype=Float32),
    ],
)
def member_recency(inputs: pd.DataFrame) -> pd.DataFrame:
    """Time since the member joined and last played, at the moment of the request."""
    # Whole seconds: the online store keeps no finer times.
    at = pd.to_datetime(inputs["request_at"], utc=True).dt.floor("s")
    joined = pd.to_datetime(inputs["joined_at"], utc=True).dt.floor("s")
    played = pd.to_datetime(inputs["last_play_at"], utc=True).dt.floor("s")
    return pd.DataFrame(
        {
            "tenure_days": ((at - joined).dt.total_seconds() / 86_400).astype("float32"),
            "days_since_last_play": ((at - played).dt.total_seconds() / 86_400).astype("float32"),
        }
    )
