"""How a run tells whoever watches it what it is doing."""

from __future__ import annotations

from typing import Protocol


class ProgressListener(Protocol):
    """Hears of stages, and how far the one at hand is."""

    def stage(self, name: str) -> None:
        """Hear that a stage has begun, and with it that the one before has ended."""

    def advance(self, done: int, total: int | None, detail: str = "") -> None:
        """Hear how far the stage at hand is."""


class Silent:
    """Watches without a word."""

    def stage(self, name: str) -> None:
        """Do nothing."""

    def advance(self, done: int, total: int | None, detail: str = "") -> None:
        """Do nothing."""
