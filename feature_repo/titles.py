"""Features of a title: what it is, and how it has been received."""

from datetime import timedelta

import pandas as pd
from contexts import request
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, String, UnixTimestamp

title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING)

title_profile = FeatureView(
    name="title_profile",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="kind", dtype=String),
        Field(name="original_language", dtype=String),
        Field(name="maturity", dtype=String),
        Field(name="release_year", dtype=Float32),
        Field(name="runtime_min", dtype=Float32),
        Field(name="genre_count", dtype=Float32),
        Field(name="kids", dtype=Float32),
        Field(name="launched_at", dtype=UnixTimestamp),
        Field(name="launched_everywhere_at", dtype=UnixTimestamp),
    ],
    source=FileSource(
        name="title_profile",
        path="title_profile.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="What the title is.",
)

title_popularity = FeatureView(
    name="title_popularity",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="log_plays_1h", dtype=Float32),
        Field(name="log_plays_1d", dtype=Float32),
        Field(name="log_plays_7d", dtype=Float32),
        Field(name="log_plays_30d", dtype=Float32),
        Field(name="log_plays_365d", dtype=Float32),
        Field(name="log_plays_total", dtype=Float32),
        Field(name="thumbs_up_share", dtype=Float32),
        Field(name="completion_rate", dtype=Float32),
    ],
    source=FileSource(
        name="title_popularity",
        path="title_popularity.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="How the title has been received up to the last full hour.",
)

title_anticipation = FeatureView(
    name="title_anticipation",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="log_reminders_1d", dtype=Float32),
        Field(name="log_reminders_7d", dtype=Float32),
        Field(name="log_reminders_total", dtype=Float32),
        Field(name="log_trailers_7d", dtype=Float32),
        Field(name="log_trailers_total", dtype=Float32),
        Field(name="log_details_7d", dtype=Float32),
        Field(name="log_details_total", dtype=Float32),
        Field(name="log_list_adds_7d", dtype=Float32),
        Field(name="log_list_adds_total", dtype=Float32),
    ],
    source=FileSource(
        name="title_anticipation",
        path="title_anticipation.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
    description="How much the title has been asked for up to the last full hour, playable or not yet.",
)


@on_demand_feature_view(
    sources=[title_profile, request],
    schema=[Field(name="age_days", dtype=Float32)],
)
def title_age(inputs: pd.DataFrame) -> pd.DataFrame:
    """Days since the title's launch, negative before it."""
    at = pd.to_datetime(inputs["request_at"], utc=True).dt.floor("s")
    launched = pd.to_datetime(inputs["launched_at"], utc=True).dt.floor("s")
    return pd.DataFrame({"age_days": ((at - launched).dt.total_seconds() / 86_400).astype("float32")})
