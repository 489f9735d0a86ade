"""The encoder: everything that turns rows into indices, learnt once from the training part, stored with the model.

Training, evaluation and serving use the same methods on the same state, so a request is encoded exactly as the
training row of the same moment would have been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from playbill.arrays import Ints64
from playbill.datasets.encoding.context_columns import Carried, ContextColumns, encode_contexts, field_of
from playbill.datasets.encoding.tokens import DURATIONS, GAPS, ROW_POSITIONS, Codes, Merge, Tokens, tokens_of
from playbill.definitions.specs.base import added_later
from playbill.errors import IntegrityError
from playbill.tables import Vocabulary

TEXT_BUCKETS = 2**15
CONTEXT_COLUMNS = ("event_at", "canvas", "country", "device", "language", "query", "source_title_id")
"""The only columns of `interactions` a prediction reads from its own event. All are known at request time."""


class EncoderState(BaseModel):
    """What an encoder knows, as JSON. Entry i of every list has index i + 1; index 0 is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    history_length: int = Field(gt=0)  # tokens at most, the newest ones (axis L)
    merge: Merge  # which adjacent events on one title are one token
    titles: tuple[str, ...]
    actions: tuple[str, ...] = Field(max_length=62)
    canvases: tuple[str, ...]  # canvases with training rows; any other one is index 0
    countries: tuple[str, ...]
    devices: tuple[str, ...]
    languages: tuple[str, ...]  # of requests and events
    genres: tuple[str, ...]
    kinds: tuple[str, ...]
    original_languages: tuple[str, ...]
    year_edges: tuple[int, ...]  # edges between the buckets of release years
    metadata: tuple[str, ...]  # title columns the metadata vector may read
    text_buckets: int = TEXT_BUCKETS
    snapshot_hours: int = Field(gt=0)  # title features are read at multiples of this many hours
    canvas_fields: dict[str, tuple[str, ...]]
    """Canvas -> the fields its requests carry; the others are imputed as `none`."""
    anonymous: tuple[str, ...] = ()  # canvases whose requests read no member: no history, and none of `member_columns`
    named_queries: tuple[str, ...] = ()  # canvases where the name of the source title stands for the query
    task: bool = True  # whether a request says which canvas it is asked on
    rows: tuple[str, ...] = ()  # names of rows
    row_texts: dict[str, str] = Field(default_factory=dict)
    """Name of a row -> what it is called, for heads about rows; empty where a model has none."""
    row_positions: bool = False  # whether places of rows on the page are known
    own_fields: dict[str, str] = Field(default_factory=dict)
    """Context field of an outside package -> the column of `interactions` it is read from."""
    request_fields: tuple[str, ...] = added_later(())  # fields of a request that its features are read by
    member_columns: tuple[str, ...] = ()  # features among `numeric` and `categorical` that belong to the member
    service: str  # feature service
    service_version: str  # hash of the service's columns at training
    numeric: tuple[str, ...] = ()  # numeric member and request features, and numeric context fields of outside packages
    categorical: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Categorical member and request features, and such fields of outside packages, and their values."""
    title_snapshot: tuple[str, ...] = ()  # numeric title features, read at snapshots (axis F)
    country_columns: tuple[str, ...] = added_later(())
    """Those of them that a title has in the request's country: each country then has snapshots of its own."""
    title_categorical: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Categorical title features and their values."""
    title_vectors: tuple[str, ...] = ()  # numbers of vectors of titles, read once for a state of the catalogue (axis V)


class Encoder:
    """Rows to arrays. Titles that came after training get rows of their own behind the trained ones."""

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
                "numeric": len(state.title_vectors),
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
                "rows": len(state.rows) + 1,
                "row_positions": ROW_POSITIONS if state.row_positions else 1,
                "named_queries": bool(state.named_queries),
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
            "row": state.rows,
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

        Rows have `CONTEXT_COLUMNS` (query and source_title_id may be absent), row, row_position, the fields of outside
        packages and the feature columns, of which an absent one is missing everywhere.
        """
        return encode_contexts(self, rows)

    def categorical_matrix(self, rows: pl.DataFrame, names: tuple[str, ...]) -> Ints64:
        """Return [N, C] indices of categorical feature columns; an absent column is 0 everywhere."""
        matrix = np.zeros((rows.height, len(names)), np.int64)
        for place, name in enumerate(names):
            if name in rows.columns:
                matrix[:, place] = self.vocabulary(name).encode(rows[name].cast(pl.String))
        return matrix

    def canvas_index(self, canvases: pl.Series) -> Ints64:
        """Return the index of each canvas as a request's task; 0 everywhere in a model that is not told it."""
        if not self.state.task:
            return np.zeros(len(canvases), np.int64)
        return self.vocabulary("canvas").encode(canvases).astype(np.int64)

    def columns_lacking(self, canvas: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the numeric and the categorical features, by place, that requests on a canvas have not."""
        state, carried = self.state, Carried(self.state, pl.Series([canvas]))

        def lacking(columns: Iterable[str]) -> tuple[int, ...]:
            fields = enumerate(field_of(state, column) for column in columns)
            return tuple(place for place, field in fields if field and not carried(field)[0])

        return lacking(state.numeric), lacking(state.categorical)
