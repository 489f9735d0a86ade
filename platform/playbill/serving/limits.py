"""What a client may send, and how long it may take: the size of a body, the time of its headers and of the body.

uvicorn waits for headers and bodies for good, so a handful of slow clients would keep connections open for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from playbill.serving.refusals import refusal
from playbill.settings import LimitsSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 2.0
"""How long the rest of a body too large is read and dropped: a connection that is reset takes the answer with it."""

_LATE_HEADERS = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)
_CLOSE = {"Connection": "close"}


class TimedHeaders(H11Protocol):
    """One connection that is closed, with 408, when the headers of a request take too long.

    The time begins when the connection is made, and on one that was used before with the first byte of the next
    request; until then it is idle, and uvicorn closes it after its own `timeout_keep_alive`.
    """

    header_seconds: float

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; those that complete the headers stop the time."""
        super().data_received(data)
        if not self._in_headers():
            self._stop_timer()
        elif self._timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _in_headers(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_headers() and not self.transport.is_closing():
            self.transport.write(_LATE_HEADERS)
            self.transport.close()


class LimitedBody:
    """Reads the whole body before an app sees the request: 413 when it is too large, 408 when it takes too long.

    Args:
        app: What comes after.
        most_bytes: Size of a body.
        seconds: From the end of the headers to the end of the body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            late = refusal(408, f"the body did not arrive within {self._seconds:g} s", headers=_CLOSE)
            await late(scope, receive, send)
            return
        if body is None:
            await self._too_large(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> list[Message] | None:
        """Return the messages of the body, None when there is more than may be."""
        if _declared(scope) > self._most:
            return None
        messages, size = [], 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_linger(message: Message) -> None:
            last = message["type"] == "http.response.body"
            await send({**message, "more_body": True} if last else message)
            if last:
                await _drop(receive)
                await send({"type": "http.response.body", "body": b""})

        text = f"the body is larger than {self._most:,} bytes"
        await refusal(413, text, headers=_CLOSE)(scope, receive, send_and_linger)


async def _drop(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        return


def _declared(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def next_message() -> Message:
        return next(waiting, None) or await receive()

    return next_message


def server_config(app: Any, host: str, port: int, limits: LimitsSettings, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves an app: HTTP alone, by h11, which bounds the size of headers, and in time."""
    protocol = type("Connection", (TimedHeaders,), {"header_seconds": limits.header_seconds})
    return uvicorn.Config(app, host=host, port=port, http=protocol, ws="none", log_level="warning", **more)
