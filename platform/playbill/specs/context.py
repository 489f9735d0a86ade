"""What a request can say about itself, and what stands for what it does not say."""

from __future__ import annotations

from typing import Literal

ContextField = Literal["query", "source_title", "country", "device", "language", "hour_of_week"]
"""What a request can say about itself."""
