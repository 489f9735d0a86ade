"""What the encoder learns from the training part: which values there are, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from playbill.datasets.encoding.encoder import EncoderState
from playbill.datasets.encoding.row_entries import row_texts
from playbill.datasets.encoding.tokens import IGNORED_ACTIONS, Merge, year_edges
from playbill.definitions.specs import ContextColumn, ResolvedModel
from playbill.definitions.specs.context import own_fields
from playbill.errors import DataError, Problem
from playbill.schema import ACTIONS, UNKNOWN_COUNTRY

if TYPE_CHECKING:
    from playbill.features import ServiceSchema

MAXIMUM_VALUES = 10_000  # values of a categorical feature that get an index; the most frequent ones
MAXIMUM_ACTIONS = 62
_MERGES: dict[str, Merge] = {"same_title": True, "session": "session", "none": False}


def fit_encoder(
    resolved: ResolvedModel, schema: ServiceSchema, events: pl.DataFrame, titles: pl.DataFrame, title_ids: Iterable[str]
) -> EncoderState:
    """Learn everything but the values of categorical features, which `with_categories` adds.

    `events` are the training part of the log; `title_ids` have a row, in order.

    Raises:
        DataError: The log has more actions than a token can hold.
    """
    model = resolved.model
    without = model.contexts.without
    carried = {
        name: tuple(field for field in canvas.context if field not in without)
        for name, canvas in resolved.canvases.items()
    }
    own = own_fields(field for canvas in resolved.canvases.values() for field in canvas.context)
    return EncoderState(
        history_length=model.history.length,
        merge=_MERGES[model.history.merge],
        titles=tuple(title_ids),
        actions=_actions(events),
        canvases=_canvases(resolved, events),
        countries=tuple(value for value in _seen(events, "country") if value != UNKNOWN_COUNTRY),
        devices=_seen(events, "device"),
        languages=_seen(events, "language"),
        genres=_seen_in_lists(titles, "genres"),
        kinds=_seen(titles, "kind"),
        original_languages=_seen(titles, "original_language"),
        year_edges=_year_edges(titles),
        metadata=model.titles.metadata,
        snapshot_hours=model.titles.snapshot_hours,
        canvas_fields=carried,
        service=schema.service,
        service_version=schema.version,
        numeric=(*_columns(schema, title=False, kind="numeric", without=without), *_own(own, "numeric")),
        row_texts=row_texts(resolved, events),
        categorical={
            name: ()
            for name in (*_columns(schema, title=False, kind="categorical", without=without), *_own(own, "categorical"))
        },
        title_snapshot=_columns(schema, title=True, kind="numeric"),
        country_columns=tuple(column.name for column in schema.columns if column.entity == "title_country"),
        title_categorical={name: () for name in _columns(schema, title=True, kind="categorical")},
        title_vectors=_columns(schema, title=True, kind="numeric", vectors=True),
        anonymous=tuple(name for name, canvas in resolved.canvases.items() if "member" not in canvas.context),
        named_queries=_named_queries(resolved),
        task=model.contexts.task,
        rows=_seen(_carrying(resolved, events, "row"), "row"),
        row_positions="row_position" in events.columns
        and _carrying(resolved, events, "row_position")["row_position"].is_not_null().any(),
        request_fields=schema.reads,
        own_fields={name: field.column for name, field in own.items()},
        member_columns=tuple(column.name for column in schema.columns if column.entity == "member"),
    )


def seen_values(events: pl.DataFrame) -> pl.DataFrame:
    """Return few rows with everything that `fit_encoder` reads of [E] events, so that it learns the same from them.

    Those of parts of a log go together by `pl.concat` and `unique`.
    """
    alone = [name for name in ("action", "country", "device", "language") if name in events.columns]
    place = pl.col("row_position").clip(0, 0).cast(pl.Int32)  # that there is one
    together = events.select("canvas", "row", row_id=pl.col("row"), row_position=place)
    return pl.concat([together.unique(), *(events.select(name).unique() for name in alone)], how="diagonal")


def with_categories(
    state: EncoderState, counts: Mapping[str, pl.DataFrame], titles: pl.DataFrame, *, grow: bool = False
) -> EncoderState:
    """Return the state with the values of its categorical features, of training rows by `category_counts`.

    With `grow` the values that it has keep their places, and new ones come behind them.
    """
    own = {name: (state.categorical[name] if grow else (), counts[name]) for name in state.categorical}
    of_titles = {
        name: (state.title_categorical[name] if grow else (), _counts(titles, name)) for name in state.title_categorical
    }
    return state.model_copy(
        update={
            "categorical": {name: _behind(known, _frequent(found)) for name, (known, found) in own.items()},
            "title_categorical": {name: _behind(known, _frequent(found)) for name, (known, found) in of_titles.items()},
        }
    )


def category_counts(state: EncoderState, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return value and rows of each categorical feature; those of parts of a log go together by `sum` over values."""
    return {name: _counts(rows, name) for name in state.categorical}


GROWING = (
    "titles",
    "actions",
    "canvases",
    "countries",
    "devices",
    "languages",
    "genres",
    "kinds",
    "original_languages",
    "rows",
)
"""Vocabularies of the state that may get values behind those that they have."""


def grown_encoder(state: EncoderState, later: EncoderState) -> EncoderState:
    """Return a state that knows what a later one has seen too; every value that it had keeps its index.

    Values of categorical features are those it had: `with_categories` adds to them.

    Raises:
        DataError: The log has more actions than a token can hold.
    """
    found = {name: _behind(getattr(state, name), getattr(later, name), most=None) for name in GROWING}
    _require_room(found["actions"])
    return state.model_copy(update=found | {"row_texts": {**later.row_texts, **state.row_texts}})


def _behind(known: tuple[str, ...], found: Iterable[str], most: int | None = MAXIMUM_VALUES) -> tuple[str, ...]:
    """Return the values that are known and, behind them, new ones; `most` of them at most."""
    had = set(known)
    grown = (*known, *(value for value in found if value not in had))
    return grown if most is None else grown[: max(most, len(known))]


def _columns(
    schema: ServiceSchema, *, title: bool, kind: str, vectors: bool = False, without: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return columns by what they are, without those of some features (`view__feature`).

    Numbers of titles' vectors stand apart from their other numbers.
    """
    return tuple(
        column.name
        for column in schema.columns
        if column.entity.startswith("title") is title
        and column.kind == kind
        and (not title or (column.item is not None) is vectors)
        and column.name.rpartition("__")[2] not in without
    )


def _own(fields: Mapping[str, ContextColumn], kind: str) -> tuple[str, ...]:
    return tuple(name for name, field in fields.items() if field.kind == kind)


def _named_queries(resolved: ResolvedModel) -> tuple[str, ...]:
    if not resolved.model.contexts.imputation:
        return ()
    named = (name for name, canvas in resolved.canvases.items() if canvas.impute.get("query") == "source_title_name")
    return tuple(named)


def _carrying(resolved: ResolvedModel, events: pl.DataFrame, field: str) -> pl.DataFrame:
    """Return the events on canvases whose requests carry a field; a canvas without a definition carries all."""
    lacking = [name for name, canvas in resolved.canvases.items() if field not in canvas.context]
    return events.filter(~pl.col("canvas").is_in(lacking))


def _seen(frame: pl.DataFrame, column: str) -> tuple[str, ...]:
    if column not in frame.columns:
        return ()
    return tuple(frame[column].drop_nulls().cast(pl.String).unique().sort().to_list())


def _seen_in_lists(frame: pl.DataFrame, column: str) -> tuple[str, ...]:
    return _seen(frame.select(pl.col(column).explode()), column) if column in frame.columns else ()


def _counts(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    if column not in frame.columns:
        return pl.DataFrame(schema={"value": pl.String, "rows": pl.Int64})
    values = frame.select(pl.col(column).cast(pl.String).alias("value")).drop_nulls()
    return values.group_by("value").agg(rows=pl.len().cast(pl.Int64))


def _frequent(counts: pl.DataFrame) -> tuple[str, ...]:
    ordered = counts.sort(["rows", "value"], descending=[True, False]).head(MAXIMUM_VALUES)
    return tuple(ordered["value"].to_list())


def _actions(events: pl.DataFrame) -> tuple[str, ...]:
    seen = {action for action in _seen(events, "action") if action not in IGNORED_ACTIONS}
    ordered = (*(action for action in ACTIONS if action in seen), *sorted(seen.difference(ACTIONS)))
    _require_room(ordered)
    return ordered


def _require_room(actions: tuple[str, ...]) -> None:
    if len(actions) > MAXIMUM_ACTIONS:
        what = f"has {len(actions)} different actions, at most {MAXIMUM_ACTIONS} fit into a token"
        raise DataError("interactions", [Problem("action", what)])


def _canvases(resolved: ResolvedModel, events: pl.DataFrame) -> tuple[str, ...]:
    """Return canvases that get training rows: those in the log and those with a task, the model's own first."""
    trained = {*_seen(events, "canvas"), *resolved.model.tasks}
    own = tuple(name for name in resolved.canvases if name in trained)
    return (*own, *sorted(trained.difference(own)))


def _year_edges(titles: pl.DataFrame) -> tuple[int, ...]:
    if "release_date" not in titles.columns:
        return ()
    return year_edges(titles["release_date"].dt.year().drop_nulls().to_list())
