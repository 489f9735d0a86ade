"""Settings of a store that name a folder which exists only once a test runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def in_folder(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with `{folder}` replaced by the folder's path, in nested sections too."""
    return {key: _placed(value, folder) for key, value in settings.items()}


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    return in_folder(value, folder) if isinstance(value, Mapping) else value
