"""Named ways to hold events out, frozen as row ids.

`leave_one_out`: of each member with three plays or more, the last play by seq is the test target, the one before
it the validation target. What follows a held-out play in seq (its thumb, say) is held out with it.

`global_time`: `cutoff` is the 0.9 quantile of play times, and `validation_cutoff` that of the plays before it.
Everything at or after a cutoff is held out, whoever did it. The targets of a member are all plays of the fold,
successive ones, each ranked from the state the member was in when the fold began: nothing is learnt in between.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from playbill.definitions.specs import measures
from playbill.errors import DataError, IntegrityError, Problem, StateError, UnknownNameError
from playbill.files import replaced_file

Fold = Literal["train", "validation", "test"]
PROTOCOLS: tuple[str, ...] = tuple(measures.PROTOCOLS)
TIME_PROTOCOLS: tuple[str, ...] = PROTOCOLS[1:]  # protocols that hold out everything from one moment on
FOLDS: tuple[str, ...] = get_args(Fold)
REQUESTS = "2"
"""Version of what a held-out request carries, under every protocol. 1 gave it the row in which the answer was shown,
and what was done on the page before the play; 2 withholds both. Figures of different versions are not compared."""
SPLIT_COLUMNS = ("event_id", "member_id", "seq", "event_at", "action")  # of interactions; a split reads no others
MINIMUM_PLAYS = 3  # members with fewer plays stay in the training part of `leave_one_out`
QUANTILE = 0.9

_METADATA = "playbill.split"


@dataclass(frozen=True)
class Split:
    """Which events are for what."""

    frame: pl.DataFrame  # event_id and fold, in the order of the interactions it was made from
    protocol: str
    cutoff: datetime | None  # first moment of the test fold; None for `leave_one_out`
    validation_cutoff: datetime | None  # first moment of the validation fold; None for `leave_one_out`
    digest: str  # hash of the protocol and of every held-out event id
    reason: str = ""  # why this protocol, where the log has chosen it

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence on the protocol, where the log has chosen it."""
        return (f"held out by {self.protocol}, since {self.reason}",) if self.reason else ()

    def events(self, interactions: pl.DataFrame, *folds: Fold) -> pl.DataFrame:
        """Return the events in these folds, in their order. An event the split never saw is in none."""
        wanted = self.frame.filter(pl.col("fold").is_in(folds)).select("event_id")
        if interactions.height < wanted.height:  # looked up in the smaller of the two, which a join makes a table of
            wanted = wanted.join(interactions.select("event_id"), on="event_id", how="semi")
        return interactions.join(wanted, on="event_id", how="semi", maintain_order="left")

    def of(self, interactions: pl.DataFrame) -> Split:
        """Return the split of some members' interactions, each member's complete, by the same rule.

        Row ids are told by the rule anew and not looked up, so that a part of a log needs no more than that part.
        """
        events = interactions.select(SPLIT_COLUMNS)
        if self.cutoff is None:
            frame = _leave_one_out(events)
        else:
            at = pl.col("event_at")
            frame = events.select("event_id", _fold(at, pl.lit(self.validation_cutoff), pl.lit(self.cutoff)))
        return replace(self, frame=frame)

    def targets(self, interactions: pl.DataFrame, fold: Fold) -> pl.DataFrame:
        """Return the plays to predict in a fold, sorted by member and seq: one a member in `leave_one_out`."""
        return self.events(interactions, fold).filter(pl.col("action") == "play").sort("member_id", "seq")

    def counts(self) -> dict[str, int]:
        """Return the number of events by fold."""
        found = dict(self.frame.group_by("fold").len().iter_rows())
        return {fold: int(found.get(fold, 0)) for fold in FOLDS}

    def under(self, protocol: str) -> Split:
        """Return the same held-out rows under another protocol that holds out rows in the same way.

        Raises:
            UnknownNameError: No such protocol.
            DataError: That protocol holds out other rows.
        """
        name = _protocol(protocol)
        if (name in TIME_PROTOCOLS) != (self.protocol in TIME_PROTOCOLS):
            what = f"it holds out other rows than '{self.protocol}'; make a split of its own"
            raise DataError(f"protocol {name}", [Problem("split", what)])
        return replace(self, protocol=name, digest=_digest(self.frame, name), reason="")

    def save(self, path: Path) -> None:
        """Write one parquet file of row ids. It appears whole or not at all."""
        about = {
            "protocol": self.protocol,
            "cutoff": _text(self.cutoff),
            "validation_cutoff": _text(self.validation_cutoff),
            "digest": self.digest,
            "reason": self.reason,
        }
        with replaced_file(path, "the split") as beside:
            self.frame.write_parquet(beside, metadata={_METADATA: json.dumps(about)})

    @classmethod
    def at(cls, frame: pl.DataFrame, cutoff: datetime, validation_cutoff: datetime | None = None) -> Split:
        """Return a split by time of events whose folds are known: `test` begins at the cutoff.

        `validation` begins at a cutoff of its own; without one there is none.
        """
        return cls(frame, "global_time", cutoff, validation_cutoff or cutoff, _digest(frame, "global_time"))

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote.

        Raises:
            StateError: There is no such file.
            IntegrityError: It is no split, or its rows are not those it was saved with.
        """
        if not path.is_file():
            raise StateError(f"split {path} does not exist; train a model first, or make the split anew")
        try:
            frame = pl.read_parquet(path)
            about = json.loads(pl.read_parquet_metadata(path)[_METADATA])
            found = _digest(frame, about["protocol"])
        except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
            raise IntegrityError(f"{path} is no split: {error}") from None
        if found != about["digest"]:
            raise IntegrityError(f"{path}: its rows have digest {found}, its record says {about['digest']}")
        moments = (_moment(about["cutoff"]), _moment(about["validation_cutoff"]))
        return cls(frame, about["protocol"], *moments, found, about.get("reason", ""))


def make_split(protocol: str, interactions: pl.DataFrame, *, quantile: float = QUANTILE) -> Split:
    """Split events, in any order, by a named protocol; the time protocols cut at a quantile of play times.

    Raises:
        UnknownNameError: No such protocol.
        DataError: The events cannot be split that way.
    """
    name = _protocol(protocol)
    events = interactions.select(SPLIT_COLUMNS)
    cutoffs: tuple[datetime | None, datetime | None] = (None, None)
    if name == "leave_one_out":
        frame = _leave_one_out(events)
    else:
        frame, cutoffs = _by_time(events, quantile, name)
    if not (frame["fold"] == "test").any():
        what = "there is nothing to hold out; a member needs three plays, or the data two moments."
        hint = "Train with --protocol global_time_period." if name == "leave_one_out" else ""
        raise DataError(f"protocol {name}", [Problem("interactions", what, hint)])
    return Split(frame, name, cutoffs[1], cutoffs[0], _digest(frame, name))


def _protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return name


def _leave_one_out(events: pl.DataFrame) -> pl.DataFrame:
    play_seq = pl.col("seq").filter(pl.col("action") == "play").sort()
    held = events.group_by("member_id").agg(
        plays=play_seq.len(), test=play_seq.last(), validation=play_seq.slice(play_seq.len() - 2, 1).first()
    )
    enough = held.filter(pl.col("plays") >= MINIMUM_PLAYS)
    joined = events.join(enough, on="member_id", how="left", maintain_order="left")
    return joined.select("event_id", _fold(pl.col("seq"), pl.col("validation"), pl.col("test")))


def time_cutoffs(moments: pl.Series, quantile: float = QUANTILE) -> tuple[datetime, datetime] | None:
    """Return when the validation and the test fold begin, given the moments of all plays.

    None where no play is before both.
    """
    test = _quantile(moments, quantile)
    validation = None if test is None else _quantile(moments.filter(moments < test), quantile)
    if test is None or validation is None or not (moments < validation).any():
        return None
    return validation, test


def _by_time(events: pl.DataFrame, quantile: float, protocol: str) -> tuple[pl.DataFrame, tuple[datetime, datetime]]:
    cutoffs = time_cutoffs(events.filter(pl.col("action") == "play")["event_at"], quantile)
    if cutoffs is None:
        what = "no play is before two cutoffs: all share one moment, or nearly all, so there is no time to cut at"
        raise DataError(f"protocol {protocol}", [Problem("interactions", what)])
    return events.select("event_id", _fold(pl.col("event_at"), *map(pl.lit, cutoffs))), cutoffs


def _quantile(moments: pl.Series, quantile: float) -> datetime | None:
    if moments.is_empty():
        return None
    place = min(int(quantile * len(moments)), len(moments) - 1)
    found = moments.sort()[place]
    return found if isinstance(found, datetime) else None


def _fold(order: pl.Expr, validation: pl.Expr, test: pl.Expr) -> pl.Expr:
    late = pl.when(order >= test).then(pl.lit("test"))
    named = late.when(order >= validation).then(pl.lit("validation")).otherwise(pl.lit("train"))
    return named.cast(pl.Enum(FOLDS)).alias("fold")


def _digest(frame: pl.DataFrame, protocol: str) -> str:
    held = frame.filter(pl.col("fold") != "train").sort("event_id")
    total = hashlib.sha256(f"{protocol} {frame.height}\n".encode())
    for fold in FOLDS[1:]:
        ids = held.filter(pl.col("fold") == fold)["event_id"]
        total.update(f"{fold} {len(ids)}\n".encode())
        total.update("\n".join(ids.to_list()).encode())
    return total.hexdigest()


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
