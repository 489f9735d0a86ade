"""Events -> labels, each as known at one moment, matured or absent."""

from __future__ import annotations

from playbill.labels.extraction import extract

__all__ = ["extract"]
