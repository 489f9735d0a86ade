"""The titles an evaluation ranks, as columns in the order that breaks ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.metrics.topk import Indices

UNKNOWN = -1


@dataclass(frozen=True)
class TitleOrder:
    """Title ids in column order.

    Args:
        title_ids: One id per column. Equal scores are ranked in this order.
    """

    title_ids: tuple[str, ...]

    @classmethod
    def of(cls, title_ids: Sequence[str]) -> TitleOrder:
        """Order titles by id ascending: as numbers when every id is one, else as text."""
        unique = sorted(set(title_ids))
        if all(title.isdecimal() for title in unique):
            unique.sort(key=int)
        return cls(tuple(unique))

    def __len__(self) -> int:
        return len(self.title_ids)

    @cached_property
    def _columns(self) -> pl.DataFrame:
        columns = np.arange(len(self.title_ids), dtype=np.int64)
        return pl.DataFrame({"title_id": pl.Series(self.title_ids, dtype=pl.String), "column": columns})

    def codes(self, title_ids: pl.Series | Sequence[str | None]) -> Indices:
        """Return the column of each id, `UNKNOWN` (-1) for null and for ids that are no column."""
        asked = pl.DataFrame({"title_id": pl.Series(title_ids, dtype=pl.String)})
        joined = asked.join(self._columns, on="title_id", how="left", maintain_order="left")
        return joined["column"].fill_null(UNKNOWN).to_numpy().astype(np.int64)

    def places_in(self, other: Sequence[str]) -> Indices:
        """Return where each of our titles stands in another order, `UNKNOWN` where it does not."""
        return TitleOrder(tuple(other)).codes(self.title_ids)


def microseconds(moments: pl.Series) -> npt.NDArray[np.int64]:
    """Return moments as int64 microseconds since 1970 UTC. Nulls are not allowed."""
    return moments.dt.epoch("us").to_numpy().astype(np.int64)
