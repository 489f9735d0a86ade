"""Rows: named, ranked lists of titles on a canvas, and those that are made for each member."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from playbill.specs.base import CanvasReference, Definition, Spec
from playbill.specs.candidates import CandidatesSpec
from playbill.specs.canvas import Blend
from playbill.specs.plugins import FallbackName


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
