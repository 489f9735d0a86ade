"""How every part of Playbill reaches Ray: the cluster of `services.ray_address` or RAY_ADDRESS, else one started here.

A cluster that runs already is joined by its address alone: Ray refuses options that size a cluster there. Ray is
imported when it is first needed, so that an address can be checked without it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from playbill.errors import ConfigError, ServiceError

ENVIRONMENT = "RAY_ADDRESS"
"""Set by Ray Jobs for the driver, and by KubeRay in every pod."""
HERE = "local"
"""The address that starts a cluster on this machine even where the environment names another."""
START_TIMEOUT_S = 60.0
_HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS
"""How every HTTP/2 connection begins, RFC 9113 section 3.4; a server answers with settings of its own."""

# Read by `ray.init`: no telemetry, and workers without a GPU keep CUDA_VISIBLE_DEVICES as it is.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def cluster_address(configured: str | None) -> str | None:
    """Return the address of the cluster to use, RAY_ADDRESS where none is configured; None starts one on this machine.

    Raises:
        ConfigError: It is an address of Ray Client.
    """
    address = configured or os.environ.get(ENVIRONMENT) or None
    if address is not None and address.startswith("ray://"):
        host = address.removeprefix("ray://").partition(":")[0] or "HEAD"
        raise ConfigError(
            f"{address} is an address of Ray Client, which training and Ray Data are not made for. Submit the command "
            f"as a Ray job, which sets {ENVIRONMENT} itself: ray job submit --address http://{host}:8265 -- "
            f"playbill train MODEL. On a machine of the cluster, {host}:6379 or auto works too."
        )
    return None if address == HERE else address


@contextmanager
def connected(
    address: str | None,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    local: Mapping[str, Any] | None = None,
    runtime_env: dict[str, Any] | None = None,
) -> Iterator[None]:
    """Join a cluster, or start one on this machine, and leave it afterwards.

    Inside a process that is connected already, that cluster is used and stays connected.

    Args:
        address: As configured, see `cluster_address`.
        start_timeout_s: How long to wait for an answer at the address.
        local: Options of `ray.init` for a cluster that is started here.
        runtime_env: Of this process's tasks and actors.

    Raises:
        ConfigError: It is an address of Ray Client.
        ServiceError: There is no cluster at the address, or none can be started here.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    join(address, start_timeout_s=start_timeout_s, local=local, runtime_env=runtime_env)
    try:
        yield
    finally:
        ray.shutdown()


def join(
    address: str | None,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    local: Mapping[str, Any] | None = None,
    runtime_env: dict[str, Any] | None = None,
) -> None:
    """Join or start a cluster as `connected` does, and stay connected until this process ends."""
    import ray
    from ray.exceptions import RayError

    where = cluster_address(address)
    options: dict[str, Any] = {"address": HERE, "include_dashboard": False, **(local or {})}
    try:
        if where is not None:
            _knock(where, start_timeout_s)
            options = {"address": where}
        ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=runtime_env, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ServiceError(f"no Ray cluster at {where or 'this machine'}: {error}") from None


def _knock(address: str, timeout_s: float) -> None:
    """See whether a gRPC server answers at `host:port`: Ray itself tries for ten minutes and then ends the process.

    A word such as `auto` is left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(_HTTP2_HELLO)
        answer = connection.recv(len(_HTTP2_SETTINGS))
    if answer[3:4] != _HTTP2_SETTINGS[3:4]:
        raise ConnectionError("what listens there is no Ray")
