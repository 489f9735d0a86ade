"""Frames' cells as plain Python values, so that tests compare what a user would see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def cells(column: Any) -> list[Any]:
    """Return a column's values in order: None for null, lists for arrays, numbers as Python's own."""
    return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_cell(part) for part in value]
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value
