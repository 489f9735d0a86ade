"""The HTTP server: `/v1/recommend`, `/v1/page`, `/v1/events`, `/healthz`, `/readyz`."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field, WithJsonSchema

from playbill import __version__
from playbill.errors import ConfigError
from playbill.features import OnlineStoreState
from playbill.serving.admission import RequestQueue
from playbill.serving.limits import LimitedBody
from playbill.serving.messages import Message, RecommendRequest, RecommendResponse
from playbill.serving.pipeline import Recommender
from playbill.serving.recording import FILLED_COLUMNS, EventDoor, LogStatus
from playbill.serving.refusals import ALWAYS, answer_errors, refusals
from playbill.serving.request_context import require_rows
from playbill.serving.watcher import WatcherStatus
from playbill.settings import LimitsSettings
from playbill.tables.live_events import event_schema

TOKEN_VARIABLE = "PLAYBILL_TOKEN"
EVENTS_LIMIT = 1000

_BEARER = HTTPBearer(auto_error=False)


class EventsRequest(Message):
    """Events to commit, all or none."""

    events: tuple[Annotated[dict[str, Any], WithJsonSchema(event_schema(FILLED_COLUMNS))], ...] = Field(
        min_length=1, max_length=EVENTS_LIMIT
    )
    """Rows of `interactions`. `event_at`, `country`, `seq` and `recorded_at` may be left out."""


class EventsResponse(Message):
    """What was committed."""

    accepted: int
    duplicates: int
    """Events that were there already."""


class Health(Message):
    """That the process is up."""

    status: str = "up"


class Readiness(Message):
    """What is served, what keeps a newer version from it, and what waits."""

    ready: bool
    """False while only fallbacks answer."""
    model: str
    version: int | None
    digest: str | None
    snapshot_id: str
    """The state of the tables."""
    approved_version: int | None
    problem: str | None
    """Why what is approved is not served."""
    requests_waiting: int
    """Requests that wait to be scored."""
    requests_refused: int
    """Requests refused since the start because too many waited."""
    log_waiting: int
    """Answers that wait to be written to the request log."""
    dead_letters: int
    """Rows that could not be written and were set aside with the reason."""
    dead_letters_lost: int
    """Rows since the start that could not even be set aside."""
    features_problem: str | None = None
    """Why features are imputed: the online store does not answer, or holds nothing."""


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
        limits: What clients may send, and how many may wait.
        log_status: What waits for the request log, and what was set aside.
        online_store: Looks whether the online store answers and holds values.
    """

    recommender: Recommender
    events: EventDoor
    status: Callable[[], WatcherStatus]
    token: str | None = None
    start: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    log_status: Callable[[], LogStatus] = LogStatus
    online_store: Callable[[], OnlineStoreState | None] = lambda: None


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
    limits = services.limits
    app.state.services, app.state.waiting = services, RequestQueue(services.recommender, limits)
    refused = refusals(404, *ALWAYS)
    app.post("/v1/recommend", response_model=RecommendResponse, responses=refused)(recommend)
    app.post("/v1/page", response_model=RecommendResponse, responses=refused)(page)
    app.post("/v1/events", dependencies=[Depends(authorized)], responses=refusals(401, *ALWAYS))(events)
    app.get("/healthz", responses=refusals(408, 413))(healthz)
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": Readiness, "description": "Only fallbacks answer."}}
    app.get("/readyz", responses={**refusals(408, 413), **not_ready})(readyz)
    answer_errors(app)
    app.add_middleware(LimitedBody, most_bytes=1024 * limits.body_kb, seconds=limits.body_seconds)
    return app


def services_of(request: Request) -> Services:
    """Return what the server is made of."""
    services: Services = request.app.state.services
    return services


def waiting_of(request: Request) -> RequestQueue:
    """Return who decides which request is worked on next."""
    waiting: RequestQueue = request.app.state.waiting
    return waiting


Found = Annotated[Services, Depends(services_of)]
Queue = Annotated[RequestQueue, Depends(waiting_of)]


def authorized(services: Found, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Let a request through that carries the token, where one is needed."""
    if services.token is None:
        return
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), services.token.encode()):
        raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})


async def recommend(body: RecommendRequest, waiting: Queue) -> Response:
    """Rank titles, or rows of titles, for a member on a canvas."""
    return Response(await waiting.answer(body), media_type="application/json")


async def page(body: RecommendRequest, services: Found, waiting: Queue) -> Response:
    """Lay out a canvas's page for a member: its rows in order, each with its titles and why it is where it is."""
    served = services.recommender.handle.current
    return Response(await waiting.answer(require_rows(served, body)), media_type="application/json")


async def events(body: EventsRequest, services: Found, waiting: Queue) -> EventsResponse:
    """Commit events. They are durable, and count in the member's next request, when this answers."""
    result = await waiting.events.run(lambda _: services.events.accept(body.events))
    return EventsResponse(accepted=result.accepted, duplicates=result.duplicates)


async def healthz() -> Health:
    """Say that the process is up."""
    return Health()


async def readyz(services: Found, waiting: Queue, response: Response) -> Readiness:
    """Say which model is served, and what keeps a newer one from it. 503 while only fallbacks answer."""
    served, status, log = services.recommender.handle.current, services.status(), services.log_status()
    ready = served.scorer is not None
    store = await run_in_threadpool(services.online_store) if ready else None
    response.status_code = 200 if ready else 503
    return Readiness(
        ready=ready,
        model=served.model,
        version=served.version,
        digest=served.digest,
        snapshot_id=served.snapshot.snapshot_id,
        approved_version=status.wanted.version if status.wanted else None,
        problem=status.problem or (None if ready else "no approved model: fallbacks answer"),
        requests_waiting=waiting.scoring.waiting,
        requests_refused=waiting.scoring.refused,
        log_waiting=log.waiting,
        dead_letters=log.dead_letters,
        dead_letters_lost=log.lost,
        features_problem=store.imputed_because if store else None,
    )


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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
