"""What is odd about a log though nothing of it is wrong: shared or outlying moments, rows there twice, plays again.

All of it is gathered batch by batch while a source is read, for the report of an ingest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

OUTLYING_SHARE = 0.001
"""Outlying days hold at most this share of the moments, or a single one."""

OUTLYING_GAP = timedelta(days=365)
"""The least distance of an outlying day to all others; it is also at least half of what the others span."""


RETURNS_MATTER = 0.1
"""Share of plays of a title that the member had played before, from which on an ingest speaks of them."""


@dataclass
class Ties:
    """Plays that share their moment with another play of the same member."""

    plays: int = 0
    """Plays in all."""
    tied: int = 0
    """Those that share their moment."""
    members: int = 0
    """Members with a play."""
    last_tied: int = 0
    """Those whose last play is among the tied."""
    whole_days: bool = True
    """Whether every play is at midnight."""

    def add(self, plays: pl.DataFrame) -> None:
        """Count in further plays; all plays of a member come together."""
        moments = plays.group_by("member_id", "event_at").len()
        last = moments.group_by("member_id").agg(pl.col("len").get(pl.col("event_at").arg_max()))
        self.plays += plays.height
        self.tied += int(moments.filter(pl.col("len") > 1).get_column("len").sum())
        self.members += last.height
        self.last_tied += last.filter(pl.col("len") > 1).height
        self.whole_days &= bool(plays.select((pl.col("event_at").dt.time() == pl.time(0, 0)).all()).item())

    def note(self, *, ordered: bool) -> str:
        """Say what was counted, and what it means; `ordered` when the source gives the order within a moment."""
        share, last = self.tied / max(self.plays, 1), self.last_tied / max(self.members, 1)
        counted = (
            f"{self.tied:,} of {self.plays:,} plays ({share:.1%}) share their moment with another play of the member, "
            f"among them the last play of {self.last_tied:,} of {self.members:,} members ({last:.1%})"
        )
        if ordered:
            return f"{counted}; their order is the source's own"
        days = "; moments are whole days" if self.whole_days else ""
        return f"{counted}{days}; their order within a moment is arbitrary"


@dataclass
class Observations:
    """What was seen of a log so far."""

    ordered: bool = False
    """The source gives the order of a member's events."""
    ties: Ties = field(default_factory=Ties)
    """Of its plays."""
    repeats: int = 0
    """Events beyond the first of one member, title, action and moment."""
    returns: int = 0
    """Plays at a later moment than the member's first one of the title."""
    measured: bool = False
    """Whether any play has a progress."""
    days: dict[date, int] = field(default_factory=dict)
    """Day -> distinct moments of members."""

    def add(self, events: pl.DataFrame) -> None:
        """Look at further events; all events of a member come together."""
        plays = events.filter(pl.col("action") == "play")
        self.ties.add(plays)
        self.measured |= "progress" in plays.columns and plays["progress"].count() > 0
        if "title_id" in events.columns:
            titled = events.filter(pl.col("title_id").is_not_null())
            same = titled.select("member_id", "title_id", "action", "event_at")
            self.repeats += same.height - same.n_unique()
            moments = plays.select("member_id", "title_id", "event_at").unique()
            self.returns += moments.height - moments.n_unique(["member_id", "title_id"])
        # Moments and not events: a rating is a play and a thumb, yet one mistake.
        moments = events.select("member_id", "event_at").drop_nulls().unique()
        for day, count in moments.group_by(pl.col("event_at").dt.date()).len().iter_rows():
            self.days[day] = self.days.get(day, 0) + count

    def notes(self) -> list[str]:
        """Return what is worth saying, one sentence each."""
        found = list(_outlying(self.days))
        if self.repeats:
            found.append(
                f"{plural(self.repeats, 'event')} with the member, title, action and moment of an earlier one: each is "
                "kept as an event of its own; where they are copies, leave them out of the file"
            )
        plays = self.ties.plays
        if self.returns > RETURNS_MATTER * plays:
            found.append(
                f"{self.returns:,} of {plays:,} plays ({self.returns / plays:.0%}) are of a title that the member had "
                "played before: canvases with `watched: false` do not offer these, and labels of first plays do not "
                "count them"
            )
        if plays and not self.measured:
            found.append(
                "no play says how much of the title was watched: labels that ask for `progress`, as most that ship "
                "with Playbill do, find nothing; map it, or `progress: {constant: 1.0}` where a play means that it "
                "was watched"
            )
        if self.ties.tied:
            found.append(self.ties.note(ordered=self.ordered))
        return found


def plural(count: int, word: str) -> str:
    """Write a number and what it counts."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _outlying(days: dict[date, int]) -> Iterator[str]:
    """Yield a sentence about days far before, and far after, all others, and about a log that ends in 1970."""
    ordered = sorted(days)
    if ordered and ordered[-1].year <= 1970:
        yield "all events are in or before 1970, as where seconds are read as milliseconds"
    for side, name in ((ordered, "before"), (ordered[::-1], "after")):
        if far := _far(side, days):
            counted = plural(sum(days[day] for day in side[:far]), "moment")
            gap = abs((side[far] - side[far - 1]).days) / 365.25
            zero = (
                "; a moment of 0, which often stands for an unknown one, is 1970-01-01" if side[0].year == 1970 else ""
            )
            yield f"{counted} at least {gap:.1f} years {name} all others, such as on {side[0]}{zero}"


def _far(days: Sequence[date], counts: dict[date, int]) -> int:
    """Return how many days at the beginning of a sequence lie far from the rest."""
    allowed = max(1, OUTLYING_SHARE * sum(counts.values()))
    moments, far = 0, 0
    for place in range(len(days) - 1):
        moments += counts[days[place]]
        if moments > allowed:
            break
        gap, rest = abs(days[place + 1] - days[place]), abs(days[-1] - days[place + 1])
        if gap >= max(OUTLYING_GAP, rest / 2):
            far = place + 1
    return far
