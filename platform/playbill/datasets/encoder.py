"""The encoder: everything that turns rows into indices, learnt once from the training part, stored with the model.

Training, evaluation and serving use the same methods on the same state, so a request is encoded exactly as the
training row of the same moment would have been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from playbill.datasets.arrays import Float, Int
from playbill.datasets.buckets import DURATIONS, GAPS, floor_moments, hour_of_week
from playbill.datasets.text import gram_arrays
from playbill.datasets.tokens import Codes, Tokens, tokens_of
from playbill.errors import IntegrityError
from playbill.tables import Vocabulary

TEXT_BUCKETS = 2**15
CONTEXT_COLUMNS = ("event_at", "canvas", "country", "device", "language", "query", "source_title_id")
"""The only columns of `interactions` a prediction reads from its own event. All are known at request time."""


class EncoderState(BaseModel):
    """What an encoder knows, as JSON. Entry i of every list has index i + 1; index 0 is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    history_length: int = Field(gt=0)
    """Tokens at most, the newest ones (axis L)."""
    merge: bool
    """Whether adjacent events on one title are one token."""
    titles: tuple[str, ...]
    actions: tuple[str, ...] = Field(max_length=62)
    canvases: tuple[str, ...]
    """Canvases with training rows; any other one is index 0."""
    countries: tuple[str, ...]
    devices: tuple[str, ...]
    languages: tuple[str, ...]
    """Of requests and events."""
    genres: tuple[str, ...]
    kinds: tuple[str, ...]
    original_languages: tuple[str, ...]
    year_edges: tuple[int, ...]
    """Edges between the buckets of release years."""
    metadata: tuple[str, ...]
    """Title columns the metadata vector may read."""
    text_buckets: int = TEXT_BUCKETS
    snapshot_hours: int = Field(gt=0)
    """Title features are read at multiples of this many hours."""
    canvas_fields: dict[str, tuple[str, ...]]
    """Canvas -> the fields its requests carry; the others are imputed as `none`."""
    service: str
    """Feature service."""
    service_version: str
    """Hash of the service's columns at training."""
    numeric: tuple[str, ...] = ()
    """Numeric member and request features."""
    categorical: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Categorical member and request features and their values."""
    title_snapshot: tuple[str, ...] = ()
    """Numeric title features, read at snapshots (axis F)."""
    title_categorical: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Categorical title features and their values."""


@dataclass(frozen=True, slots=True)
class ContextColumns:
    """N encoded requests, before they are tied to states and snapshots."""

    canvas: Int
    country: Int
    device: Int
    language: Int
    hour_of_week: Int
    source_title: Int
    query_grams: Int
    """[G] flat."""
    query_offsets: Int
    """[N] starts."""
    numeric: Float
    """[N, Fm]."""
    categorical: Int
    """[N, Cm]."""
    moment: Int
    """[N] moment of the title snapshot, microseconds since 1970."""


class Encoder:
    """Rows to arrays.

    Args:
        state: What training learnt.
        later_titles: Titles that came after training. They get rows of their own behind the trained ones.
    """

    def __init__(self, state: EncoderState, later_titles: Iterable[str] = ()) -> None:
        self.state = state
        self.title_rows = Vocabulary("title", state.titles)
        self.title_rows.grow(later_titles)

    @property
    def trained_titles(self) -> int:
        """Rows of the id table, row 0 included."""
        return len(self.state.titles) + 1

    @property
    def version(self) -> str:
        """Hash of the state."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the state as JSON; later titles are not part of it."""
        return self.state.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: It is no encoder state.
        """
        try:
            return cls(EncoderState.model_validate_json(text))
        except ValidationError as error:
            raise IntegrityError(f"encoder state cannot be read: {error}") from None

    def with_titles(self, title_ids: Iterable[str]) -> Encoder:
        """Return an encoder that also knows these titles, in this order, behind the trained ones."""
        return Encoder(self.state, [*self.title_rows.entries[len(self.state.titles) :], *title_ids])

    def network_sizes(self) -> dict[str, Any]:
        """Return the parts of a network's configuration that the data decides, by `NetworkConfig`'s names."""
        state = self.state
        return {
            "length": state.history_length,
            "titles": {
                "titles": self.trained_titles,
                "genres": len(state.genres) + 1,
                "kinds": len(state.kinds) + 1,
                "languages": len(state.original_languages) + 1,
                "release_years": len(state.year_edges) + 2,
                "categorical": tuple(len(values) + 1 for values in state.title_categorical.values()),
                "snapshot": len(state.title_snapshot),
            },
            "events": {
                "actions": max(len(state.actions), 1),
                "canvases": len(state.canvases) + 1,
                "countries": len(state.countries) + 1,
                "devices": len(state.devices) + 1,
                "languages": len(state.languages) + 1,
                "gaps": GAPS,
                "durations": DURATIONS,
            },
            "context": {
                "numeric": len(state.numeric),
                "categorical": tuple(len(values) + 1 for values in state.categorical.values()),
            },
            "text": {"buckets": state.text_buckets},
        }

    @cached_property
    def _vocabularies(self) -> dict[str, Vocabulary]:
        state = self.state
        lists = {
            "canvas": state.canvases,
            "country": state.countries,
            "device": state.devices,
            "language": state.languages,
            "action": state.actions,
            "genre": state.genres,
            "kind": state.kinds,
            "original_language": state.original_languages,
            **state.categorical,
            **state.title_categorical,
        }
        return {name: Vocabulary(name, entries) for name, entries in lists.items()}

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the vocabulary of a field such as canvas, country or genre, or of a categorical feature."""
        return self._vocabularies[name]

    def tokens(self, events: pl.DataFrame) -> Tokens:
        """Turn events, members one after the other and each sorted by seq, into tokens."""
        known = self._vocabularies
        codes = Codes(
            titles=self.title_rows,
            actions=known["action"],
            canvases=known["canvas"],
            devices=known["device"],
            languages=known["language"],
            merge=self.state.merge,
        )
        return tokens_of(events, codes)

    def contexts(self, rows: pl.DataFrame) -> ContextColumns:
        """Encode what is known of N requests.

        Args:
            rows: `CONTEXT_COLUMNS` (query and source_title_id may be absent) and the feature columns, of which
                an absent one is missing everywhere.
        """
        moments = rows["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
        indices = {name: self._index(rows, name) for name in ("country", "device", "language")}
        hours = np.where(self._carries(rows, "hour_of_week"), hour_of_week(moments), 0)
        query_grams, query_offsets = self._queries(rows)
        return ContextColumns(
            canvas=self.vocabulary("canvas").encode(rows["canvas"]).astype(np.int64),
            **indices,
            hour_of_week=hours,
            source_title=self._source_titles(rows),
            query_grams=query_grams,
            query_offsets=query_offsets,
            numeric=numeric_matrix(rows, self.state.numeric),
            categorical=self.categorical_matrix(rows, tuple(self.state.categorical)),
            moment=floor_moments(moments, self.state.snapshot_hours),
        )

    def categorical_matrix(self, rows: pl.DataFrame, names: tuple[str, ...]) -> Int:
        """Return [N, C] indices of categorical feature columns; an absent column is 0 everywhere."""
        matrix = np.zeros((rows.height, len(names)), np.int64)
        for place, name in enumerate(names):
            if name in rows.columns:
                matrix[:, place] = self.vocabulary(name).encode(rows[name].cast(pl.String))
        return matrix

    def _carries(self, rows: pl.DataFrame, field: str) -> NDArray[np.bool_]:
        """Mark rows whose canvas carries a field. A canvas we have no definition of carries all."""
        lacking = [canvas for canvas, fields in self.state.canvas_fields.items() if field not in fields]
        return ~rows["canvas"].is_in(lacking).to_numpy()

    def _index(self, rows: pl.DataFrame, field: str) -> Int:
        codes = self.vocabulary(field).encode(rows[field].cast(pl.String)).astype(np.int64)
        return np.where(self._carries(rows, field), codes, 0)

    def _source_titles(self, rows: pl.DataFrame) -> Int:
        if "source_title_id" not in rows.columns:
            return np.zeros(rows.height, np.int64)
        codes = self.title_rows.encode(rows["source_title_id"].cast(pl.String)).astype(np.int64)
        return np.where(self._carries(rows, "source_title"), codes, 0)

    def _queries(self, rows: pl.DataFrame) -> tuple[Int, Int]:
        sizes = np.zeros(rows.height, np.int64)
        if "query" not in rows.columns:
            return np.zeros(0, np.int64), sizes
        texts = rows["query"].cast(pl.String).fill_null("")
        asked = np.nonzero((texts != "").to_numpy() & self._carries(rows, "query"))[0]
        grams, starts = gram_arrays(texts.gather(asked).to_list(), self.state.text_buckets, query=True)
        sizes[asked] = np.diff(starts, append=len(grams))
        return grams, np.cumsum(sizes) - sizes


def numeric_matrix(rows: pl.DataFrame, names: tuple[str, ...]) -> Float:
    """Return [N, F] float32 of numeric columns; null, an absent column and infinity are nan."""
    matrix = np.full((rows.height, len(names)), np.nan, np.float32)
    for place, name in enumerate(names):
        if name in rows.columns:
            values = rows[name].cast(pl.Float32, strict=False).fill_null(float("nan")).to_numpy()
            matrix[:, place] = np.where(np.isinf(values), np.nan, values)
    return matrix
