"""Rows: named, ranked lists of titles on a canvas, and those that are made for each member."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from playbill.definitions.specs.base import CanvasReference, Definition, Spec
from playbill.definitions.specs.candidates import CandidatesSpec, TitleKind
from playbill.definitions.specs.canvas import Blend, FallbackName

_PLACEHOLDER = re.compile(r"\{\w*\}")
LANGUAGE_PATTERN = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def _languages(texts: dict[str, str]) -> dict[str, str]:
    for language in texts:
        if not LANGUAGE_PATTERN.fullmatch(language):
            raise ValueError(f"'{language}' is no language, expected a code such as en or pt-BR")
    return texts


Texts = Annotated[dict[str, str], Field(min_length=1), AfterValidator(_languages)]
"""A text by language, such as {en: Dramas, de: Dramen}."""


class WordsSpec(Spec):
    """Words that names of generated rows are put together from, by language.

    Genres are looked up in small letters with `_` for everything else: `sci_fi` is the word for Sci-Fi too. A name is
    in the member's language where all of its words are, else in English; what has no words in either names no row.
    """

    genres: dict[str, Texts] = Field(default_factory=dict)
    """Genre -> what several titles of it are called: Dramas."""
    moods: dict[str, Texts] = Field(default_factory=dict)
    """Genre -> what titles of another genre are when they have it too: suspenseful."""
    kinds: dict[TitleKind, Texts] = Field(default_factory=dict)
    """Kind -> what becomes of the genre's word: TV {genre}."""
    origins: dict[str, Texts] = Field(default_factory=dict)
    """Country of origin -> where titles are from: French."""
    acclaim: Texts | None = None
    """What titles are that nearly all who gave a thumb liked: critically acclaimed."""
    era: Texts | None = None
    """Of which decade they are: from the {decade}s."""


class GeneratorSpec(Spec):
    """Makes several rows of one definition, for what the member likes."""

    each: Literal["genre", "watched_title", "character", "combination"]
    """`genre`: titles of one of the member's genres, most played first. `watched_title`: each as source, newest first.
    `character`: titles with one of the member's characters, then with those that most titles have. `combination`:
    titles of one genre that have more in common, such as a mood, a kind, an origin, a decade, or being acclaimed."""
    limit: int = Field(default=5, ge=1, le=100)
    """Rows at most."""
    minimum_titles: int = Field(default=8, ge=1, le=1000)
    """Titles that a combination needs among those that can be shown."""
    minimum_liked: int = Field(default=2, ge=1, le=1000)
    """Titles of a combination that the member liked, at least."""
    words: WordsSpec | None = None
    """Words for names; genres without one are called what they are called in the catalogue."""

    @property
    def placeholder(self) -> str:
        """What a row's title must contain."""
        return {"watched_title": "{title}", "character": "{character}"}.get(self.each, "{genre}")

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What a row's title may contain."""
        more = ("{acclaim}", "{mood}", "{origin}", "{era}") if self.each == "combination" else ()
        return (self.placeholder, *more)

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        if self.each == "combination" and (self.words is None or not self.words.genres):
            raise ValueError("'combination' needs 'words' with 'genres', to name its rows")
        return self


class RowSpec(Definition):
    """A row: a named, ranked list of titles on a canvas."""

    kind: Literal["Row"] = "Row"
    title: Texts
    """Its name by language. A generated row has `{genre}`, `{title}` or `{character}` in it, one of combinations
    `{acclaim}`, `{mood}`, `{origin}` and `{era}` too, in the language's order; what a row has not is left out."""
    canvas: CanvasReference
    """The canvas it is shown on."""
    candidates: CandidatesSpec = CandidatesSpec()
    blend: Blend | None = None
    """Head -> its weight; or use `policy`."""
    policy: FallbackName | None = None
    """Rank by this policy (`popular_7d`, `trending`, `last_watched`) instead of a blend."""
    scored_as: CanvasReference | None = None
    """Score as if asked on this canvas, such as more_like_this; its own canvas where absent."""
    minimum_length: int = Field(default=5, ge=1, le=1000)
    """A shorter row is not shown."""
    when_short: Literal["drop", "fallback"] = "drop"
    """What becomes of a row whose rules leave fewer titles: `drop` leaves it out, `fallback` adds titles that only the
    rules about availability, kids, metadata, what was watched and the source allow. The answer says which."""
    fallback: FallbackName | None = None
    """Policy that orders what `when_short: fallback` adds; the canvas's where absent."""
    generator: GeneratorSpec | None = None
    """Makes several rows of this one."""
    chart: bool = False
    """The same titles in the same order for everybody in a country, such as a top ten: its titles may be in other rows
    of the page too, and ties are not broken by the member's own scores. Needs a `policy`."""

    @model_validator(mode="after")
    def _ranked_once(self) -> Self:
        if (self.blend is None) == (self.policy is None):
            raise ValueError("a row needs either 'blend' or 'policy'")
        personal = self.candidates.personal or self.candidates.watched is not None
        if self.chart and (self.policy is None or personal):
            raise ValueError("a chart is the same for everybody: it needs a 'policy' and no rule about the member")
        if self.fallback is not None and self.when_short == "drop":
            raise ValueError("'fallback' needs when_short: fallback")
        return self

    @model_validator(mode="after")
    def _titles_can_be_filled(self) -> Self:
        for language, text in self.title.items():
            if (wrong := self._unfilled(text)) is not None:
                what, hint = wrong
                error = PydanticCustomError("title", "{what}", {"what": what, "hint": hint})
                details = InitErrorDetails(type=error, loc=("title", language), input=text)
                raise ValidationError.from_exception_data("RowSpec", [details])
        return self

    def _unfilled(self, text: str) -> tuple[str, str] | None:
        """Return what is wrong with the placeholders of a title, and what would be right."""
        if self.generator is None:
            strays = _PLACEHOLDER.findall(text)
            what = "is filled in generated rows only, and this row has no 'generator'"
            return (f"{strays[0]} {what}", "Write the name itself, or add one.") if strays else None
        if self.generator.placeholder not in text:
            return f"a row for each {self.generator.each} needs {self.generator.placeholder} in its title", ""
        strays = [name for name in _PLACEHOLDER.findall(text) if name not in self.generator.placeholders]
        hint = f"There are {', '.join(self.generator.placeholders)}."
        return (f"{strays[0]} is not filled in a row for each {self.generator.each}", hint) if strays else None
