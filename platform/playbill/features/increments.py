"""What a view lacks since it was last built, and the rows that bring it up to date.

Rows are owed to a key for two reasons: events arrived that the last build did not have, or time passed and an
event left a window. Both are answered the same way. The key's states are computed again from all its events, which is
exact however late an event is, and those from the first owed moment on are appended. A row that an earlier part
already has gets a second one of the same moment, known later: the newer belief wins, the older one stays for those who
ask what was believed then. The moments of a key's rows only ever grow in number, so no old row outlives its correction.

Views that are a table's rows (who a member is, what a title is) are few rows: they are computed whole every time, and
what is new or changed is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import polars as pl

from playbill.clock import MICROSECOND, from_microseconds, to_microseconds
from playbill.features.axis import CHANGED_AT, CREATED_AT, Span
from playbill.features.members import member_profile
from playbill.features.titles import BUCKET, title_country_profile, title_profile
from playbill.features.view_folder import ViewFolder, ViewState
from playbill.features.views import EventView
from playbill.tables import Tables
from playbill.tables.frames import utc_literal

How = Literal["built", "increment", "unchanged", "backfilled"]

NO_STATE = "there were no values, a file was damaged, or it is not known what they were built from"

_FROM = "__from"


@dataclass(frozen=True, slots=True)
class Updated:
    """What was done to a view: how, why it was built anew, its state after that, and the rows written."""

    how: How
    why: str
    state: ViewState
    written: int


@dataclass(frozen=True)
class LogState:
    """The tables as a build reads them."""

    tables: Tables
    titles: pl.DataFrame
    """The newest row of every title."""
    until: datetime
    """States up to this moment are wanted."""
    parts: Mapping[str, str]
    """Files of the event log, with digests."""
    columns: Sequence[str]
    """Columns of the log that any view reads."""

    @classmethod
    def read(cls, tables: Tables, until: datetime, columns: Sequence[str]) -> LogState:
        """Read what a build needs to know before it reads events."""
        parts = {name: digest[:16] for name, digest in tables.log_parts().items()}
        return cls(tables, tables.titles(), until, parts, columns)

    def described(self, view: EventView) -> dict[str, str]:
        """Return what the view reads of every title, as one text each; nothing if it reads none."""
        if not view.title_columns:
            return {}
        lists = [name for name in view.title_columns if self.titles.schema[name] == pl.List(pl.String)]
        texts = self.titles.with_columns(pl.col(lists).list.join("|")) if lists else self.titles
        columns = [pl.col(name).cast(pl.String).fill_null("") for name in view.title_columns]
        return dict(texts.select("title_id", pl.concat_str(columns, separator="\t")).iter_rows())

    @cached_property
    def events(self) -> pl.DataFrame:
        """The whole log, by the columns that are read; read once."""
        return self.tables.interactions(columns=self.columns)

    def state(self, view: EventView, since: datetime | None = None) -> ViewState:
        """Return what a view built from this would be built from."""
        return ViewState(
            version=view.version,
            until_us=to_microseconds(self.until),
            since_us=None if since is None else to_microseconds(since),
            snapshot_id=self.tables.snapshot_id(),
            log=dict(self.parts),
            genres=self.described(view),
        )


def why_anew(view: EventView, old: ViewState | None, log: LogState) -> str | None:
    """Return why a view cannot be brought up to date by an increment, None if it can."""
    if old is None:
        return NO_STATE
    if old.version != view.version:
        return "its encoder has changed"
    if any(log.parts.get(name) != digest for name, digest in old.log.items()):
        return "events it was built from were replaced"
    if view.title_columns and _titles_changed(view, old, log):
        return f"{', '.join(view.title_columns)} of titles with events have changed"
    return None


def _titles_changed(view: EventView, old: ViewState, log: LogState) -> bool:
    described = log.described(view)
    if any(described.get(title) != text for title, text in old.genres.items()):
        return True
    added = [title for title in described if title not in old.genres]
    if not added:
        return False
    # A new title changes nothing, unless it was played before it was catalogued.
    fresh = [name for name in log.parts if name not in old.log]
    every = log.tables.interactions(columns=["title_id"])
    arrived = log.tables.read_log_parts(fresh, ["title_id"])
    return _count(every, added) > _count(arrived, added)


def _count(events: pl.DataFrame, titles: list[str]) -> int:
    return int(events.get_column("title_id").is_in(titles).sum())


def increment(view: EventView, old: ViewState, log: LogState) -> pl.DataFrame | None:
    """Return the rows a view lacks since `old`, None if it lacks nothing and no time has passed.

    `why_anew` is None. Time does not go back: an earlier `until` than the old one owes nothing.
    """
    built_until = from_microseconds(old.until_us)
    fresh = [name for name in log.parts if name not in old.log]
    if not fresh and log.until <= built_until:
        return None
    owed = _owed(view, built_until, fresh, log)
    until = max(log.until, built_until)
    own = _events_of(view, owed, log)
    first = owed.get_column(_FROM).min()
    if own.is_empty() or not isinstance(first, datetime):
        return view.encode(own.clear(), log.titles, Span())
    rows = view.encode(own, log.titles, Span(first, until))
    kept = rows.join(owed, on=view.keys, how="inner", maintain_order="left").filter(pl.col(CHANGED_AT) >= pl.col(_FROM))
    return kept.select(rows.columns)


def _owed(view: EventView, built_until: datetime, fresh: list[str], log: LogState) -> pl.DataFrame:
    """Return the keys that are owed rows, and from which moment on."""
    after = utc_literal(built_until + MICROSECOND)
    arrived = log.tables.read_log_parts(fresh, log.columns).filter(view.counted())
    owed = [arrived.select(*view.keys, pl.min_horizontal(view.enters(), after).alias(_FROM))]
    if log.until > built_until:
        for length in (timedelta(0), *view.leaves):
            # A margin of one hour: an event enters at the end of its own.
            since, until = built_until - length - BUCKET, log.until - length + MICROSECOND
            passing = log.tables.interactions(since=since, until=until, columns=log.columns).filter(view.counted())
            owed.append(passing.select(view.keys).unique().with_columns(after.alias(_FROM)))
    return pl.concat(owed).group_by(view.keys).agg(pl.col(_FROM).min())


def _events_of(view: EventView, owed: pl.DataFrame, log: LogState) -> pl.DataFrame:
    if view.keys != ("member_id",):
        return log.events.filter(view.counted()).join(owed, on=view.keys, how="semi", maintain_order="left")
    members = owed.get_column("member_id").to_list()
    if not members:
        return log.tables.read_log_parts([], log.columns)
    return log.tables.interactions(members=members, columns=log.columns)


@dataclass(frozen=True, slots=True)
class TableView:
    """A view of a table's rows, in the folder NAME.parquet."""

    name: str
    keys: tuple[str, ...]
    tables: tuple[str, ...]
    """What it is computed from."""
    rows: Callable[[Tables], pl.DataFrame]
    """Every version of every row."""
    version: str = "1"
    """Raised when `rows` computes something else than before."""


TABLE_VIEWS: Mapping[str, TableView] = {
    view.name: view
    for view in (
        TableView(
            "member_profile", ("member_id",), ("members",), lambda tables: member_profile(tables.member_versions())
        ),
        TableView(
            "title_profile",
            ("title_id",),
            ("titles", "availability"),
            lambda tables: title_profile(tables.title_versions(), tables.availability()),
        ),
        TableView(
            "title_country_profile",
            ("title_id", "country"),
            ("availability",),
            lambda tables: title_country_profile(tables.availability()),
        ),
    )
}
"""View -> how it is built."""


def update_table_view(view: TableView, folder: ViewFolder, log: LogState, full: bool) -> Updated:
    """Bring one view up to date: append what is new or changed, or write it anew where that cannot be."""
    digests = {table: log.tables.digest(table) for table in view.tables}
    old, state = folder.sound_state(), ViewState(view.version, 0, None, log.tables.snapshot_id(), digests, {})
    if old is not None and not full and (old.version, old.log) == (state.version, state.log):
        return Updated("unchanged", "", old, 0)
    rows = view.rows(log.tables)
    stored = None if full or old is None else folder.scan(old).collect()
    why = "as asked" if full else NO_STATE
    if old is not None and stored is not None:
        why = _why_table_anew(view, stored, rows, old)
    if old is None or stored is None or why:
        done = folder.replace([rows], state)
        return Updated("built", why, done, done.rows)
    changed = rows.join(stored, on=rows.columns, how="anti", nulls_equal=True, maintain_order="left")
    return Updated("increment", "", folder.append(changed, state, old), changed.height)


def _why_table_anew(view: TableView, stored: pl.DataFrame, rows: pl.DataFrame, old: ViewState) -> str:
    """Return why appending would not lead to `rows`, or nothing."""
    if old.version != view.version or stored.schema != rows.schema:
        return "its columns have changed"
    key = [*view.keys, CHANGED_AT]
    newest = [frame.group_by(key).agg(pl.col(CREATED_AT).max()) for frame in (stored, rows)]
    known = newest[0].join(newest[1], on=key, how="left", suffix="_now")
    outlived = pl.col(f"{CREATED_AT}_now").is_null() | (pl.col(f"{CREATED_AT}_now") < pl.col(CREATED_AT))
    return "rows it was built from are gone" if known.select(outlived.any()).item() else ""
