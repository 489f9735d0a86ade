"""Which titles may be shown to whom: availability, launches, metadata, popularity and the member's own past, as masks.

Axis letters: T titles, W watched titles. A mask is [T] bool, True = may be shown.

What candidate rules and policies read of a member's own past: what is unfinished, finished, and on the list.

Axis letters: P titles played, I in progress, F finished, Y on the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64, Mask
from playbill.clock import to_microseconds
from playbill.datasets.candidate_masks import NEVER, in_launch_window, launch_bounds
from playbill.definitions.specs import CandidatesSpec, PercentileRange
from playbill.ranking.catalogue import ABSENT, EVERYWHERE, Catalogue, Columns, Counts
from playbill.tables.frames import epoch_us

__all__ = [
    "ABSENT",
    "EVERYWHERE",
    "NEVER",
    "Catalogue",
    "Columns",
    "Counts",
    "Mask",
    "Viewer",
    "emptying_rule",
    "explain",
    "in_order",
    "popularity_percentile",
    "select",
]


@dataclass(frozen=True)
class Viewer:
    """What candidate rules and policies ask about one request. All of it was known before the request.

    Args:
        at: The request's moment.
        country: Its country, `ZZ` = unknown, where only titles available everywhere count.
        watched: [W] columns of titles the member has played before `at`.
        source: Column of the source title, `ABSENT` without one.
        kids_profile: Only titles for kids may be shown, whatever the canvas or row says: the profile is for kids, or
            the canvas is.
        plays: Returns [T] plays before `at`; asked only by rules about popularity.
        country_plays: Returns [T] plays of the last seven days in the country; asked only by `top_in_country`.
        past: Returns the member's past; asked only by rules about it. None = someone without one.
    """

    at: datetime
    country: str
    watched: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    source: int = ABSENT
    kids_profile: bool = False
    plays: Callable[[], Counts] | None = None
    country_plays: Callable[[], Counts] | None = None
    past: Callable[[], MemberHistory] | None = None

    @property
    def own(self) -> MemberHistory:
        """The member's past."""
        return MemberHistory() if self.past is None else self.past()


def select(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> Mask:
    """Return the [T] titles that satisfy every rule.

    Raises:
        ValueError: A rule asks for popularity and the viewer carries no plays.
    """
    mask = np.ones(len(catalogue), dtype=np.bool_)
    for _, allowed in verdicts(catalogue, rules, viewer):
        mask &= allowed
    return mask


def explain(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer, title: int) -> dict[str, bool]:
    """Return rule -> whether it allows a title, for every rule that is asked: why the title is in or out.

    Args:
        catalogue: The titles.
        rules: Those of a canvas or row.
        viewer: Who asks.
        title: Its column.

    Raises:
        ValueError: A rule asks for popularity and the viewer carries no plays.
    """
    return {name: bool(allowed[title]) for name, allowed in verdicts(catalogue, rules, viewer)}


def emptying_rule(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> str | None:
    """Return the rule, as it is written, after which no title is left; None when some title satisfies every rule."""
    mask = np.ones(len(catalogue), dtype=np.bool_)
    for name, allowed in verdicts(catalogue, rules, viewer):
        mask &= allowed
        if not mask.any():
            return rules.written(name)
    return None


def verdicts(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> Iterator[tuple[str, Mask]]:
    """Yield each rule that is asked and the [T] titles that it allows by itself; what all allow may be shown.

    Availability comes first. Popularity is among all that can be had here and now, before anything personal is taken
    out; `top_in_country` is among those of them that rules about titles allow.
    """
    timed = {name: f"{name} ({one})" for one in rules.hours if one.hold(viewer.at) for name in one.rules}
    if rules.hours:
        rules = rules.at(viewer.at)
    present = rules.available == "now"
    here = (catalogue.available if present else catalogue.upcoming)(viewer.at, viewer.country)
    yield f"available: {rules.available}", here
    if viewer.kids_profile:
        yield "kids profile", catalogue.kids
    described = [(timed.get(name, name), catalogue.allowed(rule)) for name, rule in rules.about_titles.items()]
    yield from described
    if rules.popularity_percentile is not None:
        yield "popularity_percentile", _within(rules.popularity_percentile, viewer, here)
    if rules.top_in_country is not None:
        own = [mask for _, mask in described] + ([catalogue.kids] if viewer.kids_profile else [])
        yield "top_in_country", _top(rules.top_in_country, viewer, np.logical_and.reduce([here, *own]))
    yield from _launches(catalogue, rules, viewer)
    yield from _personal(catalogue, rules, viewer)


def _launches(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> Iterator[tuple[str, Mask]]:
    names = ("launched_within", "launched_before", "launches_within", "launches_after")
    requested = [name for name in names if getattr(rules, name) is not None]
    if requested:
        ahead = rules.available == "upcoming"
        known = catalogue.known_launches(viewer.at, viewer.country) if ahead else catalogue.launches(viewer.country)
        yield ", ".join(requested), in_launch_window(launch_bounds(rules), known, to_microseconds(viewer.at))


def _personal(catalogue: Catalogue, rules: CandidatesSpec, viewer: Viewer) -> Iterator[tuple[str, Mask]]:
    if rules.watched is not None:
        yield "watched", catalogue.mask_of(viewer.watched) == rules.watched
    if rules.in_progress is not None:
        yield "in_progress", catalogue.mask_of(viewer.own.in_progress) == rules.in_progress
    if rules.on_my_list is not None:
        yield "on_my_list", catalogue.mask_of(viewer.own.my_list) == rules.on_my_list
    if rules.finished_before is not None:
        yield "finished_before", catalogue.mask_of(_finished(viewer, rules.finished_before))
    if rules.exclude_source and viewer.source != ABSENT:
        others = np.ones(len(catalogue), dtype=np.bool_)
        others[viewer.source] = False
        yield "exclude_source", others


def _finished(viewer: Viewer, span: timedelta) -> Columns:
    past = viewer.own
    return past.finished[past.finished_at <= to_microseconds(viewer.at - span)]


def popularity_percentile(plays: Counts, among: Mask) -> npt.NDArray[np.float64]:
    """Return each title's popularity percentile among some titles, [T]; NaN for all others.

    The percentile is the share of those titles that have fewer plays, counting ties by half, in [0, 100]: the
    most played of n titles has 100 (n - 0.5) / n. Titles without a play are ties too.
    """
    percentiles = np.full(plays.shape, np.nan)
    own = plays[among]
    ordered = np.sort(own)
    below = np.searchsorted(ordered, own, side="left")
    upto = np.searchsorted(ordered, own, side="right")
    percentiles[among] = 100.0 * (below + upto) / (2.0 * max(own.size, 1))
    return percentiles


def _within(limits: PercentileRange, viewer: Viewer, among: Mask) -> Mask:
    if viewer.plays is None:
        raise ValueError("a popularity rule needs the plays before the request")
    percentiles = popularity_percentile(viewer.plays(), among)
    low = limits.above if limits.above is not None else -np.inf
    high = limits.below if limits.below is not None else np.inf
    within: Mask = (percentiles > low) & (percentiles < high)
    return within


def _top(count: int, viewer: Viewer, among: Mask) -> Mask:
    """Mark the most played of some titles; of equal ones the smaller column, and none that nobody played."""
    if viewer.country_plays is None:
        raise ValueError("a rule about the top of a country needs the plays there before the request")
    plays = np.where(among, viewer.country_plays(), 0)
    best = np.argsort(-plays, kind="stable")[:count]
    mask = np.zeros(plays.shape, dtype=np.bool_)
    mask[best[plays[best] > 0]] = True
    return mask


FINISHED = 0.9
"""A play that reached this share of its title, or for a series of its season or episode, is finished."""

_READ = ("play", "abandon", "my_list_add", "my_list_remove")


def _none() -> Columns:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class MemberHistory:
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
    finished_at: Ints64 = field(default_factory=_none)
    my_list: Columns = field(default_factory=_none)


def in_order(history: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `interactions` by `seq`, in which they nearly always are."""
    return history if history["seq"].is_sorted() else history.sort("seq", maintain_order=True)


def past_of(history: pl.DataFrame, catalogue: Catalogue) -> MemberHistory:
    """Read a member's past.

    Args:
        history: Rows of `interactions`, all of them before the request: event_at, action, title_id and, where it is
            known, progress. Without `seq` they are in order.
        catalogue: Whose columns count; other titles are left out.
    """
    events = in_order(history) if "seq" in history.columns else history
    # In four bytes, as the log keeps it: 0.9 is a little less there than written out.
    progress = np.full(len(events), np.nan, np.float32)
    if "progress" in events.columns:
        progress = events["progress"].cast(pl.Float32).to_numpy()
    over = np.where(np.isnan(progress), None, progress >= np.float32(FINISHED)).tolist()  # type: ignore[call-overload]
    times = epoch_us(events["event_at"]).tolist()
    lists: tuple[dict[int, int], ...] = ({}, {}, {}, {})
    for title, action, at, done in zip(
        events["title_id"].to_list(), events["action"].to_list(), times, over, strict=True
    ):
        if action in _READ and (column := catalogue.column(title)) != ABSENT:
            _note(lists, column, action, at, done)
    finished_at = np.fromiter(reversed(lists[2].values()), np.int64, len(lists[2]))
    played, going, finished, listed = (np.fromiter(reversed(own), np.int64, len(own)) for own in lists)
    return MemberHistory(played, going, finished, finished_at, listed)


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
