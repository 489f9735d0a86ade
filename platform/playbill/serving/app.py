"""The HTTP server: `/v1/recommend`, `/v1/page`, `/v1/events`, `/healthz`, `/readyz`."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from playbill import __version__
from playbill.errors import ConfigError, DataError, PlaybillError, RequestError, ServiceError, StateError
from playbill.serving.events import EventDoor
from playbill.serving.messages import Message, NotFoundError, RecommendRequest, RecommendResponse
from playbill.serving.recommender import Recommender, require_rows
from playbill.serving.watcher import WatcherStatus

TOKEN_VARIABLE = "PLAYBILL_TOKEN"
EVENTS_LIMIT = 1000

_BEARER = HTTPBearer(auto_error=False)


class EventsRequest(Message):
    """Events to commit, all or none."""

    events: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=EVENTS_LIMIT)
    """Rows of `interactions`. `event_at`, `country`, `seq` and `recorded_at` may be left out."""


class EventsResponse(Message):
    """What was committed."""

    accepted: int
    duplicates: int
    """Events that were there already."""


@dataclass(frozen=True)
class Services:
    """What the server is made of.

    Args:
        recommender: Answers requests.
        events: Takes events.
        status: What the approval watcher found last.
        token: Bearer token that events need; None lets everyone on this machine send them.
        start: Called before the first request.
        stop: Called after the last one.
    """

    recommender: Recommender
    events: EventDoor
    status: Callable[[], WatcherStatus]
    token: str | None = None
    start: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None


def required_token(host: str, token: str | None) -> str | None:
    """Return the token events need at a host, None when they need none.

    Raises:
        ConfigError: The host can be reached from other machines and there is no token.
    """
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines: set {TOKEN_VARIABLE}, which POST /v1/events then needs"
        )
    return token or None


def create_app(services: Services) -> FastAPI:
    """Build the server."""
    app = FastAPI(title="Playbill", version=__version__, lifespan=_lifespan(services))
    app.state.services = services
    app.post("/v1/recommend")(recommend)
    app.post("/v1/page")(page)
    app.post("/v1/events", dependencies=[Depends(authorized)])(events)
    app.get("/healthz")(healthz)
    app.get("/readyz")(readyz)
    app.add_exception_handler(PlaybillError, _explain)
    app.add_exception_handler(RequestValidationError, _mistaken)
    return app


def services_of(request: Request) -> Services:
    """Return what the server is made of."""
    services: Services = request.app.state.services
    return services


Found = Annotated[Services, Depends(services_of)]


def authorized(services: Found, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Let a request through that carries the token, where one is needed."""
    if services.token is None:
        return
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), services.token.encode()):
        raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})


def recommend(body: RecommendRequest, services: Found) -> RecommendResponse:
    """Rank titles, or rows of titles, for a member on a canvas."""
    return services.recommender.recommend(body)


def page(body: RecommendRequest, services: Found) -> RecommendResponse:
    """Lay out a canvas's page for a member: its rows in order, each with its titles and why it is where it is."""
    served = services.recommender.slot.current
    return services.recommender.recommend(require_rows(served, body))


def events(body: EventsRequest, services: Found) -> EventsResponse:
    """Commit events. They are durable, and count in the member's next request, when this answers."""
    result = services.events.accept(body.events)
    return EventsResponse(accepted=result.accepted, duplicates=result.duplicates)


async def healthz() -> dict[str, str]:
    """Say that the process is up."""
    return {"status": "up"}


async def readyz(services: Found) -> JSONResponse:
    """Say which model is served, and what keeps a newer one from it. 503 while only fallbacks answer."""
    served, status = services.recommender.slot.current, services.status()
    ready = served.scorer is not None
    wanted = status.wanted.version if status.wanted else None
    body = {
        "ready": ready,
        "model": served.model,
        "version": served.version,
        "digest": served.digest,
        "snapshot_id": served.shelf.snapshot_id,
        "approved_version": wanted,
        "problem": status.problem or (None if ready else "no approved model: fallbacks answer"),
    }
    return JSONResponse(body, 200 if ready else 503)


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if services.start is not None:
            await run_in_threadpool(services.start)
        try:
            yield
        finally:
            if services.stop is not None:
                await run_in_threadpool(services.stop)

    return lifespan


async def _mistaken(_request: Request, error: Exception) -> JSONResponse:
    """Name every mistake of a body without sending it back: it may be long, or no text that can be sent."""
    assert isinstance(error, RequestValidationError)
    mistakes = [
        {"type": item["type"], "loc": [_sendable(part) for part in item["loc"]], "msg": _sendable(item["msg"])}
        for item in error.errors()
    ]
    return JSONResponse({"detail": mistakes}, 422)


def _sendable(part: Any) -> Any:
    """Write half a character as its escape: UTF-8 has none for it."""
    return part.encode("utf-8", "backslashreplace").decode() if isinstance(part, str) else part


async def _explain(_request: Request, error: Exception) -> JSONResponse:
    """Turn an error a caller can act on into its status and text."""
    body: Mapping[str, Any] = {"detail": str(error)}
    if isinstance(error, DataError):
        problems = [{"where": item.where, "what": item.what, "hint": item.hint} for item in error.problems]
        body = {**body, "problems": problems}
    return JSONResponse(body, _status_of(error))


def _status_of(error: Exception) -> int:
    match error:
        case NotFoundError():
            return 404
        case RequestError() | DataError():
            return 422
        case ServiceError() | StateError():
            return 503
        case _:
            return 500


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
