"""Combinations of metadata that make narrow genre rows: "critically acclaimed suspenseful TV dramas".

A combination is one genre and at least two more things its titles have in common: another genre as their mood, their
kind, where they are from, their decade, or that nearly all liked them. Which ones a catalogue has is worked out once;
a member's rows are those in which they liked most, the rarer the better, no two of nearly the same titles.
Axis letters: T titles, N combinations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from playbill.arrays import Floats64, Mask
from playbill.definitions.specs.row import GeneratorSpec, WordsSpec
from playbill.ranking.catalogue import Catalogue, Columns

MOST_QUALIFIERS = 3
LEAST_QUALIFIERS = 2  # what a combination says beside its genre
TOO_ALIKE = 0.5  # two rows that share more of their titles (Jaccard) are one too many
ACCLAIMED = "acclaimed"  # what the key of a combination ends with where nearly all liked its titles
CONSIDERED = 60  # combinations looked at for one member, best first


class Combination(NamedTuple):
    """What the titles of a row have in common; None and False = nothing is said of it."""

    genre: str
    mood: str | None = None
    kind: str | None = None
    origin: str | None = None
    decade: int | None = None
    acclaimed: bool = False

    @property
    def qualifiers(self) -> int:
        """How much it says beside the genre."""
        _, mood, kind, origin, decade, acclaimed = self
        return (mood is not None) + (kind is not None) + (origin is not None) + (decade is not None) + acclaimed

    @property
    def key(self) -> str:
        """What a row's id calls it, such as `drama.thriller.series.acclaimed`."""
        words = [word_key(str(part)) for part in self[:5] if part is not None]
        return ".".join([*words, ACCLAIMED] if self.acclaimed else words)


@dataclass(frozen=True)
class Combinations:
    """The combinations of a catalogue that have enough titles, without acclaim, which changes from day to day."""

    own: list[Combination]  # [N] combinations
    titles: list[Columns]  # [N] columns of the titles of each
    of_title: list[Columns]  # [T] which of them each title is in

    @classmethod
    def of(cls, catalogue: Catalogue, words: WordsSpec, minimum: int) -> Combinations:
        """Find every combination that there are words for and that has at least so many titles."""
        found: dict[Combination, list[int]] = {}
        alike: dict[tuple[Any, ...], list[int]] = {}
        columns = ("genres", "kind", "countries", "year")
        for title, (genres, kind, countries, year) in enumerate(catalogue.described.frame.select(columns).iter_rows()):
            decade = None if year is None else year // 10 * 10
            alike.setdefault((tuple(genres or ()), kind, (countries or (None,))[0], decade), []).append(title)
        for facts, titles in alike.items():
            for own in _of_title(words, *facts):
                found.setdefault(own, []).extend(titles)
        # Of equal titles, what says two things comes first, as acclaim may be a third, and what has a mood.
        order = sorted(found, key=lambda own: (abs(own.qualifiers - LEAST_QUALIFIERS), own.mood is None))
        kept = {own: sorted(found[own]) for own in order if len(found[own]) >= minimum}
        of_title: list[list[int]] = [[] for _ in range(len(catalogue))]
        for number, titles in enumerate(kept.values()):
            for title in titles:
                of_title[title].append(number)
        return cls(list(kept), list(map(_columns, kept.values())), list(map(_columns, of_title)))

    @cached_property
    def _rarity(self) -> Floats64:
        return np.log(len(self.of_title) / np.array([len(titles) for titles in self.titles]))

    def ranked(self, liked: Columns, minimum: int) -> list[int]:
        """Return the combinations with at least so many of a member's liked titles, the best first.

        A combination is worth its liked titles times the logarithm of how rare it is: T over its titles.
        """
        if not self.own or not len(liked):
            return []
        found = np.concatenate([self.of_title[title] for title in liked.tolist()])
        counts = np.bincount(found, minlength=len(self.own))
        worth = np.where(counts >= minimum, counts * self._rarity, -1.0)
        order = np.argsort(-worth, kind="stable")[:CONSIDERED]
        return [number for number in order.tolist() if worth[number] >= 0]


def combinations_of(generator: GeneratorSpec, catalogue: Catalogue) -> Combinations:
    """Return the combinations of a catalogue for a row's words; made once, in under a second for 10,000 titles."""
    words, key = generator.words or WordsSpec(), f"combinations {generator.model_dump_json()}"
    return catalogue.once(key, lambda: Combinations.of(catalogue, words, generator.minimum_titles))


def named_combination(
    generator: GeneratorSpec, catalogue: Catalogue, key: str, acclaimed: Callable[[], Mask]
) -> tuple[Combination, Mask] | None:
    """Return the combination that a row's id calls by its `key`, and its [T] titles; None where there is none.

    `acclaimed` gives the [T] titles that nearly all liked; it is called only where the key says so.
    """
    known = combinations_of(generator, catalogue)
    plain = key.removesuffix(f".{ACCLAIMED}")
    for own, titles in zip(known.own, known.titles, strict=True):
        if own.key == plain:
            mask = catalogue.mask_of(titles)
            return (own, mask) if plain == key else (own._replace(acclaimed=True), mask & acclaimed())
    return None


def choose(
    generator: GeneratorSpec, catalogue: Catalogue, liked: Columns, allowed: Mask, acclaimed: Mask
) -> list[tuple[Combination, Mask]]:
    """Return a member's combinations and the [T] titles of each, the best first, `limit` at most.

    `liked` are columns; `allowed` [T] is what can be shown here and now, `acclaimed` [T] what nearly all liked.
    """
    words, known = generator.words or WordsSpec(), combinations_of(generator, catalogue)
    chosen: list[tuple[Combination, Mask]] = []
    for number in known.ranked(liked, generator.minimum_liked):
        own, mask = known.own[number], catalogue.mask_of(known.titles[number])
        best = mask & acclaimed
        if words.acclaim and own.qualifiers < MOST_QUALIFIERS and (best & allowed).sum() >= generator.minimum_titles:
            own, mask = own._replace(acclaimed=True), best
        enough = (mask & allowed).sum() >= generator.minimum_titles
        if own.qualifiers >= LEAST_QUALIFIERS and enough and not any(_alike(mask, other) for _, other in chosen):
            chosen.append((own, mask))
        if len(chosen) == generator.limit:
            break
    return chosen


def name_of(own: Combination, template: str, words: WordsSpec, language: str) -> str | None:
    """Name a combination by a template such as `{acclaim} {mood} {origin} {genre} {era}`; None if a word is missing."""
    genre = words.genres.get(word_key(own.genre), {}).get(language)
    kind = words.kinds.get(own.kind, {}).get(language) if own.kind else "{genre}"
    era = (words.era or {}).get(language) if own.decade is not None else ""
    parts = {
        "mood": words.moods.get(word_key(own.mood), {}).get(language) if own.mood else "",
        "origin": words.origins.get(own.origin, {}).get(language) if own.origin else "",
        "acclaim": (words.acclaim or {}).get(language) if own.acclaimed else "",
        "era": era.replace("{decade}", str(own.decade)) if era else era,
        "genre": kind.replace("{genre}", genre) if kind and genre else None,
    }
    text = template
    for name, word in parts.items():
        if word is None:
            return None
        text = text.replace(f"{{{name}}}", word)
    return tidy(text)


def tidy(text: str) -> str:
    """Take out the spaces that missing parts leave, and begin with a capital letter."""
    text = re.sub(r"\s+", " ", text).strip()
    return text[:1].upper() + text[1:]


@lru_cache(maxsize=4096)
def word_key(name: str) -> str:
    """Return a genre as tables of words call it: `Sci-Fi` and `sci_fi` are one."""
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _of_title(
    words: WordsSpec, own: tuple[str, ...], kind: str | None, country: str | None, decade: int | None
) -> Iterator[Combination]:
    origin = country if country in words.origins else None
    decade = decade if words.era else None
    kinds = _maybe(kind if kind in words.kinds else None)
    for genre in own:
        if word_key(genre) not in words.genres:
            continue
        moods = [None, *(mood for mood in own if mood != genre and word_key(mood) in words.moods)]
        for mood, what, where, when in product(moods, kinds, _maybe(origin), _maybe(decade)):
            found = Combination(genre, mood, what, where, when)
            if 0 < found.qualifiers <= MOST_QUALIFIERS:
                yield found


def _maybe(part: Any) -> tuple[Any, ...]:
    return (None,) if part is None else (None, part)


def _columns(numbers: list[int]) -> Columns:
    return np.array(numbers, np.int64)


def _alike(one: Mask, other: Mask) -> bool:
    return bool((one & other).sum() > TOO_ALIKE * (one | other).sum())
