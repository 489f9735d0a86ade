"""A feature view in a database, read at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from playbill_feast.online.backend import Ask
from playbill_feast.online.columns import feature_table
from playbill_feast.online.entity_keys import KeyKinds
from playbill_feast.online.feast_values import key_kinds, keys_of_protos, protos_of, view_fields
from playbill_feast.online.frames import fields_of, keys_of_frame
from playbill_feast.online.ragged import Ints
from playbill_feast.online.row_codec import Flags
from playbill_feast.online.row_layout import NEVER
from playbill_feast.online.rows import Rows
from playbill_feast.online.writing import moment_of

_A_MICROSECOND = timedelta(microseconds=1)
FeastAnswer = tuple[datetime | None, dict[str, Value] | None]


def stored_name(project: str, view: Any) -> str:
    """Return a view's name in the database."""
    return f"{project}/{view.name}"


def ttl_us_of(view: Any) -> int | None:
    """Return a view's ttl in microseconds, None for no limit. An on-demand view has none."""
    ttl = getattr(view, "ttl", None)
    return ttl // _A_MICROSECOND if ttl else None


def past_ttl(event_us: Ints, ttl_us: int | None, now_us: int | None) -> Flags | None:
    """Return which rows are older than the ttl at a moment, None for none of them. An age of exactly ttl is alive."""
    if ttl_us is None or now_us is None:
        return None
    expired: Flags = (event_us < now_us - ttl_us) & (event_us != NEVER)
    return expired if expired.any() else None


class StoredView:
    """A feature view, the rows it is stored in, and the moment that ages are counted to.

    Args:
        rows: The database.
        project: The project's name.
        view: Feast's feature view.
        now_us: The moment in microseconds since 1970, None to enforce no ttl.
    """

    def __init__(self, rows: Rows, project: str, view: Any, now_us: int | None) -> None:
        self.rows, self.view, self.now_us = rows, view, now_us
        self.name = stored_name(project, view)

    @cached_property
    def kinds(self) -> KeyKinds:
        """Join keys and their kinds."""
        return key_kinds(self.view)

    def expired(self, event_us: Ints) -> Flags | None:
        """Return which rows are past the ttl, None for none of them."""
        return past_ttl(event_us, ttl_us_of(self.view), self.now_us)

    def ask(self, entity_keys: Sequence[EntityKey]) -> Ask:
        """Return what to read for Feast's entity keys."""
        return Ask(self.name, keys_of_protos(self.kinds, entity_keys))

    def protos(self, found: Sequence[bytes | None], features: Sequence[str] | None) -> list[FeastAnswer]:
        """Open rows as Feast's protobufs: time and values. A row past its ttl has its time and no values."""
        stored = view_fields(self.view)
        names = [name for name in (features or stored) if name in stored]
        rows = self.rows.open(self.name, found, fields_of(self.view, names))
        expired = self.expired(rows.event_us)
        alive = rows.found if expired is None else rows.found & ~expired
        values = zip(*map(protos_of, rows.columns), strict=True) if names else [()] * len(found)
        moments = map(moment_of, np.where(rows.found, rows.event_us, 0).tolist())
        return [
            (moment if there else None, dict(zip(names, row, strict=True)) if fresh else None)
            for moment, there, fresh, row in zip(moments, rows.found.tolist(), alive.tolist(), values, strict=True)
        ]

    def table(self, keys: pa.Table | pl.DataFrame, features: Sequence[str]) -> pa.Table:
        """Read features by columns, a row per row of `keys`."""
        wanted = fields_of(self.view, features)
        (found,) = self.rows.backend.read([Ask(self.name, keys_of_frame(self.view, keys))])
        rows = self.rows.open(self.name, found, wanted)
        expired = self.expired(rows.event_us)
        return feature_table(rows, features, None if expired is None else ~expired)
