"""Derived columns of what was true just before each event, and a title's popularity among those launched by then.

Axis letters: T titles, D days, n events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats64, Ints64
from playbill.errors import StateError
from playbill.labels.blocks import Block, EventGroups

EVERYWHERE = "*"
POPULARITY = "popularity_percentile_of_title"
PLAYS = "plays"
"""What the derived columns call the plays of all members by day, see `popularity.daily_plays`."""

DAY_US = 86_400_000_000
_LAUNCH = "__launch"


def before_column(name: str, block: Block, requested: Bools, tables: Mapping[str, pl.DataFrame | None]) -> pl.Series:
    """Return one column of `schema.BEFORE_COLUMNS` for n events; only the `requested` [n] must have values.

    `tables` has `availability` for `title_age_days`, `titles` for `prior_plays_of_rarest_genre`, `availability` and
    `plays` for `popularity_percentile_of_title`.

    Raises:
        StateError: A table it needs is not there.
    """
    return _BEFORE[name](block, requested, tables).alias(name)


def require_table(name: str, column: str, tables: Mapping[str, pl.DataFrame | None]) -> pl.DataFrame:
    """Return a table.

    Raises:
        StateError: It was not given.
    """
    found = tables.get(name)
    if found is None:
        raise StateError(f"{column} needs the {name} table; run `playbill ingest` first")
    return found


def masked(values: Ints64 | np.ndarray, known: Bools) -> pl.Series:
    """Return numbers as a column that is null where they are not known."""
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(values))).to_series()


_Tables = Mapping[str, pl.DataFrame | None]


def _prior_of_title(action: str) -> Callable[[Block, Bools, _Tables], pl.Series]:
    def column(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
        return masked(block.groups("title_id").before(block.is_action(action)), block.known("title_id"))

    return column


def _prior_plays(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
    return pl.Series(block.groups().before(block.is_action("play")))


def _days_since_last_play(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
    at = block.frame["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
    played = np.where(block.is_action("play"), np.arange(len(block)), -1)
    last = np.roll(np.maximum.accumulate(played), 1)
    known = last >= block.groups().start
    known[:1] = False
    return masked((at - at[last]) / DAY_US, known)


def _title_age(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
    """Return days from launch: the first `available_from` in the event's country or everywhere."""
    availability = require_table("availability", "title_age_days", tables)
    first = availability.group_by("title_id", "country").agg(pl.col("available_from").min().alias(_LAUNCH))
    everywhere = first.filter(pl.col("country") == EVERYWHERE).select("title_id", pl.col(_LAUNCH).alias("__all"))
    events = block.frame.select("title_id", "country", "event_at")
    joined = events.join(first, on=["title_id", "country"], how="left", maintain_order="left").join(
        everywhere, on="title_id", how="left", maintain_order="left"
    )
    age = pl.col("event_at") - pl.min_horizontal(_LAUNCH, "__all")
    return joined.select(age.dt.total_microseconds() / DAY_US).to_series()


def _prior_of_rarest_genre(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
    """Count earlier plays of each genre of the title, and take the smallest count.

    Each (event, genre) pair is an entry; plays count, asked events read. Entries of an event stay together.
    """
    titles = require_table("titles", "prior_plays_of_rarest_genre", tables)
    entries = _genre_entries(block, requested, titles)
    if entries.is_empty():
        return pl.Series(np.zeros(len(block), np.int64)).clear(len(block))
    event = entries["event"].to_numpy().astype(np.int64)
    genre = entries["genre"].to_numpy().astype(np.int64)
    prior = EventGroups.of(block.member[event], genre).before(block.is_action("play")[event])
    starts = np.nonzero(np.r_[True, event[1:] != event[:-1]])[0]
    rarest = np.zeros(len(block), np.int64)
    known = np.zeros(len(block), np.bool_)
    rarest[event[starts]] = np.minimum.reduceat(prior, starts)
    known[event[starts]] = True
    return masked(rarest, known)


def _genre_entries(block: Block, requested: Bools, titles: pl.DataFrame) -> pl.DataFrame:
    genres = (
        titles.select("title_id", pl.col("genres").list.unique().alias("genre"))
        .explode("genre")
        .drop_nulls()
        .with_columns(pl.col("genre").rank("dense").cast(pl.Int64))
        .group_by("title_id")
        .agg("genre")
    )
    rows = np.nonzero((requested | block.is_action("play")) & block.known("title_id"))[0]
    events = block.frame.select("title_id")[rows].with_columns(event=pl.Series(rows, dtype=pl.Int64))
    joined = events.join(genres, on="title_id", how="inner", maintain_order="left")
    return joined.select("event", "genre").explode("genre")


def _popularity(block: Block, requested: Bools, tables: _Tables) -> pl.Series:
    availability = require_table("availability", POPULARITY, tables)
    return percentiles(block, requested, require_table(PLAYS, POPULARITY, tables), availability)


_BEFORE: dict[str, Callable[[Block, Bools, _Tables], pl.Series]] = {
    "prior_plays_of_title": _prior_of_title("play"),
    "prior_plays": _prior_plays,
    "days_since_last_play": _days_since_last_play,
    "title_age_days": _title_age,
    "prior_plays_of_rarest_genre": _prior_of_rarest_genre,
    "prior_my_list_adds_of_title": _prior_of_title("my_list_add"),
    POPULARITY: _popularity,
}


def daily_plays(interactions: pl.DataFrame | pl.LazyFrame, known: pl.Expr) -> pl.DataFrame:
    """Return the plays of all members by title and the UTC day on which they were known: title_id, day, plays.

    `known` says which rows of the log exist; without `recorded_at` a play is known when it happens.
    """
    rows = interactions.lazy()
    since = pl.col("event_at")
    if "recorded_at" in rows.collect_schema().names():
        since = pl.max_horizontal("event_at", pl.col("recorded_at").cast(pl.Datetime("us", "UTC")))
    plays = rows.filter(known & (pl.col("action") == "play") & pl.col("title_id").is_not_null())
    day = (since.dt.epoch("us") // DAY_US).alias("day")
    return plays.group_by(pl.col("title_id").cast(pl.String), day).agg(pl.len().alias("plays")).sort("day").collect()


def percentiles(block: Block, requested: Bools, plays: pl.DataFrame, availability: pl.DataFrame) -> pl.Series:
    """Return [n] the popularity percentile of each requested event's title at the start of the event's UTC day.

    It is the share, in percent, of the titles launched anywhere before that day that had fewer plays (`daily_plays`) by
    then, counting ties by half; the same measure as the candidate rule `popularity_percentile`. Null for titles that
    had not launched.
    """
    launches = availability.group_by("title_id").agg(pl.col("available_from").min().dt.epoch("us")).sort("title_id")
    number = {title: row for row, title in enumerate(launches["title_id"])}
    own = block.frame["title_id"].cast(pl.String).replace_strict(number, default=None, return_dtype=pl.Int64)
    day = block.frame["event_at"].dt.epoch("us").to_numpy().astype(np.int64) // DAY_US
    title = own.fill_null(-1).to_numpy()
    values = np.full(len(block), np.nan)
    rows = np.flatnonzero(requested & (title >= 0))
    rows = rows[np.argsort(day[rows], kind="stable")]
    days, starts = np.unique(day[rows], return_index=True)
    launched = launches["available_from"].to_numpy().astype(np.int64)
    found = _by_day(plays, number, launched, days)
    for part, table in zip(np.split(rows, starts[1:]) if len(rows) else (), found, strict=True):
        values[part] = table[title[part]]
    return pl.Series(values).fill_nan(None)


def _by_day(plays: pl.DataFrame, number: dict[str, int], launched: Ints64, days: Ints64) -> Iterator[Floats64]:
    """Yield [T] percentiles at the start of each of D days, rising; NaN for titles that had not launched."""
    known = plays.filter(pl.col("title_id").is_in(list(number)))
    title = known["title_id"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
    played, on = known["plays"].to_numpy().astype(np.int64), known["day"].to_numpy()
    counts, done = np.zeros(len(launched), np.int64), 0
    for day, until in zip(days.tolist(), np.searchsorted(on, days).tolist(), strict=True):
        np.add.at(counts, title[done:until], played[done:until])
        done = until
        yield _percentile(counts, launched < day * DAY_US)


def _percentile(counts: Ints64, among: Bools) -> Floats64:
    found = np.full(len(counts), np.nan)
    own = counts[among]
    ordered = np.sort(own)
    below, upto = (np.searchsorted(ordered, own, side=side) for side in ("left", "right"))
    found[among] = 100.0 * (below + upto) / (2.0 * max(own.size, 1))
    return found
