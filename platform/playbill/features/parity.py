"""Logged requests against regeneration: is what was served what training sees of the same moment?

Every logged request is looked up again in the feature files, as of its own moment, exactly as training does, and
compared value by value: numbers as float32 to the bit, missing (null or nan) with missing. A difference is
explained as far as the files can tell (`Cause`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl

from playbill.features.feast_door import FeastDoor
from playbill.features.historical import member_features
from playbill.features.logged_facts import LoggedFacts, logged_names, read_facts, services
from playbill.features.parity_report import Cause, Difference, ParityReport, ViewParity
from playbill.features.regeneration import known_then, of_states
from playbill.features.reports import FeatureColumn

EXAMPLES = 3
"""Differences of a view that are shown."""

_FUTURE, _LATER, _STALE, _UNEXPLAINED = get_args(Cause)


@dataclass(frozen=True)
class _Compared:
    """One service's requests.

    Args:
        columns: The features compared.
        present: A row per request and a column per feature: whether it was compared.
        different: request_id, member_id and event_at of the requests with a difference.
        served: Their features as logged.
        regenerated: Their features as computed now.
        causes: Why each differs, null where it is equal.
    """

    columns: Sequence[FeatureColumn]
    present: pl.DataFrame
    different: pl.DataFrame
    served: pl.DataFrame
    regenerated: pl.DataFrame
    causes: pl.DataFrame


def compare_requests(door: FeastDoor, requests: pl.DataFrame, sample: int | None = None, seed: int = 0) -> ParityReport:
    """Compare logged requests with what their features are now computed to have been.

    Args:
        door: The workspace's store.
        requests: Rows of `requests`.
        sample: Compare so many of them, drawn at random; None is all.
        seed: Of the drawing.

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
    done = [_compare(door, str(name), rows) for (name,), rows in groups if _columns(door, str(name))]
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


def _columns(door: FeastDoor, service: str) -> Sequence[FeatureColumn]:
    return door.catalog(service).schema.of("member", "request")


def _compare(door: FeastDoor, service: str, requests: pl.DataFrame) -> _Compared:
    catalog, columns = door.catalog(service), _columns(door, service)
    views = [name for name in catalog.plain("member", "request") if name in catalog.views]
    facts = read_facts(requests, columns, views)
    requested = facts.rows.select("member_id", "event_at")
    regenerated = member_features(door, service, requested).select(column.name for column in columns)
    differs = pl.DataFrame(
        [(facts.served[c.name].ne_missing(regenerated[c.name]) & facts.present[c.name]).alias(c.name) for c in columns]
    )
    any_differs = differs.select(pl.any_horizontal(pl.all())).to_series()
    return _Compared(
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
    rows = facts.rows.filter(chosen).select("member_id", "event_at")
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


def _views(parts: Sequence[_Compared]) -> Iterator[ViewParity]:
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


def _examples(part: _Compared, column: FeatureColumn) -> Iterator[Difference]:
    rows = part.different.select(
        "request_id",
        "member_id",
        pl.col("event_at").alias("at"),
        part.served[column.name].alias("served"),
        part.regenerated[column.name].alias("regenerated"),
        part.causes[column.name].alias("cause"),
    )
    for row in rows.drop_nulls("cause").head(EXAMPLES).iter_rows(named=True):
        yield Difference(view=column.view, feature=column.feature, **row)
