"""Which events are learnt from: the one place that turns a log and its labels into labelled request rows.

A request is known only by `CONTEXT_COLUMNS` of its own event and by features as of its moment: nothing that is known
after the request can reach the row. Training (`build`) and training sets on disk (`export`) both come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.datasets.arrays import Float, Int
from playbill.datasets.encoder import CONTEXT_COLUMNS
from playbill.datasets.splits import Split
from playbill.datasets.tokens import Tokens
from playbill.errors import IntegrityError, StateError
from playbill.labels import extract
from playbill.schema import INTERACTIONS
from playbill.specs import ResolvedModel


@dataclass(frozen=True, slots=True)
class Labelled:
    """The m labelled tokens among n. Letter E counts events of the frame the tokens came from."""

    events: Int
    """[m] row of the frame of each target event."""
    token_row: Int
    """[n] -1 or number of the target."""
    labels: dict[str, Float]
    """Head -> [m]; nan = unlabelled."""


def request_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return what a prediction may know of its own event: who, and the columns known at request time."""
    late = set(CONTEXT_COLUMNS).difference(INTERACTIONS.names("request"))
    if late:
        raise IntegrityError(f"columns {sorted(late)} are known only after a request, so no context may read them")
    return events.select("member_id", *CONTEXT_COLUMNS)


def train_events(interactions: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Return the train fold, sorted by member_id and seq.

    Raises:
        StateError: It is empty.
        IntegrityError: The split lets a held-out event precede a training event.
    """
    events = split.events(interactions, "train").sort("member_id", "seq", maintain_order=True)
    if events.is_empty():
        raise StateError(f"protocol '{split.protocol}' leaves no event to train on; ingest more data")
    assert_held_out_later(interactions, split)
    return events


def assert_held_out_later(interactions: pl.DataFrame, split: Split) -> None:
    """Check that what is held out lies after what is trained on: by seq of each member, or by time.

    Raises:
        IntegrityError: It does not.
    """
    folded = interactions.select("event_id", "member_id", "seq", "event_at").join(split.frame, on="event_id")
    train = pl.col("fold") == "train"
    if split.validation_cutoff is not None:
        early = folded.filter(train & (pl.col("event_at") >= split.validation_cutoff))
    else:
        ends = folded.group_by("member_id").agg(
            last=pl.col("seq").filter(train).max(), held=pl.col("seq").filter(~train).min()
        )
        early = ends.filter(pl.col("last") >= pl.col("held"))
    if early.height:
        member = early["member_id"][0]
        raise IntegrityError(
            f"split '{split.protocol}' trains on events after held-out ones, first for member '{member}'"
        )


def watermark(end: datetime, events: pl.DataFrame) -> datetime:
    """Return the moment labels are told at: `end`, or just after the last event where that is later."""
    last = events["event_at"].max()
    return max(end, last + timedelta(microseconds=1)) if isinstance(last, datetime) else end


def label_values(
    resolved: ResolvedModel,
    known: pl.DataFrame,
    events: pl.DataFrame,
    availability: pl.DataFrame,
    as_of: datetime,
    *,
    require_rows: bool = True,
) -> dict[str, Float]:
    """Return the value of every head's label for every event, nan where it has none or is too young.

    Args:
        resolved: The model.
        known: What the labels may look at, sorted by member_id and seq; complete from each member's start.
        events: Rows of `known` that are asked about, in the order of the answer.
        availability: The canonical table.
        as_of: What was known then.
        require_rows: A label without a positive row is a mistake.

    Raises:
        DataError: `require_rows` and a head's label has no positive row.
    """
    found: dict[str, Float] = {}
    for name, head in resolved.model.heads.items():
        if head.label is None:
            continue
        labels = extract(resolved.labels[head.label], known, as_of, availability, require_rows=require_rows)
        joined = events.select("event_id").join(
            labels.select("event_id", pl.col("value").cast(pl.Float32)),
            on="event_id",
            how="left",
            maintain_order="left",
        )
        found[name] = joined["value"].fill_null(float("nan")).to_numpy().astype(np.float32)
    return found


def labelled(tokens: Tokens, values: dict[str, Float], resolved: ResolvedModel) -> Labelled:
    """Find the tokens to learn from. The first labelled event of a token is its moment of request.

    Args:
        tokens: Of a frame of E events.
        values: Head -> [E], see `label_values`.
        resolved: The model.
    """
    by_event = {name: value[tokens.event_rows] for name, value in values.items()}
    known = ~np.isnan(np.stack(list(by_event.values()))).all(axis=0)
    at = np.nonzero(known)[0]
    targets, firsts = np.unique(tokens.event_token[at], return_index=True)
    token_row = np.full(len(tokens), -1, np.int64)
    token_row[targets] = np.arange(len(targets))
    labels = {}
    for name, value in by_event.items():
        ranking = resolved.model.heads[name].loss == "softmax"
        labels[name] = _by_token(value, token_row[tokens.event_token], len(targets), largest=ranking)
    return Labelled(tokens.event_rows[at[firsts]], token_row, labels)


def _by_token(values: Float, rows: Int, count: int, *, largest: bool) -> Float:
    """Reduce labels of events to their token: the largest one, or the last one said."""
    said = np.nonzero(~np.isnan(values))[0]
    result = np.full(count, np.nan, np.float32)
    if largest:
        np.fmax.at(result, rows[said], values[said])
    else:
        result[rows[said]] = values[said]
    return result
