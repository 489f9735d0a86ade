"""The `where` language: what it reads, and how it points at a mistake."""

from __future__ import annotations

import pickle

import pytest

from playbill.definitions.specs.where import (
    ColumnName,
    Either,
    Every,
    Membership,
    Not,
    WhereComparison,
    WhereError,
    column_names,
    columns,
    parse_where,
)
from playbill.schema import DERIVED_COLUMNS, INTERACTIONS


def test_every_column_of_the_log_and_every_derived_one_can_be_named() -> None:
    assert columns().keys() == {*INTERACTIONS.names(), *DERIVED_COLUMNS}


@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">="])
def test_comparisons_read_numbers_and_texts(operator: str) -> None:
    assert parse_where(f"progress {operator} -1.5e-1") == WhereComparison("progress", operator, -0.15)  # type: ignore[arg-type]
    assert parse_where(f"device {operator} 'tv'") == WhereComparison("device", operator, "tv")  # type: ignore[arg-type]


def test_and_binds_before_or_and_not_before_and() -> None:
    read = parse_where('not position = 1 and progress > 0.5 or device = "tv"')
    tv = WhereComparison("device", "=", "tv")
    assert read == Either(
        (Every((Not(WhereComparison("position", "=", 1)), WhereComparison("progress", ">", 0.5))), tv)
    )


def test_parentheses_group() -> None:
    read = parse_where("position = 1 and (progress > 0.5 or device = 'tv')")
    assert isinstance(read, Every)
    assert isinstance(read.items[1], Either)


def test_lists_and_their_opposite() -> None:
    assert parse_where("device in ('tv', \"phone\")") == Membership("device", ("tv", "phone"))
    assert parse_where("position NOT IN (1, 2)") == Membership("position", (1, 2), excluded=True)


def test_two_columns_can_be_compared() -> None:
    read = parse_where("duration_s > position")
    assert read == WhereComparison("duration_s", ">", ColumnName("position"))
    assert column_names(read) == {"duration_s", "position"}


def test_moments_are_texts_with_a_zone() -> None:
    read = parse_where("event_at >= '1998-01-01T00:00:00Z'")
    assert isinstance(read, WhereComparison)
    with pytest.raises(WhereError, match="no time zone"):
        parse_where("event_at >= '1998-01-01'")


def test_a_word_that_begins_like_a_keyword_is_a_column_name() -> None:
    with pytest.raises(WhereError, match="unknown column 'notes'"):
        parse_where("notes = 1")


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("progres >= 0.1", 0, "unknown column 'progres'.*Did you mean 'progress'"),
        ("position = 1 and prior_play = 0", 17, "Did you mean 'prior_plays'"),
        ("progress >=", 11, "ends too early"),
        ("", 0, "ends too early"),
        ("progress == 1", 10, "single '='"),
        ("progress >= 0.1 position = 1", 16, "unexpected 'position'"),
        ("(progress >= 0.1", 16, "Expected '\\)'"),
        ("progress >= 'half'", 12, "column 'progress' holds a number"),
        ("device = 3", 9, "column 'device' holds text"),
        ("device = progress", 9, "column 'device' holds text"),
        ("progress in ()", 13, "unexpected '\\)'"),
        ("progress in (position)", 13, "must be a number or text"),
        ("progress >= 0.1; drop", 15, "unexpected ';'"),
        ("progress.abs() > 1", 8, "unexpected '.'"),
        ("0.1 <= progress", 0, "Expected .*a column"),
        ("progress >= 0,1", 13, r"unexpected ','.*Expected 'and', 'or' or the end\."),
        ("progress >= 0.1 andprogress < 1", 16, "unexpected 'andprogress'"),
        ("progress", 8, r"Expected a comparison \(= != < <= > >=\), 'not' or 'in'\."),
        ("canvas = home", 9, r"'home' is no column.*Text goes in quotes: 'home'\."),
        ("title_id = null", 11, "unknown column 'null'.*What is not known never matches, nor does its opposite"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, position: int, message: str) -> None:
    with pytest.raises(WhereError, match=message) as caught:
        parse_where(text)
    assert caught.value.position == position
    assert str(caught.value).splitlines()[-1].index("^") == position + 4


def test_endless_nesting_is_one_error() -> None:
    with pytest.raises(WhereError, match="nested too deeply"):
        parse_where("not " * 20_000 + "progress = 1")


def test_the_error_survives_pickling() -> None:
    with pytest.raises(WhereError) as caught:
        parse_where("progres = 1")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
