"""Entity rows of a request, as columns and as keys."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.utils import ensure_request_data_values_exist
from feast.value_type import ValueType

from playbill_feast.online.entity_keys import keys_of_values
from playbill_feast.online.feast_values import proto_value
from playbill_feast.online.request_plan import Plan, ViewPlan
from playbill_feast.online.response import GivenColumn

_PLAIN = {
    ValueType.INT64: (int, "int64_val"),
    ValueType.INT32: (int, "int32_val"),
    ValueType.STRING: (str, "string_val"),
}
_LIMITS = {ValueType.INT32: 2**31, ValueType.INT64: 2**63}
EntityRows = list[dict[str, Any]] | Mapping[str, Any]


def as_columns(entity_rows: EntityRows) -> dict[str, Sequence[Any]]:
    """Turn a request's entity rows into columns.

    Raises:
        ValueError: Rows have different keys, columns different lengths, or there is nothing.
    """
    if not isinstance(entity_rows, list):
        columns = {
            name: values if isinstance(values, Sequence) else list(values.val) for name, values in entity_rows.items()
        }
        if len({len(values) for values in columns.values()}) > 1:
            raise ValueError("All entity rows must have the same columns.")
        return columns
    if not entity_rows:
        raise ValueError("entity_rows is empty, expected at least one row.")
    names = entity_rows[0].keys()
    for number, row in enumerate(entity_rows):
        if row.keys() != names:
            differing = sorted(map(str, names ^ row.keys()))
            raise ValueError(f"All entity_rows must have the same keys. Row {number} differs in {differing}.")
    return {name: [row[name] for row in entity_rows] for name in names}


class Entities:
    """A request's columns, sorted into join keys and request data.

    Raises:
        ValueError: Columns have different lengths.
        RequestDataNotFoundInEntityRowsException: An on-demand view's request data is missing.
    """

    def __init__(self, plan: Plan, entity_rows: EntityRows) -> None:
        columns = as_columns(entity_rows)
        self.count = len(next(iter(columns.values()), ()))
        self._plan = plan
        self._keys: dict[str, Sequence[Any]] = {}
        keys, data = [], []
        for name, values in columns.items():
            if name in plan.request_data:
                data.append(self._column(name, values, plan.key_types.get(name, ValueType.UNKNOWN)))
            elif (key := self._join_key(name)) is not None:
                keys.append(self._column(key, values, plan.key_types.get(name, ValueType.UNKNOWN)))
        ensure_request_data_values_exist(set(plan.request_data), {column.name: [] for column in data})
        self.given = [*keys, *data]
        self.join_keys = frozenset(column.name for column in keys)

    def _join_key(self, name: str) -> str | None:
        if name in self._plan.join_keys:
            return name
        if name not in self._plan.key_of_entity:
            return None
        warnings.warn("Using entity name is deprecated. Use join_key instead.", stacklevel=2)
        return self._plan.key_of_entity[name]

    def _column(self, name: str, values: Sequence[Any], value_type: ValueType) -> GivenColumn:
        plain, field = _PLAIN.get(value_type, (None, ""))
        if plain is not None and all(type(value) is plain for value in values) and _fits(value_type, values):
            self._keys[name] = values
            return GivenColumn(name, values, None, field)
        if values and isinstance(values[0], Value):
            protos = list(values)
        else:
            protos = python_values_to_proto_values(list(values), value_type)
        self._keys[name] = [proto_value(proto) for proto in protos]
        return GivenColumn(name, [feast_value_type_to_python_type(proto) for proto in protos], protos, "")

    def keys(self, view: ViewPlan) -> list[bytes | None]:
        """Return the encoded keys of a view's rows.

        Raises:
            KeyError: The request lacks one of the view's join keys.
        """
        missing = [name for name, _ in view.keys if not self._keys.get(name)]
        if missing:
            raise KeyError(
                f"Missing join key values for keys: {missing} of feature view '{view.view.name}'. "
                f"Provided join_key_values: {sorted(self.join_keys)}"
            )
        return keys_of_values(view.keys, self._keys, self.count)


def _fits(value_type: ValueType, values: Sequence[Any]) -> bool:
    limit = _LIMITS.get(value_type)
    return limit is None or not values or (min(values) >= -limit and max(values) < limit)
