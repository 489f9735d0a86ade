"""Requests to arrays, by the same encoder methods that made the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import to_microseconds
from playbill.datasets.arrays import ContextArrays, HistoryArrays
from playbill.datasets.encoding.encoder import Encoder
from playbill.datasets.encoding.tokens import pad
from playbill.errors import IntegrityError

HISTORY_COLUMNS = ("event_at", "action", "title_id", "canvas", "device", "language", "duration_s")
"""What tokens read of a member's past."""

_TEXT = ("canvas", "country", "device", "language", "query", "source_title_id", "row")


@dataclass(frozen=True, slots=True)
class EncodedRequests:
    """N requests over H histories; requests that carry the very same frame share one.

    `context.state` is an index into the states of all histories, `context.snapshot` one into `moments`.
    """

    history: HistoryArrays
    context: ContextArrays
    moments: Ints64  # [S] moments of title snapshots, ascending, with countries: see `tokens.situations`


def encode_requests(encoder: Encoder, requests: Sequence[Request]) -> EncodedRequests:
    """Encode requests as the training rows of the same moments would have been, N at least one.

    The width L is that of the longest history among them, one at least.

    Raises:
        IntegrityError: A history has an event later than its request.
    """
    requests = as_carried(encoder, requests)
    _assert_past(requests)
    owners, firsts = _owners(requests)
    starts, lengths, values = _histories(encoder, [requests[first] for first in firsts])
    width = max(int(lengths.max(initial=0)), 1)
    columns = encoder.contexts(_rows(encoder, requests))
    moments, snapshot = np.unique(columns.moment, return_inverse=True)
    context = ContextArrays(
        state=owners * (width + 1) + lengths[owners],
        canvas=columns.canvas,
        country=columns.country,
        device=columns.device,
        language=columns.language,
        hour_of_week=columns.hour_of_week,
        source_title=columns.source_title,
        query_grams=columns.query_grams,
        query_offsets=columns.query_offsets,
        numeric=columns.numeric,
        categorical=columns.categorical,
        snapshot=snapshot.astype(np.int64),
        row=columns.row,
        row_position=columns.row_position,
        by_name=columns.by_name,
    )
    return EncodedRequests(pad(values, starts, lengths, width), context, moments)


def as_carried(encoder: Encoder, requests: Sequence[Request]) -> list[Request]:
    """Return the requests without the histories that their canvases do not read."""
    unread = set(encoder.state.anonymous)
    if not unread:
        return list(requests)
    return [replace(request, history=None) if request.canvas in unread else request for request in requests]


def _owners(requests: Sequence[Request]) -> tuple[Ints64, list[int]]:
    places: dict[int, int] = {}
    firsts: list[int] = []
    owners = np.empty(len(requests), np.int64)
    for number, request in enumerate(requests):
        # Requests hold their frames while this runs, so that an id means one frame.
        place = places.setdefault(id(request.history), len(firsts))
        if place == len(firsts):
            firsts.append(number)
        owners[number] = place
    return owners, firsts


def _assert_past(requests: Sequence[Request]) -> None:
    newest: dict[int, Any] = {}
    for request in requests:
        if not _has_past(request):
            continue
        assert request.history is not None
        key = id(request.history)
        if key not in newest:
            newest[key] = request.history["event_at"].max()
        if isinstance(newest[key], datetime) and newest[key] > request.at:
            raise IntegrityError(
                f"the history of a request at {request.at.isoformat()} has an event at {newest[key].isoformat()}, "
                "after it"
            )


def history_lengths(requests: Sequence[Request]) -> Ints64:
    """Return [N] the events in each history: an upper bound of its tokens, good enough to sort by."""
    sizes = (0 if request.history is None else request.history.height for request in requests)
    return np.fromiter(sizes, np.int64, len(requests))


def _histories(encoder: Encoder, requests: Sequence[Request]) -> tuple[Ints64, Ints64, Ints64]:
    keep = encoder.state.history_length
    parts = [_past(request, number) for number, request in enumerate(requests) if _has_past(request)]
    if not parts:
        zeros = np.zeros(len(requests), np.int64)
        return zeros, zeros, np.zeros((0, 7), np.int64)
    events = pl.concat(parts) if len(parts) > 1 else parts[0]
    tokens = encoder.tokens(events)
    owners = np.fromiter((number for number, request in enumerate(requests) if _has_past(request)), np.int64)
    counts = np.bincount(owners[tokens.member], minlength=len(requests))
    lengths = np.minimum(counts, keep)
    return np.cumsum(counts) - lengths, lengths, tokens.values


def _has_past(request: Request) -> bool:
    return request.history is not None and request.history.height > 0


def _past(request: Request, number: int) -> pl.DataFrame:
    """Keep the columns that tokens need, under a number of its own: one member may ask several times."""
    history = request.history
    assert history is not None
    columns = [history.get_column(name) for name in HISTORY_COLUMNS if name in history.columns]
    return pl.DataFrame([pl.Series("member_id", np.full(history.height, number, np.int32)), *columns])


def _rows(encoder: Encoder, requests: Sequence[Request]) -> pl.DataFrame:
    moments = pl.Series([to_microseconds(request.at) for request in requests], dtype=pl.Int64)
    requested: dict[str, Any] = {"event_at": moments.cast(pl.Datetime("us", "UTC"))}
    for name in _TEXT:
        requested[name] = pl.Series(name, [getattr(request, name) for request in requests], dtype=pl.String)
    places = [request.row_position for request in requests]
    requested["row_position"] = pl.Series("row_position", places, dtype=pl.Int32)
    for name in encoder.state.categorical:
        requested[name] = pl.Series(name, [_text(request.features.get(name)) for request in requests], dtype=pl.String)
    return pl.DataFrame(requested).hstack(_numbers(encoder.state.numeric, requests))


def _numbers(names: Sequence[str], requests: Sequence[Request]) -> pl.DataFrame:
    """Return float32 columns, nan where a request says nothing or no number."""
    # Rows of a page carry the very same features.
    places = {id(request.features): place for place, request in enumerate(requests)}
    known = {place: [_number(requests[place].features.get(name)) for name in names] for place in places.values()}
    values = [known[places[id(request.features)]] for request in requests]
    with np.errstate(over="ignore"):  # what is too large for four bytes is infinite, and that is missing
        matrix = np.array(values, np.float64).reshape(len(requests), len(names)).astype(np.float32)
    return pl.DataFrame(matrix, schema=list(names))


def _number(value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        return float("nan")


def _text(value: Any) -> str | None:
    """Spell a value as polars does when it casts one to text."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Request:
    """Everything known at request time. What the canvas's `context` does not list is imputed."""

    canvas: str
    at: datetime  # the moment, zone-aware
    member_id: str | None = None  # who asks; None = someone unknown
    country: str | None = None  # none or `ZZ` = unknown
    device: str | None = None
    language: str | None = None
    query: str | None = None  # What has been typed so far. A space at the end says that the last word is complete.
    source_title_id: str | None = None  # the title the list is about
    row: str | None = None  # name of the row that is filled, such as `genre_rows`
    row_position: int | None = None  # its place on the page, from 0
    history: pl.DataFrame | None = None  # the member's rows of `interactions` strictly before `at`; None = no history
    # feature columns by `view__feature` name, and context fields of outside packages by theirs; an absent one is
    # missing
    features: Mapping[str, Any] = field(default_factory=dict)
