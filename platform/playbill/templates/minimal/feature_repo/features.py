"""What the model reads beside histories: how much a member plays, and how much a title is played.

Plain Feast. Playbill computes the values of these views from the log; `playbill features build` writes them.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING)
PLAYS = [Field(name=f"log_plays_{window}", dtype=Float32) for window in ("1d", "7d", "30d", "total")]


def values(view: str) -> FileSource:
    """Return the file of a view's values; paths start from the workspace's folder of features."""
    return FileSource(
        name=view,
        path=f"{view}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )


member_activity = FeatureView(
    name="member_activity",
    entities=[member],
    ttl=timedelta(days=365),
    schema=PLAYS,
    source=values("member_activity"),
    description="How much the member plays.",
)

title_popularity = FeatureView(
    name="title_popularity",
    entities=[title],
    ttl=timedelta(0),
    schema=PLAYS,
    source=values("title_popularity"),
    description="How much the title is played, up to the last full hour.",
)

mine_v1 = FeatureService(
    name="mine_v1",
    features=[member_activity, title_popularity],
    description="Everything the model reads.",
)
