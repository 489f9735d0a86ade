"""What a client asks and what it is answered, the same over HTTP and in the shell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import polars as pl
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from playbill.errors import RequestError, nearest
from playbill.schema import QUERY_LIMIT, TEXT_LIMIT, text_problem
from playbill.tables.live_events import STORABLE, StorableMoment

MODEL_POLICY = "model"
"""The policy of an answer that the model ranked; any other policy is a fallback's name."""
K_LIMIT = 1000
TIMEOUT_LIMIT_MS = 600_000
CONTEXT_LIMIT = 100
"""Context fields in one request."""
NUMBER_LIMIT = 1e15
"""Size of a number in a context field, either sign: whole numbers up to here are exact in 64 bits of floating point."""


def _refuse(problem: str | None) -> None:
    if problem is not None:
        # The text itself is not repeated: it may be long, or be what no answer can carry.
        raise PydanticCustomError("refused", "{problem}", {"problem": problem})


def _usable(value: str | bool | int | float) -> str | bool | int | float:
    if isinstance(value, str):
        _refuse(text_problem(value) or _length_problem(value))
    elif not abs(value) <= NUMBER_LIMIT:  # NaN is not either
        _refuse(f"a number is between -{NUMBER_LIMIT:g} and {NUMBER_LIMIT:g}.")
    return value


def _length_problem(text: str) -> str | None:
    return None if len(text) <= TEXT_LIMIT else f"a text has at most {TEXT_LIMIT} characters, this one {len(text):,}."


Text = Annotated[str, Field(max_length=TEXT_LIMIT), STORABLE]
"""A short text, such as an id or a name."""
ContextValue = Annotated[str | bool | int | float, AfterValidator(_usable)]
"""A value of a context field of an outside package."""


class NotFoundError(RequestError):
    """A request names a canvas or title that does not exist."""


def not_found(kind: str, name: str, known: Iterable[str]) -> NotFoundError:
    """Build the error for an unknown name, with the nearest known one and, where they are few, all of them."""
    names = sorted(known)
    close = nearest(name, names)
    parts = [f"unknown {kind} '{name}'."]
    if close:
        parts.append(f"Did you mean '{close}'?")
    if len(names) <= 20:
        parts.append(f"Known: {', '.join(names) or 'none'}.")
    return NotFoundError(" ".join(parts))


class Message(BaseModel):
    """A JSON body. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RecommendRequest(Message):
    """One question: who asks, on which canvas, and what is known of the situation."""

    canvas: Text
    """A canvas of the served model."""
    member_id: Text | None = None
    """Absent or unknown: answered as for someone without a history."""
    k: int = Field(default=10, ge=1, le=K_LIMIT)
    """Titles in a list, and in each row, at most."""
    at: StorableMoment | None = None
    """The moment to answer for, with a zone, from 1700 to 2200. Absent: now, after every event acknowledged so far."""
    country: Text | None = None
    """Absent: the member's. `ZZ` and countries never seen mean unknown."""
    device: Text | None = None
    language: Text | None = None
    """Of names and rows. Absent: the member's."""
    query: Annotated[str, Field(max_length=QUERY_LIMIT), STORABLE] | None = None
    """What was typed so far; an empty one asks for the page before the first key. Its first 200 characters are read."""
    source_title_id: Text | None = None
    """The title the list is about."""
    context: dict[Text, ContextValue] = Field(default_factory=dict, max_length=CONTEXT_LIMIT)
    """Values of context fields that packages outside Playbill add, by name."""
    rows: bool | None = None
    """Whether to fill the canvas's rows. Absent: if it has any."""
    timeout_ms: int | None = Field(default=None, ge=1, le=TIMEOUT_LIMIT_MS)
    """Time for the answer; after it the canvas's fallback answers. Absent: the server's, which may be none."""


class RankedTitle(Message):
    """One title of a list."""

    title_id: str
    name: str
    score: float
    """Comparable within a list only."""
    position: int
    """From 0."""


class RankedRow(Message):
    """One row of a page."""

    row_id: str
    title: str
    """What it is called, in the request's language where there is a name in it."""
    position: int
    """From 0, top to bottom."""
    items: tuple[RankedTitle, ...]
    reason: str = ""
    """Why the member has it, and why it is where it is."""
    score: float | None = None
    """What it is worth there, comparable within an answer only; null where rows come as they are written."""


class RecommendResponse(Message):
    """The answer, by whom it was made, and everything that was not as asked."""

    request_id: str
    canvas: str
    at: AwareDatetime
    """The moment it was answered for."""
    age_s: float = 0.0
    """How long ago it was made, in seconds: above 0 where the server gives an answer that it kept."""
    model: str
    version: int | None
    """Registered version, null while no version is approved."""
    policy: str
    """`model`, or the name of the fallback that answered."""
    reason: str | None = None
    """Why a fallback answered."""
    items: tuple[RankedTitle, ...]
    """The best titles of the whole canvas; none on a canvas that ranks rows."""
    rows: tuple[RankedRow, ...] | None = None
    """The page, where rows were asked for: no title is in it twice, but for those of a chart. On a canvas that ranks
    rows: the rows, best first, each as it would be by itself."""
    absent: dict[str, str] = Field(default_factory=dict)
    """`row_id` of each row that is not on the page -> why."""
    notes: tuple[str, ...] = ()
    """What was unknown, missing or imputed, in words."""

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each title: of the page where there is one, row by row, else of the canvas's list."""
        columns = {"row_id": pl.String, "row": pl.String, "position": pl.Int64, "title_id": pl.String}
        columns |= {"name": pl.String, "score": pl.Float64}
        lists = [(None, None, self.items)] if self.rows is None else [(r.row_id, r.title, r.items) for r in self.rows]
        shown = [(i, title, x.position, x.title_id, x.name, x.score) for i, title, items in lists for x in items]
        return pl.DataFrame(shown, schema=columns, orient="row")
