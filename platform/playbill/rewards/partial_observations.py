"""Partial observations of plays at chosen moments: the inputs of delayed-feedback models.

Everything is counted by what was known at the moment (happened strictly before it, recorded by then), for many plays
and moments at once. Such facts are about the time after a recommendation, so no policy may ever read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import Floats64, Ints64

FEATURES = (
    "canvas",
    "age_h",
    "hour",
    "title_age_days",
    "progress",
    "duration_h",
    "best_progress_before",
    "best_progress",
    "title_plays_before",
    "title_plays_since",
    "title_finished_since",
    "title_hours_since",
    "thumbs_up_since",
    "thumbs_down_since",
    "list_adds_since",
    "abandons_since",
    "days_since_title",
    "sessions_since",
    "plays_since",
    "hours_since",
    "days_since_active",
    "plays_28d_before",
    "sessions_28d_before",
    "member_mean_progress",
    "tenure_days",
    "title_plays",
    "title_mean_progress",
    "title_finished",
    "title_thumbs_up",
)
"""Columns of `PartialObservations.features`; `canvas` is a code, all else a number, nan where nothing is known."""

FINISHED = 0.9
"""Progress from which a title counts as finished in these inputs."""

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_RECENT_US = 28 * _DAY_US
_ENOUGH_PLAYS = 30.0
_NEW_DAYS = 28.0
# Counts without an end would tell the date, and a model would learn dates by heart that never come back.
_EVERYWHERE = "*"
_COUNTED = ("play", "thumbs_up", "thumbs_down", "my_list_add", "abandon")


@dataclass(frozen=True, slots=True)
class _Columns:
    """The log as arrays. Letter n counts its rows."""

    member: Ints64
    title: Ints64
    pair: Ints64
    event_at: Ints64
    known: Ints64
    progress: Floats64
    hours: Floats64
    is_action: Mapping[str, NDArray[np.bool_]]
    opens_session: NDArray[np.bool_]


class PartialObservations:
    """Facts about the rows of one log at any moment. Building it sorts the log three times; asking is a search.

    Without `availability` the age of titles is not known.
    """

    def __init__(self, log: pl.DataFrame, availability: pl.DataFrame | None = None) -> None:
        self.log = log
        self._columns = _columns(log)
        self._title_age = _title_age(log, availability)
        c = self._columns
        active = np.nonzero(c.opens_session | np.logical_or.reduce(list(c.is_action.values())))[0]
        on_title = np.nonzero((c.title >= 0) & np.logical_or.reduce(list(c.is_action.values())))[0]
        self._members = _counts_by(c.member, c, active, best=False)
        self._pairs = _counts_by(c.pair, c, on_title, best=True)
        self._titles = _counts_by(c.title, c, on_title, best=False)

    def features(self, rows: Ints64, at: Ints64, canvases: Sequence[str]) -> NDArray[np.float32]:
        """Return [m, len(FEATURES)] what was known of rows [m] of the log, which have titles, at later moments [m].

        `canvases` are the names whose places are the codes; any other canvas is nan.
        """
        found = self._own(rows, at, canvases) | self._of_pair(rows, at) | self._of_member(rows, at)
        found |= self._of_title(rows, at)
        return np.stack([found[name] for name in FEATURES], axis=1).astype(np.float32)

    def _own(self, rows: Ints64, at: Ints64, canvases: Sequence[str]) -> dict[str, Floats64]:
        c = self._columns
        began, known = c.event_at[rows], c.known[rows] <= at
        codes = pl.Series(canvases, dtype=pl.String)
        canvas = self.log["canvas"][rows] if "canvas" in self.log.columns else pl.Series([None] * len(rows))
        code = canvas.cast(pl.String).replace_strict(
            codes, np.arange(len(codes)), default=None, return_dtype=pl.Float64
        )
        return {
            "canvas": code.fill_null(float("nan")).to_numpy(),
            "age_h": np.log1p((at - began) / _HOUR_US),
            "hour": (began % _DAY_US) / _HOUR_US,
            "title_age_days": self._title_age[rows],
            "progress": np.where(known, c.progress[rows], np.nan),
            "duration_h": np.where(known, c.hours[rows], np.nan),
        }

    def _of_pair(self, rows: Ints64, at: Ints64) -> dict[str, Floats64]:
        c, pairs = self._columns, self._pairs
        key = c.pair[rows]
        start, before, now = pairs.start(key), pairs.position(key, c.event_at[rows]), pairs.position(key, at)
        return {
            "best_progress_before": pairs.best("progress", start, before),
            "best_progress": pairs.best("progress", start, now),
            "title_plays_before": pairs.total("play", start, before),
            "title_plays_since": pairs.total("play", before, now),
            "title_finished_since": pairs.total("finished", before, now),
            "title_hours_since": pairs.total("hours", before, now),
            "thumbs_up_since": pairs.total("thumbs_up", before, now),
            "thumbs_down_since": pairs.total("thumbs_down", before, now),
            "list_adds_since": pairs.total("my_list_add", before, now),
            "abandons_since": pairs.total("abandon", before, now),
            "days_since_title": (at - pairs.last_known(start, now)) / _DAY_US,
        }

    def _of_member(self, rows: Ints64, at: Ints64) -> dict[str, Floats64]:
        c, members = self._columns, self._members
        key, began = c.member[rows], c.event_at[rows]
        start, before, now = members.start(key), members.position(key, began), members.position(key, at)
        recent = members.position(key, began - _RECENT_US)
        return {
            "sessions_since": members.total("session", before, now),
            "plays_since": members.total("play", before, now),
            "hours_since": members.total("hours", before, now),
            "days_since_active": (at - members.last_known(start, now)) / _DAY_US,
            "plays_28d_before": members.total("play", recent, before),
            "sessions_28d_before": members.total("session", recent, before),
            "member_mean_progress": _share(members, "progress", "with_progress", start, before),
            "tenure_days": np.minimum((began - members.first_known(start, before)) / _DAY_US, _NEW_DAYS),
        }

    def _of_title(self, rows: Ints64, at: Ints64) -> dict[str, Floats64]:
        titles = self._titles
        key = self._columns.title[rows]
        start, now = titles.start(key), titles.position(key, at)
        return {
            "title_plays": np.minimum(titles.total("play", start, now), _ENOUGH_PLAYS),
            "title_mean_progress": _share(titles, "progress", "with_progress", start, now),
            "title_finished": _share(titles, "finished", "with_progress", start, now),
            "title_thumbs_up": _share(titles, "thumbs_up", "thumbs", start, now),
        }


def _counts_by(key: Ints64, c: _Columns, chosen: Ints64, *, best: bool) -> CumulativeCounts:
    progress = c.progress[chosen]
    measured = np.isfinite(progress) & c.is_action["play"][chosen]
    played = np.where(measured, progress, 0.0)
    totals = {name: is_action[chosen].astype(np.float64) for name, is_action in c.is_action.items()}
    totals |= {
        "session": c.opens_session[chosen].astype(np.float64),
        "hours": np.nan_to_num(c.hours[chosen]),
        "progress": played,
        "with_progress": measured.astype(np.float64),
        "finished": (played >= FINISHED).astype(np.float64),
        "thumbs": totals["thumbs_up"] + totals["thumbs_down"],
    }
    return CumulativeCounts(key[chosen], c.known[chosen], totals, {"progress": played} if best else None)


def _share(counts: CumulativeCounts, part: str, whole: str, since: Ints64, until: Ints64) -> Floats64:
    count = counts.total(whole, since, until)
    return np.where(count > 0, counts.total(part, since, until) / np.maximum(count, 1.0), np.nan)


def _columns(log: pl.DataFrame) -> _Columns:
    member, title = _codes(log["member_id"]), _codes(log["title_id"])
    event_at = log["event_at"].to_physical().to_numpy()
    recorded_at = log["recorded_at"].to_physical().to_numpy() if "recorded_at" in log.columns else event_at
    known = known_from(event_at, recorded_at)
    pair = _dense(pl.Series(member * (title.max(initial=0) + 1) + title))
    action = log["action"].cast(pl.Categorical)
    return _Columns(
        member=member,
        title=title,
        pair=pair,
        event_at=event_at,
        known=known,
        progress=_numbers(log, "progress"),
        hours=_numbers(log, "duration_s") / 3_600.0,
        is_action={name: (action == name).fill_null(value=False).to_numpy() for name in _COUNTED},
        opens_session=_opens_session(log, member, event_at, known),
    )


def _codes(ids: pl.Series) -> Ints64:
    """Return whole numbers from 0 that tell ids apart, -1 for null."""
    return _dense(ids.cast(pl.Categorical).to_physical())


def _dense(codes: pl.Series) -> Ints64:
    """Renumber from 0 without holes, so that a key times the number of moments stays in 64 bits."""
    return (codes.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()


def _numbers(log: pl.DataFrame, name: str) -> Floats64:
    if name not in log.columns:
        return np.full(log.height, np.nan)
    return log[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _opens_session(log: pl.DataFrame, member: Ints64, event_at: Ints64, known: Ints64) -> NDArray[np.bool_]:
    """Say which row of each session was known first; without a session the day is one.

    By the moment it was known: a row that turns up late must not change what was counted before it did.
    """
    day = pl.Series(event_at // _DAY_US).cast(pl.String)
    session = log["session_id"].cast(pl.String) if "session_id" in log.columns else pl.Series([None] * log.height)
    named = pl.DataFrame({"member": member, "session": session.cast(pl.String).fill_null(day)})
    order = np.argsort(known, kind="stable")
    first = named[order].select(pl.struct("member", "session").is_first_distinct()).to_series().to_numpy()
    opens = np.zeros(log.height, np.bool_)
    opens[order[first]] = True
    return opens


def _title_age(log: pl.DataFrame, availability: pl.DataFrame | None) -> Floats64:
    """Return [n] days from the launch in the row's country to the row; nan where none is known."""
    if availability is None or "country" not in log.columns:
        return np.full(log.height, np.nan)
    launch = availability.group_by("title_id", "country").agg(pl.col("available_from").min().alias("here"))
    everywhere = launch.filter(pl.col("country") == _EVERYWHERE).select("title_id", pl.col("here").alias("there"))
    joined = (
        log.select("title_id", "country", "event_at")
        .join(launch, on=["title_id", "country"], how="left", maintain_order="left")
        .join(everywhere, on="title_id", how="left", maintain_order="left")
    )
    age = (pl.col("event_at") - pl.min_horizontal("here", "there")).dt.total_microseconds() / _DAY_US
    return joined.select(age.fill_null(float("nan")).alias("age"))["age"].to_numpy()


def known_from(event_at: Ints64, recorded_at: Ints64) -> Ints64:
    """Return [n] the first moment at which each row is known: later than it happened, not before it was recorded."""
    return np.maximum(event_at + 1, recorded_at)


class CumulativeCounts:
    """Cumulative totals and best values of n rows, looked up at m pairs (key, moment).

    Args:
        key: [n] whose total, whole numbers from 0.
        known: [n] when each row is known, see `known_from`.
        totals: Name -> [n] what is added up.
        best: Name -> [n] of which the largest so far is kept, from 0 to 1.
    """

    def __init__(
        self, key: Ints64, known: Ints64, totals: Mapping[str, Floats64], best: Mapping[str, Floats64] | None = None
    ) -> None:
        self._moments = np.unique(known)
        order = np.lexsort((known, key))
        self._step = len(self._moments) + 1
        self._place = key[order] * self._step + np.searchsorted(self._moments, known[order]) + 1
        self._known = known[order]
        self._totals = {name: np.concatenate([[0.0], np.cumsum(values[order])]) for name, values in totals.items()}
        shift = 2.0 * key[order]
        self._best = {
            name: np.maximum.accumulate(np.clip(values[order], 0.0, 1.0) + shift) - shift
            for name, values in (best or {}).items()
        }

    def position(self, key: Ints64, at: Ints64) -> Ints64:
        """Return [m] the number of sorted rows up to and with those of `key` that are known at `at`."""
        moment = np.searchsorted(self._moments, at, side="right")
        return np.searchsorted(self._place, key * self._step + moment, side="right")

    def start(self, key: Ints64) -> Ints64:
        """Return [m] the position before the first row of `key`."""
        return np.searchsorted(self._place, key * self._step, side="right")

    def total(self, name: str, since: Ints64, until: Ints64) -> Floats64:
        """Return [m] the sum of a column between two positions of the same key."""
        sums: Floats64 = self._totals[name]
        made: Floats64 = sums[until] - sums[since]
        return made

    def best(self, name: str, start: Ints64, until: Ints64) -> Floats64:
        """Return [m] the largest value from the key's first row to a position; nan without a row."""
        return self._last(self._best[name], start, until)

    def last_known(self, start: Ints64, until: Ints64) -> Floats64:
        """Return [m] when the newest row before a position became known, microseconds; nan without a row."""
        return self._last(self._known, start, until)

    def first_known(self, start: Ints64, until: Ints64) -> Floats64:
        """Return [m] when the oldest row from a position became known, microseconds; nan without a row."""
        if not len(self._known):
            return np.full(len(until), np.nan)
        values = self._known[np.minimum(start, len(self._known) - 1)].astype(np.float64)
        return np.where(until > start, values, np.nan)

    def _last(self, column: NDArray[np.generic], start: Ints64, until: Ints64) -> Floats64:
        if not len(column):
            return np.full(len(until), np.nan)
        values = column[np.maximum(until - 1, 0)].astype(np.float64)
        return np.where(until > start, values, np.nan)
