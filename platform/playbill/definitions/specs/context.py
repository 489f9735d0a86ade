"""What a request can say about itself, and what stands for what it does not say.

A canvas lists the fields its requests carry, in training and in serving alike; the canvas itself is always known.
UniCoRn (Bhattacharya et al., RecSys 2024) has five of them: member, query, country, source title and task.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from playbill.definitions.specs.base import Spec, added_later, registered
from playbill.errors import ConfigError
from playbill.registry import Plugin, Registry
from playbill.schema import INTERACTIONS


@dataclass(frozen=True, slots=True)
class ContextColumn:
    """A context field: a column of the log that is known at request time."""

    column: str
    """Column of `interactions` it is read from in training; one of a source's own has a namespace. In serving it is the
    request's `context` under the field's name."""
    kind: Literal["categorical", "numeric", "member", "text", "title", "moment", "place"] = "categorical"
    """How it is read. Outside packages register `categorical` and `numeric` ones."""


MEMBER = ContextColumn("member_id", "member")
QUERY = ContextColumn("query", "text")
SOURCE_TITLE = ContextColumn("source_title_id", "title")
COUNTRY, DEVICE, LANGUAGE = ContextColumn("country"), ContextColumn("device"), ContextColumn("language")
HOUR_OF_WEEK = ContextColumn("event_at", "moment")
ROW, ROW_POSITION = ContextColumn("row_id", "place"), ContextColumn("row_id", "place")

CONTEXTS = Registry(
    "context field",
    "playbill.contexts",
    {
        name: Plugin(f"{__name__}:{name.upper()}")
        for name in (
            "member",
            "query",
            "source_title",
            "country",
            "device",
            "language",
            "hour_of_week",
            "row",
            "row_position",
        )
    },
)
"""Fields that a canvas may list. An outside one names a `ContextColumn`."""
BUILT_IN = CONTEXTS.names()
IDENTIFYING = ("query", "source_title", "row")
"""Fields that say what a request is about; a canvas that lists one and never gets it is a mistake."""
EVERYWHERE = ("member", "country", "device", "language", "hour_of_week")
"""What a canvas's requests carry where it does not say."""

ContextField = Annotated[str, registered(CONTEXTS)]
"""What a request can say about itself."""
ImputeRule = Literal["none", "source_title_name"]
"""`none` is a learned value of its own. `source_title_name`, for a query, is the words of the source title's name."""


class ContextsSpec(Spec):
    """What of the request's context the network uses; each can be switched off to measure what it is worth."""

    task: bool = True
    """Whether the network knows which canvas asks."""
    imputation: bool = True
    """Whether something stands for a field that a request lacks. Without it such a field adds nothing."""
    crossing: bool = True
    """Whether the context is crossed with the state; without it the context is only added to it."""
    title_crossing: bool = True
    """Whether titles are crossed with canvases: each has a bias on each canvas, which starts from how much oftener it
    was wanted there than elsewhere. Without it every canvas draws from one order of what is wanted at large."""
    without: tuple[Literal["country", "device", "language", "hour_of_week"], ...] = added_later(())
    """Fields that the network reads on no canvas, nor features of that name: to measure what they are worth. Rules and
    availability still know them."""


def own_fields(fields: Iterable[str]) -> dict[str, ContextColumn]:
    """Return the fields of outside packages among some, loaded.

    Raises:
        ConfigError: One is no `ContextColumn` that can be read before an answer.
    """
    found = {}
    for name in sorted(set(fields).difference(BUILT_IN)):
        column = CONTEXTS[name].load()
        where = f"context field '{name}'"
        if not isinstance(column, ContextColumn):
            raise ConfigError(f"{where} is a {type(column).__name__}; it must name a ContextColumn")
        if column.kind not in ("categorical", "numeric"):
            raise ConfigError(f"{where} has kind '{column.kind}'; outside packages add categorical and numeric ones")
        if column.column in INTERACTIONS.names("after"):
            raise ConfigError(f"{where} reads '{column.column}', which is known only after a request")
        found[name] = column
    return found
