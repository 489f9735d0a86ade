"""Whether what canvases say their requests carry is in the log: what nobody fills would be learnt as always absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from playbill.definitions.specs import CanvasSpec, ResolvedModel
from playbill.definitions.specs.context import IDENTIFYING
from playbill.errors import DataError, Problem, nearest

_COLUMNS = {"query": "query", "source_title": "source_title_id", "row": "row"}
_MADE_BY = {"query": "title_names", "source_title": "co_play"}
_REMEDY = {
    "query": "give the `search` events of its requests a query",
    "source_title": "give its events a source_title_id",
    "row": "give its events a row_id",
}


def assert_filled(
    resolved: ResolvedModel, requests: pl.DataFrame, events: pl.DataFrame, own_fields: Mapping[str, str]
) -> None:
    """Check that canvases with logged requests get the fields that say what a request is about.

    A canvas without logged requests, and one whose requests are made by a task, may lack them. So may all canvases of a
    log that has no rows lack `row`.

    Args:
        resolved: The model.
        requests: Those that are learnt from, with `query`, `source_title_id` and `row`.
        events: The log they are from.
        own_fields: Context field of an outside package -> the column it is read from.

    Raises:
        DataError: A canvas lists a field, and none of its requests has it; or the log has no such column.
    """
    problems = [
        problem
        for name, canvas in resolved.canvases.items()
        for problem in _unfilled(resolved, canvas, requests.filter(pl.col("canvas") == name), events)
    ]
    for name, column in own_fields.items():
        if column not in events.columns:
            close = nearest(column, events.columns)
            hint = f"Did you mean '{close}'?" if close else ""
            problems.append(Problem(f"context field '{name}'", f"the log has no column '{column}'.", hint))
    if problems:
        raise DataError("interactions", problems)


def _unfilled(
    resolved: ResolvedModel, canvas: CanvasSpec, requests: pl.DataFrame, events: pl.DataFrame
) -> Iterator[Problem]:
    for field in IDENTIFYING:
        if field not in canvas.context or requests.is_empty() or canvas.name in resolved.model.tasks:
            continue
        column = _COLUMNS[field]
        said = requests.select((pl.col(column).is_not_null() & (pl.col(column) != "")).any()).item()
        if said or (field == "row" and not events["row"].is_not_null().any()):
            continue
        made = f", make some with `tasks: {{{canvas.name}: {{from: {_MADE_BY[field]}}}}}`" if field in _MADE_BY else ""
        yield Problem(
            f"canvas '{canvas.name}'",
            f"lists '{field}' in its context, but none of its {requests.height} requests to learn from has it",
            f"{_REMEDY[field].capitalize()}{made}, or take '{field}' out of the canvas.",
        )
