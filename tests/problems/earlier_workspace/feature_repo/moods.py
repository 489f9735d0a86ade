"""A view whose rows are in a database, as an earlier version of Playbill imported its source."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.types import Float32, String
from playbill.features.sql_source import SqlSource

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
member_mood = FeatureView(
    name="member_mood",
    entities=[member],
    ttl=timedelta(days=90),
    schema=[
        Field(name="member_id", dtype=String),
        Field(name="mood", dtype=Float32),
        Field(name="words", dtype=String),
    ],
    source=SqlSource(
        url="sqlite:///${MOOD_DATABASE}",
        table="moods",
        timestamp_field="asked_at",
        created_timestamp_column="loaded_at",
    ),
)
moods = FeatureService(name="moods", features=[member_mood])
