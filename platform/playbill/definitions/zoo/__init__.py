"""YAML files -> checked, resolved definitions."""

from __future__ import annotations

from playbill.definitions.zoo.loading import Zoo, load_zoo, open_zoo, placed

__all__ = ["Zoo", "load_zoo", "open_zoo", "placed"]
