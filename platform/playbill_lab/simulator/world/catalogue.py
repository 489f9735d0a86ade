"""The titles of a simulated service, as canonical rows and as the arrays a world reads, and which continues which.

Axis letters: T titles, G genres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Bools, Floats32, Ints32
from playbill.errors import DataError, Problem
from playbill.schema import KINDS
from playbill.tables import TIMESTAMP, canonical_frame
from playbill_lab.simulator.world.title_words import check_languages, make_characters, make_names, make_synopses

GENRES = {
    "action": 0.13,
    "adventure": 0.09,
    "animation": 0.06,
    "comedy": 0.22,
    "crime": 0.12,
    "documentary": 0.09,
    "drama": 0.32,
    "family": 0.08,
    "fantasy": 0.06,
    "horror": 0.06,
    "mystery": 0.06,
    "reality": 0.06,
    "romance": 0.13,
    "sci_fi": 0.07,
    "sport": 0.03,
    "stand_up": 0.03,
    "thriller": 0.14,
    "war": 0.03,
    "western": 0.02,
}
"""Genre -> its share of a catalogue, before the limit of three of a title."""
KIND_SHARES = {"film": 0.6, "series": 0.35, "game": 0.05}
ENGLISH_SHARE = 0.5  # Titles made in English, where a service speaks it; the other languages share the rest
KIDS_GENRES = ("animation", "family")
ORIGINS = {
    "en": ("US", "GB", "AU"),
    "es": ("ES", "MX", "AR"),
    "pt": ("BR", "PT"),
    "fr": ("FR", "BE", "CA"),
    "de": ("DE", "AT"),
    "it": ("IT",),
    "tr": ("TR",),
    "pl": ("PL",),
    "ja": ("JP",),
    "ko": ("KR",),
    "hi": ("IN",),
    "ar": ("EG", "SA"),
}
"""Language -> where titles in it are made."""
MATURITY = ("all", "7+", "13+", "16+", "18+")
KNOWN_FROM = datetime(2000, 1, 1, tzinfo=UTC)  # `valid_from` of titles until a world announces them
_MOST_GENRES = 3
_RUNTIMES = {"film": (105.0, 22.0), "series": (46.0, 12.0), "game": (25.0, 8.0)}

Whole = npt.NDArray[np.int16]


MOST_PARTS = 6  # Parts of a franchise, at most; each number from 2 on is as likely
_WORD = {
    "en": "Part",
    "es": "Parte",
    "pt": "Parte",
    "fr": "Partie",
    "de": "Teil",
    "it": "Parte",
    "tr": "Bölüm",
    "pl": "Część",
    "ja": "パート",
    "ko": "파트",
    "hi": "भाग",
    "ar": "الجزء",
}
_NUMERALS = ("I", "II", "III", "IV", "V", "VI")


@dataclass(frozen=True, eq=False)
class Franchises:
    """The franchises of a catalogue."""

    head: Ints32  # [T] first part of each title's franchise; a title on its own is its own head
    part: Ints32  # [T] place in the franchise, from 1
    follows: Ints32  # [T] the part before; -1 for first parts and titles on their own

    @classmethod
    def none(cls, titles: int) -> Self:
        """Return a catalogue in which nothing continues anything."""
        own = np.arange(titles, dtype=np.int32)
        return cls(own, np.ones(titles, np.int32), np.full(titles, -1, np.int32))

    @classmethod
    def draw(cls, films: Bools, share: float, rng: np.random.Generator) -> Self:
        """Draw franchises from a `share` of the titles that can be parts, `films` [T]."""
        found = cls.none(len(films))
        order = rng.permutation(np.flatnonzero(films))
        order = order[: round(share * len(order))]
        edges = np.cumsum(rng.integers(2, MOST_PARTS + 1, size=len(order)))
        place = np.arange(len(order))
        first = np.concatenate([[0], edges])[np.searchsorted(edges, place, side="right")]
        found.head[order], found.part[order] = order[first], place - first + 1
        later = place > first
        found.follows[order[later]] = order[place[later] - 1]
        return found

    @cached_property
    def then(self) -> Ints32:
        """[T] the part after; -1 for last parts and titles on their own."""
        after = np.full(len(self.follows), -1, np.int32)
        later = np.flatnonzero(self.follows >= 0)
        after[self.follows[later]] = later
        return after

    @cached_property
    def any(self) -> bool:
        """Say whether anything continues anything."""
        return bool((self.follows >= 0).any())

    def in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values [T], such as days of release, dealt anew within each franchise so that they rise by part."""
        wanted, given = np.lexsort((self.part, self.head)), np.lexsort((values, self.head))
        dealt = np.empty_like(values)
        dealt[wanted] = values[given]
        return dealt

    def named(self, names: Sequence[str], language: str) -> list[str]:
        """Return names [T] in one language: those of later parts are the first part's, with their number."""
        word = _WORD.get(language, _WORD["en"])
        return [
            names[head] if part == 1 else f"{names[head]} {word} {_NUMERALS[part - 1]}"
            for head, part in zip(self.head.tolist(), self.part.tolist(), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class WorldCatalogue:
    """Titles as canonical rows and as arrays. Row t of each is the same title."""

    titles: pl.DataFrame  # Canonical `titles`, one row per title
    genres: tuple[str, ...]  # [G] names
    genre: Floats32  # [T, G] 1 where a title is of a genre; real titles may be of none
    languages: tuple[str, ...]  # Codes; their places are what `language` holds
    language: Whole  # [T] int16, original language
    kind: npt.NDArray[np.int8]  # [T] int8, place in `schema.KINDS`
    kids: Bools  # [T] bool, fit for kids' profiles
    runtime_min: Whole  # [T] int16, of a film, of one episode, of one sitting of a game
    seasons: Whole  # [T] int16, 1 unless a series
    episodes: Whole  # [T] int16 of each season, 1 unless a series
    availability: pl.DataFrame | None = None  # Canonical, where a real catalogue brings its own
    given_franchises: Franchises | None = None  # What continues what; None where nothing does

    def __len__(self) -> int:
        return self.titles.height

    @cached_property
    def franchises(self) -> Franchises:
        """Which title continues which."""
        return self.given_franchises or Franchises.none(len(self))


def make_catalogue(
    titles: int, languages: Sequence[str], rng: np.random.Generator, franchise_share: float = 0.0
) -> WorldCatalogue:
    """Generate a catalogue, whose names come in `languages` and whose titles are made in them.

    `franchise_share` of the films belong to a franchise, whose parts share genres, language and characters.

    Raises:
        DataError: No titles, no languages, or languages in which no name can be made.
    """
    if titles < 1 or not languages:
        missing = "titles" if titles < 1 else "languages"
        raise DataError("the simulated catalogue", [Problem(missing, "a service needs at least one.")])
    check_languages(languages)
    kind = rng.choice(len(KINDS), size=titles, p=[KIND_SHARES[name] for name in KINDS]).astype(np.int8)
    genre = _draw_genres(titles, rng)
    language = _draw_languages(titles, languages, rng)
    franchises = Franchises.none(titles)
    if franchise_share:
        franchises = Franchises.draw(kind == KINDS.index("film"), franchise_share, rng)
        genre, language = genre[franchises.head], language[franchises.head]
    kids = np.asarray(genre[:, [list(GENRES).index(name) for name in KIDS_GENRES]].any(axis=1))
    runtime, seasons, episodes = draw_lengths(kind, rng)
    frame = _frame(kind, genre, language, languages, kids, runtime, franchises, rng)
    return WorldCatalogue(
        titles=frame,
        genres=tuple(GENRES),
        genre=genre.astype(np.float32),
        languages=tuple(languages),
        language=language,
        kind=kind,
        kids=kids,
        runtime_min=runtime,
        seasons=seasons,
        episodes=episodes,
        given_franchises=franchises,
    )


def _draw_genres(count: int, rng: np.random.Generator) -> Bools:
    """Return [T, G] with one to three genres of each title."""
    shares = np.array(list(GENRES.values()))
    wanted = rng.choice([1, 2, 3], size=count, p=[0.35, 0.45, 0.2])
    # Gumbel top-k draws each title's genres without repeats, in proportion to their shares.
    order = np.argsort(-(np.log(shares) + rng.gumbel(size=(count, len(shares)))), axis=1)[:, :_MOST_GENRES]
    drawn = np.zeros((count, len(shares)), np.bool_)
    for place in range(_MOST_GENRES):
        rows = wanted > place
        drawn[rows, order[rows, place]] = True
    return drawn


def _draw_languages(count: int, languages: Sequence[str], rng: np.random.Generator) -> Whole:
    if "en" not in languages or len(languages) == 1:
        return rng.integers(len(languages), size=count).astype(np.int16)
    rest = (1 - ENGLISH_SHARE) / (len(languages) - 1)
    shares = [ENGLISH_SHARE if code == "en" else rest for code in languages]
    return rng.choice(len(languages), size=count, p=shares).astype(np.int16)


def draw_lengths(kind: npt.NDArray[np.int8], rng: np.random.Generator) -> tuple[Whole, Whole, Whole]:
    """Draw runtimes in minutes, seasons and episodes per season of titles of these kinds, [T] each."""
    middles, spreads = (np.array([_RUNTIMES[name][at] for name in KINDS])[kind] for at in (0, 1))
    runtime = np.clip(rng.normal(middles, spreads), 5, 240).astype(np.int16)
    series = kind == KINDS.index("series")
    seasons = np.where(series, np.minimum(1 + rng.geometric(0.5, size=kind.size), 8) - 1, 1)
    episodes = np.where(series, rng.integers(6, 13, size=kind.size), 1)
    return runtime, np.maximum(seasons, 1).astype(np.int16), episodes.astype(np.int16)


def _frame(
    kind: npt.NDArray[np.int8],
    genre: Bools,
    language: Whole,
    languages: Sequence[str],
    kids: Bools,
    runtime: Whole,
    franchises: Franchises,
    rng: np.random.Generator,
) -> pl.DataFrame:
    count, head = kind.size, franchises.head
    names = [
        franchises.named(own, code) for own, code in zip(make_names(count, languages, rng), languages, strict=True)
    ]
    made = make_characters(count, rng)
    characters = [made[place] for place in head.tolist()]
    width = max(4, len(str(count)))
    listed = [[{"language": code, "name": names[at][row]} for at, code in enumerate(languages)] for row in range(count)]
    columns: dict[str, Any] = {
        "title_id": [f"t{row:0{width}d}" for row in range(count)],
        "name": [names[code][row] for row, code in enumerate(language.tolist())],
        "names": listed,
        "kind": np.array(KINDS)[kind].tolist(),
        "genres": [[name for name, is_it in zip(GENRES, row, strict=True) if is_it] for row in genre.tolist()],
        "original_language": np.array(languages)[language].tolist(),
        "countries": _origins(language, languages, rng, head),
        "release_date": _release_dates(count, rng, franchises),
        "runtime_min": runtime.astype(np.int32),
        "maturity": np.where(
            kids, MATURITY[0], np.array(MATURITY)[rng.integers(1, len(MATURITY), count)][head]
        ).tolist(),
        "kids": kids,
        "characters": characters,
        "synopsis": make_synopses(genre, list(GENRES), characters, rng),
    }
    frame = pl.DataFrame(columns).with_columns(valid_from=pl.lit(KNOWN_FROM), recorded_at=pl.lit(KNOWN_FROM))
    return canonical_frame("titles", frame)[0]


def _origins(language: Whole, languages: Sequence[str], rng: np.random.Generator, head: Ints32) -> list[list[str]]:
    draws = rng.random(language.size)[head]
    codes = [ORIGINS[languages[place]] for place in language.tolist()]
    return [[countries[int(draw * len(countries))]] for countries, draw in zip(codes, draws, strict=True)]


def _release_dates(count: int, rng: np.random.Generator, franchises: Franchises) -> pl.Series:
    """Return days of release: back to 1990, most of them of the last ten years, and franchises in order."""
    days_ago = np.minimum(rng.exponential(6 * 365, size=count), 35 * 365).astype(np.int64)
    day = np.datetime64("2025-12-31T00:00:00", "us") - days_ago * np.timedelta64(1, "D")
    return pl.Series(franchises.in_order(day)).dt.replace_time_zone("UTC").cast(TIMESTAMP)
