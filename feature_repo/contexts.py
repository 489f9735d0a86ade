"""Features of the request itself, computed when it is asked for."""

import numpy as np
import pandas as pd
from feast import Entity, Field, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, String, UnixTimestamp

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


# Views of members on a canvas are keyed by it; a request says its own.
canvas = Entity(name="canvas", join_keys=["canvas"], value_type=ValueType.STRING)

request_place = RequestSource(
    name="request_place",
    schema=[Field(name="request_at", dtype=UnixTimestamp), Field(name="country", dtype=String)],
)
request_screen = RequestSource(name="request_screen", schema=[Field(name="device", dtype=String)])


@on_demand_feature_view(
    sources=[request_place],
    schema=[
        Field(name="local_hour_sin", dtype=Float32),
        Field(name="local_hour_cos", dtype=Float32),
        Field(name="local_weekend", dtype=Float32),
    ],
)
def request_local_time(inputs: pd.DataFrame) -> pd.DataFrame:
    """When the request is made where it is made; null in a country that is not listed.

    By standard time of the zone in which most of the country lives: an hour or two off is no other part of the day.
    """
    hours = {
        **dict.fromkeys(("GB", "IE", "PT"), 0.0),
        **dict.fromkeys(
            ("AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FR", "HU", "IT", "NG", "NL", "NO", "PL", "SE"), 1.0
        ),
        **dict.fromkeys(("EG", "FI", "GR", "IL", "RO", "UA", "ZA"), 2.0),
        **dict.fromkeys(("KE", "SA", "TR"), 3.0),
        **dict.fromkeys(("AE",), 4.0),
        **dict.fromkeys(("PK",), 5.0),
        **dict.fromkeys(("IN", "LK"), 5.5),
        **dict.fromkeys(("BD",), 6.0),
        **dict.fromkeys(("ID", "TH", "VN"), 7.0),
        **dict.fromkeys(("CN", "HK", "MY", "PH", "SG", "TW"), 8.0),
        **dict.fromkeys(("JP", "KR"), 9.0),
        **dict.fromkeys(("AU",), 10.0),
        **dict.fromkeys(("NZ",), 12.0),
        **dict.fromkeys(("AR", "BR", "CL"), -3.0),
        **dict.fromkeys(("CO", "PE"), -5.0),
        **dict.fromkeys(("CA",), -5.0),
        **dict.fromkeys(("MX", "US"), -6.0),
    }
    shift = inputs["country"].map(hours).astype("float64").to_numpy() * 3_600
    since = pd.to_datetime(inputs["request_at"], utc=True) - pd.Timestamp(0, tz="UTC")
    local = since.dt.total_seconds().to_numpy() + shift
    angle = 2 * np.pi * (local % 86_400) / 86_400
    weekend = np.where(np.isnan(local), np.nan, (local // 86_400 + 3) % 7 >= 5)  # 1970 began on a Thursday
    return pd.DataFrame(
        {
            "local_hour_sin": np.sin(angle).astype("float32"),
            "local_hour_cos": np.cos(angle).astype("float32"),
            "local_weekend": weekend.astype("float32"),
        }
    )


@on_demand_feature_view(
    sources=[request_screen],
    schema=[Field(name="leant_back", dtype=Float32), Field(name="in_hand", dtype=Float32)],
)
def request_device(inputs: pd.DataFrame) -> pd.DataFrame:
    """What kind of screen it is made on: across the room, in the hand, or neither; null where it is unknown."""
    device = inputs["device"].astype("object").where(inputs["device"].notna(), None)
    text = device.map(lambda name: None if name is None else str(name).lower())
    across = text.isin(["tv", "smart_tv", "television", "console", "set_top_box", "stick"])
    held = text.isin(["phone", "mobile", "tablet", "android", "ios"])
    return pd.DataFrame(
        {
            "leant_back": across.astype("float64").where(text.notna()).astype("float32"),
            "in_hand": held.astype("float64").where(text.notna()).astype("float32"),
        }
    )
