"""Logged requests against regeneration: is what was served what training sees of the same moment?

Every logged request is looked up again in the feature files, as of its own moment, exactly as training does, and
compared value by value: numbers as float32 to the bit, missing (null or nan) with missing. A difference is
explained as far as the files can tell (`Cause`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl

from playbill.errors import DataError, Problem
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import known_then, member_features, of_states
from playbill.features.reports import Cause, FeatureColumn, FeatureDifference, ParityReport, ViewParity

EXAMPLES = 3
"""Differences of a view that are shown."""

_FUTURE, _LATER, _STALE, _UNEXPLAINED = get_args(Cause)


@dataclass(frozen=True)
class _ComparedView:
    """One service's requests."""

    columns: Sequence[FeatureColumn]
    present: pl.DataFrame
    """A row per request and a column per feature: whether it was compared."""
    different: pl.DataFrame
    """request_id, member_id and event_at of the requests with a difference; the frames below are theirs."""
    served: pl.DataFrame
    regenerated: pl.DataFrame
    causes: pl.DataFrame
    """Why each feature differs, null where it is equal."""


def compare_requests(door: FeastDoor, requests: pl.DataFrame, sample: int | None = None, seed: int = 0) -> ParityReport:
    """Compare rows of `requests`, or a sample of them, with what their features are now computed to have been.

    Raises:
        UnknownNameError: A request was answered from a service that is not registered any more.
        StateError: A view's file does not exist.
        DataError: The facts of a request cannot be read; every one is named.
    """
    named = requests.with_columns(services(requests))
    answered = named.drop_nulls("service")
    if sample is not None and sample < answered.height:
        answered = answered.sample(sample, seed=seed)
    answered = answered.sort("at", "request_id")
    groups = answered.group_by("service", maintain_order=True)
    # A service of nothing but title features has no values of a member to compare.
    done = [_compare(door, str(name), rows) for (name,), rows in groups if _member_columns(door, str(name))]
    registered = {column.name for part in done for column in part.columns}
    logged = logged_names(answered)
    return ParityReport(
        workspace=door.workspace.name,
        requests=answered.height,
        requests_different=sum(part.different.height for part in done),
        unanswered=named.get_column("service").null_count(),
        views=tuple(_views(done)),
        only_logged=tuple(sorted(logged - registered)),
        only_registered=tuple(sorted(registered - logged)) if logged else (),
    )


def _member_columns(door: FeastDoor, service: str) -> Sequence[FeatureColumn]:
    return door.catalog(service).schema.of("member", "request")


def _compare(door: FeastDoor, service: str, requests: pl.DataFrame) -> _ComparedView:
    catalog, columns = door.catalog(service), _member_columns(door, service)
    views = [name for name in catalog.plain("member", "request") if name in catalog.views]
    facts = read_facts(requests, columns, views, catalog.schema.reads)
    requested = facts.rows.drop("request_id")
    regenerated = member_features(door, service, requested).select(column.name for column in columns)
    differs = pl.DataFrame(
        [(facts.served[c.name].ne_missing(regenerated[c.name]) & facts.present[c.name]).alias(c.name) for c in columns]
    )
    any_differs = differs.select(pl.any_horizontal(pl.all())).to_series()
    return _ComparedView(
        columns=columns,
        present=facts.present,
        different=facts.rows.filter(any_differs),
        served=facts.served.filter(any_differs),
        regenerated=regenerated.filter(any_differs),
        causes=_causes(door, service, facts, differs, any_differs),
    )


def _causes(
    door: FeastDoor, service: str, facts: LoggedFacts, differs: pl.DataFrame, chosen: pl.Series
) -> pl.DataFrame:
    """Return a row per chosen request and a column per feature: why it differs, null where it does not."""
    if not chosen.any():
        return pl.DataFrame(schema=dict.fromkeys(differs.columns, pl.String()))
    rows = facts.rows.filter(chosen).drop("request_id")
    served, values_at = facts.served.filter(chosen), facts.values_at.filter(chosen)
    then = known_then(door, service, rows)
    state = of_states(door, service, rows, values_at)
    from_store = facts.from_store.filter(chosen)
    future = (values_at.max_horizontal() > rows["event_at"]).fill_null(False)
    return differs.filter(chosen).select(
        pl.when(pl.col(name).not_())
        .then(None)
        .when(future)
        .then(pl.lit(_FUTURE))
        .when(served[name].eq_missing(then[name]))
        .then(pl.lit(_LATER))
        .when(served[name].eq_missing(state[name]) & from_store)
        .then(pl.lit(_STALE))
        .otherwise(pl.lit(_UNEXPLAINED))
        .alias(name)
        for name in differs.columns
    )


def _views(parts: Sequence[_ComparedView]) -> Iterator[ViewParity]:
    for view in dict.fromkeys(column.view for part in parts for column in part.columns):
        requested = [(part, column) for part in parts for column in part.columns if column.view == view]
        causes: Counter[Cause] = Counter()
        for part, column in requested:
            causes.update(dict(part.causes[column.name].drop_nulls().value_counts().iter_rows()))
        examples = sorted((found for pair in requested for found in _examples(*pair)), key=lambda found: found.at)
        yield ViewParity(
            view=view,
            compared=sum(int(part.present[column.name].sum()) for part, column in requested),
            different=causes.total(),
            causes=dict(causes),
            examples=tuple(examples[:EXAMPLES]),
        )


def _examples(part: _ComparedView, column: FeatureColumn) -> Iterator[FeatureDifference]:
    rows = part.different.select(
        "request_id",
        "member_id",
        pl.col("event_at").alias("at"),
        part.served[column.name].alias("served"),
        part.regenerated[column.name].alias("regenerated"),
        part.causes[column.name].alias("cause"),
    )
    for row in rows.drop_nulls("cause").head(EXAMPLES).iter_rows(named=True):
        yield FeatureDifference(view=column.view, feature=column.feature, **row)


@dataclass(frozen=True, slots=True)
class LoggedFacts:
    """Facts of N requests. Rows of all four frames correspond."""

    rows: pl.DataFrame
    """request_id, member_id, event_at, and the fields of the request that features were read by."""
    served: pl.DataFrame
    """A column per feature, float32 and strings, null where missing."""
    present: pl.DataFrame
    """The same columns: whether the request has a value or a null for it at all."""
    values_at: pl.DataFrame
    """A column per view: the time of the value that was served, null where there was none."""
    from_store: pl.Series
    """Whether the values came from the online store, so that `values_at` is known."""


def services(requests: pl.DataFrame) -> pl.Series:
    """Return the feature service of every request, null where no features were read.

    Raises:
        DataError: The facts of a request are no JSON; every one is named.
    """
    return _decoded(requests, pl.Struct({"service": pl.String})).struct.field("service")


def read_facts(
    requests: pl.DataFrame, columns: Sequence[FeatureColumn], views: Sequence[str], reads: Sequence[str] = ()
) -> LoggedFacts:
    """Take the facts of requests, all of one feature service, apart: values of columns and times of views.

    Raises:
        DataError: The facts of a request are no JSON; every one is named.
    """
    # Numbers are read as text: a feature may have been a string then, and a number now.
    features = pl.Struct({column.name: pl.String for column in columns})
    times = pl.Struct({view: pl.String for view in views})
    request = pl.Struct(dict.fromkeys(reads, pl.String))
    facts = _decoded(requests, pl.Struct({"features": features, "values_at": times, "request": request}))
    served, values_at = facts.struct.field("features"), facts.struct.field("values_at")
    text = pl.col("facts")
    return LoggedFacts(
        rows=requests.select("request_id", "member_id", pl.col("at").alias("event_at")).hstack(
            _fields(facts.struct.field("request")).get_columns() if reads else []
        ),
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
