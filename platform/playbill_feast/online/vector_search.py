"""Searches by vector, as frames and as Feast's documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import polars as pl
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from playbill.errors import DataError, Problem
from playbill_feast.online.entity_keys import open_key
from playbill_feast.online.feast_values import entity_protos, protos_of
from playbill_feast.online.frames import feature_frame, fields_of
from playbill_feast.online.stored_view import StoredView
from playbill_feast.online.vectors import Neighbours, Vectors, search, vector_field
from playbill_feast.online.writing import moment_of

DISTANCE = "__distance"
Document = tuple[datetime | None, EntityKey | None, dict[str, Value] | None]


def neighbours(stored: StoredView, vectors: Vectors, vector: Sequence[float], top_k: int, metric: str) -> Neighbours:
    """Return a view's nearest vectors that are not past their ttl."""
    table = vectors.table(stored.rows, stored.name, vector_field(stored.view))
    expired = stored.expired(table.event_us)
    return search(table, vector, top_k, metric, None if expired is None else ~expired)


def nearest_frame(stored: StoredView, found: Neighbours, features: Sequence[str]) -> pl.DataFrame:
    """Return join keys, features, `__event_timestamp` and `__distance`, nearest first."""
    rows = stored.rows.open(stored.name, found.rows, fields_of(stored.view, features))
    opened = [open_key(stored.kinds, key) for key in found.keys]
    keys = {name: [values[number] for values in opened] for number, (name, _) in enumerate(stored.kinds)}
    answered = feature_frame(rows, features, None)
    return pl.DataFrame(keys).hstack(answered.with_columns(pl.Series(DISTANCE, found.distances, pl.Float64)))


def refuse_other_searches(view: Any, embedding: object, text: object, filters: object) -> None:
    """Raise what a search by text or with filters deserves.

    Raises:
        DataError: There is no vector, or more than a vector.
    """
    if embedding is None or text is not None or filters is not None:
        what = "only vectors can be searched for, without text or filters: use one of Feast's vector stores."
        raise DataError(f"vector search in feature view '{view.name}'", [Problem("query", what)])


def documents(stored: StoredView, found: Neighbours, features: Sequence[str]) -> list[Document]:
    """Return what was found as Feast's documents, in the order of their keys.

    Feast sorts the keys of an answer and not the values with them, so in any other order it would put one entity's
    values beside another's name. A join key may be asked for as if it were a feature, as of Feast's vector stores.
    """
    asked_keys = {name for name, _ in stored.kinds} & set(features)
    names = [name for name in features if name != "distance" and name not in asked_keys]
    rows = stored.rows.open(stored.name, found.rows, fields_of(stored.view, names))
    opened = [open_key(stored.kinds, key) for key in found.keys]
    keys = entity_protos(stored.kinds, opened)
    values = list(zip(*map(protos_of, rows.columns), strict=True)) if names else [()] * len(opened)
    return [
        (
            moment_of(int(rows.event_us[number])),
            keys[number],
            {
                **dict(zip(names, values[number], strict=True)),
                **{name: value for name, value in _named(keys[number]) if name in asked_keys},
                "distance": Value(float_val=found.distances[number]),
            },
        )
        for number in sorted(range(len(opened)), key=opened.__getitem__)
    ]


def _named(key: EntityKey) -> Iterable[tuple[str, Value]]:
    return zip(key.join_keys, key.entity_values, strict=True)
