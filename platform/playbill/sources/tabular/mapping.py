"""What a mapping may say: which file or query, and which column of it, feeds which canonical column."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

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


class Spec(BaseModel):
    """A piece of a mapping. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{name}' is no time zone, expected one such as UTC or Europe/Paris") from None
    return name


class ColumnMapping(Spec):
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


def _spelled_out(value: object) -> object:
    return {"from": value} if isinstance(value, str) else value


ShortColumn = Annotated[ColumnMapping, BeforeValidator(_spelled_out)]


class RatingMapping(Spec):
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


class SetAside(Spec):
    """Sets rows that cannot be used aside, each with its reasons, instead of refusing the load."""

    limit: Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)]
    """The load is refused when more of a table's rows than this share would be set aside, such as 1%."""


class FileOrigin(Spec):
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


class TableMapping(Spec):
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
