"""A label's `where` -> a polars expression. A comparison with a null or NaN stays null, so it never matches."""

from __future__ import annotations

from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import polars as pl

from playbill.specs.where import (
    ColumnName,
    Comparison,
    Either,
    Every,
    Expression,
    Membership,
    Not,
    Value,
)

_OPERATORS: dict[str, Any] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def compile_where(expression: Expression, schema: pl.Schema) -> pl.Expr:
    """Turn a parsed expression into a boolean polars expression of three values: true, false and null.

    Args:
        expression: What `parse_where` returned.
        schema: Columns of the frame it will be used on; NaN in its floats counts as null.
    """
    match expression:
        case Comparison(name, operator, value):
            compared: pl.Expr = _OPERATORS[operator](_column(name, schema), _operand(value, schema))
            return compared
        case Membership(name, values, excluded):
            either = reduce(or_, (_column(name, schema) == pl.lit(value) for value in values))
            return ~either if excluded else either
        case Not(item):
            return ~compile_where(item, schema)
        case Every(items):
            return reduce(and_, (compile_where(item, schema) for item in items))
        case Either(items):
            return reduce(or_, (compile_where(item, schema) for item in items))


def _operand(value: Value, schema: pl.Schema) -> pl.Expr:
    return _column(value.name, schema) if isinstance(value, ColumnName) else pl.lit(value)


def _column(name: str, schema: pl.Schema) -> pl.Expr:
    dtype = schema[name]
    if dtype.is_float():
        return pl.col(name).fill_nan(None)
    return pl.col(name).cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else pl.col(name)
