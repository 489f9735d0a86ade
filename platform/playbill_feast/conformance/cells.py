"""Plain Python values of frames' cells, and settings of a store that name a folder which a test makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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


def in_folder(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with `{folder}` replaced by the folder's path, in nested sections too."""
    return {key: _placed(value, folder) for key, value in settings.items()}


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    return in_folder(value, folder) if isinstance(value, Mapping) else value
