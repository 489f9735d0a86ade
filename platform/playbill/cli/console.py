"""The terminal as commands print to it: text is printed as it is.

Names of titles, labels and files come from users. rich would read `[x]` in them as a style and `:gem:` as a picture, so
neither is read anywhere; a command that wants a style says so with `style=` or a `Text`.
"""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text


class Console(rich.console.Console):
    """A rich console that reads no markup and no emoji codes. Takes the options of rich's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | options)


def mark(passed: bool, *, otherwise: str = "✗", style: str = "red") -> Text:
    """Return a green tick, or what stands for the opposite."""
    return Text("✓", style="green") if passed else Text(otherwise, style=style)
