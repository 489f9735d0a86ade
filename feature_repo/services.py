"""Which features a model gets. A model in model_zoo/ names one of these."""

from contexts import request_time
from feast import FeatureService
from members import member_activity, member_profile, member_recency
from titles import title_age, title_popularity, title_profile

everycanvas_v1 = FeatureService(
    name="everycanvas_v1",
    features=[
        member_profile[["country", "kids_profile", "age", "gender", "occupation"]],
        member_activity[
            [
                "log_plays_1d",
                "log_plays_7d",
                "log_plays_30d",
                "log_plays_total",
                "distinct_genres",
                "thumbs_up_share",
            ]
        ],
        member_recency,
        request_time,
        title_profile[["kind", "maturity", "release_year", "runtime_min", "genre_count", "kids"]],
        title_popularity,
        title_age,
    ],
    description="Everything the everycanvas model reads.",
)
