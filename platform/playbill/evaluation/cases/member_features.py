"""Requests with what was known of their member strictly before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import polars as pl

from playbill.datasets import Request

_TEXT = ("member_id", "canvas", "country", "device", "language", "query", "source_title_id")


class MemberFeatures(Protocol):
    """What is asked of `playbill.features.FeatureDoor`."""

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with member and request features as of each row's `event_at`, strictly before it."""
        ...


def with_features(requests: Sequence[Request], service: str, features: MemberFeatures | None) -> list[Request]:
    """Return requests with what was known of member and request strictly before each moment.

    Args:
        requests: Of any members and canvases.
        service: Feature service of the model.
        features: Where features come from; None leaves requests as they are.
    """
    if features is None or not requests:
        return list(requests)
    frame = pl.DataFrame(
        {
            "member_id": [request.member_id for request in requests],
            "event_at": [request.at for request in requests],
            "canvas": [request.canvas for request in requests],
            "country": [request.country for request in requests],
            "device": [request.device for request in requests],
            "language": [request.language for request in requests],
            "query": [request.query for request in requests],
            "source_title_id": [request.source_title_id for request in requests],
        },
        schema={name: pl.String for name in _TEXT} | {"event_at": pl.Datetime("us", "UTC")},
    )
    found = features.member_features(service, frame)
    names = [name for name in found.columns if name not in frame.columns]
    if not names:
        return list(requests)
    values = found.select(names).iter_rows(named=True)
    return [replace(request, features=row) for request, row in zip(requests, values, strict=True)]
