"""The canonical tables as one evaluation reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from playbill.tables import Tables


@dataclass(frozen=True)
class EvaluationTables:
    """Frames of the canonical tables, read once.

    Args:
        titles: Newest row of each title.
        members: Newest row of each member.
        availability: Every availability row.
        interactions: Every event, sorted by member_id and seq.
        end: The moment after the last event; labels mature against it.
    """

    titles: pl.DataFrame
    members: pl.DataFrame
    availability: pl.DataFrame
    interactions: pl.DataFrame
    end: datetime

    @classmethod
    def read(cls, tables: Tables) -> EvaluationTables:
        """Read a workspace's tables.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        tables.require()
        return cls(
            titles=tables.titles(),
            members=tables.members(),
            availability=tables.availability(),
            interactions=tables.interactions(),
            end=tables.data_end(),
        )


def as_frames(tables: Tables | EvaluationTables) -> EvaluationTables:
    """Return the frames of a workspace's tables; frames come back unchanged."""
    return tables if isinstance(tables, EvaluationTables) else EvaluationTables.read(tables)
