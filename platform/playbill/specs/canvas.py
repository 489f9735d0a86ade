"""Canvases and rows: where titles are shown, which ones may be, and how heads are blended there."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from playbill.specs.base import CanvasName, CanvasReference, Definition, Duration, Reference, Spec
from playbill.specs.plugins import FallbackName

ContextField = Literal["query", "source_title", "country", "device", "language", "hour_of_week"]
"""What a request can say about itself."""

SIMILARITY = "similarity"
"""A term of a blend that is no head: the cosine of the vectors of source title and title, 0 without a source."""

Blend = Annotated[dict[str, float], Field(min_length=1)]
"""Head, or `similarity` where requests name a source title -> its weight in the score."""


class PercentileRange(Spec):
    """A range of popularity percentiles at request time; 100 is the most played title."""

    below: float | None = Field(default=None, gt=0, le=100)
    """Only titles under this percentile."""
    above: float | None = Field(default=None, ge=0, lt=100)
    """Only titles over this percentile."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("needs 'below', 'above' or both")
        if self.below is not None and self.above is not None and self.above >= self.below:
            raise ValueError(f"nothing is above {self.above:g} and below {self.below:g}")
        return self


class CandidatesSpec(Spec):
    """Which titles may be shown. Every rule must hold."""

    available: Literal["now", "upcoming"] = "now"
    """`now`: in the request's country at the request's time. `upcoming`: launching there later."""
    watched: bool | None = None
    """false hides what the member has played, true shows nothing else, absent does not ask."""
    kids: bool | None = None
    """true shows only titles marked for kids, false none of them, absent does not ask."""
    exclude_source: bool = False
    """Hide the request's source title."""
    popularity_percentile: PercentileRange | None = None
    """Only titles within this range of popularity."""
    launched_within: Duration | None = None
    """Only titles whose launch in the country is at most this long ago."""


class CanvasSpec(Definition):
    """A canvas: one surface with its own request, candidates, blend and measure."""

    kind: Literal["Canvas"] = "Canvas"
    name: CanvasName
    """What the log's `canvas` and other files call it; a source's own surface has a namespace."""
    target: Literal["title"] = "title"
    """What is ranked."""
    context: tuple[ContextField, ...] = ("country", "device", "language", "hour_of_week")
    """Fields its requests carry."""
    impute: dict[ContextField, Literal["none"]] = Field(default_factory=dict)
    """Rule for each field it lacks: `none` is a learned value of its own, and the rule where none is given."""
    candidates: CandidatesSpec = CandidatesSpec()
    blend: Blend
    """Head -> its weight in this canvas's score."""
    metric: Reference
    """The label this canvas is judged by."""
    fallback: FallbackName = "popular_7d"
    """Policy that answers when the model cannot."""
    rows: tuple[Reference, ...] = ()
    """Rows that come first on the page, in this order; the canvas's other rows follow by name."""

    @model_validator(mode="after")
    def _impute_what_is_lacking(self) -> Self:
        if both := sorted(set(self.impute) & set(self.context)):
            raise ValueError(f"'{both[0]}' is in 'context', so there is nothing to impute")
        if SIMILARITY in self.blend and "source_title" not in self.context:
            raise ValueError("'similarity' needs 'source_title' in 'context'")
        if self.candidates.exclude_source and "source_title" not in self.context:
            raise ValueError("'exclude_source' needs 'source_title' in 'context'")
        return self


class GeneratorSpec(Spec):
    """Makes several rows of one definition, one for each genre or watched title of the member."""

    each: Literal["genre", "watched_title"]
    """`genre`: titles of the member's genres, most played first. `watched_title`: each as source, newest first."""
    limit: PositiveInt = 5
    """Rows at most."""

    @property
    def placeholder(self) -> str:
        """What a row's title must contain: `{genre}` or `{title}`."""
        return "{genre}" if self.each == "genre" else "{title}"


class RowSpec(Definition):
    """A row: a named, ranked list of titles on a canvas."""

    kind: Literal["Row"] = "Row"
    title: dict[str, str] = Field(min_length=1)
    """Its name by language; a generated row has `{genre}` or `{title}` in it."""
    canvas: CanvasReference
    """The canvas it is shown on."""
    candidates: CandidatesSpec = CandidatesSpec()
    blend: Blend | None = None
    """Head -> its weight; or use `policy`."""
    policy: FallbackName | None = None
    """Rank by this policy (`popular`, `popular_7d`) instead of a blend."""
    scored_as: CanvasReference | None = None
    """Score as if asked on this canvas, such as more_like_this; its own canvas where absent."""
    minimum_length: PositiveInt = 5
    """A shorter row is not shown."""
    generator: GeneratorSpec | None = None
    """Makes several rows of this one."""

    @model_validator(mode="after")
    def _ranked_once(self) -> Self:
        if (self.blend is None) == (self.policy is None):
            raise ValueError("a row needs either 'blend' or 'policy'")
        if self.generator is not None:
            for language, text in self.title.items():
                if self.generator.placeholder not in text:
                    raise ValueError(f"title.{language} of a generated row needs {self.generator.placeholder}")
        return self
