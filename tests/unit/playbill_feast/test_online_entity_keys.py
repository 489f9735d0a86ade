"""Entity keys: one encoding however a key arrives, and never two keys with one encoding."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill_feast.errors import StoreDataError
from playbill_feast.online.entity_keys import keys_of_arrow, keys_of_values, open_key
from playbill_feast.online.feast_values import entity_protos, keys_of_protos

_FIELDS = {"int32": "int32_val", "int64": "int64_val", "string": "string_val", "bytes": "bytes_val", "bool": "bool_val"}
_TYPES = {"int32": pa.int32(), "int64": pa.int64(), "string": pa.string(), "bytes": pa.binary(), "bool": pa.bool_()}
_VALUES = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
    "bool": st.booleans(),
}


@st.composite
def key_tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=3))
    named = [(f"k{number}", kind) for number, kind in enumerate(kinds)]
    row = st.tuples(*(st.none() | _VALUES[kind] for kind in kinds))
    return named, draw(st.lists(row, min_size=1, max_size=8))


def columns(named, rows):
    return {name: [row[number] for row in rows] for number, (name, _) in enumerate(named)}


@settings(max_examples=200, deadline=None)
@given(key_tables())
def test_arrow_python_and_feast_agree_on_the_bytes(table):
    named, rows = table
    values = columns(named, rows)
    arrow = pa.table({name: pa.array(values[name], _TYPES[kind]) for name, kind in named})
    protos = [
        EntityKey(
            join_keys=[name for name, _ in reversed(named)],
            entity_values=[
                Value() if value is None else Value(**{_FIELDS[kind]: value})
                for value, (_, kind) in reversed(list(zip(row, named, strict=True)))
            ],
        )
        for row in rows
    ]

    from_values = keys_of_values(named, values, len(rows))

    assert keys_of_arrow(named, arrow) == from_values
    assert keys_of_protos(named, protos) == from_values
    assert [key is None for key in from_values] == [None in row for row in rows]


@settings(max_examples=200, deadline=None)
@given(key_tables())
def test_different_keys_have_different_bytes_and_open_to_what_they_were(table):
    named, rows = table
    complete = [row for row in rows if None not in row]
    keys = keys_of_values(named, columns(named, complete), len(complete))
    assert len(set(keys)) == len(set(complete))
    assert [tuple(open_key(named, key)) for key in keys] == complete


def test_whole_numbers_agree_whatever_their_width_and_differ_from_text():
    wide = keys_of_arrow([("id", "int64")], pa.table({"id": pa.array([7], pa.int64())}))
    narrow = keys_of_arrow([("id", "int32")], pa.table({"id": pa.array([7], pa.int8())}))
    text = keys_of_arrow([("id", "string")], pa.table({"id": ["7"]}))
    assert wide == narrow
    assert wide != text


def test_times_agree_by_the_second():
    kinds = [("at", "time")]
    moment = datetime(2024, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)
    arrow = keys_of_arrow(kinds, pa.table({"at": pa.array([moment], pa.timestamp("us", "UTC"))}))
    proto = EntityKey(join_keys=["at"], entity_values=[Value(unix_timestamp_val=int(moment.timestamp()))])
    assert arrow == keys_of_protos(kinds, [proto])


def test_entity_keys_open_to_feasts_own():
    kinds = [("country", "string"), ("member", "int32")]
    key = EntityKey(join_keys=["country", "member"], entity_values=[Value(string_val="NO"), Value(int32_val=5)])
    (encoded,) = keys_of_protos(kinds, [key])
    assert entity_protos(kinds, [open_key(kinds, encoded)]) == [key]


@pytest.mark.parametrize(
    ("kinds", "table", "message"),
    [
        (
            [("a", "int64"), ("b", "string")],
            pa.table({"c": [1]}),
            r"(?s)a: join key is missing.*b: join key is missing",
        ),
        ([("a", "int64")], pa.table({"a": ["x"]}), "a: string is no int64"),
        ([("a", "list<int64>")], pa.table({"a": [[1]]}), "cannot be a join key"),
    ],
)
def test_keys_that_cannot_be_are_named(kinds, table, message):
    with pytest.raises(StoreDataError, match=message):
        keys_of_arrow(kinds, table)


def test_a_key_of_another_view_is_refused():
    other = EntityKey(join_keys=["b"], entity_values=[Value(int64_val=1)])
    with pytest.raises(StoreDataError, match=r"join keys \['b'\], the view's are \['a'\]"):
        keys_of_protos([("a", "int64")], [other])


def test_text_is_no_number():
    with pytest.raises(StoreDataError, match="a: holds str"):
        keys_of_values([("a", "int64")], {"a": ["1"]}, 1)
