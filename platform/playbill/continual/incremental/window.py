"""What an update takes: the events that the champion has not learnt, but for the newest, which it is measured on.

Those are the events that arrived since the champion's split was made, and those that the split held out. Which they are
is asked of the event ids and of nothing else, so an event counts once, however late it arrives and in whatever order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from playbill.arrays import Bools, Ints64
from playbill.datasets import Split
from playbill.datasets.splits import FOLDS
from playbill.definitions.specs import UpdateSpec
from playbill.tables import Tables

COLUMNS = ("event_id", "member_id", "event_at", "action")
STRETCH = 32  # successive events of a member that are drawn to be learnt from again: one window has all of them
LEARNT = "train"


@dataclass(frozen=True)
class UpdateWindow:
    """The events of one update."""

    split: Split  # every event of the log: `train` is learnt from by now, `test` is held out
    taken: pl.DataFrame  # event_id and member_id of what this update learns from for the first time
    known: pl.DataFrame  # the same of what the champion has learnt, as far as the log still has it, in the log's order
    digest: str  # of the ids of what is taken
    arrived: int  # events that the champion's split did not know
    late: int  # of these, how many are older than the moment up to which the champion had learnt
    learnt_before: int  # events that the champion has learnt

    @property
    def cutoff(self) -> datetime:
        """The moment that what is held out begins at."""
        assert self.split.cutoff is not None
        return self.split.cutoff

    @property
    def learnt_after(self) -> int:
        """The events that the update's version has learnt."""
        return self.learnt_before + self.taken.height

    @property
    def share(self) -> float:
        """The part of these that this update learns from for the first time."""
        return self.taken.height / self.learnt_after


def log_state(tables: Tables) -> str:
    """Return a digest of the event log; equal where no event was added."""
    parts = sorted(tables.log_parts().items())
    return hashlib.sha256("\n".join(f"{path} {digest}" for path, digest in parts).encode()).hexdigest()


def find_window(tables: Tables, learnt: Split, watermark: datetime, spec: UpdateSpec) -> UpdateWindow | str:
    """Return what there is to take, or in one sentence why there is nothing yet.

    `learnt` is the champion's split, `watermark` the moment up to which it had learnt.
    """
    log = tables.interactions(columns=COLUMNS).join(learnt.frame, on="event_id", how="left", maintain_order="left")
    known = pl.col("fold").eq_missing(LEARNT)
    arrived = log.filter(pl.col("fold").is_null())
    if arrived.is_empty():
        return "no event has arrived since the champion was trained"
    trained, waiting = log.filter(known), log.filter(~known)
    last = trained["event_at"].max()
    plays = waiting.filter(pl.col("action") == "play")["event_at"]
    later = plays.filter(plays > last) if isinstance(last, datetime) else plays
    cutoff = _cutoff(later, spec.holdout)
    if cutoff is None:
        moment = f" after {last:%Y-%m-%d %H:%M} UTC" if isinstance(last, datetime) else ""
        return (
            f"{arrived.height:,} events have arrived, and none is a play{moment} that an update could be measured on; "
            "they are taken as soon as there is one"
        )
    taken = waiting.filter(pl.col("event_at") < cutoff)
    if taken.is_empty():
        return f"{arrived.height:,} events have arrived, too few to learn from some and be measured on others"
    fold = pl.when(known | (pl.col("event_at") < cutoff)).then(pl.lit(LEARNT)).otherwise(pl.lit("test"))
    frame = log.select("event_id", fold=fold.cast(pl.Enum(FOLDS)))
    gone = _gone(learnt, log, trained.height)
    split = Split.at(pl.concat([frame, gone.select("event_id", pl.col("fold").cast(pl.Enum(FOLDS)))]), cutoff)
    late = arrived.filter(pl.col("event_at") < watermark).height
    learnt_before = trained.height + gone.height
    found, had = (events.select("event_id", "member_id") for events in (taken, trained))
    return UpdateWindow(split, found, had, _digest(found["event_id"]), arrived.height, late, learnt_before)


def _gone(learnt: Split, log: pl.DataFrame, there: int) -> pl.DataFrame:
    """Return what was learnt from and is not in the log any more; `there` of it are."""
    had = learnt.frame.filter(pl.col("fold") == LEARNT)
    return had.join(log, on="event_id", how="anti") if had.height > there else had.clear()


def same_window(tables: Tables, learnt: Split, split: Split, late: int) -> UpdateWindow:
    """Return the window of an update that was begun before, from its split and the champion's."""
    folds = learnt.frame.select("event_id", before="fold")
    both = split.frame.join(folds, on="event_id", how="left", maintain_order="left")
    mine, had = pl.col("fold") == LEARNT, pl.col("before").eq_missing(LEARNT)
    taken, before = (both.filter(mine & own).select("event_id") for own in (~had, had))
    members = tables.interactions(columns=("event_id", "member_id"))
    found, known = (members.join(own, on="event_id", how="semi", maintain_order="left") for own in (taken, before))
    arrived = both.filter(pl.col("before").is_null()).height
    return UpdateWindow(split, found, known, _digest(taken["event_id"]), arrived, late, before.height)


def _cutoff(plays: pl.Series, holdout: float) -> datetime | None:
    """Return the moment from which on the newest share of plays is held out."""
    if plays.is_empty():
        return None
    ordered = plays.sort()
    found = ordered[min(int((1 - holdout) * len(ordered)), len(ordered) - 1)]
    return found if isinstance(found, datetime) else None


def _digest(event_ids: pl.Series) -> str:
    return hashlib.sha256("\n".join(event_ids.sort().to_list()).encode()).hexdigest()


def draw_replay(window: UpdateWindow, share: float, seed: int) -> pl.DataFrame:
    """Return event_id and member_id of events that the champion has learnt, to be learnt from again.

    Stretches of successive events of a member, each ending at an event drawn at random, `share` of all examples in all.
    """
    wanted, log = round(window.taken.height * share / (1 - share)), window.known
    if not wanted or log.is_empty():
        return log.clear()
    generator = np.random.default_rng((seed, int(window.digest[:12], 16)))
    return log.filter(pl.Series(stretches(log["member_id"], generator.permutation(log.height), wanted)))


def stretches(member: pl.Series, ends: Ints64, wanted: int) -> Bools:
    """Return [n] which of n events are chosen, `wanted` of them as far as `ends` [any] bring so many.

    Each end brings the `STRETCH` events of its member up to it, the last ones fewer, so that no more are chosen. As
    many ends are taken at once as cannot bring too many.
    """
    first = np.flatnonzero(np.r_[True, np.diff(member.rle_id().to_numpy()) != 0])
    begin = first[np.searchsorted(first, ends, side="right") - 1]  # first event of the member of each end
    steps = np.zeros(len(member) + 1, np.int64)
    chosen, at, missing = np.zeros(len(member), np.bool_), 0, wanted
    while missing > 0 and at < len(ends):
        count, length = max(1, missing // STRETCH), min(STRETCH, missing)
        own = slice(at, at + count)
        np.add.at(steps, np.maximum(begin[own], ends[own] + 1 - length), 1)
        np.add.at(steps, ends[own] + 1, -1)
        chosen, at = steps[:-1].cumsum() > 0, at + count
        missing = wanted - int(chosen.sum())
    return chosen
