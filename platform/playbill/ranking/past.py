"""What candidate rules and policies read of a member's own past: what is unfinished, finished, and on the list.

Axis letters: P titles played, I in progress, F finished, Y on the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill.ranking.catalogue import Catalogue, Columns, Moments

FINISHED = 0.9
"""A play that reached this share of its title, or for a series of its season or episode, is finished."""

_READ = ("play", "abandon", "my_list_add", "my_list_remove")


def _none() -> Columns:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Past:
    """A member's past, the newest first in every list; each title once.

    Args:
        played: [P] columns of titles played, by their newest play.
        in_progress: [I] columns of titles whose newest play stopped before `FINISHED`, by that play. For a series it
            is that of whichever episode came last. Not one that was abandoned since, nor one whose progress is not
            known.
        finished: [F] columns of titles that were finished and have not been begun again, by their last finish.
        finished_at: [F] moments of those plays, microseconds since 1970.
        my_list: [Y] columns of titles added to the list and not removed, by when they were added.
    """

    played: Columns = field(default_factory=_none)
    in_progress: Columns = field(default_factory=_none)
    finished: Columns = field(default_factory=_none)
    finished_at: Moments = field(default_factory=_none)
    my_list: Columns = field(default_factory=_none)


def past_of(history: pl.DataFrame, catalogue: Catalogue) -> Past:
    """Read a member's past.

    Args:
        history: Rows of `interactions`, all of them before the request: event_at, action, title_id and, where it is
            known, progress. Without `seq` they are in order.
        catalogue: Whose columns count; other titles are left out.
    """
    if "seq" in history.columns:
        history = history.sort("seq", maintain_order=True)
    progress = pl.col("progress").fill_nan(None) if "progress" in history.columns else pl.lit(None, pl.Float32)
    # In four bytes, as the log keeps it: 0.9 is a little less there than written out.
    done = progress.cast(pl.Float32) >= pl.lit(FINISHED, pl.Float32)
    events = history.filter(pl.col("action").is_in(_READ)).select(
        "action", "title_id", at=pl.col("event_at").dt.epoch("us"), done=done
    )
    titles = [catalogue.column(title) for title in events["title_id"].to_list()]
    actions, times = events["action"].to_list(), events["at"].to_list()
    lists: tuple[dict[int, int], ...] = ({}, {}, {}, {})
    for title, action, at, over in zip(titles, actions, times, events["done"].to_list(), strict=True):
        if title >= 0:
            _note(lists, title, action, at, over)
    finished_at = np.fromiter(reversed(lists[2].values()), np.int64, len(lists[2]))
    played, going, finished, listed = (np.fromiter(reversed(own), np.int64, len(own)) for own in lists)
    return Past(played, going, finished, finished_at, listed)


def _note(lists: tuple[dict[int, int], ...], title: int, action: str, at: int, over: bool | None) -> None:
    """Move a title between the lists. A list is in the order in which titles came to it."""
    played, going, finished, listed = lists
    if action == "play":
        for own in (played, going, finished):
            own.pop(title, None)
        played[title] = at
        if over is not None:
            (finished if over else going)[title] = at
    elif action == "abandon":
        going.pop(title, None)
    else:
        listed.pop(title, None)
        if action == "my_list_add":
            listed[title] = at
