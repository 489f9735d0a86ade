"""Features of a member: who they are, and what they have been doing."""

from datetime import timedelta

import pandas as pd
from contexts import request
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, String, UnixTimestamp

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
# members a year after the last row: a year after their last play left the longest window. The push source takes the
# state of one member between two builds.
member_activity = FeatureView(
    name="member_activity",
    entities=[member],
    ttl=timedelta(days=365),
    schema=[
        Field(name="log_plays_1h", dtype=Float32),
        Field(name="log_plays_1d", dtype=Float32),
        Field(name="log_plays_7d", dtype=Float32),
        Field(name="log_plays_30d", dtype=Float32),
        Field(name="log_plays_365d", dtype=Float32),
        Field(name="log_plays_total", dtype=Float32),
        Field(name="distinct_genres", dtype=Float32),
        Field(name="thumbs_up_share", dtype=Float32),
        Field(name="completion_rate", dtype=Float32),
        Field(name="abandon_share", dtype=Float32),
        Field(name="thumbs_up_share_30d", dtype=Float32),
        Field(name="completion_rate_30d", dtype=Float32),
        Field(name="abandon_share_30d", dtype=Float32),
        Field(name="last_play_at", dtype=UnixTimestamp),
        Field(name="last_event_at", dtype=UnixTimestamp),
    ],
    source=PushSource(
        name="member_activity_push",
        batch_source=FileSource(
            name="member_activity",
            path="member_activity.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    ),
    description="What the member has done, strictly before the moment that is asked about.",
)

# The genres of a service are not known here, and new ones arrive: names and shares, the most played first, instead of
# a column or a place in a vector for each. The lists are for pages and tools; a model reads the six columns.
member_genres = FeatureView(
    name="member_genres",
    entities=[member],
    ttl=timedelta(days=365),
    schema=[
        Field(name="first_genre", dtype=String),
        Field(name="first_share", dtype=Float32),
        Field(name="second_genre", dtype=String),
        Field(name="second_share", dtype=Float32),
        Field(name="third_genre", dtype=String),
        Field(name="third_share", dtype=Float32),
        Field(name="genre_entropy", dtype=Float32),
        Field(name="genres", dtype=Array(String)),
        Field(name="genre_shares", dtype=Array(Float32)),
    ],
    source=PushSource(
        name="member_genres_push",
        batch_source=FileSource(
            name="member_genres",
            path="member_genres.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    ),
    description="Which genres the member plays, and how much, strictly before the moment that is asked about.",
)

# A session ends after thirty idle minutes: the ttl is the rule itself, so an ended session is null.
member_session = FeatureView(
    name="member_session",
    entities=[member],
    ttl=timedelta(minutes=30),
    schema=[
        Field(name="log_events", dtype=Float32),
        Field(name="log_plays", dtype=Float32),
        Field(name="log_abandons", dtype=Float32),
        Field(name="distinct_titles", dtype=Float32),
        Field(name="distinct_genres", dtype=Float32),
        Field(name="last_title_id", dtype=String),
        Field(name="last_genre", dtype=String),
        Field(name="last_action", dtype=String),
        Field(name="started_at", dtype=UnixTimestamp),
        Field(name="last_event_at", dtype=UnixTimestamp),
    ],
    source=PushSource(
        name="member_session_push",
        batch_source=FileSource(
            name="member_session",
            path="member_session.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    ),
    description="What the member has done in the session that is running, strictly before the moment asked about.",
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
    # Whole seconds are fine enough for days, and what trained models have seen.
    at = pd.to_datetime(inputs["request_at"], utc=True).dt.floor("s")
    joined = pd.to_datetime(inputs["joined_at"], utc=True).dt.floor("s")
    played = pd.to_datetime(inputs["last_play_at"], utc=True).dt.floor("s")
    return pd.DataFrame(
        {
            "tenure_days": ((at - joined).dt.total_seconds() / 86_400).astype("float32"),
            "days_since_last_play": ((at - played).dt.total_seconds() / 86_400).astype("float32"),
        }
    )


@on_demand_feature_view(
    sources=[member_activity[["last_event_at"]], member_session[["started_at"]], request],
    schema=[
        Field(name="session_minutes", dtype=Float32),
        Field(name="hours_since_last_event", dtype=Float32),
    ],
)
def member_presence(inputs: pd.DataFrame) -> pd.DataFrame:
    """How long the session has lasted, null without one, and how long ago the member was last here."""
    at = pd.to_datetime(inputs["request_at"], utc=True).dt.floor("s")
    started = pd.to_datetime(inputs["started_at"], utc=True).dt.floor("s")
    seen = pd.to_datetime(inputs["last_event_at"], utc=True).dt.floor("s")
    return pd.DataFrame(
        {
            "session_minutes": ((at - started).dt.total_seconds() / 60).astype("float32"),
            "hours_since_last_event": ((at - seen).dt.total_seconds() / 3_600).astype("float32"),
        }
    )
