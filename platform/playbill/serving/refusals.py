"""Requests that are not answered: one shape of body for all of them, the same in the OpenAPI document as over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field

from playbill.errors import DataError, PlaybillError, Problem, RequestError, ServiceError, StateError
from playbill.serving.admission import BusyError
from playbill.serving.messages import Message, NotFoundError

PROBLEMS_SHOWN = 50
_WIDTH = 200
"""Characters of a name or message that are repeated: what was sent may be long."""


class ProblemBody(Message):
    """One mistake."""

    where: str
    """The field, such as `query` or `events[3].title_id`."""
    what: str
    hint: str = ""
    """The nearest right thing, where one is known."""


class ErrorResponse(Message):
    """Why a request was not answered. Nothing of it was kept."""

    detail: str
    """In words."""
    problems: tuple[ProblemBody, ...] = Field(default=(), max_length=PROBLEMS_SHOWN)
    """Each mistake by itself, where there can be several."""


_MEANING = {
    400: "The body cannot be read, or this is no HTTP.",
    401: "A bearer token is needed.",
    404: "There is no such canvas or title.",
    408: "The body did not arrive in time. The connection is closed.",
    413: "The body is too large.",
    422: "Fields are missing, unknown or wrong; all of them are named.",
    429: "Too many requests are waiting. Retry after the seconds of `Retry-After`.",
    503: "What is needed to answer is not there, such as the database.",
}
ALWAYS = (400, 408, 413, 422, 429, 503)
"""What any POST may be answered with instead."""


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route, for its OpenAPI document."""
    found: dict[int | str, dict[str, Any]] = {
        code: {"model": ErrorResponse, "description": _MEANING[code]} for code in sorted(codes)
    }
    if 429 in found:
        found[429]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}}
    return found


def refusal(code: int, detail: str, problems: Iterable[Problem] = (), headers: dict[str, str] | None = None) -> Any:
    """Return the answer to a request that is refused."""
    shown = list(problems)[:PROBLEMS_SHOWN]
    listed = tuple(
        ProblemBody(where=_sendable(item.where), what=_sendable(item.what), hint=_sendable(item.hint)) for item in shown
    )
    body = ErrorResponse(detail=_encodable(detail), problems=listed)
    return JSONResponse(body.model_dump(exclude_defaults=True), code, headers)


def answer_errors(app: FastAPI) -> None:
    """Have an app answer every error a caller can act on with its status and text."""
    app.add_exception_handler(PlaybillError, _explain)
    app.add_exception_handler(RequestValidationError, _mistaken)


async def _mistaken(_request: Request, error: Exception) -> JSONResponse:
    """Name every mistake of a body without sending it back."""
    assert isinstance(error, RequestValidationError)
    problems = [Problem(_place(item["loc"]), item["msg"]) for item in error.errors()]
    shown = "; ".join(_sendable(str(item)) for item in problems[:PROBLEMS_SHOWN])
    more = len(problems) - PROBLEMS_SHOWN
    answer: JSONResponse = refusal(422, f"{shown}; and {more} more" if more > 0 else shown, problems)
    return answer


def _place(location: Sequence[int | str]) -> str:
    """Write where a mistake is as `context.weather` or `events[3]`."""
    names = [part for part in location if part not in ("body", "[key]")]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names)
    return text.removeprefix(".") or "body"


def _sendable(text: str) -> str:
    return _encodable(text if len(text) <= _WIDTH else f"{text[:_WIDTH]}...")


def _encodable(text: str) -> str:
    """Write half a character as its escape: UTF-8 has none for it."""
    return text.encode("utf-8", "backslashreplace").decode()


async def _explain(_request: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, BusyError) else None
    problems = error.problems if isinstance(error, DataError) else ()
    answer: JSONResponse = refusal(_status_of(error), str(error), problems, headers)
    return answer


def _status_of(error: Exception) -> int:
    match error:
        case BusyError():
            return HTTPStatus.TOO_MANY_REQUESTS
        case NotFoundError():
            return HTTPStatus.NOT_FOUND
        case RequestError() | DataError():
            return HTTPStatus.UNPROCESSABLE_ENTITY
        case ServiceError() | StateError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR
