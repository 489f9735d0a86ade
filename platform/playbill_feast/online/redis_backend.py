"""Packed rows in Redis: a string per row, so that a request for any number of views is one MGET."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from playbill_feast.connections import expand_variables
from playbill_feast.errors import StoreConfigError, StoreServiceError
from playbill_feast.online.backend import ReadRequest, RowBatch, WriteProgress

_ROWS_PER_SCRIPT = 1_000  # Redis answers nobody else while a script runs, a few milliseconds for this many
_SCRIPTS_PER_ROUND_TRIP = 20
_KEYS_PER_READ = 50_000
_KEYS_PER_SCAN = 5_000
_TRIED_AGAIN = 1
_RETRY_AFTER_S = 0.05

# Times are compared as pairs of 32-bit words: Lua's numbers are doubles, which cut 64-bit times.
_WRITE = """
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'version', 1)
local seconds = ARGV[3]
local function times(text, from)
  return struct.unpack('<I4i4I4i4', text, from)
end
local function stays(held, row)
  if #held ~= 16 then return false end
  local hel, heh, hcl, hch = times(held, 1)
  local nel, neh, ncl, nch = times(row, 9)
  if heh ~= neh then return heh > neh end
  if hel ~= nel then return hel > nel end
  if hch ~= nch then return hch > nch end
  return hcl > ncl
end
for i = 2, #KEYS do
  local row = ARGV[i + 2]
  if not stays(redis.call('GETRANGE', KEYS[i], 8, 23), row) then
    if seconds == '0' then redis.call('SET', KEYS[i], row)
    else redis.call('SET', KEYS[i], row, 'EX', seconds) end
  end
end
return #KEYS - 1
"""


class RedisBackend:
    """A Redis database.

    A script writes a thousand rows at a time and compares their times with what is there, so that no other writer comes
    between. Unlike SQLite, a long write that fails half-way has written its first rows; writing it again is harmless.

    The connection string is `host:port,db=0,password=...` as Feast writes it, or a `redis://` URL, with `${NAME}`
    filled in from the environment. Redis removes a row `key_ttl_seconds` after its last write, None for never. A
    connection or an answer is waited for `timeout_s` seconds, twice.
    """

    def __init__(self, connection_string: str, key_ttl_seconds: int | None = None, timeout_s: float = 5.0) -> None:
        self._options = redis_options(connection_string)
        self._timing = {"socket_timeout": timeout_s or None, "socket_connect_timeout": timeout_s or None}
        self._seconds = str(key_ttl_seconds or 0).encode()
        self._client: Any = redis.Redis(**self._options, **self._timing, retry=_retry(Retry))
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self.name = f"Redis at {self._options['host']}:{self._options['port']}"

    def create(self, view: str) -> None:
        """Do nothing: Redis needs no tables."""

    def drop(self, view: str) -> None:
        """Remove the view's rows and schemas."""
        with self._errors():
            for keys in self._scan(view):
                self._client.unlink(*keys)
            self._client.unlink(_meta_key(view))

    def read(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Read the rows of several views with one MGET."""
        keys, numbers = _redis_keys(requests)
        packed: list[bytes | None] = []
        with self._errors():
            for start in range(0, len(keys), _KEYS_PER_READ):
                packed += self._client.execute_command("MGET", *keys[start : start + _KEYS_PER_READ])
        return _aligned(packed, numbers)

    async def read_async(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Read the rows of several views with one MGET, without blocking the event loop."""
        keys, numbers = _redis_keys(requests)
        packed: list[bytes | None] = []
        with self._errors():
            for start in range(0, len(keys), _KEYS_PER_READ):
                packed += await self._async_client().execute_command("MGET", *keys[start : start + _KEYS_PER_READ])
        return _aligned(packed, numbers)

    def write(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Write rows, a thousand at a time, each thousand at once."""
        with self._errors():
            for batch in batches:
                for parts in _round_trips(batch):
                    pipeline = self._client.pipeline(transaction=False)
                    for part in parts:
                        pipeline.eval(*_script(view, part, self._seconds))
                    _report_progress(progress, pipeline.execute())

    async def write_async(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Write rows, a thousand at a time, without blocking the event loop."""
        with self._errors():
            for batch in batches:
                for parts in _round_trips(batch):
                    pipeline = self._async_client().pipeline(transaction=False)
                    for part in parts:
                        pipeline.eval(*_script(view, part, self._seconds))
                    _report_progress(progress, await pipeline.execute())

    def schemas(self, view: str) -> dict[int, str]:
        """Return the view's schemas by id."""
        with self._errors():
            held = self._client.hgetall(_meta_key(view))
        return {int(name[7:]): text.decode() for name, text in held.items() if name.startswith(b"schema:")}

    def scan(self, view: str) -> tuple[list[bytes], list[bytes]]:
        """Return every key and row, in no order."""
        prefix = len(_prefix(view))
        keys: list[bytes] = []
        rows: list[bytes] = []
        with self._errors():
            for names in self._scan(view):
                packed = self._client.mget(names)
                keys += [name[prefix:] for name, row in zip(names, packed, strict=True) if row is not None]
                rows += [row for row in packed if row is not None]
        return keys, rows

    def _scan(self, view: str) -> Iterator[list[bytes]]:
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, names = self._client.scan(cursor, match=_prefix(view) + b"*", count=_KEYS_PER_SCAN)
            # Redis may return a key twice.
            if fresh := [name for name in names if name not in seen]:
                seen.update(fresh)
                yield fresh
            if cursor == 0:
                return

    def version(self, view: str) -> object:
        """Return the number of scripts that wrote to the view."""
        with self._errors():
            return self._client.hget(_meta_key(view), "version")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _async_client(self) -> Any:
        # An asynchronous connection belongs to the event loop that opened it.
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            retry = _retry(AsyncRetry)
            self._async_clients[loop] = AsyncRedis(**self._options, **self._timing, retry=retry)
        return self._async_clients[loop]

    async def close_async(self) -> None:
        """Close the connections of the running event loop."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            host, port = self._options["host"], self._options["port"]
            raise StoreServiceError(
                f"Redis at {host}:{port} does not answer: {error} (tried {1 + _TRIED_AGAIN} times). Start it, for "
                f"example with `redis-server --port {port}`, or correct online_store.connection_string."
            ) from error


def _retry(kind: Any) -> Any:
    return kind(ConstantBackoff(_RETRY_AFTER_S), _TRIED_AGAIN)


def redis_options(text: str) -> dict[str, Any]:
    """Read a connection string.

    Raises:
        StoreConfigError: It names a variable that is not set, or is no connection string.
    """
    filled = expand_variables(text, "online_store.connection_string")
    try:
        options = redis.connection.parse_url(filled) if "://" in filled else _feast_options(filled)
    except ValueError as error:
        raise StoreConfigError(
            f"online_store.connection_string is not understood: {error}. Write host:port,db=0 or redis://host:port/0."
        ) from None
    options.pop("connection_class", None)
    return {"host": "localhost", "port": 6379, **options, **({"ssl": True} if filled.startswith("rediss:") else {})}


def _feast_options(text: str) -> dict[str, Any]:
    address, *settings = text.split(",")
    host, _, port = address.partition(":")
    if not host or "=" in host:
        raise ValueError(f"'{address}' is no host:port")
    options: dict[str, Any] = {"host": host, "port": int(port or 6379)}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"'{setting}' is no name=value (clusters are not supported)")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _name(view: str) -> bytes:
    return b"playbill:" + quote(view, safe="").encode()


def _prefix(view: str) -> bytes:
    return _name(view) + b":row:"


def _meta_key(view: str) -> bytes:
    return _name(view) + b":about"


def _redis_keys(requests: Sequence[ReadRequest]) -> tuple[list[bytes], list[list[int]]]:
    """Return Redis' keys without repeats, and for each request which of them its rows are; -1 for none."""
    numbers: dict[bytes, int] = {}
    places: list[list[int]] = []
    for request in requests:
        prefix = _prefix(request.view)
        places.append([-1 if key is None else numbers.setdefault(prefix + key, len(numbers)) for key in request.keys])
    return list(numbers), places


def _aligned(packed: list[bytes | None], places: list[list[int]]) -> list[list[bytes | None]]:
    rows = [*packed, None]
    return [[rows[place] for place in request] for request in places]


def _round_trips(batch: RowBatch) -> Iterator[list[RowBatch]]:
    starts = range(0, len(batch.keys), _ROWS_PER_SCRIPT)
    for first in range(0, len(starts), _SCRIPTS_PER_ROUND_TRIP):
        chosen = starts[first : first + _SCRIPTS_PER_ROUND_TRIP]
        yield [batch.part(start, start + _ROWS_PER_SCRIPT) for start in chosen]


def _script(view: str, part: RowBatch, seconds: bytes) -> list[Any]:
    prefix = _prefix(view)
    names = [_meta_key(view), *(prefix + key for key in part.keys)]
    return [_WRITE, len(names), *names, f"schema:{part.schema_id}", part.schema, seconds, *part.rows]


def _report_progress(progress: WriteProgress | None, written: list[int]) -> None:
    if progress:
        progress(sum(written))
