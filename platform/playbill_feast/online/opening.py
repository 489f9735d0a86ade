"""The database and the moment that a configuration and a context ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

from feast.repo_config import RepoConfig

from playbill.clock import WallClock
from playbill_feast.online.rows import Rows
from playbill_feast.online.sqlite_backend import SqliteBackend
from playbill_feast.online.writing import moment_us

_NOW: ContextVar[datetime | None] = ContextVar("reading_at", default=None)


@contextmanager
def reading_at(moment: datetime) -> Iterator[None]:
    """Count ages to a given moment instead of now, in this thread or task.

    Raises:
        ValueError: The moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    token = _NOW.set(moment.astimezone(UTC))
    try:
        yield
    finally:
        _NOW.reset(token)


def now_us(config: RepoConfig) -> int | None:
    """Return the moment that ages are counted to, None where the configuration asks for no limit."""
    if not config.online_store.enforce_ttl:
        return None
    return moment_us(_NOW.get() or WallClock().now())


def open_database(config: RepoConfig) -> Rows:
    """Return the rows that a configuration names. Redis' client is imported only where it is used."""
    settings = config.online_store
    if settings.backend == "redis":
        from playbill_feast.online.redis_backend import RedisBackend

        redis = RedisBackend(settings.connection_string, settings.key_ttl_seconds, settings.busy_timeout_s)
        return Rows(redis, redis.name)
    path = Path(settings.path)
    if not path.is_absolute():
        path = Path(config.repo_path or os.getcwd()) / path
    return Rows(SqliteBackend(path, settings.busy_timeout_s), f"online store {path}")
