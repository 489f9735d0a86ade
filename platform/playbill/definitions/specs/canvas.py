"""Canvases: where titles are shown, which ones may be, and how heads are blended there."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from playbill.definitions.specs.base import CanvasName, CanvasReference, Definition, Reference, Weight
from playbill.definitions.specs.candidates import CandidatesSpec
from playbill.definitions.specs.context import EVERYWHERE, ContextField, ImputeRule
from playbill.definitions.specs.page import PageSpec
from playbill.definitions.specs.plugins import FallbackName

SIMILARITY = "similarity"
SOURCE_TERMS = (SIMILARITY, "likeness", "lift", "co_play", "semantic")
"""Terms of a blend that are no heads, about the source title of a request: `playbill.ranking.scoring.auxiliary_scores`."""
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
    def asked_as(self) -> str:
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
