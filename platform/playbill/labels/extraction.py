"""Events -> labels: one value for each event a label speaks of, as known at one moment."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from playbill.errors import DataError, Problem
from playbill.labels.derived import add_derived
from playbill.labels.where import compile_where
from playbill.schema import DERIVED_COLUMNS
from playbill.specs import EXTRACTORS, LabelSpec, parse_where
from playbill.specs.label import EventRule
from playbill.specs.where import column_names

COLUMNS = ("event_id", "title_id", "member_id", "seq", "value")

_NEEDED = ("event_id", "member_id", "seq", "event_at", "action", "title_id")
_SCHEMA = pl.Schema(
    {
        "event_id": pl.String(),
        "title_id": pl.String(),
        "member_id": pl.String(),
        "seq": pl.Int64(),
        "value": pl.Float32(),
    }
)


def extract(
    label: LabelSpec,
    interactions: pl.DataFrame,
    as_of: datetime,
    availability: pl.DataFrame | None = None,
    *,
    require_rows: bool = False,
) -> pl.DataFrame:
    """Label events with what was known at `as_of`.

    Args:
        label: The label's definition.
        interactions: Rows of the canonical log. Each member's must be complete from the start when the label
            asks for what came before an event.
        as_of: Cut-off, with a zone. Events at it or later, and rows recorded after it, do not exist.
        availability: The canonical table, needed only by a label that asks for `title_age_days`.
        require_rows: Raise when no event gets a value over zero, as training must.

    Returns:
        event_id, title_id, member_id, seq, value (float32), sorted by member_id and seq. An event that is not
        in it is unlabelled, because the label does not speak of it or it is too young; it is never a zero.

    Raises:
        DataError: The log lacks a column the label needs, `as_of` has no zone, or `require_rows` and no event is
            positive.
        StateError: The label needs the availability table and none was given.
    """
    if as_of.tzinfo is None:
        raise DataError(f"label {label.name}", [Problem("as_of", f"{as_of.isoformat()} has no time zone")])
    where = parse_where(label.events.where) if label.events and label.events.where else None
    _require_columns(label, interactions, {*_NEEDED, *(column_names(where) if where else ())})
    known = _known_at(interactions, as_of)
    if label.extractor is not None:
        labelled = _from_plugin(label, known, as_of, availability)
    else:
        assert label.events is not None
        labelled = _from_rule(label, label.events, known, availability)
        young = pl.col("event_at") + label.matures_after > as_of
        labelled = labelled.filter(~young).select(COLUMNS).cast(dict(_SCHEMA))  # type: ignore[arg-type]
    if require_rows and not (labelled["value"] > 0).any():
        raise DataError(f"label {label.name}", [_nothing(label, known)])
    return labelled.sort("member_id", "seq")


def _require_columns(label: LabelSpec, interactions: pl.DataFrame, needed: set[str]) -> None:
    missing = sorted(needed - DERIVED_COLUMNS.keys() - set(interactions.columns))
    if missing:
        problems = [Problem("interactions", f"column '{name}' is missing") for name in missing]
        raise DataError(f"label {label.name}", problems)


def _known_at(interactions: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    moment = pl.lit(as_of).cast(pl.Datetime("us", "UTC"))
    known = pl.col("event_at") < moment
    if "recorded_at" in interactions.columns:
        known &= pl.col("recorded_at") <= moment
    return interactions.filter(known).sort("member_id", "seq")


def _from_rule(
    label: LabelSpec, rule: EventRule, known: pl.DataFrame, availability: pl.DataFrame | None
) -> pl.DataFrame:
    """Give 1 where the rule holds, 0 where the negatives hold, and drop the rest."""
    holds = pl.lit(True)
    events = known
    if rule.where is not None:
        expression = parse_where(rule.where)
        events = add_derived(known, column_names(expression), availability)
        holds = compile_where(expression, events.schema)
    positive = pl.col("action").is_in(rule.action) & holds
    zero = pl.lit(False)
    for action in label.negatives.actions:
        own = pl.col("action") == action
        zero |= own & ~holds if action in rule.action else own
    if label.negatives.shown_not_played and "request_id" in events.columns:
        zero |= _shown_not_played()
    value = pl.when(positive).then(1.0).when(zero).then(0.0)
    return events.with_columns(value.alias("value")).filter(pl.col("value").is_not_null())


def _shown_not_played() -> pl.Expr:
    """Impressions of a known request whose title was not played in that request."""
    played = (pl.col("action") == "play").any().over("member_id", "request_id", "title_id")
    known = pl.col("request_id").is_not_null() & pl.col("title_id").is_not_null()
    return (pl.col("action") == "impression") & known & ~played


def _from_plugin(
    label: LabelSpec, known: pl.DataFrame, as_of: datetime, availability: pl.DataFrame | None
) -> pl.DataFrame:
    """Ask an outside extractor, and hold it to the same shape. Nulls and NaN are unlabelled."""
    plugin = EXTRACTORS[label.extractor or ""]
    made: pl.DataFrame = plugin.load()(label.extractor_options(), known, as_of, availability)
    missing = [name for name in COLUMNS if name not in made.columns]
    if missing:
        where = f"extractor '{label.extractor}'"
        raise DataError(f"label {label.name}", [Problem(where, f"gave no column '{name}'") for name in missing])
    shaped = made.select(COLUMNS).cast(dict(_SCHEMA))  # type: ignore[arg-type]
    return shaped.filter(pl.col("value").is_not_null() & pl.col("value").is_not_nan())


def _nothing(label: LabelSpec, known: pl.DataFrame) -> Problem:
    """Say why no event is positive: no such action, none that matches, or all too young."""
    if label.events is None:
        return Problem(f"label {label.name}", f"its extractor '{label.extractor}' found no positive event.")
    actions = " or ".join(f"'{action}'" for action in label.events.action)
    found = known.filter(pl.col("action").is_in(label.events.action)).height
    if found == 0:
        present = ", ".join(sorted(known["action"].unique().to_list())) or "none"
        return Problem(f"label {label.name}", f"the log has no {actions} event.", f"Actions in it: {present}.")
    what = f"none of {found} {actions} events matches and is mature."
    where = f" where: {label.events.where}" if label.events.where else ""
    return Problem(f"label {label.name}", what, f"Check{where} matures_after: {label.matures_after}.")
