"""Which features a model gets. A model in model_zoo/ names one of these."""

from contexts import request_time
from countries import title_country_age, title_country_popularity, title_country_standing
from feast import FeatureService
from members import member_activity, member_genres, member_presence, member_profile, member_recency, member_session
from titles import title_age, title_anticipation, title_popularity, title_profile

# What every version of everycanvas reads of a member and of a title. The order is that of the network's inputs.
MEMBER = [
    member_profile[["country", "kids_profile", "age", "gender", "occupation"]],
    member_activity[
        ["log_plays_1d", "log_plays_7d", "log_plays_30d", "log_plays_total", "distinct_genres", "thumbs_up_share"]
    ],
    member_recency,
    request_time,
]
# Lists, even of one: a view that a name of this module held would be registered as one more view.
TITLE_FACTS = [title_profile[["kind", "maturity", "release_year", "runtime_min", "genre_count", "kids"]]]
TITLE = [
    *TITLE_FACTS,
    title_popularity[
        ["log_plays_1d", "log_plays_7d", "log_plays_30d", "log_plays_365d", "log_plays_total", "thumbs_up_share"]
    ],
]

everycanvas_v1 = FeatureService(
    name="everycanvas_v1",
    features=[*MEMBER, *TITLE, title_age],
    description="Everything the everycanvas model reads.",
)

everycanvas_v2 = FeatureService(
    name="everycanvas_v2",
    features=[
        member_profile[["country", "kids_profile", "age", "gender", "occupation"]],
        member_activity[
            [
                "log_plays_1h",
                "log_plays_1d",
                "log_plays_7d",
                "log_plays_30d",
                "log_plays_365d",
                "log_plays_total",
                "distinct_genres",
                "thumbs_up_share",
                "completion_rate",
                "abandon_share",
                "thumbs_up_share_30d",
                "completion_rate_30d",
                "abandon_share_30d",
            ]
        ],
        member_genres[
            [
                "first_genre",
                "first_share",
                "second_genre",
                "second_share",
                "third_genre",
                "third_share",
                "genre_entropy",
            ]
        ],
        member_session[
            [
                "log_events",
                "log_plays",
                "log_abandons",
                "distinct_titles",
                "distinct_genres",
                "last_genre",
                "last_action",
            ]
        ],
        member_recency,
        member_presence,
        request_time,
        *TITLE_FACTS,
        title_popularity,
        title_age,
    ],
    description="What everycanvas_v1 has, and the hour, the year, rates, genres and the running session.",
)

everycanvas_v3 = FeatureService(
    name="everycanvas_v3",
    features=[*MEMBER, *TITLE, title_anticipation, title_age],
    description="What everycanvas_v1 has, and how much a title is asked for.",
)

everycanvas_v4 = FeatureService(
    name="everycanvas_v4",
    features=[
        *MEMBER,
        *TITLE,
        title_anticipation,
        title_age,
        title_country_popularity[["log_plays_1d", "log_plays_7d", "log_plays_30d"]],
        title_country_standing,
        title_country_age,
    ],
    description="What everycanvas_v3 has, and how a title is received in the request's country.",
)

title_country_v1 = FeatureService(
    name="title_country_v1",
    features=[title_country_popularity, title_country_standing, title_country_age],
    description="A title in a country: popularity, share and percentile there, and days since it came.",
)
