"""Live events one by one: what each must be, and every mistake of a call with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError

from playbill.errors import DataError, Problem, did_you_mean
from playbill.schema import (
    INTERACTIONS,
    QUERY_LIMIT,
    TEXT_LIMIT,
    UNKNOWN_COUNTRY,
    ColumnType,
    moment_problem,
    text_problem,
)
from playbill.tables.validation import PAST, RANGES, TITLE_ACTIONS, action_hint, is_known_action

Event = Mapping[str, Any]

_UNSTORABLE = "unstorable"
_SHOWN_CHARACTERS = 100
_FLOAT32_MOST = 3.4e38


def _storable_text(text: object) -> object:
    problem = text_problem(text) if isinstance(text, str) else None
    if problem is not None:
        raise PydanticCustomError(_UNSTORABLE, "{problem}", {"problem": problem})
    return text


def _storable_moment(moment: datetime) -> datetime:
    problem = moment_problem(moment)
    if problem is not None:
        raise PydanticCustomError(_UNSTORABLE, "{problem}", {"problem": problem})
    return moment.astimezone(UTC)


STORABLE = BeforeValidator(_storable_text)
"""Of a text: neither a NUL nor half a surrogate pair. Written last in a type, so that limits speak of a string."""
StorableMoment = Annotated[AwareDatetime, AfterValidator(_storable_moment)]
"""A moment with a zone, in UTC from here on, in the range that features and tables can count in."""

_PYTHON_TYPES: dict[ColumnType, Any] = {
    "string": Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT), STORABLE],
    "int32": Annotated[int, Field(ge=-(2**31), lt=2**31)],
    "int64": Annotated[int, Field(ge=-(2**63), lt=2**63)],
    "float32": Annotated[float, Field(ge=-_FLOAT32_MOST, le=_FLOAT32_MOST)],
    "float64": Annotated[float, Field(allow_inf_nan=False)],
    "bool": bool,
    "timestamp": StorableMoment,
}
_QUERY_TYPE = Annotated[str, Field(min_length=1, max_length=QUERY_LIMIT), STORABLE]
_OPTIONAL = ("seq", "recorded_at")
"""Canonical columns the journal fills when an event leaves them out."""


def checked_events(events: Sequence[Event], now: datetime) -> list[dict[str, Any]]:
    """Return every event with all canonical columns; `seq` may still be missing.

    Raises:
        DataError: Any event is wrong; all mistakes are named.
    """
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for index, event in enumerate(events):
        try:
            row = _event_model().model_validate(dict(event)).model_dump()
        except ValidationError as error:
            problems += [_explain(index, item) for item in error.errors()]
            continue
        row["recorded_at"] = row["recorded_at"] or now
        problems += _broken_rules(f"events[{index}]", row, now)
        rows.append(row)
    if problems:
        raise DataError("the events were not accepted", problems)
    return rows


def event_schema(filled: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of one event; whoever takes events fills `filled`, beside what the journal fills."""
    schema = _event_model().model_json_schema()
    return {**schema, "required": [name for name in schema["required"] if name not in filled]}


@cache
def _event_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for column in INTERACTIONS.columns:
        kind = _QUERY_TYPE if column.name == "query" else _PYTHON_TYPES[column.type]
        required = not column.nullable and column.name not in _OPTIONAL
        fields[column.name] = (kind, ...) if required else (kind | None, None)
    return create_model("Event", __config__=ConfigDict(extra="forbid"), **fields)


def _explain(index: int, item: Mapping[str, Any]) -> Problem:
    if not item["loc"]:
        # A key with half a surrogate pair cannot even be named.
        return Problem(f"events[{index}]", f"{item['msg']}.")
    name = str(item["loc"][0])
    where = f"events[{index}].{name}"
    if item["type"] == "extra_forbidden":
        return Problem(where, "unknown column.", did_you_mean(name, INTERACTIONS.names()))
    if item["type"] == "timezone_aware":
        return Problem(where, "the timestamp has no time zone.", "Append 'Z' for UTC.")
    if item["type"] == "missing":
        return Problem(where, "missing.")
    if item["type"] == _UNSTORABLE:
        return Problem(where, item["msg"])
    if name == "country" and item["input"] is None:
        return Problem(where, "null.", f"Write '{UNKNOWN_COUNTRY}' for an unknown country.")
    given = repr(item["input"])
    shown = given if len(given) <= _SHOWN_CHARACTERS else f"{given[:_SHOWN_CHARACTERS]}..."
    return Problem(where, f"{item['msg']}, got {shown}.")


def _broken_rules(where: str, row: Mapping[str, Any], now: datetime) -> Iterator[Problem]:
    """Yield what `validation` has rules for, one by one: an expression for one row costs 100 times as much."""
    if not is_known_action(row["action"]):
        yield Problem(f"{where}.action", f"an unknown action: {row['action']}.", action_hint(row["action"]))
    if row["action"] in TITLE_ACTIONS and row["title_id"] is None:
        yield Problem(f"{where}.title_id", f"no title for an action that needs one ({', '.join(TITLE_ACTIONS)}).")
    for column in PAST["interactions"]:
        if row[column] > now:
            what = f"a moment after the clock ({now.isoformat()}): {row[column].isoformat()}."
            yield Problem(f"{where}.{column}", what)
    for column, (low, high) in RANGES.items():
        value = row.get(column)
        if value is not None and not low <= value <= high:
            yield Problem(f"{where}.{column}", f"a value outside {low:g} to {high:g}: {value}.")
