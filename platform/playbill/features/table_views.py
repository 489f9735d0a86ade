"""The views that are a table's rows: who a member is, what a title is, when it came to a country.

There are few of them, so they are computed whole every time and what is new or changed is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from playbill.features.axis import CHANGED_AT
from playbill.features.countries import title_country_profile
from playbill.features.increments import NO_STATE, LogState, Updated
from playbill.features.members import member_profile
from playbill.features.titles import title_profile
from playbill.features.view_folder import ViewFolder, ViewState
from playbill.features.windows import CREATED_AT
from playbill.tables import Tables


@dataclass(frozen=True, slots=True)
class TableView:
    """A view of a table's rows.

    Attributes:
        name: The view, and its folder VIEW.parquet.
        keys: Whose values it holds.
        tables: What it is computed from.
        rows: Every version of every row.
        version: Raised when `rows` computes something else than before.
    """

    name: str
    keys: tuple[str, ...]
    tables: tuple[str, ...]
    rows: Callable[[Tables], pl.DataFrame]
    version: str = "1"


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
    old, state = folder.sound_state(), _state(view, log)
    if old is not None and not full and (old.version, old.log) == (state.version, state.log):
        return Updated("unchanged", "", old, 0)
    rows = view.rows(log.tables)
    if full or old is None:
        done = folder.replace([rows], state)
        return Updated("built", "as asked" if full else NO_STATE, done, done.rows)
    stored = folder.scan(old).collect()
    if why := _why_anew(view, stored, rows, old):
        done = folder.replace([rows], state)
        return Updated("built", why, done, done.rows)
    changed = rows.join(stored, on=rows.columns, how="anti", nulls_equal=True, maintain_order="left")
    return Updated("increment", "", folder.append(changed, state, old), changed.height)


def _state(view: TableView, log: LogState) -> ViewState:
    digests = {table: log.tables.digest(table) for table in view.tables}
    return ViewState(view.version, 0, None, log.tables.snapshot_id(), digests, {})


def _why_anew(view: TableView, stored: pl.DataFrame, rows: pl.DataFrame, old: ViewState) -> str:
    """Return why appending would not lead to `rows`, or nothing."""
    if old.version != view.version or stored.schema != rows.schema:
        return "its columns have changed"
    key = [*view.keys, CHANGED_AT]
    newest = [frame.group_by(key).agg(pl.col(CREATED_AT).max()) for frame in (stored, rows)]
    known = newest[0].join(newest[1], on=key, how="left", suffix="_now")
    outlived = pl.col(f"{CREATED_AT}_now").is_null() | (pl.col(f"{CREATED_AT}_now") < pl.col(CREATED_AT))
    return "rows it was built from are gone" if known.select(outlived.any()).item() else ""
