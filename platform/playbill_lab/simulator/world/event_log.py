"""The events of a run: noted as numbers, turned into canonical interactions in batches.

Axis letters: E events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Ints64
from playbill.schema import ACTIONS
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.launches import moments

if TYPE_CHECKING:
    from playbill_lab.simulator.world.world import World


_COLUMNS = {
    "i8": "at recorded request seq",
    "i4": "member title source session query",
    "f4": "duration progress propensity",
    "i2": "season episode position genre",
    "i1": "action canvas row device",
}
EVENT = np.dtype([(name, kind) for kind, names in _COLUMNS.items() for name in names.split()])
"""One event; -1, or NaN, where a column has nothing."""
_BLANK = np.array([tuple(np.nan if EVENT[name].kind == "f" else -1 for name in EVENT.names or ())], EVENT)

QUESTIONS_EACH = 1_000_000  # A question's number is the member's number times this, plus the member's own count

CODE = {name: number for number, name in enumerate(ACTIONS)}
Events = NDArray[Any]


class EventRecorder:
    """Takes events of a day before `until_us`, numbers each member's, and hands canonical batches to `write`.

    `keep` holds everything in memory, so that histories can be read.
    """

    def __init__(
        self,
        world: World,
        until_us: int,
        write: Callable[[pl.DataFrame], None] | None = None,
        *,
        keep: bool = False,
        batch: int = 500_000,
    ) -> None:
        self._world, self._until, self._write, self._keep, self._batch = world, until_us, write, keep, batch
        self._today: list[Events] = []
        self._waiting: list[Events] = []
        self._kept: list[Events] = []
        self._ordered: tuple[int, Events] = (0, np.empty(0, EVENT))
        self._next = np.zeros(len(world.people), np.int64)
        self._frames = _Frames(world)
        self.queries: list[str] = []
        self.counts = np.zeros((len(on.CANVASES), len(ACTIONS)), np.int64)

    def note(self, action: str, member: AnyInts, at: Ints64, **columns: Any) -> None:
        """Note one event of each of some members. Later calls hold later events of a member."""
        if not len(member):
            return
        rows = np.repeat(_BLANK, len(member))
        rows["action"], rows["member"], rows["at"], rows["recorded"] = CODE[action], member, at, at
        for name, values in columns.items():
            rows[name] = values
        self._today.append(rows)

    def end_day(self) -> None:
        """Number the day's events within their members, and hand a batch on when enough wait."""
        if not self._today:
            return
        rows = np.concatenate(self._today)
        self._today = []
        rows = rows[rows["at"] < self._until]
        order = np.argsort(rows["member"], kind="stable")
        rows = rows[order]
        rows["seq"] = self._numbers(rows)
        np.add.at(self._next, rows["member"], 1)
        np.add.at(self.counts, (rows["canvas"], rows["action"]), 1)
        if self._keep:
            self._kept.append(rows)
        if self._write:
            self._waiting.append(rows)
            if sum(map(len, self._waiting)) >= self._batch:
                self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        if self._waiting and self._write:
            self._write(self._frames.frame(np.concatenate(self._waiting), self.queries))
            self._waiting = []

    def frame(self) -> pl.DataFrame:
        """Return everything kept, canonical, sorted by member and seq."""
        rows = np.concatenate(self._kept) if self._kept else np.empty(0, EVENT)
        return self._frames.frame(rows[np.argsort(rows["member"], kind="stable")], self.queries)

    def before(self, member: AnyInts, at_us: Ints64) -> pl.DataFrame:
        """Return the canonical events of members strictly before a moment of each, by member and seq."""
        days, rows = self._ordered
        if days < len(self._kept):
            rows = np.concatenate([rows, *self._kept[days:]])
            rows = rows[np.argsort(rows["member"], kind="stable")]
            self._ordered = (len(self._kept), rows)
        wanted = np.unique(member)
        first, last = (np.searchsorted(rows["member"], wanted, side=side) for side in ("left", "right"))
        count = last - first
        old = rows[np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())]
        latest = np.full(len(self._next), -1, np.int64)
        latest[member] = at_us
        new = [part[latest[part["member"]] >= 0] for part in self._today]
        found = np.concatenate([old, *new]) if new else old
        found = found[found["at"] < latest[found["member"]]]
        found = found[np.argsort(found["member"], kind="stable")]
        today = found["seq"] < 0
        found["seq"][today] = self._numbers(found[today])
        return self._frames.frame(found, self.queries)

    def _numbers(self, rows: Events) -> Ints64:
        """Return the next numbers of events, sorted by member, within their members."""
        members, first, count = np.unique(rows["member"], return_index=True, return_counts=True)
        within = np.arange(len(rows)) - np.repeat(first, count)
        return np.asarray(within + np.repeat(self._next[members], count), np.int64)


class _Frames:
    """Numbers to canonical columns."""

    def __init__(self, world: World) -> None:
        people = world.people
        self._members, self._titles = world.member_ids, world.title_ids
        self._countries = pl.Series(world.countries).gather(people.country)
        self._languages = pl.Series(world.languages).gather(people.language)
        self._rows = pl.Series([*on.ROWS, None], dtype=pl.String)
        self._genres = pl.Series([*world.catalogue.genres, None], dtype=pl.String)

    def frame(self, rows: Events, queries: list[str]) -> pl.DataFrame:
        member = rows["member"].astype(np.int64)
        ids = self._members.gather(member)
        canvases, actions, devices = (pl.Series(names) for names in (on.CANVASES, ACTIONS, on.DEVICES))
        numbers = pl.DataFrame({name: rows[name] for name in ("seq", "request", "session")}).with_columns(id=ids)
        texts = numbers.select(
            event_id=pl.concat_str("id", pl.lit("-"), "seq"),
            request_id=pl.when(pl.col("request") >= 0).then(
                pl.concat_str("id", pl.lit("-r"), pl.col("request") % QUESTIONS_EACH)
            ),
            session_id=pl.concat_str("id", pl.lit("-s"), "session"),
        )
        columns = {
            "event_id": texts["event_id"],
            "member_id": ids,
            "seq": rows["seq"],
            "event_at": moments(rows["at"]),
            "recorded_at": moments(rows["recorded"]),
            "action": actions.gather(rows["action"].astype(np.int64)),
            "title_id": _taken(self._titles, rows["title"]),
            "season": _number(rows["season"]),
            "episode": _number(rows["episode"]),
            "canvas": canvases.gather(rows["canvas"].astype(np.int64)),
            "request_id": texts["request_id"],
            "session_id": texts["session_id"],
            "position": _number(rows["position"]),
            "row_id": self._row_ids(rows),
            "country": self._countries.gather(member),
            "device": devices.gather(rows["device"].astype(np.int64)),
            "language": self._languages.gather(member),
            "duration_s": pl.Series(rows["duration"]).fill_nan(None),
            "progress": pl.Series(rows["progress"]).fill_nan(None),
            "query": _taken(pl.Series(queries, dtype=pl.String), rows["query"]),
            "source_title_id": _taken(self._titles, rows["source"]),
            "propensity": pl.Series(rows["propensity"]).fill_nan(None),
        }
        return pl.DataFrame(columns)

    def _row_ids(self, rows: Events) -> pl.Series:
        """Name the rows; generated ones with what they are about, as in `genre_rows:comedy`."""
        row = _taken(self._rows, rows["row"])
        about = _taken(self._genres, rows["genre"])
        liked = _taken(self._titles, np.where(rows["row"] == on.BECAUSE_YOU_WATCHED, rows["source"], -1))
        named = pl.DataFrame({"row": row, "about": about, "liked": liked})
        return named.select(
            pl.concat_str("row", pl.coalesce("about", "liked"), separator=":").fill_null(pl.col("row"))
        ).to_series()


def _taken(values: pl.Series, places: AnyInts) -> pl.Series:
    """Return values by place; null for -1."""
    index = pl.Series(places.astype(np.int64))
    return values.gather(index.replace(-1, None))


def _number(values: AnyInts) -> pl.Series:
    return pl.Series(values.astype(np.int32)).replace(-1, None)
