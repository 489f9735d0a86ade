"""The response to a request for online features: packed columns, turned into another form when that is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from playbill_feast.online.columns import python_values
from playbill_feast.online.feast_values import protos_of
from playbill_feast.online.row_codec import Flags, Ints, PackedRows, StoredColumn
from playbill_feast.online.row_layout import NEVER

_A_SECOND_US = 1_000_000
_NO_TIME = Timestamp()
FeatureVector: Any = GetOnlineFeaturesResponse.FeatureVector


@dataclass(frozen=True, slots=True)
class RequestColumn:
    """A column of the request itself: a join key, or request data of an on-demand view."""

    name: str
    values: Sequence[Any]
    protos: Sequence[Value] | None  # The same as Feast's values, where the request came as such or had to be converted
    kind: str


@dataclass(frozen=True, slots=True)
class OpenedView:
    """One view's part of a response."""

    names: Sequence[str]  # Names of the columns in the response
    types: Sequence[ValueType]
    rows: PackedRows
    expired: Flags | None  # Which rows are past the view's ttl, None for no row
    version: tuple[str, int] | None = None  # The view's name and version, where the request includes them

    def columns(self) -> list[StoredColumn]:
        """Return the columns with expired values taken out."""
        if self.expired is None:
            return self.rows.columns
        alive = ~self.expired
        return [
            StoredColumn(column.kind, column.values, alive if column.valid is None else column.valid & alive)
            for column in self.rows.columns
        ]

    def seconds(self) -> Ints:
        """Return event times in whole seconds, 0 where there is no row, as Feast has them."""
        times = self.rows.event_us
        return np.where(times == NEVER, 0, times // _A_SECOND_US)

    def statuses(self, column: StoredColumn) -> list[int]:
        """Return Feast's status of every value of a column."""
        found = self.rows.found
        states = np.where(found, FieldStatus.PRESENT, FieldStatus.NOT_FOUND)
        if column.valid is not None:
            states[found & ~column.valid] = FieldStatus.NULL_VALUE
        if self.expired is not None:
            states[self.expired] = FieldStatus.OUTSIDE_MAX_AGE
        return list(states.tolist())


class PackedOnlineResponse(OnlineResponse):  # type: ignore[misc]
    """Feast's `OnlineResponse` without its protobufs: they are built only when `proto` is read.

    `returned` names the columns that the response has; None is all of them.
    """

    def __init__(
        self,
        request_columns: Sequence[RequestColumn],
        views: Sequence[OpenedView],
        derived: Sequence[tuple[str, Any, ValueType | None]] = (),
        returned: frozenset[str] | None = None,
    ) -> None:
        self._request_columns, self._views, self._derived, self._returned = request_columns, views, derived, returned
        self._feature_types = {name: kind for view in views for name, kind in zip(view.names, view.types, strict=True)}

    def _is_returned(self, name: str) -> bool:
        return self._returned is None or name in self._returned

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """Return name -> values, exactly as Feast's own response has them.

        On request also `name__ts`: event times in whole seconds since 1970, 0 where there are none.
        """
        columns: dict[str, Any] = {}
        times: dict[str, list[int]] = {}
        for column in self._request_columns:
            if self._is_returned(column.name):
                columns[column.name] = list(column.values)
                times[column.name] = [0] * len(column.values)
        for view in self._views:
            seconds = list(view.seconds().tolist()) if include_event_timestamps else []
            for name, kind, values in zip(view.names, view.types, view.columns(), strict=True):
                if self._is_returned(name):
                    columns[name] = _plain(values, kind)
                    times[name] = list(seconds)
        for name, vector, of_type in self._derived:
            if self._is_returned(name):
                columns[name] = [feast_value_type_to_python_type(value, of_type) for value in vector.values]
                times[name] = [0] * len(vector.values)
        if not include_event_timestamps:
            return columns
        return {key: value for name in columns for key, value in _with_times(name, columns[name], times[name])}

    def to_tensor(self, kind: str = "torch", default_value: Any = float("nan")) -> dict[str, Any]:
        """Return numbers as tensors, with `default_value` for nulls, and other columns as lists.

        Raises:
            ValueError: The kind is not `torch`.
        """
        if kind != "torch":
            raise ValueError(f"unknown kind of tensor '{kind}', expected 'torch'")
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensors: dict[str, Any] = {}
        for name, values in self.to_dict().items():
            first = next((value for value in values if value is not None), default_value)
            filled = [default_value if value is None else value for value in values]
            tensors[name] = torch.tensor(filled, device=device) if isinstance(first, (int, float, bool)) else filled
        return tensors

    @cached_property
    def proto(self) -> Any:
        """The response as Feast's protobuf, as its feature server sends it."""
        message = GetOnlineFeaturesResponse(results=[])
        for name, vector in self.vectors():
            if self._is_returned(name):
                message.metadata.feature_names.val.append(name)
                message.results.append(vector)
        for view in self._views:
            if view.version is not None:
                versioned = message.metadata.feature_view_metadata.add()
                versioned.name, versioned.version = view.version
        return message

    def vectors(self) -> list[tuple[str, Any]]:
        """Return every column as Feast's FeatureVector, in the response's order."""
        named = [(column.name, request_vector(column)) for column in self._request_columns]
        for view in self._views:
            times = [_timestamp(us) for us in view.rows.event_us.tolist()]
            for name, column in zip(view.names, view.columns(), strict=True):
                statuses = view.statuses(column)
                named.append((name, FeatureVector(values=protos_of(column), statuses=statuses, event_timestamps=times)))
        return [*named, *((name, vector) for name, vector, _ in self._derived)]


def request_vector(column: RequestColumn) -> Any:
    """Return a column of the request as Feast's FeatureVector."""
    protos = column.protos
    if protos is None:
        protos = [Value(**{column.kind: value}) for value in column.values]
    count = len(protos)
    return FeatureVector(values=protos, statuses=[FieldStatus.PRESENT] * count, event_timestamps=[_NO_TIME] * count)


def _plain(column: StoredColumn, of_type: ValueType) -> list[Any]:
    if column.kind != "proto":
        return python_values(column)
    return [feast_value_type_to_python_type(value, of_type) for value in protos_of(column)]


def _with_times(name: str, values: list[Any], times: list[int]) -> list[tuple[str, list[Any]]]:
    return [(name, values), (name + TIMESTAMP_POSTFIX, times)]


def _timestamp(event_us: int) -> Timestamp:
    if event_us == NEVER:
        return _NO_TIME
    seconds, rest = divmod(event_us, _A_SECOND_US)
    return Timestamp(seconds=seconds, nanos=rest * 1000)
