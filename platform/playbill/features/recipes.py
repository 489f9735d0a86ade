"""Features of one's own that are computed from the event log: what is counted, over what, and the states it gives.

A recipe is turned into an `EventView`, so that builds, increments, backfills and pushes treat it as a shipped view. It
never sees a moment: states are stamped here, one microsecond after the events of a moment (members) or at the end of
their hour (all else), which is what keeps a value strictly before the event it is joined to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from playbill.clock import MICROSECOND
from playbill.errors import DataError, Problem, UnknownNameError
from playbill.features.axis import CHANGED_AT, CREATED_AT, EVER, Span, Window, sweep
from playbill.features.titles import BUCKET, enters
from playbill.features.views import EventView
from playbill.schema import INTERACTIONS, TITLES

STEP = 2.0**-24
"""Numbers are summed in whole steps of this: sums of integers do not depend on what is summed beside them."""
LARGEST = 2.0**38

Function = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A number over an entity's events before a moment."""

    kind: Literal["count", "sum", "mean"]
    """What is made of the values; nulls and nan do not count."""
    value: pl.Expr | None = None
    """An event's value; None is every event."""
    within: timedelta | None = None
    """Only events of this long before the moment."""
    last: int | None = None
    """Only the last so many events."""
    log: bool = False
    """log(1 + number) instead of the number."""

    @property
    def described(self) -> str:
        """What decides its values, for the view's version."""
        value = "" if self.value is None else self.value.meta.serialize(format="json")
        return f"{self.kind} {value} {self.within} {self.last} {self.log}"


@dataclass(frozen=True)
class Recipe:
    """A view of one's own over the event log."""

    name: str
    keys: tuple[str, ...]
    """Columns of the log whose values it holds."""
    actions: tuple[str, ...] | None = None
    """Events that count; None is all."""
    values: Mapping[str, Aggregate] = field(default_factory=dict)
    """Column -> what it is; or `function` and `types`."""
    function: Function | None = None
    """The events of whole entities -> the value after each; see `playbill.features.own.event_function`."""
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    """Columns that the function returns."""
    reads: tuple[str, ...] = ()
    """Further columns of the log, and columns of titles."""
    revision: int = 1
    """Raised by hand where code that is not in feature_repo changed."""

    @property
    def title_columns(self) -> tuple[str, ...]:
        """What it reads of titles."""
        return tuple(name for name in self.reads if INTERACTIONS.column(name) is None and TITLES.column(name))

    def view(self, content: str) -> EventView:
        """Return how it is built; another `content`, the hash of its definition in feature_repo, is another version."""
        own = {name: value.described for name, value in self.values.items()}
        return EventView(
            self.name,
            self.keys,
            self.encode,
            leaves=tuple({value.within: None for value in self.values.values() if value.within}),
            parameters={"content": content, "values": own, "actions": self.actions, "reads": self.reads},
            actions=self.actions,
            hourly=self.hourly,
            title_columns=self.title_columns,
            part_by=self.keys[0],
            revision=self.revision,
            log_columns=tuple(name for name in (*self.keys, *self.reads) if name not in self.title_columns),
        )

    @property
    def hourly(self) -> bool:
        """Whether events enter at the end of their hour: all but values of members."""
        return "member_id" not in self.keys

    def encode(self, events: pl.DataFrame, titles: pl.DataFrame, span: Span = EVER) -> pl.DataFrame:
        """Return the states of every entity in the events, sorted by entity and moment.

        Raises:
            DataError: The recipe's own code fails, or what it gives is not what was declared.
        """
        own = events.filter(pl.col("action").is_in(self.actions)) if self.actions is not None else events
        if self.title_columns:
            known = titles.select("title_id", *self.title_columns)
            own = own.join(known, on="title_id", how="left", maintain_order="left")
        own = own.sort(*self.keys, "event_at", maintain_order=True)
        return self._counted(own, span) if self.function is None else self._called(self.function, own, span)

    def _counted(self, events: pl.DataFrame, span: Span) -> pl.DataFrame:
        numbers = {name: self._number(events, name, value) for name, value in self.values.items()}
        counted = events.select(*self.keys, enters(self.hourly), pl.col("recorded_at").alias(CREATED_AT)).with_columns(
            *(
                (column / STEP).round().cast(pl.Int64).fill_null(0).alias(_sum(name))
                for name, column in numbers.items()
            ),
            *(column.is_not_null().cast(pl.Int8).alias(_count(name)) for name, column in numbers.items()),
        )
        both = [(part(name), value) for name, value in self.values.items() for part in (_sum, _count)]
        state = sweep(
            counted,
            self.keys,
            totals=[name for name, value in both if value.within is None and value.last is None],
            windows={name: Window(name, value.within) for name, value in both if value.within is not None},
            last={name: (name, value.last) for name, value in both if value.last is not None},
            latest=(CREATED_AT,),
            span=span,
            grain=BUCKET if self.hourly else MICROSECOND,
        )
        return state.select(
            *self.keys,
            CHANGED_AT,
            CREATED_AT,
            *(_result(name, value).cast(pl.Float32).alias(name) for name, value in self.values.items()),
        )

    def _number(self, events: pl.DataFrame, name: str, value: Aggregate) -> pl.Series:
        if value.value is None:
            return pl.ones(events.height, dtype=pl.Float64, eager=True)
        try:
            column = events.select(value.value.cast(pl.Float64).alias(name)).to_series()
        except pl.exceptions.PolarsError as error:
            first_line = str(error).strip().split("\n")[0].rstrip(".")
            raise self._wrong(name, f"cannot be computed: {first_line}.") from None
        if column.len() != events.height:
            raise self._wrong(name, f"gives {column.len()} values for {events.height} events, and needs one for each.")
        column = column.fill_nan(None)
        if value.kind == "count":
            # What is counted is where the test holds.
            column = column.to_frame().select(pl.when(pl.col(name) != 0).then(1.0)).to_series()
        if bool((column.abs() > LARGEST).any()):
            raise self._wrong(name, f"has values beyond {LARGEST:.0f}.", "Bring it into another unit.")
        return column

    def _called(self, function: Function, events: pl.DataFrame, span: Span) -> pl.DataFrame:
        """Call the recipe's function, and stamp what it returns strictly after each moment."""
        try:
            result = function(events)
        except Exception as error:
            raise self._wrong(getattr(function, "__name__", "function"), f"{type(error).__name__}: {error}.") from error
        self._check(result, events)
        stamped = result.select(
            *self.keys,
            "event_at",
            enters(self.hourly),
            *(pl.col(name).cast(kind, strict=False) for name, kind in self.types.items()),
        ).sort(*self.keys, "event_at", maintain_order=True)
        created = (
            events.select(
                *self.keys, enters(self.hourly), pl.col("recorded_at").cum_max().over(self.keys).alias(CREATED_AT)
            )
            .group_by([*self.keys, CHANGED_AT])
            .agg(pl.col(CREATED_AT).max())
        )
        last = stamped.unique([*self.keys, CHANGED_AT], keep="last", maintain_order=True)
        states = last.join(created, on=[*self.keys, CHANGED_AT], how="left", maintain_order="left")
        return states.filter(span.expr()).select(*self.keys, CHANGED_AT, CREATED_AT, *self.types)

    def _check(self, result: Any, events: pl.DataFrame) -> None:
        if not isinstance(result, pl.DataFrame):
            raise self._wrong("function", f"returns {type(result).__name__}, and has to return a polars DataFrame.")
        moments = [*self.keys, "event_at"]
        if absent := [name for name in (*moments, *self.types) if name not in result.columns]:
            hint = f"It has {', '.join(result.columns)}."
            raise DataError(f"feature view '{self.name}'", [Problem(n, "is not returned.", hint) for n in absent])
        if strays := result.join(events, on=moments, how="anti").height:
            what = f"has {strays} rows at moments without an event of theirs; return a row of the events given."
            raise self._wrong("event_at", what)

    def _wrong(self, where: str, what: str, hint: str = "") -> DataError:
        return DataError(f"feature view '{self.name}'", [Problem(where, what, hint)])


def columns_of(expressions: Sequence[pl.Expr], reads: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns of the log and of titles that are read.

    Raises:
        UnknownNameError: There is no such column; a source's own ones have a dot in their names.
    """
    names = dict.fromkeys([name for value in expressions for name in value.meta.root_names()] + list(reads))
    known = [name for name in (*INTERACTIONS.names(), *TITLES.names()) if name not in ("valid_from", "names")]
    for name in names:
        if name not in known and "." not in name:
            raise UnknownNameError("column of interactions or titles", name, known)
    return tuple(names)


def _result(name: str, value: Aggregate) -> pl.Expr:
    count, total = pl.col(_count(name)), pl.col(_sum(name)) * STEP
    number = {"count": count, "sum": total, "mean": pl.when(count > 0).then(total / count)}[value.kind]
    return number.cast(pl.Float64).log1p() if value.log else number


def _sum(name: str) -> str:
    return f"__sum_{name}"


def _count(name: str) -> str:
    return f"__count_{name}"
