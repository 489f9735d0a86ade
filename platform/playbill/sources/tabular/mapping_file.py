"""Reading and checking a mapping file.

Every mistake of a mapping is found before any row is read, and all are reported together with their YAML path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from playbill.errors import DefinitionError, Problem, nearest
from playbill.schema import TABLES
from playbill.sources.tabular.mapping import (
    ColumnMapping,
    FileTable,
    JoinMapping,
    QueryTable,
    RatingMapping,
    SetAside,
    Spec,
    TableMapping,
)

MAPPABLE = ("titles", "availability", "members", "interactions")
NEEDED_TABLES = ("titles", "interactions")
NEEDED_COLUMNS = {
    "titles": ("title_id", "name", "kind"),
    "availability": ("title_id", "country", "available_from"),
    "members": ("member_id",),
    "interactions": ("member_id", "event_at", "action", "canvas"),
    "ratings": ("member_id", "title_id", "event_at"),
}
"""Canonical columns that cannot be derived; "ratings" are interactions with a `rating` block."""

FOR_ALL_TABLES = "set_aside"
"""The key beside the tables; a table's own wins over it."""

MADE_BY_RATING = ("seq", "action", "canvas", "progress")
"""Columns a `rating` block writes itself."""


Kind = TypeVar("Kind", FileTable, QueryTable)


def read_mapping(
    path: Path, kind: type[Kind], needed: Sequence[str] = NEEDED_TABLES
) -> tuple[dict[str, Kind], list[Problem]]:
    """Read a mapping file.

    Args:
        path: The YAML file.
        kind: `FileTable` or `QueryTable`.
        needed: Tables that have to be in it.

    Returns:
        The tables that are well formed, and every mistake found.

    Raises:
        DefinitionError: There is no such file, or it is no YAML mapping.
    """
    raw = _yaml(path)
    problems = [_unknown_table(str(name)) for name in raw if name not in (*MAPPABLE, FOR_ALL_TABLES)]
    problems += [Problem(name, "this table has to be mapped.") for name in needed if name not in raw]
    tables: dict[str, Kind] = {}
    try:
        SetAside.model_validate(raw.get(FOR_ALL_TABLES, {"limit": 0}))
    except ValidationError as error:
        problems += [_explain(FOR_ALL_TABLES, item, SetAside) for item in error.errors()]
        raw = {name: value for name, value in raw.items() if name != FOR_ALL_TABLES}
    for name in MAPPABLE:
        if name not in raw:
            continue
        try:
            tables[name] = kind.model_validate(_with_shared(raw, name))
        except ValidationError as error:
            problems += [_explain(name, item, kind) for item in error.errors()]
            continue
        problems += _table_problems(name, tables[name])
    return tables, problems


def _with_shared(raw: Mapping[str, Any], table: str) -> Any:
    """Return what a table says, with the key for all tables where it does not have its own."""
    if FOR_ALL_TABLES not in raw or not isinstance(raw[table], dict):
        return raw[table]
    return {FOR_ALL_TABLES: raw[FOR_ALL_TABLES], **raw[table]}


def unknown_columns(table: str, mapping: TableMapping, known: Sequence[str]) -> list[Problem]:
    """Return a problem for every source column a mapping names that is not there."""
    return [
        _not_there(f"{table}.{path}", source, known)
        for path, source in mapping.sources().items()
        if source not in known
    ]


def _not_there(where: str, source: str, known: Sequence[str]) -> Problem:
    close = nearest(source, known)
    return Problem(where, f"there is no column '{source}'.", f"Did you mean '{close}'?" if close else _listed(known))


def _listed(known: Sequence[str]) -> str:
    return f"Known: {', '.join(known)}."


def _yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(str(path), [Problem("mapping", f"cannot be read: {error.strerror}.")]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "mapping"
        what = getattr(error, "problem", None) or str(error)
        raise DefinitionError(str(path), [Problem(where, f"this is no YAML: {what}.")]) from None
    if not isinstance(raw, dict):
        raise DefinitionError(str(path), [Problem("mapping", "expected the names of tables at the top level.")])
    return raw


def _unknown_table(name: str) -> Problem:
    known = (*MAPPABLE, FOR_ALL_TABLES)
    close = nearest(name, known)
    return Problem(name, "unknown table.", f"Did you mean '{close}'?" if close else _listed(known))


def _table_problems(table: str, mapping: TableMapping) -> list[Problem]:
    canonical = TABLES[table].names()
    problems = []
    for name in mapping.columns:
        if name not in canonical:
            close = nearest(name, canonical)
            hint = f"Did you mean '{close}'?" if close else _listed(canonical)
            problems.append(Problem(f"{table}.columns.{name}", "unknown canonical column.", hint))
        elif mapping.rating and name in MADE_BY_RATING:
            problems.append(Problem(f"{table}.columns.{name}", "the rating block makes this column itself."))
    needed = NEEDED_COLUMNS["ratings" if mapping.rating else table]
    missing = [name for name in needed if name not in mapping.columns]
    problems += [Problem(f"{table}.columns.{name}", "this column has to be mapped.") for name in missing]
    if table == "interactions" and mapping.columns.get("member_id", ColumnMapping(source="-")).source is None:
        problems.append(Problem("interactions.columns.member_id", "it has to come from a column."))
    for block, owner in _OWNERS.items():
        if table != owner and getattr(mapping, block):
            problems.append(Problem(f"{table}.{block}", f"only {owner} can have this."))
    taken = [name for name in mapping.profile if name in canonical]
    return problems + [Problem(f"{table}.profile.{name}", "this is a canonical column.") for name in taken]


_OWNERS = {
    "profile": "members",
    "rating": "interactions",
    "order_by": "interactions",
    "merge_duplicates": "titles",
}
"""Key of a table -> the only table that can have it."""


def _explain(table: str, item: Mapping[str, Any], kind: type[Spec]) -> Problem:
    location = tuple(item["loc"])
    where = ".".join([table, *(str(part) for part in location)])
    if item["type"] == "extra_forbidden":
        known = _keys(location[:-1], kind)
        close = nearest(str(location[-1]), known)
        return Problem(where, "unknown key.", f"Did you mean '{close}'?" if close else _listed(known))
    if item["type"] == "missing":
        return Problem(where, "missing.")
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(where, "expected keys with values.", _listed(_keys(location, kind)))
    return Problem(where, str(item["msg"]).removeprefix("Value error, ") + ".")


def _keys(location: tuple[Any, ...], kind: type[Spec]) -> list[str]:
    model = kind
    if location[:1] in (("columns",), ("profile",)):
        model = ColumnMapping
    elif location[:1] == ("rating",):
        model = RatingMapping
    elif location[:1] == ("join",):
        model = JoinMapping
    elif location[:1] == (FOR_ALL_TABLES,):
        model = SetAside
    return sorted(field.alias or name for name, field in model.model_fields.items())
