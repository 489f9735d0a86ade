"""Whether the online store can be read, looked at without Feast."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.config import Workspace

ANSWERS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class OnlineStoreState:
    """What was found of a workspace's online store."""

    where: str
    """A file's path or a Redis URL without its password."""
    reachable: bool
    """Redis answers; a SQLite file can always be made."""
    loaded: bool
    """It holds something: the file is there, the Redis database is not empty."""
    problem: str = ""

    @property
    def imputed_because(self) -> str | None:
        """Why requests are answered with imputed features; None where values are there."""
        if not self.reachable:
            return f"the online store {self.where} does not answer: {self.problem}"
        return None if self.loaded else f"the online store {self.where} is empty: run `playbill materialize`"


def online_store_state(workspace: Workspace) -> OnlineStoreState:
    """Look whether a workspace's online store answers and holds values.

    Raises:
        ConfigError: services.online_store in playbill.toml cannot be used.
    """
    path, where = workspace.online_store_path, workspace.online_store
    if path is not None:
        return OnlineStoreState(where, reachable=True, loaded=path.is_file())
    try:
        import redis
    except ImportError:
        return OnlineStoreState(where, False, False, "redis is not installed: pip install 'playbill[redis]'")
    client = redis.Redis.from_url(workspace.online_store_url, socket_timeout=ANSWERS_WITHIN_S)
    try:
        return OnlineStoreState(where, reachable=True, loaded=client.dbsize() > 0)
    except redis.RedisError as error:
        return OnlineStoreState(where, False, False, str(error))
    finally:
        client.close()
