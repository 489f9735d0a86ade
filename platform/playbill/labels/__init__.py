"""Events -> labels, each as known at one moment, matured or absent."""

from __future__ import annotations

from playbill.labels.extraction import extract, label_columns, label_events
from playbill.labels.extractors import LabelContext, label_extractor
from playbill.labels.summary import LabelSummary, labeler, published_rows, summarise

__all__ = [
    "LabelContext",
    "LabelSummary",
    "extract",
    "label_columns",
    "label_events",
    "label_extractor",
    "labeler",
    "published_rows",
    "summarise",
]
