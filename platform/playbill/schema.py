"""The canonical tables: everything Playbill knows about a service.

Sources and the simulator write them, all else reads them. Timestamps are UTC microseconds. `recorded_at` is
when we came to know a row. Columns of `interactions` say whether they are known at request time or only after:
nothing that scores a request may see the second kind for that request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

ColumnType = Literal["string", "int32", "int64", "float32", "float64", "bool", "timestamp", "list[string]", "names"]
"""`timestamp` is UTC microseconds; `names` is a list of {language, name}."""

Known = Literal["request", "after"]

ACTIONS = (
    "impression",
    "play",
    "thumbs_up",
    "thumbs_down",
    "my_list_add",
    "my_list_remove",
    "trailer_view",
    "details_view",
    "search",
    "remind_me",
    "abandon",
)
"""Actions with a meaning here. A source may register namespaced ones such as `kuairand.follow`."""

KINDS = ("film", "series", "game")
"""Kinds of titles. A source may have namespaced ones such as `shop.podcast`."""

NAMESPACED = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
"""Actions, kinds and columns of a source's own."""

UNKNOWN_COUNTRY = "ZZ"

EARLIEST = datetime(1700, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Bounds of an event's moments, both inclusive. pandas and Feast count nanoseconds in 64 bits (1677 to 2262), and a
moment near year 1 or 9999 has no UTC date at all."""

SESSION_PAUSE = timedelta(minutes=30)
"""Longest pause within a session, counted as an as-of join counts age: from one microsecond after an event."""

UNSTORABLE_TEXT = r"[\x00\ud800-\udfff]"
"""Postgres refuses NUL in text; half a surrogate pair has no UTF-8. Rust's expressions know only the first."""

TEXT_LIMIT = 512
"""Characters of an id or another short text in a request or a live event: four bytes each fit a Postgres index."""
QUERY_LIMIT = 100_000
"""Characters of a query that are accepted; of those the first ones are read, see `playbill.datasets.encoding.text`."""

_UNSTORABLE = re.compile(UNSTORABLE_TEXT)


def text_problem(text: str) -> str | None:
    """Say why a text cannot be stored, or None where it can: it has a NUL or half a surrogate pair."""
    bad = _UNSTORABLE.search(text)
    if bad is None:
        return None
    name = "a NUL character" if bad[0] == "\0" else f"half a surrogate pair (U+{ord(bad[0]):04X})"
    return f"the text has {name} at position {bad.start()}, which cannot be stored."


def moment_problem(moment: datetime) -> str | None:
    """Say why a zone-aware moment cannot be stored, or None where it can: it lies outside `EARLIEST` to `LATEST`."""
    if EARLIEST <= moment <= LATEST:
        return None
    return f"{moment.isoformat()} is outside {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}."


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `nullable=False` is checked on every write."""

    name: str
    type: ColumnType
    nullable: bool = True
    known: Known = "request"
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One canonical table.

    `extra_columns` lets a source keep its own columns beside ours: `any`, or only `namespaced` ones such as
    `kuairand.comment_ms`. What a request may see never includes them: they count as known after it.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    extra_columns: Literal["none", "any", "namespaced"] = "none"

    def column(self, name: str) -> Column | None:
        """Return the column called `name`, or None."""
        return next((column for column in self.columns if column.name == name), None)

    def names(self, known: Known | None = None) -> tuple[str, ...]:
        """Return the column names, all or those of one knowledge time."""
        return tuple(column.name for column in self.columns if known in (None, column.known))


TITLES = Table(
    "titles",
    key=("title_id", "valid_from"),
    columns=(
        Column("title_id", "string", nullable=False, doc="the catalogue's own id"),
        Column("valid_from", "timestamp", nullable=False, doc="when this version of the row became true"),
        Column("recorded_at", "timestamp", nullable=False, doc="when this version became known"),
        Column("name", "string", nullable=False, doc="what members read"),
        Column("names", "names", doc="names by language"),
        Column(
            "kind", "string", nullable=False, doc="`film`, `series`, `game`, or one of your own such as `shop.podcast`"
        ),
        Column("genres", "list[string]", doc="in any words; shared ones make rows"),
        Column("original_language", "string", doc="code, such as `fr`"),
        Column("countries", "list[string]", doc="countries of origin"),
        Column("release_date", "timestamp", doc="first release anywhere"),
        Column("runtime_min", "int32", doc="minutes; of an episode for a series"),
        Column("maturity", "string", doc="age rating in any words"),
        Column("kids", "bool", doc="true: may be shown on kids' profiles"),
        Column("characters", "list[string]", doc="names of characters"),
        Column("synopsis", "string", doc="text, searched and embedded"),
    ),
)

AVAILABILITY = Table(
    "availability",
    key=("title_id", "country", "available_from"),
    columns=(
        Column("title_id", "string", nullable=False, doc="one of `titles`"),
        Column("country", "string", nullable=False, doc="`*` means every country"),
        Column(
            "available_from",
            "timestamp",
            nullable=False,
            doc="from when it can be watched there; the first one is its launch",
        ),
        Column("available_until", "timestamp", doc="null = open"),
        Column("recorded_at", "timestamp", nullable=False, doc="when this became known"),
    ),
)

MEMBERS = Table(
    "members",
    key=("member_id", "valid_from"),
    columns=(
        Column("member_id", "string", nullable=False, doc="the service's own id of a profile"),
        Column("valid_from", "timestamp", nullable=False, doc="when this version of the row became true"),
        Column("recorded_at", "timestamp", nullable=False, doc="when this version became known"),
        Column("country", "string", nullable=False, doc="`ZZ` = unknown, never null"),
        Column("joined_at", "timestamp", doc="when the member joined"),
        Column("language", "string", doc="code, such as `fr`"),
        Column("kids_profile", "bool", doc="true: sees titles for kids only"),
    ),
    extra_columns="any",
)

INTERACTIONS = Table(
    "interactions",
    key=("event_id",),
    columns=(
        Column("event_id", "string", nullable=False, doc="unique; what makes pushing an event again harmless"),
        Column("member_id", "string", nullable=False, doc="who did it"),
        Column("seq", "int64", nullable=False, doc="order within the member; breaks ties of event_at"),
        Column("event_at", "timestamp", nullable=False, doc="when it happened"),
        Column("recorded_at", "timestamp", nullable=False, known="after", doc="when it became known"),
        Column(
            "action",
            "string",
            nullable=False,
            known="after",
            doc="one of the actions below, or one of your own such as `shop.buy`",
        ),
        Column("title_id", "string", known="after", doc="needed by plays, thumbs and list changes"),
        Column("season", "int32", known="after", doc="of a series"),
        Column("episode", "int32", known="after", doc="of a series"),
        Column("canvas", "string", nullable=False, doc="surface it happened on, such as `home` or `search`"),
        Column("request_id", "string", doc="joins plays to what was shown"),
        Column("session_id", "string", doc="visit"),
        Column("position", "int32", doc="place in the row, from 0"),
        Column("row_id", "string", doc="row of the page"),
        Column("country", "string", nullable=False, doc="where the member was, `ZZ` = unknown"),
        Column("device", "string", doc="such as `tv` or `phone`"),
        Column("language", "string", doc="of the member's interface"),
        Column("duration_s", "float32", known="after", doc="seconds watched"),
        Column("progress", "float32", known="after", doc="share of the title played, 0 to 1"),
        Column("query", "string", doc="what was typed, for searches"),
        Column("source_title_id", "string", doc="title that the canvas was opened from"),
        Column("propensity", "float32", doc="probability with which the title was shown at this place"),
    ),
    extra_columns="namespaced",
)

REQUESTS = Table(
    "requests",
    key=("request_id",),
    columns=(
        Column("request_id", "string", nullable=False),
        Column("at", "timestamp", nullable=False),
        Column("member_id", "string"),
        Column("canvas", "string", nullable=False),
        Column("context", "string", nullable=False, doc="the whole request context as JSON"),
        Column("model", "string"),
        Column("model_version", "string"),
        Column("policy", "string", nullable=False, doc="`model` or the fallback's name"),
        Column("seed", "int64"),
        Column("facts", "string", doc="the facts used, as JSON"),
        Column("facts_version", "string"),
    ),
)

SLATES = Table(
    "slates",
    key=("request_id", "row_position", "position"),
    columns=(
        Column("request_id", "string", nullable=False),
        Column("row_id", "string"),
        Column("row_position", "int32", nullable=False),
        Column("position", "int32", nullable=False),
        Column("title_id", "string", nullable=False),
        Column("score", "float64"),
        Column("propensity", "float64"),
        Column("candidate_set_id", "string"),
    ),
)

TABLES = {table.name: table for table in (TITLES, AVAILABILITY, MEMBERS, INTERACTIONS, REQUESTS, SLATES)}

BEFORE_COLUMNS = {
    "prior_plays_of_title": "plays of this title by this member strictly before this event",
    "prior_plays": "plays by this member strictly before this event",
    "days_since_last_play": "days since this member's play before this event, null at the first one",
    "title_age_days": "days from the title's launch in the event's country to the event",
    "prior_plays_of_rarest_genre": "plays by this member strictly before this event of that genre of this title which "
    "they have played least, null for a title without genres",
    "prior_my_list_adds_of_title": "times this member put this title on their list strictly before this event",
    "popularity_percentile_of_title": "share, in percent, of the titles launched before this event's UTC day that all "
    "members had played less than this one by then; null for a title that had not launched",
}
"""What was true just before an event."""

OUTCOME_COLUMNS = {
    "later_plays": "plays by this member after this event, within the window",
    "later_plays_of_title": "plays of this title by this member after this event, within the window",
    "later_best_progress_of_title": "best `progress` of those plays of this title, 0 without any",
    "later_plays_from_search": "plays on the canvas `search` by this member after this event, within the window",
    "later_visits": "times this member came back within the window: events after four hours without one",
    "later_thumbs_up_of_title": "this member's thumbs up for this title after this event, within the window",
    "later_thumbs_down_of_title": "this member's thumbs down for this title after this event, within the window",
    "later_my_list_adds_of_title": "times this member put this title on their list after this event, within the window",
    "later_reminders_of_title": "reminders this member set for this title after this event, within the window",
    "later_abandons_of_title": "`abandon` events of this title by this member after this event, within the window",
}
"""What came of an event within the label's `window` after it; null until the window has passed."""

DERIVED_COLUMNS = {**BEFORE_COLUMNS, **OUTCOME_COLUMNS}
"""What a label's `where` may name beyond the columns of `interactions`, and what it means."""
