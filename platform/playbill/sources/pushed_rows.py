"""What pushed rows must be, and what is filled in where they leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from playbill.schema import INTERACTIONS, TABLES, UNKNOWN_COUNTRY
from playbill.tables import TIMESTAMP, Places, RowMistake, Tables, example_row
from playbill.tables.frames import utc_literal
from playbill.tables.validation import ProblemLog, check_frame

EVENTS = INTERACTIONS.name
VERSIONED = ("titles", "members")
"""Tables whose rows are versions: valid from a moment on, until the next."""

_REFERENCES = {EVENTS: ("title_id", "source_title_id"), "availability": ("title_id",)}
_STAMPS = ("valid_from", "recorded_at")


@dataclass(frozen=True, slots=True)
class Offered:
    """Rows of one table, and where they were written.

    Attributes:
        frame: The rows.
        places: Where each was written, for messages.
        rated: They were made of ratings without ids of the source's own.
    """

    frame: pl.DataFrame
    places: Places | None = None
    rated: bool = False


@dataclass(frozen=True, slots=True)
class Moments:
    """The moment rows become known at where they do not say, and the one after which nothing may be."""

    now: datetime
    limit: datetime


def check_offered(
    tables: Tables, offered: Mapping[str, Offered], moments: Moments, log: ProblemLog
) -> dict[str, pl.DataFrame]:
    """Bring rows into canonical shape, with everything filled in but `seq`.

    Args:
        tables: What is there.
        offered: Table -> rows.
        moments: Of this push.
        log: Where mistakes are noted, and may be already.

    Returns:
        Table -> canonical rows.

    Raises:
        DataError: There are mistakes; all are named.
    """
    filled: dict[str, pl.DataFrame] = {}
    shaped: dict[str, pl.DataFrame] = {}
    # Profiles first: an event without a country has its member's, who may be in the same push.
    for table in sorted(offered, key=lambda name: name == EVENTS):
        frame = offered[table].frame
        if table == EVENTS:
            filled[table] = _filled_events(frame, _countries(tables, shaped.get("members")), moments)
        else:
            filled[table] = _filled_profile(tables, table, frame, moments)
        checked = check_frame(table, filled[table], moments.limit, log, offered[table].places)
        if checked is not None:
            shaped[table] = checked
    # With broken titles every reference to them would be reported too, which hides the cause.
    if "titles" not in offered or "titles" in shaped:
        titles = [
            frame.get_column("title_id") for frame in (tables.titles(), shaped.get("titles")) if frame is not None
        ]
        known = pl.concat(titles).unique().implode()
        for table, columns in _REFERENCES.items():
            if table in filled:
                _note_strangers(table, columns, filled[table], known, offered[table].places, log)
    log.raise_if_any("the rows were not pushed")
    return shaped


def _note_strangers(
    table: str, columns: tuple[str, ...], frame: pl.DataFrame, known: pl.Series, places: Places | None, log: ProblemLog
) -> None:
    for name in columns:
        if frame.schema.get(name) != pl.String:
            continue
        strange = frame.select(pl.col(name).is_not_null() & ~pl.col(name).is_in(known)).to_series()
        if strange.any():
            found = places.of(strange) if places else ""
            example = example_row(frame.filter(strange).head(1))
            mistake = RowMistake(name, "a title that is not in titles", int(strange.sum()), example, "", found)
            log.add_rows(table, [mistake])


def _filled_profile(tables: Tables, table: str, frame: pl.DataFrame, moments: Moments) -> pl.DataFrame:
    filled = _carried_over(tables, table, frame) if table in VERSIONED else frame
    if table == "members":
        filled = _coalesced(filled, "country", pl.lit(UNKNOWN_COUNTRY))
    now = utc_literal(moments.now)
    for name in _STAMPS:
        if TABLES[table].column(name) is not None:
            filled = _coalesced(filled, name, now)
    return filled


def _filled_events(frame: pl.DataFrame, countries: pl.DataFrame, moments: Moments) -> pl.DataFrame:
    filled = _coalesced(frame, "seq", pl.lit(0, dtype=pl.Int64))
    if frame.schema.get("event_at") == TIMESTAMP:
        # Where the clock stands at the end of the data, an event after it is known when it happens.
        filled = _coalesced(filled, "recorded_at", pl.max_horizontal("event_at", utc_literal(moments.now)))
    if frame.schema.get("member_id") == pl.String:
        joined = filled.join(countries, on="member_id", how="left", maintain_order="left")
        filled = _coalesced(joined, "country", pl.col("_country").fill_null(UNKNOWN_COUNTRY)).drop("_country")
    return filled


def _countries(tables: Tables, pushed: pl.DataFrame | None) -> pl.DataFrame:
    frames = [tables.members(), *([pushed] if pushed is not None else [])]
    known = pl.concat([frame.select("member_id", _country="country") for frame in frames])
    return known.unique("member_id", keep="last", maintain_order=True)


def _coalesced(frame: pl.DataFrame, name: str, otherwise: pl.Expr) -> pl.DataFrame:
    if name not in frame.columns or frame.schema[name] == pl.Null:
        return frame.with_columns(otherwise.alias(name))
    if not frame.get_column(name).null_count():
        return frame
    return frame.with_columns(pl.coalesce(name, otherwise.cast(frame.schema[name], strict=False)).alias(name))


def _carried_over(tables: Tables, table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Take columns that are left out from each row's newest version."""
    identity = TABLES[table].key[0]
    if frame.schema.get(identity) != pl.String:
        return frame
    newest = tables.published().newest(table, None).collect()
    absent = [name for name in newest.columns if name not in frame.columns and name not in _STAMPS]
    return frame.join(newest.select(identity, *absent), on=identity, how="left", maintain_order="left")
