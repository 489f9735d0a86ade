"""Values of the member view `member_genres`: which genres a member plays, and how much.

The genres of a service are not known when `feature_repo` is written and new ones arrive, so there is no column and no
fixed place in a vector for each. The view names a member's genres instead, the most played first: three names with
their shares that a model can read as they are, and lists of the first eight for everything else. Shares change
only with a play, so the view needs no rows for events that leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT, CREATED_AT, EVER, MOMENT, Axis, Keys, Span, axes, ticks
from playbill.features.members import genres_of, is_play

PLACES = ("first", "second", "third")
"""The genres that have columns of their own."""

LISTED = 8
"""The genres that are in the lists."""

CELLS_AT_ONCE = 16_000_000
"""Plays x genres whose counts are held at once."""

_MAIN = [(f"{place}_genre", f"{place}_share") for place in PLACES]
_SCHEMA: dict[str, Any] = {
    "member_id": pl.String,
    CHANGED_AT: MOMENT,
    CREATED_AT: MOMENT,
    **{name: kind for names in _MAIN for name, kind in zip(names, (pl.String, pl.Float32), strict=True)},
    "genre_entropy": pl.Float32,
    "genres": pl.List(pl.String),
    "genre_shares": pl.List(pl.Float32),
}


def member_genres(events: pl.DataFrame, titles: pl.DataFrame, span: Span = EVER) -> pl.DataFrame:
    """Return a member's genres after each moment in which they play a title that has some. See `members` for arguments.

    A title counts once for each of its genres; a genre's share is its part of all that was counted. Genres that were
    played equally often are in alphabetical order.

    Returns:
        member_id, event_timestamp, created_timestamp, first_genre and first_share to third_genre and third_share
        (null where fewer were played), genre_entropy (in nats; 0 for one genre), genres and genre_shares (up to eight).
    """
    listed = genres_of(titles)
    names = listed.get_column("genre").unique().sort()
    plays = events.filter(is_play()).select("member_id", "event_at", "recorded_at", "title_id")
    plays = plays.join(listed.select("title_id").unique(), on="title_id", how="semi", maintain_order="left")
    parts = [_states(part, listed, names) for part in _parts(plays, len(names))]
    return pl.concat(parts).filter(span.expr()) if parts else pl.DataFrame(schema=_SCHEMA)


def _parts(plays: pl.DataFrame, genres: int) -> Iterator[pl.DataFrame]:
    """Yield plays sorted by member and moment, in parts of whole members whose counts fit in memory."""
    keys = Keys(plays, ["member_id"])
    at = ticks(plays.get_column("event_at"))
    for chosen, first in axes(keys.codes, at, 0):
        axis = Axis(keys.codes[chosen] - first, at[chosen], 0)
        rows = axis.rows(plays[chosen]).with_columns(pl.Series("member", axis.key_of(axis.events)))
        starts = np.unique(axis.starts)
        goals = np.arange(0, rows.height, max(1, CELLS_AT_ONCE // max(1, genres)))
        edges = np.unique(starts[np.searchsorted(starts, goals, side="right") - 1])
        for start, end in pairwise([*edges.tolist(), rows.height]):
            yield rows.slice(start, end - start)


def _states(plays: pl.DataFrame, listed: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """Return the states of whole members. n plays, G genres."""
    member = plays.get_column("member").to_numpy()
    starts = np.flatnonzero(np.r_[True, member[1:] != member[:-1]])
    counts = _counts(plays, listed, names)
    of = np.searchsorted(starts, np.arange(len(member)), side="right") - 1
    moment = plays.get_column("event_at")
    same = (moment == moment.shift(-1)).fill_null(False).to_numpy() & np.r_[member[1:] == member[:-1], False]
    ends = np.flatnonzero(~same)
    before = np.vstack([np.zeros((1, counts.shape[1]), dtype=counts.dtype), counts])[starts]
    held = counts[ends] - before[of[ends]]
    created = plays.select(pl.col("recorded_at").cum_max().over("member")).to_series()
    return pl.DataFrame(
        [
            plays.get_column("member_id").gather(ends),
            (moment.gather(ends) + MICROSECOND).alias(CHANGED_AT),
            created.gather(ends).alias(CREATED_AT),
            *_described(held, names),
        ]
    )


def _counts(plays: pl.DataFrame, listed: pl.DataFrame, names: pl.Series) -> npt.NDArray[np.int32]:
    """[n, G] Return how often each genre was played up to and with every play, over all members before it too."""
    tagged = plays.select("title_id").with_row_index("row").join(listed, on="title_id")
    genre = tagged.get_column("genre").cast(pl.Enum(names)).to_physical().to_numpy()
    counts = np.zeros((plays.height, len(names)), dtype=np.int32)
    counts[tagged.get_column("row").to_numpy(), genre] = 1
    return np.cumsum(counts, axis=0, dtype=np.int32, out=counts)


def _described(counts: npt.NDArray[np.int32], names: pl.Series) -> list[pl.Series]:
    """Return the feature columns of [m, G] counts, each row of which has at least one."""
    genres = counts.shape[1]
    total = counts.sum(axis=1, keepdims=True)
    # One number per genre: the count, then the place in the alphabet, so that equal counts have one order.
    rank = counts.astype(np.int64) * genres + np.arange(genres - 1, -1, -1)
    order = np.argsort(-rank, axis=1)[:, :LISTED]
    shares = (np.take_along_axis(counts, order, axis=1) / total).astype(np.float32)
    columns = []
    for place, (genre, share) in enumerate(_MAIN):
        played = shares[:, place] > 0 if place < genres else np.zeros(len(counts), dtype=np.bool_)
        index = order[:, place] if place < genres else np.zeros(len(counts), dtype=np.int64)
        value = shares[:, place] if place < genres else np.zeros(len(counts), dtype=np.float32)
        columns.append(names.gather(index).alias(genre).set(pl.Series(~played), None))
        columns.append(pl.Series(share, value).set(pl.Series(~played), None))
    part = np.divide(counts, total, dtype=np.float64)
    logs = np.log(part, out=np.zeros_like(part), where=counts > 0)
    columns.append(pl.Series("genre_entropy", np.abs((part * logs).sum(axis=1)).astype(np.float32)))
    return [*columns, *_lists(order, shares, names)]


def _lists(order: npt.NDArray[np.int64], shares: npt.NDArray[np.float32], names: pl.Series) -> list[pl.Series]:
    played = shares > 0
    offsets = pa.array(np.r_[0, np.cumsum(played.sum(axis=1))].astype(np.int64))
    flat = names.gather(order[played]).to_arrow(compat_level=pl.CompatLevel.oldest())
    lists = {"genres": flat, "genre_shares": pa.array(shares[played])}
    return [pl.Series(name, pa.LargeListArray.from_arrays(offsets, values)) for name, values in lists.items()]
