"""The Ray engine's settings, and how it cuts entity rows and values by the hash of their keys, so that equal keys meet.

Every piece is a `Piece`: bytes of an Arrow stream with the numbers of its partition and of what it is part of. So the
pieces of views with different columns are rows of one table (`PIECES`), which any engine can group by partition.
Imports no Ray and no Feast: the workers import this module.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from playbill_feast.asof_join import ViewValues, as_of_join, like_key
from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.frames import MOMENT, in_utc


class RaySettings(BaseModel):
    """How the Ray engine of the offline store runs. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str | None = None
    """A running cluster: `host:port` or `auto`. None is that of RAY_ADDRESS, else one is started for each retrieval."""
    workers: PositiveInt | None = None
    """Partitions that are joined at once. None = as many as the cluster's CPUs allow."""
    cpus_per_worker: PositiveInt = 1
    """CPUs that each of them takes; polars uses as many threads."""
    partitions: PositiveInt | None = None
    """Parts that the entity keys are cut into by their hash. More parts need less memory each. None = 4 per worker."""
    start_timeout_s: PositiveFloat = 60.0
    """How long to wait for the cluster, and for its CPUs to be free, before giving up."""
    object_store_mib: int | None = Field(default=None, ge=75)
    """Shared memory of a cluster that is started here. None = Ray's own choice, 30 % of the machine's memory."""


ROW = "__row"
ROWS, JOINED = -1, -2  # What a piece is, in the place of its view's number: entity rows, joined features
PIECES = pa.schema(
    [("partition", pa.int64()), ("view", pa.int64()), ("start", pa.int64()), ("payload", pa.large_binary())]
)
BATCH_ROWS = 1_000_000  # Values that are held at once while they are cut, at most
_PARTITION = "__partition"


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """How one retrieval is cut, pickled once for all workers. Views of a group share partitions of entity rows."""

    views: Sequence[ViewValues]  # What to look up; their frames are lazy scans
    groups: Sequence[int]
    at: str
    first: datetime | None  # Earliest moment of the entity rows in UTC, None without rows
    last: datetime | None
    partitions: int  # Per group. Partition `p` of group `g` has the number `g * partitions + p`


def plan_partitions(rows: pl.DataFrame, at: str, views: Sequence[ViewValues], partitions: int) -> PartitionPlan:
    """Group the views by the columns and types they are looked up by."""
    group_numbers: dict[tuple[object, ...], int] = {}
    groups = []
    for view in views:
        schema = view.frame.collect_schema()
        key = tuple((name, str(schema[source])) for name, source in view.keys.items())
        groups.append(group_numbers.setdefault(key, len(group_numbers)))
    moments = rows.select(in_utc(at, rows.schema[at]).alias(at)).get_column(at)
    first, last = moments.min(), moments.max()
    assert first is None or isinstance(first, datetime)
    assert last is None or isinstance(last, datetime)
    return PartitionPlan(views, groups, at, first, last, partitions)


def cut_rows(rows: pl.DataFrame, plan: PartitionPlan) -> Iterator[pa.Table]:
    """Yield the entity rows' keys and moments, one table of one piece per partition and group."""
    for group in dict.fromkeys(plan.groups):
        view = plan.views[plan.groups.index(group)]
        keyless = pl.repeat(None, rows.height, dtype=pl.Int64, eager=True)
        part = partition_of(_typed_keys(rows, view), plan.partitions) if view.keys else keyless
        anywhere = pl.int_range(pl.len(), dtype=pl.Int64) % plan.partitions
        mine = rows.select(*view.keys, plan.at).with_row_index(ROW)
        mine = mine.with_columns(part.alias(_PARTITION)).with_columns(pl.col(_PARTITION).fill_null(anywhere))
        for number, piece in _by_partition(mine):
            yield _table([(group * plan.partitions + number, ROWS, 0, encode(piece))])


def cut_values(plan: PartitionPlan, view_number: int, start: int, length: int | None) -> Iterator[pa.Table]:
    """Read `length` rows of a view's scan (None = all) from `start` on, and cut them batch by batch into `PIECES`.

    Values that no entity row can see are left out; values without keys go to every partition.

    Raises:
        StoreDataError: The source cannot be read.
    """
    view = plan.views[view_number]
    frame = view.frame if length is None else view.frame.slice(start, length)
    seen = _visible(replace(view, frame=frame), plan)
    try:
        for number, values in enumerate(seen.collect_batches(chunk_size=BATCH_ROWS)):
            if values.height:
                yield _cut(plan, view_number, start + number, values)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")
        raise StoreDataError(
            f"feature view '{view.name}'", [Mistake("source", f"cannot be read: {reason}.")]
        ) from error


def join_pieces(plan: PartitionPlan, pieces: pa.Table) -> pa.Table:
    """Join the pieces of one partition, in any order; of the plan's scans only the columns are looked up.

    Returns one piece: row numbers and features of all views of the group. None where no entity row is.
    """
    held: dict[int, list[pl.DataFrame]] = {}
    order = sorted(range(pieces.num_rows), key=pieces["start"].to_pylist().__getitem__)
    for index in order:
        frame = decode(pieces["payload"][index].as_buffer())
        held.setdefault(pieces["view"][index].as_py(), []).append(frame)
    if ROWS not in held:
        return _table([])
    rows = pl.concat(held.pop(ROWS))
    partition = pieces["partition"][0].as_py()
    columns = [rows.select(ROW)]
    for number, group in enumerate(plan.groups):
        if group == partition // plan.partitions:
            view = plan.views[number]
            frame = pl.concat(held[number]) if number in held else view.frame.select(_columns(view)).head(0).collect()
            columns.append(as_of_join(rows, plan.at, replace(view, frame=frame.lazy(), counts=None)))
    return _table([(partition, JOINED, 0, encode(pl.concat(columns, how="horizontal")))])


def joined_features(plan: PartitionPlan, pieces: Sequence[pa.Table], height: int) -> pl.DataFrame:
    """Put the joined partitions together: the features of the views in order, one row per entity row in order."""
    by_group: dict[int, list[pl.DataFrame]] = {}
    for table in pieces:
        for partition, payload in zip(table["partition"].to_pylist(), table["payload"], strict=True):
            by_group.setdefault(partition // plan.partitions, []).append(decode(payload.as_buffer()))
    columns: dict[str, pl.Series] = {}
    for group, frames in by_group.items():
        joined = pl.concat(frames).sort(ROW)
        if joined.height != height or joined.get_column(ROW).n_unique() != height:
            raise AssertionError(f"group {group}: {joined.height} rows came back of {height}")
        columns |= {series.name: series for series in joined.drop(ROW)}
    return pl.DataFrame([columns[name] for view in plan.views for name in view.features])


def partition_of(keys: pl.DataFrame, partitions: int) -> pl.Series:
    """Return the partition of every row by its keys: int64 in [0, partitions), null where a key is null.

    The hash is pandas' `hash_array`, plain arithmetic on values, so it is the same in every process, on every kind
    of processor and in every version of polars. Equal values of two types may hash differently: cast them first.
    """
    mixed = np.zeros(keys.height, np.uint64)
    for series in keys:
        mixed = pd.util.hash_array(mixed * np.uint64(31) + pd.util.hash_array(_hashable(series)))
    numbered = pl.DataFrame({_PARTITION: (mixed % np.uint64(partitions)).astype(np.int64)})
    known = pl.all_horizontal(pl.all().is_not_null())
    return numbered.select(pl.when(keys.select(known).to_series()).then(_PARTITION)).to_series()


def encode(frame: pl.DataFrame) -> bytes:
    """Return a frame as an Arrow stream."""
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    return stream.getvalue()


def decode(payload: pa.Buffer) -> pl.DataFrame:
    """Return the frame of an Arrow stream."""
    return pl.read_ipc_stream(pa.BufferReader(payload))


def _hashable(series: pl.Series) -> np.ndarray[Any, Any]:
    """Return values as numbers or text such that equal values of one type are equal here too."""
    kind = series.dtype
    if kind.is_float():
        # Adding zero makes one of the two zeros.
        return series.cast(pl.Float64).fill_null(0).fill_nan(float("nan")).to_numpy() + 0.0
    if kind.is_integer() or kind.is_temporal() or kind == pl.Boolean():
        return (series if kind.is_integer() else series.to_physical().cast(pl.Int64)).fill_null(0).to_numpy()
    text = series.bin.encode("hex") if kind == pl.Binary() else series.cast(pl.String)
    return text.fill_null("").to_numpy().astype(object)


def _visible(view: ViewValues, plan: PartitionPlan) -> pl.LazyFrame:
    """Return the values of a view that count, have a key, and are not after the last row or expired for the first."""
    moment = in_utc(view.at, view.frame.collect_schema()[view.at])
    frame = view.rows().select(_columns(view)).filter(moment <= pl.lit(plan.last, dtype=MOMENT))
    if view.ttl is not None:
        frame = frame.filter(moment >= pl.lit(plan.first, dtype=MOMENT) - view.ttl)
    return frame.drop_nulls(list(view.keys.values()))


def _cut(plan: PartitionPlan, view_number: int, place: int, values: pl.DataFrame) -> pa.Table:
    view = plan.views[view_number]
    offset = plan.groups[view_number] * plan.partitions
    if not view.keys:
        payload = encode(values)
        return _table([(offset + number, view_number, place, payload) for number in range(plan.partitions)])
    part = partition_of(values.select(list(view.keys.values())), plan.partitions)
    pieces = _by_partition(values.with_columns(part.alias(_PARTITION)))
    return _table([(offset + number, view_number, place, encode(piece)) for number, piece in pieces])


def _by_partition(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    pieces = frame.partition_by(_PARTITION, as_dict=True, include_key=False, maintain_order=True)
    return ((int(number), piece) for (number,), piece in pieces.items())


def _columns(view: ViewValues) -> list[str]:
    created = [view.created] if view.created else []
    return list(dict.fromkeys([*view.keys.values(), view.at, *created, *view.features.values()]))


def _typed_keys(rows: pl.DataFrame, view: ViewValues) -> pl.DataFrame:
    """Return the keys of the rows as the type that the view's keys have, as the join compares them."""
    types = view.frame.collect_schema()
    return rows.select(like_key(name, rows.schema[name], types[source]) for name, source in view.keys.items())


def _table(pieces: Sequence[tuple[int, int, int, bytes]]) -> pa.Table:
    return pa.table([list(column) for column in zip(*pieces, strict=True)] or [[], [], [], []], schema=PIECES)
