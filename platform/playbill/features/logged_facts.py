"""The facts of logged requests as columns: what was served, and the times of the values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from playbill.errors import DataError, Problem
from playbill.features.reports import FeatureColumn

_MOMENT = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class LoggedFacts:
    """Facts of N requests. Rows of all four frames correspond.

    Args:
        rows: request_id, member_id, event_at.
        served: A column per feature, float32 and strings, null where missing.
        present: The same columns: whether the request has a value or a null for it at all.
        values_at: A column per view: the time of the value that was served, null where there was none.
        from_store: Whether the values came from the online store, so that `values_at` is known.
    """

    rows: pl.DataFrame
    served: pl.DataFrame
    present: pl.DataFrame
    values_at: pl.DataFrame
    from_store: pl.Series


def services(requests: pl.DataFrame) -> pl.Series:
    """Return the feature service of every request, null where no features were read.

    Raises:
        DataError: The facts of a request are no JSON; every one is named.
    """
    return _decoded(requests, pl.Struct({"service": pl.String})).struct.field("service")


def read_facts(requests: pl.DataFrame, columns: Sequence[FeatureColumn], views: Sequence[str]) -> LoggedFacts:
    """Take the facts of requests apart.

    Args:
        requests: Rows of `requests`, all of one feature service.
        columns: Features to look for.
        views: Views to look for the times of.

    Raises:
        DataError: The facts of a request are no JSON; every one is named.
    """
    # Numbers are read as text: a feature may have been a string then, and a number now.
    features = pl.Struct({column.name: pl.String for column in columns})
    times = pl.Struct({view: pl.String for view in views})
    facts = _decoded(requests, pl.Struct({"features": features, "values_at": times}))
    served, values_at = facts.struct.field("features"), facts.struct.field("values_at")
    text = pl.col("facts")
    return LoggedFacts(
        rows=requests.select("request_id", "member_id", pl.col("at").alias("event_at")),
        served=_fields(served).select(_typed(column) for column in columns),
        present=requests.select(text.str.contains(f'"{c.name}":', literal=True).alias(c.name) for c in columns),
        values_at=_fields(values_at).select(
            pl.col(view).str.to_datetime(time_zone="UTC", time_unit="us") for view in views
        ),
        from_store=values_at.is_not_null().alias("from_store"),
    )


def logged_names(requests: pl.DataFrame) -> set[str]:
    """Return the names of all features in the facts, reading one request of every version of the facts."""
    samples = requests.unique("facts_version", keep="last").get_column("facts")
    return {name for text in samples for name in json.loads(text).get("features", {})}


def _typed(column: FeatureColumn) -> pl.Expr:
    value = pl.col(column.name)
    if column.kind == "categorical":
        return value
    return value.cast(pl.Float64, strict=False).cast(pl.Float32).fill_nan(None)


def _fields(structs: pl.Series) -> pl.DataFrame:
    return structs.struct.unnest()


def _decoded(requests: pl.DataFrame, kind: pl.Struct) -> pl.Series:
    facts = requests.get_column("facts")
    try:
        return facts.str.json_decode(kind)
    except pl.exceptions.ComputeError as error:
        problems = [
            Problem(request, "its facts cannot be read as JSON.")
            for request, text in requests.select("request_id", "facts").iter_rows()
            if not _is_json(text)
        ]
        if not problems:
            problems = [Problem("facts", str(error).splitlines()[0])]
        raise DataError("logged requests", problems) from None


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
