"""Whom a request was for: a kids' profile sees titles for kids and no others, whatever the canvas.

Letters: m requests, T titles.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from playbill.datasets.arrays import Bool, Int
from playbill.datasets.candidate_masks import Described
from playbill.tables import Vocabulary


@dataclass(frozen=True)
class Profiles:
    """Which members' profiles are for kids, as of each request. A member first described later is taken as described.

    Args:
        rows: member_id, kids_profile and `known_from`, the moment from which a row counts, sorted by it.
    """

    rows: pl.DataFrame

    @classmethod
    def of(cls, members: pl.DataFrame) -> Profiles:
        """Read every row of members; without a column `kids_profile` nobody's is for kids, and null counts as no."""
        dated = [name for name in ("valid_from", "recorded_at") if name in members.columns]
        known = pl.max_horizontal(dated) if dated else pl.lit(_ALWAYS)
        kids = pl.col("kids_profile") if "kids_profile" in members.columns else pl.lit(False)
        rows = members.select("member_id", kids_profile=kids, known_from=known.cast(_MOMENT))
        first = pl.col("known_from") == pl.col("known_from").min().over("member_id")
        counted = pl.when(first).then(pl.lit(_ALWAYS)).otherwise("known_from").cast(_MOMENT)
        return cls(rows.with_columns(counted.alias("known_from")).sort("known_from", maintain_order=True))

    def kids(self, requests: pl.DataFrame, moment: str = "at") -> Bool:
        """Return [m] whether each request's profile was for kids at its moment; unknown members' are not.

        Args:
            requests: [m] rows with member_id and a moment.
            moment: The column of the moment.
        """
        if not self.rows["kids_profile"].any():
            return np.zeros(requests.height, np.bool_)
        found: Bool = self._used(requests, moment)["kids_profile"].fill_null(False).to_numpy().astype(np.bool_)
        return found

    def known_from(self, requests: pl.DataFrame, moment: str = "at") -> Int:
        """Return [m] since when the row that each request reads has been known, microseconds."""
        return self._used(requests, moment)["known_from"].dt.epoch("us").fill_null(0).to_numpy().astype(np.int64)

    def _used(self, requests: pl.DataFrame, moment: str) -> pl.DataFrame:
        asked = requests.select("member_id", at=moment).with_row_index("row").sort("at", maintain_order=True)
        rows = self.rows.with_columns(pl.col("known_from").alias("at"))
        found = asked.join_asof(rows, on="at", by="member_id", strategy="backward", check_sortedness=False)
        return found.sort("row")


@dataclass(frozen=True, slots=True)
class Audience:
    """What titles are, and which requests came from a kids' profile."""

    described: Described
    """[T] titles; the padding row is not known."""
    profile: Bool
    """[m]."""

    @property
    def titles(self) -> Bool:
        """[T] titles marked for kids; not knowing counts as no."""
        return self.described.kids

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, titles: pl.DataFrame, members: pl.DataFrame, requests: pl.DataFrame
    ) -> Audience:
        """Read both from the canonical tables.

        Args:
            vocabulary: Rows of titles; T counts the padding row.
            titles: One row per title; a column that is not there is not known of any.
            members: Every row of every member.
            requests: [m] rows with member_id and event_at.
        """
        described = Described.of(("", *vocabulary.entries), titles)
        return cls(described, Profiles.of(members).kids(requests, "event_at"))


_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = pl.Datetime("us", "UTC")
