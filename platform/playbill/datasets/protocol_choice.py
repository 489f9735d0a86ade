"""The protocol of a model whose definition leaves it to the log: decided here for ingest, training and exports alike.

A log is held out by time where at least `RETURNING` members play on both sides of the cut; fewer give a metric such
as NDCG@10 a 95 % interval of more than .04 to either side. `LEAST_RETURNING` are enough where more than one in ten
members' last plays share their moment with another play, since the last one may then be any. Else each member's last
play is held out. Numbers: docs/adr/0033-protocol-by-the-log.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from playbill.datasets.splits import MINIMUM_PLAYS, Split, make_split, time_cutoffs
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.measures import AUTO

BY_TIME, BY_MEMBER = "global_time_period", "leave_one_out"
RETURNING = 200
LEAST_RETURNING = 30
TIES_MATTER = 0.1
"""Share of held-out last plays that share their moment with another one: above it they are no measure."""


@dataclass(frozen=True)
class ProtocolChoice:
    """A protocol, and what of the log or of the model speaks for it."""

    protocol: str
    reason: str


def choose_protocol(interactions: pl.DataFrame, waiting: Mapping[str, str] | None = None) -> ProtocolChoice:
    """Choose by what a log is.

    Args:
        interactions: At least member_id, event_at and action, in any order.
        waiting: Head -> label, of heads that a model cannot do without and whose labels wait for outcomes, which
            `leave_one_out` would hold out.
    """
    plays = interactions.filter(pl.col("action") == "play").select("member_id", "event_at")
    cutoffs = time_cutoffs(plays["event_at"])
    if cutoffs is None:
        return ProtocolChoice(BY_MEMBER, "all plays share one moment, or nearly all: there is no time to cut at")
    if waiting:
        head, label = next(iter(waiting.items()))
        return ProtocolChoice(
            BY_TIME, f"head '{head}' learns label '{label}', which waits for what comes after an event"
        )
    members = _by_member(plays.with_columns(late=pl.col("event_at") >= cutoffs[1]))
    if not (members["plays"] >= MINIMUM_PLAYS).any():
        return ProtocolChoice(BY_TIME, f"no member has {MINIMUM_PLAYS} plays")
    tied, returning = int(members["tied"].sum()), int(members["returning"].sum())
    both = (
        f"{returning:,} members have plays before and after {cutoffs[1]:%Y-%m-%d}, where a tenth of the plays is left"
    )
    if returning >= RETURNING:
        return ProtocolChoice(BY_TIME, both)
    if tied > TIES_MATTER * members.height and returning >= LEAST_RETURNING:
        what = (
            f"the last play of {tied:,} of {members.height:,} members shares its moment with another play of the member"
        )
        return ProtocolChoice(BY_TIME, f"{what}, so which one is the last may be chance")
    return ProtocolChoice(BY_MEMBER, f"only {both} (a cut by time needs {RETURNING})")


def model_split(resolved: ResolvedModel, interactions: pl.DataFrame, protocol: str | None = None) -> Split:
    """Split by a named protocol, by default that of the definition; the split says why where the log has chosen it.

    Raises:
        UnknownNameError: No such protocol.
        DataError: The events cannot be split that way.
    """
    named = protocol or resolved.model.evaluate.protocol
    if named != AUTO:
        return make_split(named, interactions)
    choice = choose_protocol(interactions, waiting_heads(resolved))
    return replace(make_split(choice.protocol, interactions), reason=choice.reason)


def waiting_heads(resolved: ResolvedModel) -> dict[str, str]:
    """Return the heads that are not optional and whose label waits for an outcome, each with its label."""
    heads = {name: head.label for name, head in resolved.model.heads.items() if head.label and not head.optional}
    return {name: label for name, label in heads.items() if resolved.labels[label].attribution_window}


def _by_member(plays: pl.DataFrame) -> pl.DataFrame:
    """Return a row per member: plays, whether the last one shares its moment, whether they lie on both sides."""
    last = pl.col("event_at") == pl.col("event_at").max()
    return plays.group_by("member_id").agg(
        plays=pl.len(),
        tied=last.sum() > 1,
        returning=pl.col("late").any() & ~pl.col("late").all(),
    )
