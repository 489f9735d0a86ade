"""One question to the model: who asks, from where, when, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl


@dataclass(frozen=True, slots=True)
class Request:
    """Everything known at request time. What the canvas's `context` does not list is imputed.

    Args:
        canvas: Name of a canvas.
        at: The moment, zone-aware.
        member_id: Who asks; None = someone unknown.
        country: None or `ZZ` = unknown.
        device: None = unknown.
        language: None = unknown.
        query: What has been typed so far. A space at the end says that the last word is complete.
        source_title_id: The title the list is about.
        row: Name of the row that is filled, such as `genre_rows`.
        row_position: Its place on the page, from 0.
        history: The member's rows of `interactions` strictly before `at`; None = no history.
        features: Feature columns by `view__feature` name, and context fields of outside packages by theirs; an
            absent one is missing.
    """

    canvas: str
    at: datetime
    member_id: str | None = None
    country: str | None = None
    device: str | None = None
    language: str | None = None
    query: str | None = None
    source_title_id: str | None = None
    row: str | None = None
    row_position: int | None = None
    history: pl.DataFrame | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
