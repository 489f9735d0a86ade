"""Requests to indices: each field where its canvas carries it, and what stands for it where it does not.

Index 0, nan and an empty bag mean "the request does not say"; no value that was ever seen gets one of them.
Letters: N requests, G grams, F numeric and C categorical columns.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats32, Ints64
from playbill.datasets.encoding.text import gram_arrays, typed_text
from playbill.datasets.encoding.tokens import floor_moments, hour_of_week, row_position_buckets, situations
from playbill.tables import Vocabulary
from playbill.tables.frames import epoch_us
from playbill.tables.vocabulary import SHORT

if TYPE_CHECKING:
    from playbill.datasets.encoding.encoder import Encoder, EncoderState


@dataclass(frozen=True, slots=True)
class ContextColumns:
    """N encoded requests, before they are tied to states and snapshots."""

    canvas: Ints64
    country: Ints64
    device: Ints64
    language: Ints64
    hour_of_week: Ints64
    source_title: Ints64
    query_grams: Ints64  # [G] flat
    query_offsets: Ints64  # [N] starts
    numeric: Floats32  # [N, Fm]
    categorical: Ints64  # [N, Cm]
    moment: Ints64  # [N] moment of the title snapshot, microseconds since 1970, and country: see `tokens.situations`
    row: Ints64  # [N] name of the row
    row_position: Ints64  # [N] bucket of the row's place on the page
    by_name: Ints64  # [N] 1 where the name of the source title stands for the query
    member: Ints64  # [N] 1 where the member's history is read


def encode_contexts(encoder: Encoder, rows: pl.DataFrame) -> ContextColumns:
    """Encode what is known of N requests; see `Encoder.contexts`."""
    state, canvas = encoder.state, rows["canvas"]
    carried = Carried(state, canvas)
    moments = epoch_us(rows["event_at"])
    indices = {name: _index(encoder, rows, name, carried) for name in ("country", "device", "language", "row")}
    source_title = _source_titles(encoder, rows, carried)
    grams, offsets = _queries(encoder, rows, carried)
    requested = np.diff(offsets, append=len(grams)) > 0
    by_name = np.zeros(len(requested), np.bool_)
    if state.named_queries:
        by_name = carried.on(state.named_queries) & (source_title > 0) & ~requested
    return ContextColumns(
        canvas=encoder.canvas_index(canvas),
        **indices,
        hour_of_week=np.where(carried("hour_of_week"), hour_of_week(moments), 0),
        source_title=source_title,
        query_grams=grams,
        query_offsets=offsets,
        numeric=_numeric(state, rows, carried),
        categorical=_categorical(encoder, rows, carried),
        moment=situations_of(encoder, rows, carried),
        row_position=_row_positions(state, rows, carried),
        by_name=by_name.astype(np.int64),
        member=carried("member").astype(np.int64),
    )


def situations_of(encoder: Encoder, rows: pl.DataFrame, carried: Carried | None = None) -> Ints64:
    """Return [N] the moment of title snapshots of each request, with its country where title features depend on it."""
    state = encoder.state
    floors = floor_moments(epoch_us(rows["event_at"]), state.snapshot_hours)
    if not state.country_columns:
        return floors
    return situations(floors, _index(encoder, rows, "country", carried or Carried(state, rows["canvas"])))


class Carried:
    """Which of N requests carry a field. A canvas we have no definition of carries all."""

    def __init__(self, state: EncoderState, canvas: pl.Series) -> None:
        self._state = state
        # Of a few rows a dictionary knows it sooner.
        self._names = list(dict.fromkeys(canvas.to_list())) if len(canvas) <= SHORT else canvas.unique().to_list()
        self._place = Vocabulary("canvas", self._names).encode(canvas).astype(np.int64) - 1

    def __call__(self, field: str) -> Bools:
        """Mark the requests that carry a field."""
        known = self._state.canvas_fields
        if field == "member":
            here = [name not in self._state.anonymous for name in self._names]
        else:
            here = [name not in known or field in known[name] for name in self._names]
        return np.array(here, np.bool_)[self._place]

    def on(self, canvases: Collection[str]) -> Bools:
        """Mark the requests on some canvases."""
        return np.array([name in canvases for name in self._names], np.bool_)[self._place]


def field_of(state: EncoderState, column: str) -> str | None:
    """Return the context field that a feature column belongs to; None = every canvas has it."""
    if column in state.member_columns:
        return "member"
    return column if column in state.own_fields else None


def numeric_matrix(rows: pl.DataFrame, names: tuple[str, ...]) -> Floats32:
    """Return [N, F] float32 of numeric columns; null, an absent column and infinity are nan."""
    matrix = np.full((rows.height, len(names)), np.nan, np.float32)
    for place, name in enumerate(names):
        if name in rows.columns:
            matrix[:, place] = rows[name].cast(pl.Float32, strict=False).to_numpy()  # null is nan
    matrix[np.isinf(matrix)] = np.nan
    return matrix


def _numeric(state: EncoderState, rows: pl.DataFrame, carried: Carried) -> Floats32:
    matrix = numeric_matrix(rows, state.numeric)
    for place, name in enumerate(state.numeric):
        if (field := field_of(state, name)) is not None:
            matrix[~carried(field), place] = np.nan
    return matrix


def _categorical(encoder: Encoder, rows: pl.DataFrame, carried: Carried) -> Ints64:
    names = tuple(encoder.state.categorical)
    matrix = encoder.categorical_matrix(rows, names)
    for place, name in enumerate(names):
        if (field := field_of(encoder.state, name)) is not None:
            matrix[~carried(field), place] = 0
    return matrix


def _index(encoder: Encoder, rows: pl.DataFrame, field: str, carried: Carried) -> Ints64:
    if field not in rows.columns:
        return np.zeros(rows.height, np.int64)
    codes = encoder.vocabulary(field).encode(rows[field].cast(pl.String)).astype(np.int64)
    return np.where(carried(field), codes, 0)


def _row_positions(state: EncoderState, rows: pl.DataFrame, carried: Carried) -> Ints64:
    if "row_position" not in rows.columns or not state.row_positions:
        return np.zeros(rows.height, np.int64)
    places = rows["row_position"].cast(pl.Float64).to_numpy()  # null is nan
    return np.where(carried("row_position"), row_position_buckets(places), 0)


def _source_titles(encoder: Encoder, rows: pl.DataFrame, carried: Carried) -> Ints64:
    if "source_title_id" not in rows.columns:
        return np.zeros(rows.height, np.int64)
    codes = encoder.title_rows.encode(rows["source_title_id"].cast(pl.String)).astype(np.int64)
    return np.where(carried("source_title"), codes, 0)


def _queries(encoder: Encoder, rows: pl.DataFrame, carried: Carried) -> tuple[Ints64, Ints64]:
    sizes = np.zeros(rows.height, np.int64)
    if "query" not in rows.columns or rows["query"].null_count() == rows.height:
        return np.zeros(0, np.int64), sizes
    texts = rows["query"].cast(pl.String).fill_null("")
    requested = np.nonzero((texts != "").to_numpy() & carried("query"))[0]
    typed = [typed_text(text) for text in texts.gather(requested).to_list()]
    grams, starts = gram_arrays(typed, encoder.state.text_buckets, query=True)
    sizes[requested] = np.diff(starts, append=len(grams))
    return grams, np.cumsum(sizes) - sizes
