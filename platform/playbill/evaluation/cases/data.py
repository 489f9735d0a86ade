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
        title_versions: Every row of every title; None = `titles` is all there is.
        member_versions: Every row of every member; None = `members` is all there is.
    """

    titles: pl.DataFrame
    members: pl.DataFrame
    availability: pl.DataFrame
    interactions: pl.DataFrame
    end: datetime
    title_versions: pl.DataFrame | None = None
    member_versions: pl.DataFrame | None = None

    def titles_at(self, moment: datetime) -> pl.DataFrame:
        """Return each title as it was known at a moment; a title first described later as it was first described.

        So what was changed in the catalogue after a model's training, or after a request, takes no part, and titles
        that launched in between still have the metadata that their launch came with.

        Args:
            moment: Zone-aware.
        """
        if self.title_versions is None:
            return self.titles
        known_from = pl.max_horizontal("valid_from", "recorded_at")
        ordered = self.title_versions.sort("title_id", "valid_from", "recorded_at", maintain_order=True)
        known = ordered.filter(known_from <= moment).unique("title_id", keep="last", maintain_order=True)
        first = ordered.unique("title_id", keep="first", maintain_order=True)
        later = first.join(known, on="title_id", how="anti", maintain_order="left")
        return pl.concat([known, later]).sort("title_id")

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
            title_versions=tables.title_versions(),
            member_versions=tables.member_versions(),
        )


def as_frames(tables: Tables | EvaluationTables) -> EvaluationTables:
    """Return the frames of a workspace's tables; frames come back unchanged."""
    return tables if isinstance(tables, EvaluationTables) else EvaluationTables.read(tables)
