"""Canvases: where titles are shown, which ones may be, and how heads are blended there.

Pages: in which order a canvas's rows come, and what every page must keep to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PositiveInt, model_validator

from playbill.definitions.specs.base import (
    CanvasName,
    CanvasReference,
    Definition,
    Reference,
    Spec,
    Weight,
    registered,
    unknown_name,
)
from playbill.definitions.specs.candidates import CandidatesSpec
from playbill.definitions.specs.context import EVERYWHERE, ContextField, ImputeRule
from playbill.registry import Plugin, Registry

FALLBACKS = Registry(
    "fallback",
    "playbill.fallbacks",
    {
        "popular": Plugin("playbill.ranking.fallbacks:popular"),
        "popular_7d": Plugin("playbill.ranking.fallbacks:popular_7d"),
        "top_10": Plugin("playbill.ranking.fallbacks:top_10"),
        "trending": Plugin("playbill.ranking.fallbacks:trending"),
        "newest": Plugin("playbill.ranking.fallbacks:newest"),
        "next_launch": Plugin("playbill.ranking.fallbacks:next_launch"),
        "recently_added_to_my_list": Plugin("playbill.ranking.fallbacks:recently_added_to_my_list"),
        "last_watched": Plugin("playbill.ranking.fallbacks:last_watched"),
    },
)
"""Orders of titles that no model makes, called as `policy(plays, viewer)`; see `playbill.ranking.fallbacks`."""
FallbackName = Annotated[str, registered(FALLBACKS)]

SIMILARITY = "similarity"
SOURCE_TERMS = (SIMILARITY, "likeness", "lift", "co_play", "semantic")
"""Terms of a blend that are no heads, about the source title of a request; see `ranking.scoring.auxiliary_scores`."""
QUERY_TERMS = ("text", "text_neighbours")
"""The same about its query."""
TERMS = (*SOURCE_TERMS, *QUERY_TERMS)
LIKENESS_TERMS = frozenset(TERMS) - {SIMILARITY, "text"}
"""Those that need what training learns of pairs of titles."""


def _ranks_something_first(blend: dict[str, float]) -> dict[str, float]:
    if blend and not any(weight > 0 for weight in blend.values()):
        raise ValueError("no weight is above 0, so what scores worst would be shown first: give a head a positive one")
    return blend


Blend = Annotated[dict[str, Weight], Field(min_length=1), AfterValidator(_ranks_something_first)]
"""Head, or term where requests carry what it is about -> its weight in the score."""

OF_THE_PAGE = ("context", "impute", "candidates", "fallback", "rows", "page")
"""What a canvas of rows has from the canvas whose rows it ranks."""


Strategy = Literal["fixed", "independent", "greedy", "beam"]
"""Who orders the rows. `fixed`: the order they are written in. `independent`: each row by its own score. `greedy`: the
best row given those above it, titles that are above taken out of it first. `beam`: the page whose rows together are
most likely to hold a play, among the few best ones at every place."""


class ViewportSpec(Spec):
    """What a screen shows before anybody scrolls."""

    rows: int = Field(ge=1, le=1000)
    """Rows that are seen at once."""
    columns: int = Field(ge=1, le=1000)
    """Titles of a row that are seen at once."""


VIEWPORTS = {
    "tv": ViewportSpec(rows=3, columns=6),
    "web": ViewportSpec(rows=4, columns=6),
    "tablet": ViewportSpec(rows=4, columns=5),
    "phone": ViewportSpec(rows=4, columns=3),
}
"""Presets by name."""


def _viewport(value: Any) -> Any:
    if isinstance(value, str):
        if value not in VIEWPORTS:
            raise unknown_name("viewport", value, tuple(VIEWPORTS))
        return VIEWPORTS[value]
    return value


Viewport = Annotated[ViewportSpec, BeforeValidator(_viewport)]
"""`{rows: 3, columns: 6}`, or the name of a preset: tv, web, tablet, phone."""


class PlacedRowSpec(Spec):
    """A row that is placed by what the visit is for, and not by its score."""

    row: str = Field(min_length=1)
    """The row's name, such as continue_watching."""
    head: str = Field(min_length=1)
    """A head of level `page` that predicts what the visit is for, such as visit_continues."""
    first_from: float = Field(default=0.5, ge=0, le=1)
    """From this probability on the row comes first."""
    otherwise: PositiveInt = 3
    """Its place else, from 0; further up where the page has fewer rows."""


class ExpectedPlaySpec(Spec):
    """What a row is worth by the titles it shows now: the chance that one of them is played.

    With e = `examination_prob`, column j, from 0, is examined with probability e^j and its title is then played with
    the head's p_j, so the chance is `1 - prod_j (1 - e^j p_j)`: the examination of a cascade (Craswell et al., "An
    experimental comparison of click position-bias models", WSDM 2008), with one number for how attention falls from
    title to title.
    """

    head: str = Field(min_length=1)
    """A head of level `title` with loss `bce` that predicts a play of what was shown, such as shown_play."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Of the chance's logarithm in a row's value, beside the terms of `blend`. The strategy `beam` reads the
    exponential of a row's value as its chance of a play, so its weights should add up to 1."""
    examination_prob: float = Field(
        default=0.85,
        gt=0,
        le=1,
        validation_alias=AliasChoices("examination_prob", "look"),
        serialization_alias="look",
    )
    """Probability that the next title is examined, after one that was not played."""


class PageSpec(Spec):
    """How a page is put together. Titles are never there twice, and a row that is too short is never shown."""

    strategy: Strategy = Field(
        default="greedy", validation_alias=AliasChoices("strategy", "arm"), serialization_alias="arm"
    )
    """Who orders the rows; without `expected` and `blend` they come as they are written."""
    expected: ExpectedPlaySpec | None = None
    """The part of a row's value that the titles in it have."""
    blend: dict[str, Weight] = Field(default_factory=dict)
    """Head of level `row` -> its weight in a row's score."""
    pinned: tuple[Reference, ...] = ()
    """Rows that come first, in this order, whatever their score."""
    placed: PlacedRowSpec | None = None
    """A row placed by what the visit is for."""
    maximum_rows: int = Field(default=20, ge=1, le=1000)
    """Rows of a page at most."""
    viewports: dict[str, Viewport] = Field(default_factory=dict)
    """Device -> what its screen shows. On the first screen a row that fills its columns comes before one that does
    not; rows that are pinned or placed stay."""
    genre_consistency: bool = True
    """Whether every title of a genre row must have the genre."""
    beam: int = Field(default=4, ge=1, le=64)
    """Pages kept at every place by the strategy `beam`."""

    @model_validator(mode="after")
    def _placed_once(self) -> Self:
        if self.placed is not None and self.placed.row in self.pinned:
            raise ValueError(f"row '{self.placed.row}' is pinned, so it cannot be placed")
        if len(set(self.pinned)) != len(self.pinned):
            raise ValueError("a row is pinned twice")
        return self

    def without(self, gone: Collection[str]) -> PageSpec:
        """Return the page of a model that lacks some heads: they order and place nothing."""
        blend = {head: weight for head, weight in self.blend.items() if head not in gone}
        placed = None if self.placed is not None and self.placed.head in gone else self.placed
        expected = None if self.expected is not None and self.expected.head in gone else self.expected
        return self.model_copy(update={"expected": expected, "blend": blend, "placed": placed})

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads about rows and pages that it needs; `expected` has one about titles."""
        return (*self.blend, *((self.placed.head,) if self.placed else ()))


class CanvasSpec(Definition):
    """A canvas: one surface with its own request, candidates, blend and measure."""

    kind: Literal["Canvas"] = "Canvas"
    name: CanvasName
    """What the log's `canvas` and other files call it; a source's own surface has a namespace."""
    target: Literal["title", "row"] = "title"
    """What is ranked: titles, or the rows of another canvas."""
    rows_of: CanvasReference | None = None
    """The canvas whose rows are ranked, with `target: row`. Its `context`, `impute`, `candidates` and `fallback` are
    those of this one too: its rows are asked about as they are filled."""
    context: tuple[ContextField, ...] = EVERYWHERE
    """Fields its requests carry. Without `member` it reads no history and no member features."""
    impute: dict[ContextField, ImputeRule] = Field(default_factory=dict)
    """Rule for each field it lacks: `none` is a learned value of its own, and the rule where none is given;
    `source_title_name` reads the name of the source title as the query."""
    candidates: CandidatesSpec = CandidatesSpec()
    blend: Blend
    """Head -> its weight in this canvas's score."""
    metric: Reference
    """The label this canvas is judged by."""
    fallback: FallbackName = "popular_7d"
    """Policy that answers when the model cannot."""
    rows: tuple[Reference, ...] = ()
    """Rows that come first on the page, in this order; the canvas's other rows follow by name."""
    page: PageSpec | None = None
    """How its rows are ordered and what its pages keep to; absent, rows come as they are written."""

    @model_validator(mode="after")
    def _ranks_rows_of_a_canvas(self) -> Self:
        if self.target == "row" and self.rows_of is None:
            raise ValueError("'target: row' needs 'rows_of', the canvas whose rows are ranked")
        if self.target == "title" and self.rows_of is not None:
            raise ValueError("'rows_of' needs 'target: row'")
        if self.target == "row" and (terms := [term for term in TERMS if term in self.blend]):
            raise ValueError(f"'{terms[0]}' scores titles, and this canvas ranks rows")
        return self

    @property
    def requested_as(self) -> str:
        """The canvas that its requests are asked on: its own, or that of its rows."""
        return self.name if self.rows_of is None else self.rows_of.partition(":")[0]

    @model_validator(mode="after")
    def _impute_what_is_lacking(self) -> Self:
        if both := sorted(set(self.impute) & set(self.context)):
            raise ValueError(f"'{both[0]}' is in 'context', so there is nothing to impute")
        if strays := [name for name, rule in self.impute.items() if rule != "none" and name != "query"]:
            raise ValueError(f"'source_title_name' stands for a query, not for '{strays[0]}'")
        if self.impute.get("query", "none") != "none" and "source_title" not in self.context:
            raise ValueError("'query: source_title_name' needs 'source_title' in 'context'")
        for field, terms in (("source_title", SOURCE_TERMS), ("query", QUERY_TERMS)):
            if (used := [term for term in terms if term in self.blend]) and field not in self.context:
                raise ValueError(f"'{used[0]}' needs '{field}' in 'context'")
        if self.name == "kids" and self.candidates.kids is not True:
            raise ValueError("canvas 'kids' shows titles for kids and no others: its candidates need kids: true")
        if self.candidates.exclude_source and "source_title" not in self.context:
            raise ValueError("'exclude_source' needs 'source_title' in 'context'")
        return self
