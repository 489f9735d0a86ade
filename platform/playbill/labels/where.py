"""A label's `where` -> a polars expression. A comparison with a null or NaN stays null, so it never matches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import polars as pl

from playbill.definitions.specs.where import (
    ColumnName,
    Comparison,
    Either,
    Every,
    Expression,
    Membership,
    Not,
)

_OPERATORS: dict[str, Any] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def compile_where(expression: Expression, schema: pl.Schema, names: Mapping[str, str] | None = None) -> pl.Expr:
    """Turn a parsed expression into a boolean polars expression of three values: true, false and null.

    Args:
        expression: What `parse_where` returned.
        schema: Columns of the frame it will be used on; NaN in its floats counts as null.
        names: What the frame calls a column that the expression names otherwise.
    """
    called = names or {}

    def column(name: str) -> pl.Expr:
        return _column(called.get(name, name), schema)

    match expression:
        case Comparison(name, operator, value):
            other = column(value.name) if isinstance(value, ColumnName) else pl.lit(value)
            compared: pl.Expr = _OPERATORS[operator](column(name), other)
            return compared
        case Membership(name, values, excluded):
            either = reduce(or_, (column(name) == pl.lit(value) for value in values))
            return ~either if excluded else either
        case Not(item):
            return ~compile_where(item, schema, names)
        case Every(items):
            return reduce(and_, (compile_where(item, schema, names) for item in items))
        case Either(items):
            return reduce(or_, (compile_where(item, schema, names) for item in items))


def _column(name: str, schema: pl.Schema) -> pl.Expr:
    dtype = schema[name]
    if dtype.is_float():
        return pl.col(name).fill_nan(None)
    return pl.col(name).cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else pl.col(name)
