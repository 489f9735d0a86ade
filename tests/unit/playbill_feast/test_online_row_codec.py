"""Packed rows: what goes in comes out, for every kind, and older schemas stay readable."""

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill_feast.errors import StoreDataError, StoreIntegrityError
from playbill_feast.online.columns import arrow_of, arrow_type, column_of, python_values
from playbill_feast.online.row_codec import Blobs, gather, interleave, pack, slices, unpack
from playbill_feast.online.row_layout import FIXED, VARIABLE, PackedField, layout_of, parse_layout

_ITEMS = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "time": st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=12),
}
VALUES = {
    **_ITEMS,
    "proto": st.binary(max_size=12),
    **{f"list<{kind}>": st.lists(items, max_size=4) for kind, items in _ITEMS.items()},
}


def columns_of(kinds, rows):
    return {
        name: column_of(pa.array([row[number] for row in rows], arrow_type(kind)), kind, name)
        for number, (name, kind) in enumerate(kinds.items())
    }


def packed(kinds, rows, **times):
    layout = layout_of(PackedField(name, kind) for name, kind in kinds.items())
    event_us = np.arange(len(rows)) if "event_us" not in times else times["event_us"]
    return layout, pack(layout, columns_of(kinds, rows), event_us, times.get("created_us"))


def opened(rows, kinds, *layouts):
    known = {layout.schema_id: layout for layout in layouts}
    return unpack(rows, [PackedField(name, kind) for name, kind in kinds.items()], known.__getitem__, "view 'v'")


def same(left, right):
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return left == right and type(left) is type(right)


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6))
    named = {f"f{number}": kind for number, kind in enumerate(kinds)}
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds))
    return named, draw(st.lists(row, min_size=1, max_size=6))


def test_every_kind_has_values_to_try():
    assert VALUES.keys() == {*FIXED, *VARIABLE}


@settings(max_examples=200, deadline=None)
@given(tables(), st.data())
def test_rows_come_back_as_they_were_written(table, data):
    kinds, rows = table
    layout, blobs = packed(kinds, rows)
    holes = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    requested = [None if hole else blob for blob, hole in zip(blobs, holes, strict=True)]

    answer = opened(requested, kinds, layout)

    assert answer.found.tolist() == [not hole for hole in holes]
    for number, column in enumerate(answer.columns):
        wanted = [None if hole else row[number] for row, hole in zip(rows, holes, strict=True)]
        assert same(arrow_of(column).to_pylist(), wanted)


@settings(max_examples=100, deadline=None)
@given(tables())
def test_python_values_are_those_of_arrow_but_for_parts_of_seconds(table):
    kinds, rows = table
    layout, blobs = packed(kinds, rows)
    for kind, column in zip(kinds.values(), opened(blobs, kinds, layout).columns, strict=True):
        if "time" in kind:
            continue
        assert same(python_values(column), arrow_of(column).to_pylist())


def test_times_are_cut_to_whole_seconds_downwards_for_python():
    kinds = {"t": "time", "l": "list<time>"}
    before = datetime(1969, 12, 31, 23, 59, 58, 999_999, tzinfo=UTC)
    layout, blobs = packed(kinds, [(before, [before, None])])
    assert [python_values(column)[0] for column in opened(blobs, kinds, layout).columns] == [
        before.replace(microsecond=0),
        [before.replace(microsecond=0), None],
    ]


def test_event_times_come_with_the_rows():
    layout, blobs = packed({"a": "int64"}, [(1,), (2,)], event_us=np.array([7, -9]), created_us=np.array([1, 2]))
    assert opened([blobs[1], None, blobs[0]], {"a": "int64"}, layout).event_us.tolist() == [-9, -(2**63), 7]


def test_a_feature_added_later_is_null_in_older_rows_and_a_removed_one_is_ignored():
    old_kinds, new_kinds = {"a": "int64", "gone": "string"}, {"a": "int64", "text": "string", "x": "float32"}
    old, old_rows = packed(old_kinds, [(1, "g"), (2, "h")])
    new, new_rows = packed(new_kinds, [(3, "t", 1.5)])

    answer = opened([old_rows[0], new_rows[0], None, old_rows[1]], new_kinds, old, new)

    values = [python_values(column) for column in answer.columns]
    assert values == [[1, 3, None, 2], [None, "t", None, None], [None, 1.5, None, None]]


@pytest.mark.parametrize(
    ("before", "now", "value", "wanted"),
    [
        ("int32", "int64", 5, 5),
        ("float32", "float64", 1.5, 1.5),
        ("int64", "float64", 5, 5.0),
        ("string", "int64", "5", None),
    ],
)
def test_a_changed_kind_is_widened_or_counts_as_new(before, now, value, wanted):
    layout, blobs = packed({"a": before}, [(value,)])
    (column,) = opened(blobs, {"a": now}, layout).columns
    assert python_values(column) == [wanted]


def test_the_schema_id_does_not_depend_on_the_order_of_fields():
    one, other = PackedField("a", "int64"), PackedField("b", "string")
    assert layout_of([one, other]).schema_id == layout_of([other, one]).schema_id
    assert layout_of([one, other]).schema_id != layout_of([one]).schema_id
    assert parse_layout(layout_of([one, other]).text, "here") == layout_of([one, other])


@pytest.mark.parametrize("damage", [b"", b"\x01\x00", b"\x09" + bytes(60), None])
def test_damaged_rows_are_an_error_that_names_the_view(damage):
    layout, (row,) = packed({"a": "int64", "s": "string"}, [(1, "text")])
    with pytest.raises(StoreIntegrityError, match=r"view 'v'.*materialize again"):
        opened([row[:-2] if damage is None else damage], {"a": "int64"}, layout)


def test_a_damaged_schema_is_an_error():
    with pytest.raises(StoreIntegrityError, match="here: a stored schema is damaged"):
        parse_layout("[[1", "here")
    with pytest.raises(StoreIntegrityError, match="does not know: list<money>"):
        parse_layout('[["a","list<money>"]]', "here")


def test_a_hundred_thousand_rows_take_a_second_at_most():
    import time

    kinds = {f"f{number}": "float32" for number in range(20)}
    values = np.random.default_rng(0).random((100_000, 20), np.float32)
    columns = {name: column_of(pa.array(values[:, number]), "float32", name) for number, name in enumerate(kinds)}
    layout = layout_of(PackedField(name, kind) for name, kind in kinds.items())
    started = time.process_time()
    pack(layout, columns, np.arange(100_000), None)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array(["x"]), "int64"),
        (pa.array([1.5]), "int64"),
        (pa.array([2**40]), "int32"),
        (pa.array([[1, None]]), "list<int64>"),
    ],
)
def test_values_of_another_type_are_named(array, kind):
    with pytest.raises(StoreDataError, match="plays"):
        column_of(array, kind, "plays")


def test_pandas_whole_numbers_with_nulls_are_whole_numbers_again():
    column = column_of(pa.array([1.0, float("nan"), 3.0]), "int64", "plays")
    assert python_values(column) == [1, None, 3]


def test_nulls_inside_lists_are_filled_as_feast_fills_them():
    lists = {"float32": [[1.0, None]], "string": [["a", None]], "bool": [[True, None]]}
    filled = [
        python_values(column_of(pa.array(value, arrow_type(f"list<{kind}>")), f"list<{kind}>", "x"))[0][1]
        for kind, value in lists.items()
    ]
    assert math.isnan(filled[0])
    assert filled[1:] == ["", False]


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=8))
def test_interleaving_joins_neighbours(pairs):
    def blobs(parts):
        lengths = np.array([len(part) for part in parts], np.int64)
        return Blobs(np.frombuffer(b"".join(parts), np.uint8), np.cumsum(lengths) - lengths, lengths)

    first, second = blobs([pair[0] for pair in pairs]), blobs([pair[1] for pair in pairs])
    assert slices(interleave(first, second)) == [one + other for one, other in pairs]
    assert gather(first).tobytes() == b"".join(pair[0] for pair in pairs)
