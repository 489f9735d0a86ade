"""Exact nearest vectors of a view, from a matrix in memory that is read again when the view has changed.

A search is one product of a matrix and a vector: 100,000 vectors of 64 numbers take about 3 ms and 25 MB. It stops
being practical near a million vectors; Feast's own vector stores index them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

import numpy as np
import polars as pl
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from numpy.typing import NDArray

from playbill_feast.errors import Mistake, StoreDataError, UnknownFeatureError
from playbill_feast.online.backend import PackedDatabase
from playbill_feast.online.columns import item_kind, opened_lists
from playbill_feast.online.entity_keys import open_key
from playbill_feast.online.feast_values import entity_protos, kind_of, protos_of
from playbill_feast.online.row_codec import Ints, StoredColumn
from playbill_feast.online.row_layout import FIXED, PackedField
from playbill_feast.online.stored_view import StoredView, feature_frame, fields_of, moment_of

Floats = NDArray[np.float32]
METRICS = {"cosine": "cosine", "dot": "dot", "inner_product": "dot", "ip": "dot", "l2": "l2", "euclidean": "l2"}
"""Names of metrics, in any case, and what they mean."""


@dataclass(frozen=True, slots=True)
class VectorTable:
    """All vectors of a view at one version of it."""

    version: object
    matrix: Floats  # (V, D): V vectors of D numbers
    norms: Floats
    keys: list[bytes]
    rows: list[bytes]
    event_us: Ints


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest vectors of one search, nearest first."""

    keys: list[bytes]
    rows: list[bytes]
    distances: list[float]  # Smaller is nearer: 1 - cosine, the negative inner product, or the Euclidean distance


def vector_field(view: Any) -> PackedField:
    """Return the view's one field that is declared with `vector_index=True`.

    Raises:
        StoreDataError: It has none, several, or one that is no list of floats.
    """
    indexed = [field for field in view.features if getattr(field, "vector_index", False)]
    subject = f"vector search in feature view '{view.name}'"
    if len(indexed) != 1:
        names = ", ".join(field.name for field in indexed) or "none"
        what = f"one field must be declared with vector_index=True, found {names}."
        raise StoreDataError(subject, [Mistake("schema", what)])
    kind = kind_of(indexed[0].dtype.to_value_type())
    if kind not in ("list<float32>", "list<float64>"):
        raise StoreDataError(
            subject, [Mistake(indexed[0].name, f"is a {kind}, expected Array(Float32) or Array(Float64).")]
        )
    return PackedField(indexed[0].name, kind)


class VectorCache:
    """Vector tables of views, cached while the views do not change."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, str, str], VectorTable] = {}
        self._lock = Lock()

    def table(self, rows: PackedDatabase, view: str, field: PackedField) -> VectorTable:
        """Return a view's vectors as they are now."""
        key = (id(rows), view, field.name)
        version = rows.backend.version(view)
        with self._lock:
            cached = self._tables.get(key)
            if cached is None or cached.version != version:
                cached = self._tables[key] = _read(rows, view, field, version)
        return cached


def _read(rows: PackedDatabase, view: str, field: PackedField, version: object) -> VectorTable:
    keys, packed = rows.backend.scan(view)
    opened = rows.open(view, packed, [field])
    positions, matrix = _matrix(opened.columns[0], f"{view}.{field.name}")
    return VectorTable(
        version,
        matrix,
        np.linalg.norm(matrix, axis=1),
        [keys[number] for number in positions],
        [packed[number] for number in positions],
        opened.event_us[positions],
    )


def _matrix(column: StoredColumn, where: str) -> tuple[list[int], Floats]:
    item = item_kind(column.kind) or ""
    counts, items = opened_lists(column, item)
    there = np.flatnonzero(counts)
    sizes = np.unique(counts[there])
    if len(sizes) > 1:
        raise StoreDataError("vectors", [Mistake(where, f"have different lengths: {', '.join(map(str, sizes))}.")])
    numbers = np.ascontiguousarray(items).view(FIXED[item]).astype(np.float32)
    return there.tolist(), numbers.reshape(len(there), int(sizes[0]) if len(sizes) else 0)


def search(
    table: VectorTable, vector: Sequence[float], top_k: int, metric: str, alive: NDArray[np.bool_] | None
) -> Neighbours:
    """Return the `top_k` nearest vectors to `vector` (D,) by exact comparison with all, or with those `alive` (V,).

    Raises:
        StoreDataError: The vector has another length than the stored ones.
        UnknownFeatureError: There is no such metric.
    """
    if metric.lower() not in METRICS:
        raise UnknownFeatureError("vector metric", metric, METRICS)
    query = np.asarray(vector, np.float32)
    if len(table.keys) and query.shape != table.matrix.shape[1:]:
        what = f"has {query.size} numbers, the stored vectors have {table.matrix.shape[1]}."
        raise StoreDataError("vector search", [Mistake("query", what)])
    distances = _distances(table, query, METRICS[metric.lower()]) if table.keys else np.empty(0, np.float32)
    if alive is not None:
        distances = np.where(alive, distances, np.inf)
    order = np.argsort(distances, kind="stable")[:top_k]
    chosen = [int(number) for number in order if np.isfinite(distances[number])]
    return Neighbours(
        [table.keys[number] for number in chosen],
        [table.rows[number] for number in chosen],
        [float(distances[number]) for number in chosen],
    )


def _distances(table: VectorTable, query: Floats, metric: str) -> Floats:
    products: Floats = table.matrix @ query
    if metric == "dot":
        return -products
    norm = np.linalg.norm(query)
    if metric == "l2":
        squares = table.norms**2 - 2 * products + norm**2
        return np.sqrt(np.maximum(squares, 0))
    # A vector of zeros has no direction: it is as far as one at a right angle.
    scale = table.norms * norm
    return 1 - np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


DISTANCE = "__distance"
Document = tuple[datetime | None, EntityKey | None, dict[str, Value] | None]


def neighbours(
    stored: StoredView, vectors: VectorCache, vector: Sequence[float], top_k: int, metric: str
) -> Neighbours:
    """Return a view's nearest vectors that are not past their ttl."""
    table = vectors.table(stored.rows, stored.name, vector_field(stored.view))
    expired = stored.expired(table.event_us)
    return search(table, vector, top_k, metric, None if expired is None else ~expired)


def nearest_frame(stored: StoredView, nearest: Neighbours, features: Sequence[str]) -> pl.DataFrame:
    """Return join keys, features, `__event_timestamp` and `__distance`, nearest first."""
    rows = stored.rows.open(stored.name, nearest.rows, fields_of(stored.view, features))
    opened = [open_key(stored.kinds, key) for key in nearest.keys]
    keys = {name: [values[number] for values in opened] for number, (name, _) in enumerate(stored.kinds)}
    answered = feature_frame(rows, features, None)
    return pl.DataFrame(keys).hstack(answered.with_columns(pl.Series(DISTANCE, nearest.distances, pl.Float64)))


def refuse_other_searches(view: Any, embedding: object, text: object, filters: object) -> None:
    """Raise what a search by text or with filters deserves.

    Raises:
        StoreDataError: There is no vector, or more than a vector.
    """
    if embedding is None or text is not None or filters is not None:
        what = "only vectors can be searched for, without text or filters: use one of Feast's vector stores."
        raise StoreDataError(f"vector search in feature view '{view.name}'", [Mistake("query", what)])


def documents(stored: StoredView, nearest: Neighbours, features: Sequence[str]) -> list[Document]:
    """Return what was found as Feast's documents, in the order of their keys.

    Feast sorts the keys of an answer and not the values with them, so in any other order it would put one entity's
    values beside another's name. A join key may be requested as if it were a feature, as of Feast's vector stores.
    """
    requested_keys = {name for name, _ in stored.kinds} & set(features)
    names = [name for name in features if name != "distance" and name not in requested_keys]
    rows = stored.rows.open(stored.name, nearest.rows, fields_of(stored.view, names))
    opened = [open_key(stored.kinds, key) for key in nearest.keys]
    keys = entity_protos(stored.kinds, opened)
    values = list(zip(*map(protos_of, rows.columns), strict=True)) if names else [()] * len(opened)
    return [
        (
            moment_of(int(rows.event_us[number])),
            keys[number],
            {
                **dict(zip(names, values[number], strict=True)),
                **{name: value for name, value in _named(keys[number]) if name in requested_keys},
                "distance": Value(float_val=nearest.distances[number]),
            },
        )
        for number in sorted(range(len(opened)), key=opened.__getitem__)
    ]


def _named(key: EntityKey) -> Iterable[tuple[str, Value]]:
    return zip(key.join_keys, key.entity_values, strict=True)
