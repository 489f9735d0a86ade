"""Feast's types as stored kinds, and its protobuf values as stored columns and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    BytesList,
    DoubleList,
    FloatList,
    Int32List,
    Int64List,
    StringList,
    Value,
)
from feast.type_map import NULL_TIMESTAMP_INT_VALUE, python_values_to_proto_values
from feast.value_type import ValueType

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.online.columns import column_of, item_kind, python_values
from playbill_feast.online.entity_keys import KeyKinds, keys_of_values
from playbill_feast.online.row_codec import StoredColumn
from playbill_feast.online.row_layout import PackedField, RowLayout, layout_of

_SCALARS = {
    ValueType.BOOL: "bool",
    ValueType.INT32: "int32",
    ValueType.INT64: "int64",
    ValueType.FLOAT: "float32",
    ValueType.DOUBLE: "float64",
    ValueType.UNIX_TIMESTAMP: "time",
    ValueType.STRING: "string",
    ValueType.BYTES: "bytes",
    ValueType.PDF_BYTES: "bytes",
    ValueType.IMAGE_BYTES: "bytes",
}
_KINDS = {**_SCALARS, **{ValueType[f"{kind.name}_LIST"]: f"list<{name}>" for kind, name in list(_SCALARS.items())[:8]}}
_KEY_KINDS = {ValueType.UUID: "uuid", ValueType.TIME_UUID: "time_uuid", ValueType.DECIMAL: "decimal"}
_VALUE_NAMES = {
    "bool": "bool_val",
    "int32": "int32_val",
    "int64": "int64_val",
    "float32": "float_val",
    "float64": "double_val",
    "time": "unix_timestamp_val",
    "string": "string_val",
    "bytes": "bytes_val",
    "uuid": "uuid_val",
    "time_uuid": "time_uuid_val",
    "decimal": "decimal_val",
}
_LISTS = {
    "bool": ("bool_list_val", BoolList),
    "int32": ("int32_list_val", Int32List),
    "int64": ("int64_list_val", Int64List),
    "float32": ("float_list_val", FloatList),
    "float64": ("double_list_val", DoubleList),
    "time": ("unix_timestamp_list_val", Int64List),
    "string": ("string_list_val", StringList),
    "bytes": ("bytes_list_val", BytesList),
}
_A_SECOND_US = 1_000_000
NOTHING = Value()


def kind_of(value_type: ValueType) -> str:
    """Return the stored kind of a Feast type; `proto` for maps, sets, JSON, decimals and other rare ones."""
    return _KINDS.get(value_type, "proto")


def view_fields(view: Any) -> dict[str, ValueType]:
    """Return the features a view stores and their types. An on-demand view that is stored keeps its inputs too."""
    fields = {field.name: field.dtype.to_value_type() for field in view.features}
    if getattr(view, "write_to_online_store", False):
        keys = {column.name for column in view.entity_columns}
        for field in view.schema:
            if field.name not in keys:
                fields.setdefault(field.name, field.dtype.to_value_type())
    return fields


def view_layout(view: Any) -> RowLayout:
    """Return the layout of a view's rows as it is registered now."""
    return layout_of(PackedField(name, kind_of(value_type)) for name, value_type in view_fields(view).items())


def key_kinds(view: Any) -> KeyKinds:
    """Return a view's join keys and their kinds, in the order of names. A view without entities has none."""
    types = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    types.pop(DUMMY_ENTITY_ID, None)
    return [(name, _KEY_KINDS.get(types[name], kind_of(types[name]))) for name in sorted(types)]


def keys_of_protos(kinds: KeyKinds, entities: Sequence[EntityKey]) -> list[bytes | None]:
    """Encode Feast's entity keys. A key whose value is not set has none.

    Raises:
        StoreDataError: A key names other join keys than the view's.
    """
    expected = {name for name, _ in kinds}
    values: dict[str, list[Any]] = {name: [] for name in expected}
    for entity in entities:
        key_values = dict(zip(entity.join_keys, entity.entity_values, strict=True))
        key_values.pop(DUMMY_ENTITY_ID, None)
        if key_values.keys() != expected:
            what = f"has the join keys {sorted(key_values)}, the view's are {sorted(expected)}."
            raise StoreDataError("entity keys", [Mistake("entity key", what)])
        for name, value in key_values.items():
            values[name].append(proto_value(value))
    return keys_of_values(kinds, values, len(entities))


def proto_value(value: Value) -> Any:
    """Return the scalar inside a Feast value, None when it is not set."""
    which = value.WhichOneof("val")
    return None if which is None else getattr(value, which)


def entity_protos(kinds: KeyKinds, opened: Iterable[Sequence[Any]]) -> list[EntityKey]:
    """Return Feast's entity keys for the values of opened keys."""
    names = [name for name, _ in kinds]
    fields = [_VALUE_NAMES[kind] for _, kind in kinds]
    return [
        EntityKey(join_keys=names, entity_values=[Value(**{f: v}) for f, v in zip(fields, values, strict=True)])
        for values in opened
    ]


def column_of_protos(values: Sequence[Value | None], kind: str, where: str) -> StoredColumn:
    """Turn one feature's Feast values into a stored column; an unset value is null."""
    if kind == "proto":
        serialized = [None if v is None or v.WhichOneof("val") is None else v.SerializeToString() for v in values]
        return column_of(pa.array(serialized, pa.large_binary()), kind, where)
    plain = [None if value is None else proto_value(value) for value in values]
    if item_kind(kind) is not None:
        listed = [None if value is None else list(value.val) for value in plain]
        return column_of(_listed(listed, kind, where), kind, where)
    if kind == "time":
        moments = [None if v is None or v == NULL_TIMESTAMP_INT_VALUE else v * _A_SECOND_US for v in plain]
        return column_of(pa.array(moments, pa.int64()).cast(pa.timestamp("us", "UTC")), kind, where)
    return column_of(_arrow(plain, where), kind, where)


def _listed(values: list[list[Any] | None], kind: str, where: str) -> pa.Array:
    if kind != "list<time>":
        empty = all(not value for value in values)
        return pa.array(values, pa.large_list(pa.int64())) if empty else _arrow(values, where)
    moments = [
        None if v is None else [None if s == NULL_TIMESTAMP_INT_VALUE else s * _A_SECOND_US for s in v] for v in values
    ]
    return pa.array(moments, pa.large_list(pa.int64())).cast(pa.large_list(pa.timestamp("us", "UTC")))


def _arrow(values: list[Any], where: str) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreDataError("values to store", [Mistake(where, f"{str(error).splitlines()[0]}.")]) from None


def column_of_rare(array: pa.ChunkedArray, value_type: ValueType, where: str) -> StoredColumn:
    """Turn an Arrow column of a type that has no stored kind into Feast's values, one by one, as Feast does."""
    try:
        protos = python_values_to_proto_values(array.to_numpy(zero_copy_only=False), value_type)
    except (TypeError, ValueError, AssertionError) as error:
        raise StoreDataError("values to store", [Mistake(where, f"is no {value_type.name}: {error}.")]) from None
    return column_of_protos(protos, "proto", where)


def protos_of(column: StoredColumn) -> list[Value]:
    """Return Feast's value of every row."""
    if column.kind == "proto":
        return [NOTHING if data is None else Value.FromString(data) for data in python_values(column)]
    values = python_values(column)
    if (item := item_kind(column.kind)) is not None:
        name, message = _LISTS[item]
        if item == "time":
            values = [None if value is None else [_seconds(moment) for moment in value] for value in values]
        return [NOTHING if value is None else Value(**{name: message(val=value)}) for value in values]
    if column.kind == "time":
        values = [None if value is None else _seconds(value) for value in values]
    name = _VALUE_NAMES[column.kind]
    return [NOTHING if value is None else Value(**{name: value}) for value in values]


def _seconds(moment: Any) -> int:
    return NULL_TIMESTAMP_INT_VALUE if moment is None else int(moment.timestamp())
