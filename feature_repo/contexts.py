"""Features of the request itself, computed when it is asked for."""

import numpy as np
import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, UnixTimestamp

request = RequestSource(name="request", schema=[Field(name="request_at", dtype=UnixTimestamp)])


@on_demand_feature_view(
    sources=[request],
    schema=[
        Field(name="hour_of_day", dtype=Float32),
        Field(name="day_of_week_sin", dtype=Float32),
        Field(name="day_of_week_cos", dtype=Float32),
        Field(name="weekend", dtype=Float32),
    ],
)
def request_time(inputs: pd.DataFrame) -> pd.DataFrame:
    """When the request is made, in UTC. The week is a circle: Sunday is next to Monday."""
    at = pd.to_datetime(inputs["request_at"], utc=True).dt
    angle = 2 * np.pi * at.dayofweek / 7
    return pd.DataFrame(
        {
            "hour_of_day": at.hour.astype("float32"),
            "day_of_week_sin": np.sin(angle).astype("float32"),
            "day_of_week_cos": np.cos(angle).astype("float32"),
            "weekend": (at.dayofweek >= 5).astype("float32"),
        }
    )
