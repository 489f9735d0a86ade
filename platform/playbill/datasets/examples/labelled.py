"""Which events are learnt from: the one place that turns a log and its labels into labelled request rows.

A request is known only by `CONTEXT_COLUMNS` of its own event and by features as of its moment: nothing that is known
after the request can reach the row. Training (`build`) and training sets on disk (`export`) both come here.

What a log says of an event's request is on other events of it: the query typed is on its `search` event, the place of a
row on the `row_ranking` impression that opened the page. Both are read strictly before the event, by seq, so that
nothing which came of a request can reach its context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Ints64
from playbill.datasets.checks import Boundary
from playbill.datasets.encoding.encoder import CONTEXT_COLUMNS
from playbill.datasets.encoding.tokens import Tokens
from playbill.datasets.splits import Split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.head import AUXILIARY_TARGETS, ranks
from playbill.errors import DataError, IntegrityError, Problem, StateError, did_you_mean
from playbill.labels import label_columns, label_events, why_none_positive
from playbill.schema import INTERACTIONS


@dataclass(frozen=True, slots=True)
class Labelled:
    """The m labelled tokens among n. Letter E counts events of the frame the tokens came from."""

    events: Ints64  # [m] row of the frame of each target event
    token_row: Ints64  # [n] -1 or number of the target
    labels: dict[str, Floats32]  # head -> [m]; nan = unlabelled
    rewards: dict[str, Floats32] = field(default_factory=dict)
    """Head -> [m] rewards, for heads that have one; nan where there is no label."""


def request_rows(events: pl.DataFrame, own_fields: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Return what a prediction may know of its own event: who, and the columns known at request time.

    Columns of `request_context` are kept where they are there. `own_fields` are the columns that context fields of
    outside packages are read from; null where one is absent.
    """
    late = set(CONTEXT_COLUMNS).difference(INTERACTIONS.names("request"))
    if late:
        raise IntegrityError(f"columns {sorted(late)} are known only after a request, so no context may read them")
    filled = [name for name in PLACE_COLUMNS if name in events.columns]
    own = [
        (pl.col(column) if column in events.columns else pl.lit(None, pl.String)).alias(name)
        for name, column in (own_fields or {}).items()
    ]
    return events.select("member_id", *CONTEXT_COLUMNS, *filled, *own)


def train_events(interactions: pl.DataFrame, split: Split, resolved: ResolvedModel | None = None) -> pl.DataFrame:
    """Return the train fold, sorted by member_id and seq; of a model that wants only some of it, that part.

    Raises:
        StateError: It is empty.
        DataError: The model wants events from a country that has none in it; all such countries are named.
        IntegrityError: The split lets a held-out event precede a training event.
    """
    events = split.events(interactions, "train").sort("member_id", "seq", maintain_order=True)
    if events.is_empty():
        raise StateError(f"protocol '{split.protocol}' leaves no event to train on; ingest more data")
    assert_held_out_later(interactions, split)
    return events if resolved is None else wanted_events(events, resolved)


def wanted_events(events: pl.DataFrame, resolved: ResolvedModel) -> pl.DataFrame:
    """Return the events that a model learns from, by its `only`.

    Raises:
        DataError: No event is from one of its countries; all such countries are named.
    """
    only = resolved.model.only
    if only is None:
        return events
    known = events["country"].cast(pl.String).unique().drop_nulls().sort().to_list()
    problems = [
        Problem(
            f"only.country: '{code}'",
            "no event of the train fold is from there.",
            did_you_mean(code, known, f"There are {', '.join(known) or 'none that say where from'}."),
        )
        for code in only.country
        if code not in known
    ]
    if problems:
        raise DataError(f"model '{resolved.model.name}'", problems)
    return events.filter(pl.col("country").cast(pl.String).is_in(only.country))


def assert_held_out_later(interactions: pl.DataFrame, split: Split) -> None:
    """Check that what is held out lies after what is trained on: by seq of each member, or by time.

    Raises:
        IntegrityError: It does not.
    """
    boundary = Boundary.of(split, interactions)
    boundary.events("training", split.events(interactions, "train").select("member_id", "seq", "event_at"))


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
    titles: pl.DataFrame | None = None,
    require_rows: bool = True,
) -> dict[str, Floats32]:
    """Return the value of every head's label for every event, nan where it has none or is too young.

    `known` is what the labels may look at, sorted by member_id and seq and complete from each member's start; `events`
    are those of it that are asked about, in the order of the answer. With `require_rows` a label that teaches its head
    nothing is a mistake, unless the head is optional.

    Raises:
        DataError: `require_rows`, and the label of a head that is not optional has no positive row, or is the same for
            every event of a head that does not rank. All such heads are named.
    """
    heads = {name: head.label for name, head in resolved.model.heads.items() if head.label is not None}
    labels = [resolved.labels[name] for name in dict.fromkeys(heads.values())]
    if events is known:
        wide = label_columns(labels, known, as_of, availability, titles)
    else:
        found = label_events(labels, known, as_of, availability, titles)
        wide = events.select("event_id").join(found, on="event_id", how="left", maintain_order="left")
    wide = wide.select(pl.col(*(label.name for label in labels)).cast(pl.Float32).fill_null(float("nan")))
    values = {head: wide[label].to_numpy().astype(np.float32) for head, label in heads.items()}
    if require_rows:
        require_taught(resolved, label_ranges(values), known, as_of)
    return values


@dataclass(frozen=True, slots=True)
class LabelRange:
    """Between which values the label of a head lies."""

    low: float  # infinite without a labelled event, as `high`
    high: float
    rows: int  # labelled events

    def __or__(self, other: LabelRange) -> LabelRange:
        return LabelRange(min(self.low, other.low), max(self.high, other.high), self.rows + other.rows)


def label_ranges(values: Mapping[str, Floats32]) -> dict[str, LabelRange]:
    """Return the range of each head's label, by head -> [E]; those of parts of a log go together by `|`."""
    known = {head: value[~np.isnan(value)] for head, value in values.items()}
    return {
        head: LabelRange(float(own.min(initial=np.inf)), float(own.max(initial=-np.inf)), own.size)
        for head, own in known.items()
    }


def require_taught(
    resolved: ResolvedModel, ranges: Mapping[str, LabelRange], known: pl.DataFrame | pl.LazyFrame, as_of: datetime
) -> None:
    """Refuse labels that teach a head which is not optional nothing.

    Raises:
        DataError: A label has no positive row, or is the same for every event of a head that does not rank.
    """
    empty, alike = _untaught(resolved, ranges, optional=False)
    labels = dict.fromkeys(resolved.labels[label].name for label in empty.values())
    problems = why_none_positive([resolved.labels[name] for name in labels], known, as_of)
    mend = (
        "Give the label negatives, let the head rank (loss: softmax), or leave it out where that is so: optional: true."
    )
    problems += [Problem(f"head '{name}'", why, mend) for name, why in alike.items()]
    if problems:
        raise DataError("labels of the model's heads", problems)


def empty_heads(
    resolved: ResolvedModel, ranges: Mapping[str, LabelRange], known: pl.DataFrame | pl.LazyFrame, as_of: datetime
) -> dict[str, str]:
    """Return optional heads that their label teaches nothing, and why: no row is positive, or all are alike.

    A head that ranks, or draws negatives, learns from positive rows alone; any other from what differs between rows.
    """
    empty, alike = _untaught(resolved, ranges, optional=True)
    reasons = why_none_positive([resolved.labels[label] for label in empty.values()], known, as_of)
    return {name: f"{why.where}: {why.what}" for name, why in zip(empty, reasons, strict=True)} | alike


def empty_auxiliaries(resolved: ResolvedModel, titles: pl.DataFrame) -> dict[str, str]:
    """Return auxiliary heads that are optional and whose attribute no title has, and why.

    Raises:
        DataError: There is one that is not optional.
    """
    heads = {name: head for name, head in resolved.model.heads.items() if head.auxiliary is not None}
    columns = {name: AUXILIARY_TARGETS[head.auxiliary] for name, head in heads.items() if head.auxiliary}
    reasons = {name: f"no title of this log has {columns[name]}" for name in heads if _nowhere(titles, columns[name])}
    mend = "Leave the head out, or where that is so: optional: true."
    problems = [Problem(f"head '{name}'", why, mend) for name, why in reasons.items() if not heads[name].optional]
    if problems:
        raise DataError("auxiliary heads", problems)
    return reasons


def _nowhere(titles: pl.DataFrame, column: str) -> bool:
    if column not in titles.columns:
        return True
    values = titles[column].drop_nulls()
    return values.is_empty() or (values.dtype == pl.List and not values.list.len().sum())


def _untaught(
    resolved: ResolvedModel, ranges: Mapping[str, LabelRange], *, optional: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Return heads -> their label where no row of it is positive, and heads -> why where all its rows are alike.

    A head that ranks, or draws negatives, learns from positive rows alone, and the examples of one with a reward are
    told apart by that.
    """
    heads = {name: head for name, head in resolved.model.heads.items() if head.optional is optional and head.label}
    empty = {name: head.label or "" for name, head in heads.items() if not ranges[name].high > 0}
    alike = {
        name: f"label '{head.label}': it is {one.low:g} for all {one.rows:,} labelled events, so it tells none from "
        "another."
        for name, head in heads.items()
        if name not in empty and not (ranks(head.loss) or head.draws or head.reward)
        for one in [ranges[name]]
        if one.low == one.high
    }
    return empty, alike


def labelled(
    tokens: Tokens, values: dict[str, Floats32], resolved: ResolvedModel, rewards: Mapping[str, Floats32] | None = None
) -> Labelled:
    """Find the tokens to learn from, by head -> [E] labels. A token's first labelled event is its moment of request.

    A token has the reward of the event whose label it has.
    """
    by_event = {name: value[tokens.event_rows] for name, value in values.items()}
    known = ~np.isnan(np.stack(list(by_event.values()))).all(axis=0)
    at = np.nonzero(known)[0]
    targets, firsts = np.unique(tokens.event_token[at], return_index=True)
    token_row = np.full(len(tokens), -1, np.int64)
    token_row[targets] = np.arange(len(targets))
    rows = token_row[tokens.event_token]
    labels, found = {}, {}
    for name, value in by_event.items():
        ranking = ranks(resolved.model.heads[name].loss)
        chosen = _chosen(value, rows, len(targets), largest=ranking)
        labels[name] = np.where(chosen < 0, np.float32(np.nan), value[chosen])
        if rewards is not None and name in rewards:
            own = rewards[name][tokens.event_rows]
            found[name] = np.where(chosen < 0, np.float32(np.nan), own[chosen])
    return Labelled(tokens.event_rows[at[firsts]], token_row, labels, found)


def _chosen(values: Floats32, rows: Ints64, count: int, *, largest: bool) -> Ints64:
    """Return [count] the event that labels each token, -1 without one: the largest label, or the last one said."""
    given = np.nonzero(~np.isnan(values))[0]
    if largest:
        # Of equal ones the first; the last write to a row stands.
        given = given[np.lexsort((-given, values[given]))]
    result = np.full(count, -1, np.int64)
    result[rows[given]] = given
    return result


ROW_RANKING = "row_ranking"  # canvas of the impressions that say which rows a page showed, and where
NAME_END = ":"  # what ends the name of a row in its `row_id`: `genre_rows:drama` is one of the rows called `genre_rows`
PLACE_COLUMNS = ("row", "row_position")  # columns that `request_context` adds beside `query`

_REQUEST = ("member_id", "request_id")
_OPTIONAL = {"request_id": pl.String, "row_id": pl.String, "query": pl.String, "position": pl.Int32}
_AT = "__at"


def request_context(events: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Return `events`, in their order, with what their requests had said before them in `log`.

    `query` is an event's own, else the last thing typed in its request before it; `row` the name of its row;
    `row_position` the place of the row on the page, from 0. Each is null where the log does not say.
    """
    requested = _with_optional(events).with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_AT))
    known = _with_optional(log)
    typed = known.filter(pl.col("query").is_not_null())
    shown = pl.col("canvas").eq(ROW_RANKING) & pl.col("action").eq("impression") & pl.col("position").is_not_null()
    places = known.filter(shown, pl.col("row_id").is_not_null())
    queries = _last_before(requested.filter(pl.col("query").is_null()), typed, _REQUEST, "query")
    positions = _last_before(
        requested.filter(pl.col("row_id").is_not_null()), places, (*_REQUEST, "row_id"), "position"
    )
    name = pl.col("row_id").str.split(NAME_END).list.first()
    filled = (
        requested.join(queries, on=_AT, how="left", maintain_order="left", suffix="_typed")
        .join(positions.rename({"position": "row_position"}), on=_AT, how="left", maintain_order="left")
        .with_columns(pl.coalesce("query", "query_typed"), name.alias("row"))
    )
    kept = [column for column in events.columns if column not in ("query", *PLACE_COLUMNS)]
    order = [*events.columns, *(column for column in ("query", *PLACE_COLUMNS) if column not in events.columns)]
    return filled.select(*kept, "query", *PLACE_COLUMNS).select(order)


def _with_optional(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that a log may lack, and drop what an earlier call has added."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in _OPTIONAL.items() if name not in frame.columns]
    return frame.drop(*PLACE_COLUMNS, strict=False).with_columns(missing)


def _last_before(requested: pl.DataFrame, given: pl.DataFrame, by: tuple[str, ...], column: str) -> pl.DataFrame:
    """Return the row number and the newest value said strictly before, for the asked rows that have one."""
    keys = given.select(by).unique()
    rows = requested.select(_AT, "seq", *by).join(keys, on=by, how="semi")
    values = given.select("seq", *by, column).sort("seq")
    found = rows.sort("seq").join_asof(
        values, on="seq", by=list(by), strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    return found.filter(pl.col(column).is_not_null()).select(_AT, column)
