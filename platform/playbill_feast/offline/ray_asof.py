"""The as-of join over Ray Data, for logs that outgrow a machine. The only module of this room that imports Ray.

Entity rows and view values are cut by a hash of the entity key (`offline.partitions`), and each partition is joined by
the local engine's `as_of_join`, so the answers are the same. All views go through one Ray Data job: a shuffle costs
seconds however small it is, and workers that have no slice of one view left read those of the next. Views that are
looked up by the same columns share their partitions of the entity rows.

Values never pass through the driver. It counts the rows of files on disks from their footers, and workers read slices
of them; a source behind a URL or in a database is read by one worker as a stream. All values of a key meet in one
partition: a hot key makes that one larger, and nothing is multiplied out. Workers import polars, pandas and this
module, but not Feast.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import pyarrow as pa
import ray
import ray.data
from ray.data.context import ShuffleStrategy
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group

from playbill_feast.asof_join import ViewValues, as_of_join
from playbill_feast.errors import StoreConfigError, StoreError, StoreServiceError
from playbill_feast.offline.partitions import (
    BATCH_ROWS,
    PIECES,
    PartitionPlan,
    RaySettings,
    cut_rows,
    cut_values,
    join_pieces,
    joined_features,
    plan_partitions,
)

PARTITIONS_PER_WORKER = 4
RAY_ADDRESS = "RAY_ADDRESS"  # Variable that Ray Jobs and KubeRay set to the cluster's address
STARTED_HERE = "local"  # The address that starts a cluster on this machine even where the environment names another

_HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# How every HTTP/2 connection begins, RFC 9113 section 3.4; a server answers with settings of its own.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS


def join_partitioned(rows: pl.DataFrame, at: str, views: Sequence[ViewValues], settings: RaySettings) -> pl.DataFrame:
    """Look up the views' values for every row on a Ray cluster. The rules are those of `as_of_join`.

    `rows` and the result are held by this process; the views' scans must be readable by every worker: shared folders,
    object stores, databases. Returns the output columns of all views in order, one row per row of `rows`, in order.

    Raises:
        StoreDataError: A column is missing, or keys of different kinds would be compared.
        StoreServiceError: There is no cluster, it is too small for `settings`, or busy for longer than the time-out.
    """
    nothing = pl.concat([as_of_join(rows.head(0), at, view) for view in views], how="horizontal")
    if rows.is_empty():
        return nothing
    with connected(settings):
        workers = claimed_workers(settings)
        plan = plan_partitions(rows, at, views, settings.partitions or PARTITIONS_PER_WORKER * workers)
        with _ours_while_it_runs():
            pieces = _run(rows, plan, workers, settings.cpus_per_worker)
    return joined_features(plan, pieces, rows.height)


@contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Join the project's Ray cluster, or start one on this machine, and leave it afterwards.

    In a process that is connected already, that cluster is used and stays connected.

    Raises:
        StoreConfigError: It is an address of Ray Client.
        StoreServiceError: There is no cluster at the address, or none can be started here.
    """
    if ray.is_initialized():
        yield
        return
    where = settings.address or os.environ.get(RAY_ADDRESS) or STARTED_HERE
    if where.startswith("ray://"):
        raise StoreConfigError(
            f"{where} is an address of Ray Client, which Ray Data is not made for. Run this as a Ray job "
            "(`ray job submit`), or on a machine of the cluster with `host:6379` or `auto`."
        )
    # Read by `ray.init`: no telemetry, and workers without a GPU keep CUDA_VISIBLE_DEVICES as it is.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"address": where}
    if where == STARTED_HERE:
        options["include_dashboard"] = False
        if settings.object_store_mib is not None:
            options["object_store_memory"] = settings.object_store_mib * 2**20
    threads = {"env_vars": {"POLARS_MAX_THREADS": str(settings.cpus_per_worker)}}
    try:
        if where != STARTED_HERE:
            _require_grpc(where, settings.start_timeout_s)
        ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=threads, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        at = "this machine" if where == STARTED_HERE else where
        raise StoreServiceError(f"no Ray cluster at {at}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_grpc(address: str, timeout_s: float) -> None:
    """See whether a gRPC server answers at `host:port`: Ray itself tries for ten minutes and then ends the process.

    A word such as `auto` is left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(_HTTP2_PREFACE)
        answer = connection.recv(len(_HTTP2_SETTINGS))
    if answer[3:4] != _HTTP2_SETTINGS[3:4]:
        raise ConnectionError("what listens there is no Ray")


def claimed_workers(settings: RaySettings) -> int:
    """Return how many partitions are joined at once, after the cluster has shown that it can give them CPUs.

    Ray itself waits without end for what a cluster does not have.

    Raises:
        StoreServiceError: The cluster has fewer CPUs than that, or did not free them within `start_timeout_s`.
    """
    cpus = settings.cpus_per_worker
    total = ray.cluster_resources().get("CPU", 0.0)
    workers = settings.workers or max(1, math.floor(total / cpus))
    demand = f"offline_store.ray asks for {workers} worker(s) of {cpus} CPU(s)"
    if workers * cpus > total:
        raise StoreServiceError(f"{demand}, but the Ray cluster has {total:g}. Ask for fewer, or add nodes.")
    # CPUs that lie on several nodes, or are held by others, show only when they are demand for.
    group = placement_group([{"CPU": cpus}] * (settings.workers or 1))
    try:
        if not group.wait(settings.start_timeout_s):
            free = ray.available_resources().get("CPU", 0.0)
            raise StoreServiceError(
                f"{demand}, but the Ray cluster did not free them in {settings.start_timeout_s:g} s: {free:g} of its "
                f"{total:g} CPUs are free, and one worker's must lie on one node. Ask for fewer, or try again later."
            )
    finally:
        remove_placement_group(group)
    return workers


def _run(rows: pl.DataFrame, plan: PartitionPlan, workers: int, cpus: int) -> list[pa.Table]:
    """Return the joined pieces of all partitions, in any order."""
    shared = ray.put(plan)
    limits = {"num_cpus": cpus, "concurrency": workers, "batch_size": None, "batch_format": "pyarrow"}
    slices = _slices(plan, workers)
    values = ray.data.from_items(slices, override_num_blocks=len(slices))
    values = values.map_batches(_cut, fn_args=[shared], **limits)
    pieces = values.union(ray.data.from_arrow(list(cut_rows(rows, plan))))
    partitions = plan.partitions * (max(plan.groups) + 1)
    del limits["batch_size"]
    joined = pieces.groupby("partition", num_partitions=partitions).map_groups(_join, fn_args=[shared], **limits)
    try:
        return list(joined.iter_batches(batch_size=None, batch_format="pyarrow"))
    except Exception as error:
        raise _explained(error) from None


def _slices(plan: PartitionPlan, workers: int) -> list[dict[str, int | None]]:
    """Return what one task reads each. A view that cannot be read from a place on is read by one worker."""
    slices: list[dict[str, int | None]] = []
    for number, view in enumerate(plan.views):
        if not view.sliceable:
            slices.append({"view": number, "start": 0, "length": None})
            continue
        height = int(view.frame.select(pl.len()).collect().item())
        length = max(1, min(BATCH_ROWS, math.ceil(height / workers)))
        slices += [{"view": number, "start": start, "length": length} for start in range(0, max(1, height), length)]
    return slices


def _cut(batch: pa.Table, shared: ray.ObjectRef[PartitionPlan]) -> Iterator[pa.Table]:
    plan = ray.get(shared)
    for item in batch.to_pylist():
        yield PIECES.empty_table()
        yield from cut_values(plan, item["view"], item["start"], item["length"])


def _join(pieces: pa.Table, shared: ray.ObjectRef[PartitionPlan]) -> pa.Table:
    return join_pieces(ray.get(shared), pieces)


@contextmanager
def _ours_while_it_runs() -> Iterator[None]:
    """Set what is global in Ray Data, and set it back: the shuffle by tasks, and silence.

    The older shuffle by actors holds CPUs of its own, which a cluster of one CPU does not have.
    """
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.shuffle_strategy, context.enable_progress_bars, log.level
    context.shuffle_strategy, context.enable_progress_bars = ShuffleStrategy.SHUFFLE_V2, False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.shuffle_strategy, context.enable_progress_bars = before[:2]
        log.setLevel(before[2])


def _explained(error: BaseException) -> BaseException:
    """Return the worker's own error where it is one of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StoreError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    if isinstance(error, RayError):
        return StoreServiceError(f"the as-of join on Ray failed: {error}")
    return error
