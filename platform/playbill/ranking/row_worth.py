"""How a page values its rows: by the plays that their titles are expected to bring, and by heads about rows.

Axis letters: R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from playbill.definitions.specs.page import ExpectedPlaySpec, PageSpec
from playbill.ranking.page_rules import RowEntry, RowValues, Values

if TYPE_CHECKING:
    from playbill.ranking.scoring.row_scoring import PageState

SMALLEST = 1e-12
"""The least chance of a play that a row is valued by: a row of no chance is worth little, and not minus infinity."""


@dataclass(frozen=True)
class ValuedRows:
    """Values of rows by the titles they show and by heads about rows; a `page_parts.RowValues`.

    Args:
        expected: How much the chance of a play of their titles counts.
        blended: What heads about rows say; None where none is asked.
    """

    expected: ExpectedPlaySpec
    blended: RowValues | None = None

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Values:
        """Return [R] weighted sums of log probabilities.

        Raises:
            ValueError: A row does not say what its titles are expected to give.
        """
        if unknown := [row.name for row in rows if row.expected is None]:
            raise ValueError(f"nothing says how likely titles of row '{unknown[0]}' are played")
        chances = np.array([row.expected for row in rows], np.float64)
        total: Values = self.expected.weight * np.log(np.maximum(chances, SMALLEST))
        return total if self.blended is None else total + self.blended(rows, above)


def valued_by(spec: PageSpec, state: PageState | None) -> RowValues | None:
    """Return how a page's specification values rows, None where they come as they are written.

    Args:
        spec: Its `expected` needs rows with `chances`.
        state: What heads about rows see; without it they say nothing.
    """
    if spec.arm == "fixed":
        return None
    blended = state.values(spec.blend) if state is not None and spec.blend else None
    return blended if spec.expected is None else ValuedRows(spec.expected, blended)
