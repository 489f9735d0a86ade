"""What a mapping may say: which file or query, and which column of it, feeds which canonical column.

Every mistake of a mapping is found before any row is read, and all are reported together with their YAML path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from playbill.errors import DefinitionError, Problem, did_you_mean
from playbill.schema import TABLES
from playbill.sources.ratings import RatingRule

Scalar = str | int | float | bool
Reading = Literal[
    "epoch_seconds",
    "epoch_milliseconds",
    "epoch_microseconds",
    "iso_text",
    "year",
    "year_in_name",
    "name_of_title",
    "zip_region",
    "integer",
    "number",
]


class MappingPiece(BaseModel):
    """A piece of a mapping. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{name}' is no time zone, expected one such as UTC or Europe/Paris") from None
    return name


class ColumnMapping(MappingPiece):
    """Where one canonical column comes from. A plain string in YAML means `{from: STRING}`."""

    source: str | None = Field(default=None, alias="from")
    """Column of the file or query."""
    constant: Scalar | None = None
    """One value for every row, instead of `from`."""
    reading: Reading | None = Field(default=None, alias="as")
    """How values are read where their type alone does not tell."""
    split: str | None = Field(default=None, min_length=1)
    """Separator that makes a list of a string."""
    values: dict[Scalar, Scalar] | None = None
    """Replaces source values; one that is not listed is a mistake, unless there is a `default`."""
    default: Scalar | None = None
    """Stands in for null."""
    zone: Annotated[str, AfterValidator(_known_zone)] | None = None
    """Time zone of timestamps that do not carry their own."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.constant is None):
            raise ValueError("give either 'from' or 'constant'")
        return self


ShortColumn = Annotated[
    ColumnMapping, BeforeValidator(lambda value: {"from": value} if isinstance(value, str) else value)
]


class RatingMapping(MappingPiece):
    """Turns ratings into plays and thumbs. A null rating is a play without a thumb."""

    source: str = Field(alias="from")
    """Column with the rating."""
    up: float = 4.0
    """Ratings from here on are also a thumbs_up."""
    down: float = 2.0
    """Ratings up to here are also a thumbs_down."""
    canvas: str = "home"
    """The canvas the plays are taken to come from."""

    @model_validator(mode="after")
    def _bounds_apart(self) -> Self:
        if self.down >= self.up:
            raise ValueError(f"'down' ({self.down:g}) must be less than 'up' ({self.up:g})")
        return self

    @property
    def rule(self) -> RatingRule:
        """The rule in the terms of `playbill.sources.ratings`."""
        return RatingRule(self.up, self.down, self.canvas)


def _share(value: object) -> object:
    if isinstance(value, str) and (number := value.strip().removesuffix("%").strip()) != value.strip():
        try:
            return float(number) / 100
        except ValueError:
            raise ValueError(f"'{value}' is no share, expected one such as 1%") from None
    return value


class SetAside(MappingPiece):
    """Sets rows that cannot be used aside, each with its reasons, instead of refusing the load."""

    limit: Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)]
    """The load is refused when more of a table's rows than this share would be set aside, such as 1%."""


class FileOrigin(MappingPiece):
    """A file in the folder that is ingested."""

    file: str
    """Path relative to the folder; `*` matches several parquet files."""
    format: Literal["parquet", "csv", "json", "ndjson"] | None = None
    """Taken from the file's ending when left out; `.tsv` and `.dat` are csv."""
    separator: str | None = Field(default=None, min_length=1)
    """Between columns: `,`, for .tsv a tab, for .dat `::`; any length."""
    encoding: str = "utf-8"
    """Of text files, such as latin-1."""
    header: tuple[str, ...] | None = None
    """Column names of a text file without a first line of names, or of a JSON object's keys and values."""


class JoinMapping(FileOrigin):
    """A further file whose columns are added where the column `by` has the same value."""

    by: str
    """Column that both files have; compared as text."""


class TableMapping(MappingPiece):
    """How one canonical table is filled."""

    columns: dict[str, ShortColumn]
    """Canonical column -> where it comes from."""
    profile: dict[str, ShortColumn] = Field(default_factory=dict)
    """Members only: columns of your own that are kept beside the canonical ones."""
    rating: RatingMapping | None = None
    """Interactions only."""
    order_by: str | None = None
    """Interactions only: column with the true order of a member's events, where times are not enough."""
    merge_duplicates: bool = False
    """Titles only: entries with the same name, kind, release and genres become one title, that of the smallest id."""
    distinct: bool = False
    """Titles only: of rows with one `title_id` the first is read, such as where the file is a log; none where it is
    null."""
    set_aside: SetAside | None = None
    """Also at the top level, for every table: what becomes of rows that cannot be used."""

    def sources(self) -> dict[str, str]:
        """Return YAML path -> source column for everything that names one."""
        named = {f"columns.{name}": column.source for name, column in self.columns.items()}
        named |= {f"profile.{name}": column.source for name, column in self.profile.items()}
        named["order_by"] = self.order_by
        named["rating.from"] = self.rating.source if self.rating else None
        return {path: source for path, source in named.items() if source is not None}


class FileTable(TableMapping, FileOrigin):
    """A canonical table from files."""

    join: tuple[JoinMapping, ...] = ()
    """Further files with columns of the same rows."""


class QueryTable(TableMapping):
    """A canonical table from a database."""

    table: str | None = None
    """Name of a table or view, with its schema where needed."""
    select: str | None = None
    """A SELECT statement, instead of `table`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.select is None):
            raise ValueError("give either 'table' or 'select'")
        return self


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
    """Return the well-formed tables of a YAML mapping, which must have those `needed`, and every mistake found.

    Raises:
        DefinitionError: There is no such file, or it is no YAML mapping.
    """
    raw, known = _yaml(path), (*MAPPABLE, FOR_ALL_TABLES)
    problems = [
        Problem(str(name), "unknown table.", did_you_mean(str(name), known, _listed(known)))
        for name in raw
        if name not in known
    ]
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
        Problem(f"{table}.{path}", f"there is no column '{source}'.", did_you_mean(source, known, _listed(known)))
        for path, source in mapping.sources().items()
        if source not in known
    ]


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


def _table_problems(table: str, mapping: TableMapping) -> list[Problem]:
    canonical = TABLES[table].names()
    problems = []
    for name in mapping.columns:
        if name not in canonical:
            hint = did_you_mean(name, canonical, _listed(canonical))
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
    "distinct": "titles",
}
"""Key of a table -> the only table that can have it."""


def _explain(table: str, item: Mapping[str, Any], kind: type[MappingPiece]) -> Problem:
    location = tuple(item["loc"])
    where = ".".join([table, *(str(part) for part in location)])
    if item["type"] == "extra_forbidden":
        known = _keys(location[:-1], kind)
        return Problem(where, "unknown key.", did_you_mean(str(location[-1]), known, _listed(known)))
    if item["type"] == "missing":
        return Problem(where, "missing.")
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(where, "expected keys with values.", _listed(_keys(location, kind)))
    return Problem(where, str(item["msg"]).removeprefix("Value error, ") + ".")


def _keys(location: tuple[Any, ...], kind: type[MappingPiece]) -> list[str]:
    blocks: dict[Any, type[MappingPiece]] = {
        "columns": ColumnMapping,
        "profile": ColumnMapping,
        "rating": RatingMapping,
    }
    blocks |= {"join": JoinMapping, FOR_ALL_TABLES: SetAside}
    model = blocks.get(location[0], kind) if location else kind
    return sorted(field.alias or name for name, field in model.model_fields.items())
