"""What each event taught, and since when that is known. `playbill labels publish` writes the values.

A value belongs to one event, and counts from the moment it was mature: a retrieval at an earlier moment gets null, as
it does for an event the label does not speak of. `labeler` is the label's name and version. Not for requests: nothing
here is kept online.
"""

from datetime import timedelta

from feast import Entity, Field, FileSource, LabelView, ValueType
from feast.types import Float32, String

event = Entity(name="event", join_keys=["event_id"], value_type=ValueType.STRING)


def values(label: str) -> dict:
    """Return what all views have alike: a value and its labeler, in a file beside the features."""
    return {
        "entities": [event],
        "ttl": timedelta(0),
        "online": False,
        "schema": [Field(name=label, dtype=Float32), Field(name="labeler", dtype=String)],
        "source": FileSource(
            name=f"label_{label}",
            path=f"labels/{label}.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        "tags": {"label": label},
    }


discovery_play = LabelView(
    name="label_discovery_play",
    description="A play that counts of a title new to the member; zero where one was shown and not played.",
    **values("discovery_play"),
)
continue_play = LabelView(
    name="label_continue_play",
    description="A play that counts of a title the member knows; zero where one was shown and not played.",
    **values("continue_play"),
)
thumbs_up = LabelView(
    name="label_thumbs_up",
    description="A thumb up; zero for a thumb down.",
    **values("thumbs_up"),
)
thumbs_down = LabelView(
    name="label_thumbs_down",
    description="A thumb down; zero for a thumb up.",
    **values("thumbs_down"),
)
my_list_add = LabelView(
    name="label_my_list_add",
    description="Put on the list; zero where it was shown and was not put there within a day.",
    **values("my_list_add"),
)
completion = LabelView(
    name="label_completion",
    description="A play of a title that was finished within a week.",
    **values("completion"),
)
abandon = LabelView(
    name="label_abandon",
    description="A play that stopped before the end and was not taken up again within a week.",
    **values("abandon"),
)
remind_me = LabelView(
    name="label_remind_me",
    description="Asked to be reminded; zero where a coming title was shown without that within a day.",
    **values("remind_me"),
)
search_success = LabelView(
    name="label_search_success",
    description="A search that led to a play within half an hour.",
    **values("search_success"),
)
discovery_genre = LabelView(
    name="label_discovery_genre",
    description="A play that counts of a title with a genre new to the member.",
    **values("discovery_genre"),
)
quick_abandon = LabelView(
    name="label_quick_abandon",
    description="A play left within its first tenth and not taken up again within a day.",
    **values("quick_abandon"),
)
returned_within_7d = LabelView(
    name="label_returned_within_7d",
    description="A play after which the member came back within a week.",
    **values("returned_within_7d"),
)
row_play = LabelView(
    name="label_row_play",
    description="A row of a page, by its first impression, from which something was played within a day.",
    **values("row_play"),
)
page_play = LabelView(
    name="label_page_play",
    description="A page, by its first impression, from which something was played within a day.",
    **values("page_play"),
)
any_play = LabelView(
    name="label_any_play",
    description="Any play; zero where one was shown and not played.",
    **values("any_play"),
)
gem = LabelView(
    name="label_gem",
    description="A first play of a title that few had played, which was finished within a week.",
    **values("gem"),
)
plays_after_launch = LabelView(
    name="label_plays_after_launch",
    description="Shown before its launch and played within four weeks; zero where it was not.",
    **values("plays_after_launch"),
)
visit_continues = LabelView(
    name="label_visit_continues",
    description="A page, by its first impression, whose visit's first play goes on with something known.",
    **values("visit_continues"),
)
shown_play = LabelView(
    name="label_shown_play",
    description="An impression of a title that was played within an hour; zero where it was not.",
    **values("shown_play"),
)
