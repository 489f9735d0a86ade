"""`--protocol`: the option, and the list of protocols that every command with it ends its help by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from playbill.definitions.specs.measures import AUTO, CHOSEN_BY_THE_LOG, PROTOCOLS


def protocol_option(without: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option; `without` says what holds where it is not given."""
    help_text = f"What is held out, see below (default: {without})."
    return click.option("--protocol", metavar="NAME", help=help_text, **attributes)


def protocol_list(*, auto: bool) -> str:
    """Return a line for each protocol, and with `auto` for the choice by the log, to be a command's epilog."""
    named = {AUTO: CHOSEN_BY_THE_LOG} if auto else {}
    width = max(map(len, PROTOCOLS))
    lines = (f"  {name:{width}}  {line}" for name, line in (named | PROTOCOLS).items())
    return "\n".join(["\b", "Protocols:", *lines])
