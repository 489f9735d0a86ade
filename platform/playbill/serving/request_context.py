"""What a client's request says about itself, as its canvas reads it; everything else is noted or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from playbill.datasets.encoding.text import normalise_query
from playbill.definitions.specs import CONTEXTS, CanvasSpec, ContextColumn
from playbill.definitions.specs.context import BUILT_IN, own_fields
from playbill.errors import RequestError, nearest
from playbill.ranking.candidates import ABSENT
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import ActiveModel
from playbill.serving.messages import ContextValue, NotFoundError, RecommendRequest, not_found


@dataclass(frozen=True)
class ParsedContext:
    """What is read of a request, beside who asks and when.

    Args:
        query: What can be read of what was typed; None = nothing.
        source: Column of the source title.
        own: Values of context fields of outside packages.
    """

    query: str | None
    source: int
    own: Mapping[str, ContextValue]


def parse_context(
    served: ActiveModel, canvas: CanvasSpec, request: RecommendRequest, notes: list[str]
) -> ParsedContext:
    """Read a request's query, source title and own fields; what was not as asked goes to `notes`.

    Raises:
        NotFoundError: The source title does not exist.
        RequestError: The canvas needs a query or a source title and none was given, or a field is unknown or of
            another type.
    """
    if "member" not in canvas.context and request.member_id is not None:
        notes.append(f"canvas '{canvas.name}' reads no member: the model ranks for all members alike")
    query = _query(canvas, request, notes)
    return ParsedContext(query, _source(served, canvas, request, notes), _own(canvas, request, notes))


def country_of(served: ActiveModel, query: str | None, known: str, notes: list[str]) -> str:
    """Return the country to answer for: the one asked for, else the member's; one never seen is unknown."""
    if query is None:
        return known
    if query != UNKNOWN_COUNTRY and query not in served.snapshot.countries:
        notes.append(f"country '{query}' was never seen: it counts as unknown ({UNKNOWN_COUNTRY})")
        return UNKNOWN_COUNTRY
    return query


def availability_country(served: ActiveModel, country: str, at: datetime, notes: list[str]) -> str:
    """Return the country whose titles may be shown.

    In an unknown country these are the titles available everywhere. Where there are none, those of the country of most
    members are shown, and a note says so.
    """
    snapshot = served.snapshot
    if country != UNKNOWN_COUNTRY or snapshot.main_country is None or snapshot.catalogue.available(at, country).any():
        return country
    notes.append(
        f"the country is not known and no title is available everywhere: these are the titles of "
        f"{snapshot.main_country}, where most members are"
    )
    return snapshot.main_country


def _query(canvas: CanvasSpec, request: RecommendRequest, notes: list[str]) -> str | None:
    if "query" not in canvas.context:
        if request.query:
            notes.append(f"canvas '{canvas.name}' reads no query: it was ignored")
        return None
    if request.query is None:
        raise RequestError(f"canvas '{canvas.name}' needs a query; an empty one asks for its page before the first key")
    typed = normalise_query(request.query)
    notes += typed.notes
    return typed.text or None


def _source(served: ActiveModel, canvas: CanvasSpec, request: RecommendRequest, notes: list[str]) -> int:
    catalogue, title = served.snapshot.catalogue, request.source_title_id
    if "source_title" not in canvas.context:
        if title is not None:
            notes.append(f"canvas '{canvas.name}' reads no source title: it was ignored")
        return ABSENT
    if title is None:
        raise RequestError(f"canvas '{canvas.name}' needs a source title")
    column = catalogue.column(title)
    if column != ABSENT:
        return column
    if named := catalogue.find(title):
        ids = " or ".join(f"'{title_id}'" for title_id in named)
        raise NotFoundError(f"source_title_id: '{title}' is a title's name; the id is {ids}")
    raise not_found("title", title, catalogue.title_ids)


def _own(canvas: CanvasSpec, request: RecommendRequest, notes: list[str]) -> dict[str, ContextValue]:
    found: dict[str, ContextValue] = {}
    fields = own_fields(canvas.context)
    for name, value in request.context.items():
        if name in fields:
            found[name] = _checked(name, fields[name], value)
        elif name in BUILT_IN:
            raise RequestError(
                f"context.{name}: '{name}' is no field of an outside package; see the request's own keys"
            )
        elif name in CONTEXTS:
            notes.append(f"canvas '{canvas.name}' reads no {name}: it was ignored")
        else:
            close = nearest(name, fields)
            hint = f" Did you mean '{close}'?" if close else f" Canvas '{canvas.name}' reads: {_listed(fields)}."
            raise RequestError(f"context.{name}: unknown context field '{name}'.{hint}")
    notes += [f"context field '{name}' was not given: it is imputed" for name in fields if name not in found]
    return found


def _checked(name: str, field: ContextColumn, value: ContextValue) -> ContextValue:
    if field.kind == "numeric" and isinstance(value, str | bool):
        raise RequestError(f"context.{name}: '{value}' is no number")
    return value


def _listed(fields: Mapping[str, ContextColumn]) -> str:
    return ", ".join(fields) or "none of outside packages"
