"""Features of one's own, as `feature_repo/` declares them. What comes back are plain Feast objects.

```python
from playbill.features.own import Mean, event_view

member_evenings = event_view(
    name="member_evenings",
    entity=member,
    actions=["play"],
    values={"evening_share": Mean(pl.col("event_at").dt.hour() >= 18, last=20)},
)
```

`playbill features build` computes them from the event log beside the shipped views: strictly before every moment, by
increments, pushed, materialised and checked for parity. Only `feature_repo/` imports this module, and it imports Feast.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Array, Float32
from pydantic_core import PydanticCustomError

from playbill.definitions.specs.base import parse_duration
from playbill.errors import DefinitionError, Problem, UnknownNameError, did_you_mean
from playbill.features.axis import CHANGED_AT, CREATED_AT
from playbill.features.recipes import Aggregate, Function, Recipe, columns_of
from playbill.features.titles import BUCKET
from playbill.features.vectors import FOLDER, TAG, VIEW
from playbill.schema import INTERACTIONS

__all__ = [
    "Count",
    "Mean",
    "Sum",
    "event_function",
    "event_view",
    "extend",
    "member_vectors",
    "recipe_of",
    "title_vectors",
]

_RECIPE = "playbill_recipe"
_TYPES: dict[str, pl.DataType] = {
    "Float32": pl.Float32(),
    "Float64": pl.Float64(),
    "Int32": pl.Int32(),
    "Int64": pl.Int64(),
    "Bool": pl.Boolean(),
    "String": pl.String(),
}


def Count(  # noqa: N802 - reads as the noun it is in a list of values
    where: pl.Expr | None = None, *, within: str | timedelta | None = None, last: int | None = None, log: bool = False
) -> Aggregate:
    """Return how many events there were.

    Args:
        where: Only events where this holds.
        within: Only events of this long before, such as `28d`.
        last: Of the last so many events.
        log: log(1 + count), which a network likes better: counts are heavy-tailed.
    """
    return Aggregate("count", where, _length(within), _events(last, within), log)


def Sum(  # noqa: N802
    value: str | pl.Expr, *, within: str | timedelta | None = None, last: int | None = None, log: bool = False
) -> Aggregate:
    """Return the sum of a column or expression over events; nulls count as nothing. Arguments are `Count`'s."""
    return Aggregate("sum", _expression(value), _length(within), _events(last, within), log)


def Mean(  # noqa: N802
    value: str | pl.Expr, *, within: str | timedelta | None = None, last: int | None = None
) -> Aggregate:
    """Return the mean of a column or expression over events that have it, null where none has.

    Of a test it is the share of events where it holds. Arguments are `Count`'s.
    """
    return Aggregate("mean", _expression(value), _length(within), _events(last, within))


def event_view(
    *,
    name: str,
    entity: Entity | Sequence[Entity],
    values: Mapping[str, Aggregate],
    actions: Sequence[str] | None = None,
    ttl: timedelta = timedelta(0),
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> FeatureView:
    """Return a feature view over the event log, computed by `playbill features build`.

    Args:
        name: Of the view, and of its folder VIEW.parquet.
        entity: Whose values; several for a combination, such as title and country. Join keys are columns of the log.
        values: Column -> `Count`, `Sum` or `Mean` of an event's columns, which may also be those of its title.
        actions: Events that count, such as `["play"]`; None is all.
        ttl: A value is null when nothing happened for so long; 0 is never.
        description: For people.
        tags: Feast's own.

    Raises:
        DefinitionError: A column, a window or an entity cannot be; all mistakes are named.
    """
    # What is no aggregate at all is named by `_check`.
    aggregates = [value for value in values.values() if isinstance(value, Aggregate)]
    recipe = Recipe(
        name,
        _keys(name, entity),
        actions=None if actions is None else tuple(actions),
        values=dict(values),
        reads=_reads(name, [value.value for value in aggregates if value.value is not None]),
    )
    _check(recipe)
    return _view(recipe, entity, [Field(name=column, dtype=Float32) for column in values], ttl, description, tags)


def event_function(
    *,
    entity: Entity | Sequence[Entity],
    schema: Sequence[Field],
    reads: Sequence[str] = (),
    actions: Sequence[str] | None = None,
    ttl: timedelta = timedelta(0),
    tags: Mapping[str, str] | None = None,
    revision: int = 1,
) -> Callable[[Function], FeatureView]:
    """Make a feature view of a function of polars frames; the function's name and docstring are the view's.

    The function is given the events of whole entities, entity by entity and in order, and returns rows of theirs (the
    keys and `event_at` are kept) with the columns of `schema`: the value after that event. It is seen strictly after
    the event's moment, and until the entity's next row. A value must depend on nothing but its entity's own events up
    to and including that row; `features build` tries it with later events and other entities left out.

    Args:
        entity: Whose values; see `event_view`.
        schema: Columns that the function returns: numbers and strings.
        reads: Columns it reads beside keys, event_at, recorded_at, action, title_id, country and progress; columns of
            titles are joined to the events.
        actions: Events that it is given; None is all.
        ttl: A value is null when nothing happened for so long; 0 is never.
        tags: Feast's own.
        revision: Raise it when code outside feature_repo that the function calls has changed.
    """

    def made(function: Function) -> FeatureView:
        name = function.__name__
        types = {field.name: _TYPES.get(str(field.dtype)) for field in schema}
        if wrong := [field for field in schema if types[field.name] is None]:
            what = f"is none of {', '.join(_TYPES)}."
            raise DefinitionError(name, [Problem(field.name, f"{field.dtype} {what}") for field in wrong])
        recipe = Recipe(
            name,
            _keys(name, entity),
            actions=None if actions is None else tuple(actions),
            function=function,
            types={column: kind for column, kind in types.items() if kind is not None},
            reads=_reads(name, [], reads),
            revision=revision,
        )
        return _view(recipe, entity, list(schema), ttl, inspect.getdoc(function) or "", tags)

    return made


def member_vectors(name: str, *, entity: Entity, length: int) -> FeatureView:
    """Return the view of members' vectors that `playbill vectors publish` writes.

    Args:
        name: `MODEL_member_vectors_vN`: the version whose vectors these are is part of it.
        entity: The member.
        length: How many numbers a vector has.

    Raises:
        DefinitionError: The name is of another form.
    """
    return _vectors(name, "member", entity, length, [])


def title_vectors(name: str, *, entity: Entity, length: int) -> FeatureView:
    """Return the view of titles' vectors and biases; see `member_vectors`. Its name is `MODEL_title_vectors_vN`."""
    return _vectors(name, "title", entity, length, [Field(name="bias", dtype=Float32)])


def _vectors(name: str, kind: str, entity: Entity, length: int, others: list[Field]) -> FeatureView:
    match = VIEW.fullmatch(name)
    if match is None or match["kind"] != kind:
        what = f"is no name of such a view, write MODEL_{kind}_vectors_vN."
        raise DefinitionError(f"feature view '{name}'", [Problem("name", what)])
    version = f"{match['model']}:{match['version']}"
    vector = Field(
        name="vector",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=length,
        vector_search_metric="inner_product",
    )
    return FeatureView(
        name=name,
        entities=[entity],
        # A vector does not go stale by itself: a member without new events stays who they were.
        ttl=timedelta(0),
        schema=[vector, *others],
        source=FileSource(
            name=name,
            path=f"{FOLDER}/{match['model']}_v{match['version']}/{kind}s.parquet",
            timestamp_field=CHANGED_AT,
            created_timestamp_column=CREATED_AT,
        ),
        description=f"Vectors of {kind}s by version {match['version']} of {match['model']}.",
        tags={TAG: version},
    )


def extend(service: FeatureService, name: str, *views: Any, description: str = "") -> FeatureService:
    """Return a feature service `name` that has all of another one, which stays as it is, and more views.

    Views may be some of their columns, as in `my_view[["column"]]`; those of a view that the service has already are
    added to it.

    Raises:
        DefinitionError: No view is given.
    """
    if not views:
        raise DefinitionError(f"feature service '{name}'", [Problem(name, "adds no view to what it extends.")])
    longer = FeatureService(name=name, features=[*service._features, *views], description=description)
    count = len(service.feature_view_projections)
    own = {one.name: copy.copy(one) for one in service.feature_view_projections}
    added = []
    for view, projection in zip(views, longer.feature_view_projections[count:], strict=True):
        there = own.get(projection.name)
        if there is None:
            own[projection.name] = projection
            added.append(view)
            continue
        names = {feature.name for feature in there.features}
        there.features = [*there.features, *(one for one in projection.features if one.name not in names)]
        if there.desired_features and projection.desired_features:
            there.desired_features = list(dict.fromkeys([*there.desired_features, *projection.desired_features]))
    # Feast infers the columns of projections by their place among the views, so both stay in one order.
    longer._features, longer.feature_view_projections = [*service._features, *added], list(own.values())
    return longer


def recipe_of(view: Any) -> Recipe | None:
    """Return how a view is computed from the event log, None for any other view."""
    found = getattr(view, _RECIPE, None)
    return found if isinstance(found, Recipe) else None


def _view(
    recipe: Recipe,
    entity: Entity | Sequence[Entity],
    schema: list[Field],
    ttl: timedelta,
    description: str,
    tags: Mapping[str, str] | None,
) -> FeatureView:
    files = FileSource(
        name=recipe.name,
        path=f"{recipe.name}.parquet",
        timestamp_field=CHANGED_AT,
        created_timestamp_column=CREATED_AT,
    )
    of_member = "member_id" in recipe.keys
    view = FeatureView(
        name=recipe.name,
        entities=_entities(entity),
        ttl=ttl,
        schema=schema,
        source=PushSource(name=f"{recipe.name}_push", batch_source=files) if of_member else files,
        # Views of a title in a country are not kept online, as the shipped ones are not.
        online=of_member or len(recipe.keys) == 1,
        description=description,
        tags=dict(tags or {}),
    )
    setattr(view, _RECIPE, recipe)
    return view


def _entities(entity: Entity | Sequence[Entity]) -> list[Any]:
    return list(entity) if isinstance(entity, list | tuple) else [entity]


def _keys(name: str, entity: Entity | Sequence[Entity]) -> tuple[str, ...]:
    keys = tuple(one.join_key for one in _entities(entity))
    texts = [column.name for column in INTERACTIONS.columns if column.type == "string"]
    those, what = f"Those are {', '.join(texts)}.", "is no text column of the event log."
    problems = [Problem(key, what, did_you_mean(key, texts, those)) for key in keys if key not in texts]
    if not keys:
        problems = [Problem("entity", "is missing: a view is of members, titles or the like.")]
    if problems:
        raise DefinitionError(f"feature view '{name}'", problems)
    return keys


def _reads(name: str, expressions: Sequence[pl.Expr], reads: Sequence[str] = ()) -> tuple[str, ...]:
    try:
        return columns_of(expressions, reads)
    except UnknownNameError as error:
        raise DefinitionError(f"feature view '{name}'", [Problem("columns", str(error))]) from None


def _check(recipe: Recipe) -> None:
    problems = [] if recipe.values else [Problem("values", "are missing.")]
    given: Mapping[str, Any] = recipe.values
    for column, value in given.items():
        if not isinstance(value, Aggregate):
            problems.append(Problem(column, f"is {type(value).__name__}, expected Count, Sum or Mean."))
        elif recipe.hourly and value.within is not None and value.within % BUCKET:
            problems.append(Problem(column, "counts by the hour, so `within` has to be whole hours."))
    if problems:
        raise DefinitionError(f"feature view '{recipe.name}'", problems)


def _expression(value: str | pl.Expr) -> pl.Expr:
    return pl.col(value) if isinstance(value, str) else value


def _length(within: str | timedelta | None) -> timedelta | None:
    if within is None:
        return None
    try:
        length: timedelta = parse_duration(within)
    except PydanticCustomError as error:
        raise DefinitionError("feature view", [Problem("within", f"{error.message()}.")]) from None
    if length <= timedelta(0):
        raise DefinitionError("feature view", [Problem("within", "has to be longer than nothing.")])
    return length


def _events(last: int | None, within: str | timedelta | None) -> int | None:
    if last is not None and within is not None:
        raise DefinitionError("feature view", [Problem("last", "and `within` exclude each other.")])
    if last is not None and last < 1:
        raise DefinitionError("feature view", [Problem("last", f"needs at least 1, got {last}.")])
    return last
