"""Names, characters and synopses of generated titles.

Axis letters: T titles, G genres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from playbill.errors import DataError, Problem, nearest
from playbill_lab.simulator.world.title_words import (
    COMMON_WORDS,
    FIRST_NAMES,
    GENRE_WORDS,
    LAST_NAMES,
    TONGUES,
    Tongue,
)

Names = list[list[str]]
"""Language -> name of each title."""

_NOUNS, _ADJECTIVES = len(TONGUES["en"].nouns), len(TONGUES["en"].adjectives)
_PAIRS = _NOUNS * (_NOUNS - 1)
CONCEPTS = 2 * _PAIRS + _NOUNS * _ADJECTIVES
"""Names that differ without a number behind them."""
GENRE_WORDS_PER_SYNOPSIS = 8
COMMON_WORDS_PER_SYNOPSIS = 8


def check_languages(languages: Sequence[str]) -> None:
    """Refuse languages in which no name can be made.

    Raises:
        DataError: There are such languages; all are named.
    """
    unknown = [code for code in languages if code not in TONGUES]
    if unknown:
        known = ", ".join(sorted(TONGUES))
        hints = [f"Did you mean '{close}'?" if (close := nearest(code, TONGUES)) else "" for code in unknown]
        problems = [
            Problem(f"languages.{code}", f"no names can be made in it; known are {known}.", hint)
            for code, hint in zip(unknown, hints, strict=True)
        ]
        raise DataError("the simulated catalogue", problems)


def make_names(count: int, languages: Sequence[str], rng: np.random.Generator) -> Names:
    """Name titles in every language; names of one language differ from one another.

    Args:
        count: Titles.
        languages: Codes, all of them in `TONGUES`.
        rng: Source of the draw.

    Returns:
        For each language, in order, the name of each title. One title means the same thing in all of them.
    """
    rounds = -(-count // CONCEPTS)
    drawn = np.concatenate([rng.permutation(CONCEPTS) + at * CONCEPTS for at in range(rounds)])[:count]
    return [[_name(TONGUES[code], int(concept)) for concept in drawn] for code in languages]


def _name(tongue: Tongue, concept: int) -> str:
    part, kept = divmod(concept, CONCEPTS)
    number = f" {part + 1}" if part else ""
    if kept >= 2 * _PAIRS:
        noun, adjective = divmod(kept - 2 * _PAIRS, _ADJECTIVES)
        return tongue.described.format(a=tongue.adjectives[adjective], n=tongue.nouns[noun]) + number
    template, pair = divmod(kept, _PAIRS)
    first, second = divmod(pair, _NOUNS - 1)
    second += second >= first
    words = {"a": tongue.nouns[first], "b": tongue.nouns[second]}
    return (tongue.both if template else tongue.of).format(**words) + number


def make_characters(count: int, rng: np.random.Generator) -> list[list[str]]:
    """Name two to four characters of each title."""
    first = rng.integers(len(FIRST_NAMES), size=(count, 4))
    last = rng.integers(len(LAST_NAMES), size=(count, 4))
    kept = rng.integers(2, 5, size=count)
    return [
        [f"{FIRST_NAMES[first[row, at]]} {LAST_NAMES[last[row, at]]}" for at in range(kept[row])]
        for row in range(count)
    ]


def make_synopses(
    genres: npt.NDArray[np.bool_],
    names: Sequence[str],
    characters: Sequence[Sequence[str]],
    rng: np.random.Generator,
) -> list[str]:
    """Write a synopsis of each title from the words of its genres and words that all share.

    Args:
        genres: [T, G], at least one of each title, G in the order of `GENRE_WORDS`.
        names: [T] genre names to look words up by, in the order of G.
        characters: [T].
        rng: Source of the draw.
    """
    words = np.array([GENRE_WORDS[name].split() for name in names])
    own = np.array(COMMON_WORDS)
    # Gumbel noise on the members of each row draws one of a title's genres for every word, all at once.
    noise = rng.gumbel(size=(len(genres), GENRE_WORDS_PER_SYNOPSIS, len(names)))
    genre = np.where(genres[:, None, :], noise, -np.inf).argmax(axis=2)
    spoken = words[genre, rng.integers(words.shape[1], size=genre.shape)]
    common = own[rng.integers(len(own), size=(len(genres), COMMON_WORDS_PER_SYNOPSIS))]
    order = rng.permuted(np.tile(np.arange(spoken.shape[1] + common.shape[1]), (len(genres), 1)), axis=1)
    together = np.take_along_axis(np.concatenate([spoken, common], axis=1), order, axis=1)
    heads = [cast[0].split()[0] for cast in characters]
    return [f"{head}: {' '.join(row)}." for head, row in zip(heads, together.tolist(), strict=True)]
