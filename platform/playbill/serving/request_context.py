"""Stage 1, parse: check a request and read it as its canvas reads it; everything else is noted or refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from playbill.clock import Clock
from playbill.datasets.encoding.text import normalise_query
from playbill.definitions.specs import CONTEXTS, CanvasSpec, ContextColumn
from playbill.definitions.specs.context import BUILT_IN
from playbill.errors import RequestError, nearest
from playbill.ranking.candidates import ABSENT
from playbill.schema import text_problem
from playbill.serving.active_model import ActiveCanvas, ActiveModel
from playbill.serving.messages import ContextValue, NotFoundError, RecommendRequest, not_found
from playbill.serving.ranking_context import ParsedContext

INSTANT = timedelta(microseconds=1)
"""State is read strictly before a moment. A request without one comes after every acknowledged event, also those at the
very moment of a clock that stands still, so its moment is one resolution step after the clock's."""


def parse(active: ActiveModel, request: RecommendRequest, clock: Clock) -> ParsedContext:
    """Read a request's moment, query, source title and own fields.

    Raises:
        NotFoundError: The canvas or the source title does not exist.
        RequestError: The canvas needs a query or a source title and none was given, or a field is unknown or of
            another type.
    """
    canvas = active.canvas(request.canvas)
    query, of_query = _query(canvas.spec, request)
    source, of_source = _source(active, canvas.spec, request)
    own, of_own = _own(canvas, request)
    notes = [*canvas.notes, *_member_notes(canvas.spec, request), *of_query, *of_source, *of_own]
    return ParsedContext(active, canvas, request, request.at or clock.now() + INSTANT, query, source, own, tuple(notes))


def require_rows(active: ActiveModel, request: RecommendRequest) -> RecommendRequest:
    """Return a request for the rows of a canvas.

    Raises:
        NotFoundError: The canvas does not exist.
        RequestError: It has no rows.
    """
    canvas = active.canvas(request.canvas)
    with_rows = [name for name, one in active.canvases.items() if one.rows and one.spec.target == "title"]
    if canvas.spec.name not in with_rows:
        has = f"These have: {', '.join(with_rows)}." if with_rows else "No canvas of this model has any."
        raise RequestError(f"canvas '{request.canvas}' has no rows, so it has no page. {has}")
    return request.model_copy(update={"rows": True})


def find_title(active: ActiveModel, text: str) -> str:
    """Return the id of the title with this id or, case ignored, this name.

    Raises:
        NotFoundError: No title has it; the nearest name is suggested.
        RequestError: Several titles have the name, and their ids are listed; or this is no text.
    """
    if problem := text_problem(text):
        raise RequestError(f"title: {problem}")
    catalogue = active.snapshot.catalogue
    titles = catalogue.find(text)
    if not titles:
        raise not_found("title", text, catalogue.known_names())
    if len(titles) > 1:
        raise RequestError(f"'{text}' is the name of several titles, use an id: {', '.join(titles)}")
    return titles[0]


def _member_notes(canvas: CanvasSpec, request: RecommendRequest) -> list[str]:
    if "member" in canvas.context or request.member_id is None:
        return []
    return [f"canvas '{canvas.name}' reads no member: the model ranks for all members alike"]


def _query(canvas: CanvasSpec, request: RecommendRequest) -> tuple[str | None, list[str]]:
    if "query" not in canvas.context:
        return None, [f"canvas '{canvas.name}' reads no query: it was ignored"] if request.query else []
    if request.query is None:
        raise RequestError(f"canvas '{canvas.name}' needs a query; an empty one asks for its page before the first key")
    typed = normalise_query(request.query)
    return typed.text or None, list(typed.notes)


def _source(active: ActiveModel, canvas: CanvasSpec, request: RecommendRequest) -> tuple[int, list[str]]:
    catalogue, title = active.snapshot.catalogue, request.source_title_id
    if "source_title" not in canvas.context:
        return ABSENT, [] if title is None else [f"canvas '{canvas.name}' reads no source title: it was ignored"]
    if title is None:
        raise RequestError(f"canvas '{canvas.name}' needs a source title")
    column = catalogue.column(title)
    if column != ABSENT:
        return column, []
    if named := catalogue.find(title):
        ids = " or ".join(f"'{title_id}'" for title_id in named)
        raise NotFoundError(f"source_title_id: '{title}' is a title's name; the id is {ids}")
    raise not_found("title", title, catalogue.title_ids)


def _own(canvas: ActiveCanvas, request: RecommendRequest) -> tuple[dict[str, ContextValue], list[str]]:
    values: dict[str, ContextValue] = {}
    notes, fields = [], canvas.fields
    for name, value in request.context.items():
        if name in fields:
            values[name] = _checked(name, fields[name], value)
        elif name in BUILT_IN:
            raise RequestError(
                f"context.{name}: '{name}' is no field of an outside package; see the request's own keys"
            )
        elif name in CONTEXTS:
            notes.append(f"canvas '{canvas.spec.name}' reads no {name}: it was ignored")
        else:
            close = nearest(name, fields)
            hint = f" Did you mean '{close}'?" if close else f" Canvas '{canvas.spec.name}' reads: {_listed(fields)}."
            raise RequestError(f"context.{name}: unknown context field '{name}'.{hint}")
    missing = [f"context field '{name}' was not given: it is imputed" for name in fields if name not in values]
    return values, [*notes, *missing]


def _checked(name: str, field: ContextColumn, value: ContextValue) -> ContextValue:
    if field.kind == "numeric" and isinstance(value, str | bool):
        raise RequestError(f"context.{name}: '{value}' is no number")
    return value


def _listed(fields: Mapping[str, ContextColumn]) -> str:
    return ", ".join(fields) or "none of outside packages"
