"""What must hold between a log, its split and a model, asserted in every builder.

Boundary: by time, everything that training reads lies before the first held-out event. In `leave_one_out` the line is
each member's own: everything of a member that training reads comes before the member's first held-out event.

Windows of labels: an outcome that is held out cannot be learnt from. By time, labels are those known at the cutoff, so
an event whose window reaches past it is unlabelled. `leave_one_out` has no such moment: a member's last events are
taken away, and a label that waits for what comes after an event would call "not there" what was only held out.

Coverage: fields that a canvas says its requests carry must be in the log, or they would be learnt as always absent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.arrays import AnyInts
from playbill.clock import from_microseconds
from playbill.datasets.splits import Split
from playbill.definitions.specs import CanvasSpec, LabelSpec, ResolvedModel
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.context import IDENTIFYING
from playbill.errors import DataError, IntegrityError, Problem, did_you_mean
from playbill.tables.frames import utc_literal


@dataclass(frozen=True)
class Boundary:
    """Where the held-out part of a log begins.

    `end` is the first held-out moment, or the protocol's cutoff where that is earlier; None where each member has an
    end of its own: `ends` has member_id and `held`, the seq of each member's first held-out event.
    """

    protocol: str
    end: datetime | None
    ends: pl.DataFrame

    @classmethod
    def of(cls, split: Split, interactions: pl.DataFrame) -> Boundary:
        """Return the boundary of a split of these interactions."""
        later = split.frame.filter(pl.col("fold") != "train").select("event_id")
        held = interactions.select("event_id", "member_id", "seq", "event_at").join(later, on="event_id", how="semi")
        ends = held.group_by("member_id").agg(held=pl.col("seq").min())
        if split.validation_cutoff is None:
            return cls(split.protocol, None, ends)
        first = held["event_at"].min()
        end = min(first, split.validation_cutoff) if isinstance(first, datetime) else split.validation_cutoff
        return cls(split.protocol, end, ends)

    def events(self, what: str, rows: pl.DataFrame) -> None:
        """Check rows of `interactions` that something, named for the message, is made from.

        Raises:
            IntegrityError: One is not before the held-out part.
        """
        if self.end is not None:
            self.moments(what, rows["event_at"])
            return
        late = rows.select("member_id", "seq").join(self.ends, on="member_id").filter(pl.col("seq") >= pl.col("held"))
        if late.height:
            member = late["member_id"][0]
            raise IntegrityError(
                f"split '{self.protocol}': {what} would read events after held-out ones, first for member '{member}'"
            )

    def moments(self, what: str, at: pl.Series | AnyInts | datetime) -> None:
        """Check moments (or microseconds since 1970) that something, named for the message, is known as of.

        Raises:
            IntegrityError: One is at the first held-out moment or later.
        """
        latest = _latest(at)
        if self.end is not None and latest is not None and latest >= self.end:
            raise IntegrityError(
                f"split '{self.protocol}': {what} would know {latest.isoformat()}, and what is held out "
                f"begins at {self.end.isoformat()}"
            )

    def as_of(self, what: str, moment: datetime) -> None:
        """Check the moment up to which, itself left out, something is known.

        Raises:
            IntegrityError: It is after the first held-out moment.
        """
        self.moments(what, moment - timedelta(microseconds=1))

    def known(self, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Return the rows that were known before the held-out part began; all of them where each member has an end.

        `columns` are the frame's time columns, all of which must lie before; those it lacks are not asked for.
        """
        requested = [name for name in columns if name in frame.columns]
        if self.end is None or not requested:
            return frame
        end = utc_literal(self.end)
        return frame.filter(pl.all_horizontal(pl.col(name) < end for name in requested))


def _latest(at: pl.Series | AnyInts | datetime) -> datetime | None:
    if isinstance(at, np.ndarray):
        return from_microseconds(int(at.max())) if at.size else None
    found = at.max() if isinstance(at, pl.Series) else at
    return found if isinstance(found, datetime) else None


Part = tuple[pl.DataFrame, Split]
"""Some members' interactions, and the split of them."""


def reaching_windows(labels: Iterable[LabelSpec], parts: Iterable[Part]) -> dict[str, Problem]:
    """Return the labels that wait for events which the split holds out, and what is wrong.

    Only `leave_one_out`, which has no cutoff, can be at odds with a window. Each member is in one part.
    """
    windowed = [label for label in labels if label.attribution_window is not None]
    late: dict[str, list[tuple[int, str]]] = {label.name: [] for label in windowed}
    for interactions, split in parts:
        if split.validation_cutoff is not None or not windowed:
            return {}
        gaps = _gaps(interactions, split)
        for label in windowed:
            members = _reached(label, gaps)
            if len(members):
                late[label.name].append((members.n_unique(), str(members.min())))
    return {label.name: _reaching(label, late[label.name]) for label in windowed if late[label.name]}


def _gaps(interactions: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Return the train fold's events of members with held-out ones, and how long before the first of these each is."""
    folded = interactions.select("event_id", "member_id", "event_at", "action").join(split.frame, on="event_id")
    train = pl.col("fold") == "train"
    held = folded.filter(~train).group_by("member_id").agg(held_at=pl.col("event_at").min())
    return folded.filter(train).join(held, on="member_id").with_columns(gap=pl.col("held_at") - pl.col("event_at"))


def assert_heads_fit(resolved: ResolvedModel, parts: Iterable[Part]) -> None:
    """Check that no label of a model's heads waits for events that the split holds out.

    Raises:
        DataError: Windows reach past the first held-out event of members; every label is named.
    """
    names = dict.fromkeys(head.label for head in resolved.model.heads.values() if head.label is not None)
    if problems := list(reaching_windows([resolved.labels[name] for name in names], parts).values()):
        raise DataError("protocol leave_one_out", problems)


def unfit_heads(resolved: ResolvedModel, parts: Iterable[Part]) -> dict[str, str]:
    """Return optional heads whose labels wait for events which the split holds out, and why that is so."""
    names = {name: head.label for name, head in resolved.model.heads.items() if head.optional and head.label}
    labels = [resolved.labels[name] for name in dict.fromkeys(names.values())]
    found = reaching_windows(labels, parts)
    return {head: f"{found[name].where}: {found[name].what}" for head, name in names.items() if name in found}


def _reached(label: LabelSpec, gaps: pl.DataFrame) -> pl.Series:
    """Return the members of events whose window reaches past their first held-out event."""
    spoken = label.events.action if label.events is not None else None
    events = gaps if spoken is None else gaps.filter(pl.col("action").is_in((*spoken, *label.negatives.actions)))
    return events.filter(pl.col("gap") <= label.attribution_window)["member_id"]


def _reaching(label: LabelSpec, members: Iterable[tuple[int, str]]) -> Problem:
    counts, firsts = zip(*members, strict=True)
    window = label.attribution_window
    assert window is not None
    what = f"its window {format_duration(window)} reaches past the held-out events of "
    what += f"{sum(counts):,} members, first of '{min(firsts)}': an outcome that "
    what += "leave_one_out holds out would be learnt as absent."
    return Problem(
        f"label {label.name}", what, "Train with --protocol global_time_period, or give the label a shorter window."
    )


_COLUMNS = {"query": "query", "source_title": "source_title_id", "row": "row"}
_MADE_BY = {"query": "title_names", "source_title": "co_play"}
_REMEDY = {
    "query": "give the `search` events of its requests a query",
    "source_title": "give its events a source_title_id",
    "row": "give its events a row_id",
}


def filled_requests(requests: pl.DataFrame) -> pl.DataFrame:
    """Return canvas, requests, and how many of them have each field that says what a request is about.

    Counts of parts of a log go together by `sum` over each canvas.
    """
    filled = [(pl.col(name).is_not_null() & (pl.col(name) != "")).sum().alias(name) for name in _COLUMNS.values()]
    return requests.group_by("canvas").agg(pl.len().alias("requests"), *filled)


def check_context_coverage(
    resolved: ResolvedModel, filled: pl.DataFrame, columns: Collection[str], rows: bool, own_fields: Mapping[str, str]
) -> None:
    """Check that canvases with logged requests get the fields that say what a request is about.

    A canvas without logged requests, and one whose requests are made by a task, may lack them. So may all canvases of a
    log that has no rows lack `row`.

    Args:
        resolved: The model.
        filled: `filled_requests` of what is learnt from.
        columns: Columns of the log.
        rows: Whether the log has rows.
        own_fields: Columns that context fields of outside packages are read from.

    Raises:
        DataError: A canvas lists a field, and none of its requests has it; or the log has no such column.
    """
    counts = {row["canvas"]: row for row in filled.group_by("canvas").sum().iter_rows(named=True)}
    problems = [
        problem
        for name, canvas in resolved.canvases.items()
        if name in counts
        for problem in _unfilled(resolved, canvas, counts[name], rows)
    ]
    for name, column in own_fields.items():
        if column not in columns:
            hint = did_you_mean(column, columns)
            problems.append(Problem(f"context field '{name}'", f"the log has no column '{column}'.", hint))
    if problems:
        raise DataError("interactions", problems)


def _unfilled(resolved: ResolvedModel, canvas: CanvasSpec, counts: Mapping[str, int], rows: bool) -> Iterator[Problem]:
    for field in IDENTIFYING:
        if field not in canvas.context or canvas.name in resolved.model.tasks:
            continue
        if counts[_COLUMNS[field]] or (field == "row" and not rows):
            continue
        made = f", make some with `tasks: {{{canvas.name}: {{from: {_MADE_BY[field]}}}}}`" if field in _MADE_BY else ""
        yield Problem(
            f"canvas '{canvas.name}'",
            f"lists '{field}' in its context, but none of its {counts['requests']} requests to learn from has it",
            f"{_REMEDY[field].capitalize()}{made}, or take '{field}' out of the canvas.",
        )
