"""How earlier plays of a title and of a member came out, counted only once each was final."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.rewards.ledger import Float, Int, Ledger

PAST = ("title_rate", "title_final_plays", "member_rate", "member_final_plays")
"""Columns of `PastOutcomes.features`."""

_PRIOR_PLAYS = 10.0
_ENOUGH_PLAYS = 30.0


class PastOutcomes:
    """Outcomes of n mature plays, to be asked by title, member and moment.

    A play counts from the moment its outcome is final on, so what is told of a younger play never has its own in it.
    Rates are drawn to the rate of all plays so far as by ten plays more.
    """

    def __init__(self, titles: pl.Series, members: pl.Series, final: Int, outcome: NDArray[np.float32]) -> None:
        """Count.

        Args:
            titles: [n] title ids.
            members: [n] member ids.
            final: [n] microseconds from which the outcome is known.
            outcome: [n] 0 or 1.
        """
        totals = {"outcome": outcome.astype(np.float64), "plays": np.ones(len(outcome))}
        self._all = Ledger(np.zeros(len(final), np.int64), final, totals)
        self._ids = {"title": _numbered(titles), "member": _numbered(members)}
        self._by = {
            "title": Ledger(_codes(titles, self._ids["title"]), final, totals),
            "member": Ledger(_codes(members, self._ids["member"]), final, totals),
        }

    def features(self, titles: pl.Series, members: pl.Series, at: Int) -> NDArray[np.float32]:
        """Return [m, len(PAST)] for titles [m], members [m] and moments [m] in microseconds."""
        everyone = np.zeros(len(at), np.int64)
        before = self._all.position(everyone, at)
        start = self._all.start(everyone)
        plays = self._all.total("plays", start, before)
        rate = np.where(plays > 0, self._all.total("outcome", start, before) / np.maximum(plays, 1.0), np.nan)
        columns = [
            column
            for kind, ids in (("title", titles), ("member", members))
            for column in self._shrunk(kind, ids, at, rate)
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _shrunk(self, kind: str, ids: pl.Series, at: Int, rate: Float) -> tuple[Float, Float]:
        ledger, codes = self._by[kind], _codes(ids, self._ids[kind])
        start, now = ledger.start(codes), ledger.position(codes, at)
        plays = ledger.total("plays", start, now)
        shrunk = (ledger.total("outcome", start, now) + _PRIOR_PLAYS * rate) / (plays + _PRIOR_PLAYS)
        return shrunk, np.minimum(plays, _ENOUGH_PLAYS)


def _numbered(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids.unique(maintain_order=True)}).with_row_index("code")


def _codes(ids: pl.Series, numbered: pl.DataFrame) -> Int:
    """Return the number of each id, or one that no row has."""
    joined = pl.DataFrame({"id": ids}).join(numbered, on="id", how="left", maintain_order="left")
    return joined["code"].cast(pl.Int64).fill_null(numbered.height).to_numpy()
