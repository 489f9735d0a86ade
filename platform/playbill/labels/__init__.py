"""Events -> labels, each as known at one moment, matured or absent."""

from __future__ import annotations

from playbill.labels.checks import not_in_log, why_none_positive
from playbill.labels.extraction import extract, label_columns, label_events, label_parts
from playbill.labels.extractors import LabelContext, label_extractor
from playbill.labels.reports import (
    LabelDescription,
    LabelSummary,
    ages,
    describe,
    labeler,
    published_rows,
    summarise,
    version_of,
)

__all__ = [
    "LabelContext",
    "LabelDescription",
    "LabelSummary",
    "ages",
    "describe",
    "extract",
    "label_columns",
    "label_events",
    "label_extractor",
    "label_parts",
    "labeler",
    "not_in_log",
    "published_rows",
    "summarise",
    "version_of",
    "why_none_positive",
]
