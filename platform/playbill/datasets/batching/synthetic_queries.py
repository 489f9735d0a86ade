"""Search queries made from title names, for as long as no one has searched.

They are what people type on the way to a title they know: the first letters, some of its words, a letter missed or
two swapped. A model trained on them learns to read queries; it learns nothing about what people look for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from playbill.datasets.encoding.text import fold

_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
TYPO_LETTERS = 4  # shorter queries are left without mistakes: nothing would remain to recognise them by
TYPO_SHARE = 0.2
_MEAN_LETTERS = 6.0


def made_queries(names: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Make `count` folded queries for each name; a year in brackets at the end is not typed.

    The same seed, such as a mix of the run's and the epoch, gives the same queries; a name without letters empty ones.
    """
    draw = random.Random(seed)
    return [_queries(fold(_YEAR.sub("", name)).strip(), count, draw) for name in names]


def _queries(name: str, count: int, draw: random.Random) -> list[str]:
    words = name.split()
    if not words:
        return [""] * count
    tidy = " ".join(words)
    return [_mistyped(_kind(draw)(tidy, words, draw), draw) for _ in range(count)]


def _kind(draw: random.Random) -> Callable[[str, list[str], random.Random], str]:
    chance = draw.random()
    if chance < 0.65:
        return _prefix
    return _some_words if chance < 0.9 else (lambda name, _words, _draw: name)


def _prefix(name: str, _words: list[str], draw: random.Random) -> str:
    """Cut the name after a few letters: one at least, often about six."""
    return name[: 1 + int(draw.expovariate(1 / _MEAN_LETTERS))]


def _some_words(_name: str, words: list[str], draw: random.Random) -> str:
    """Keep a run of words from anywhere in the name, the last one half typed at times."""
    first = int(draw.random() * len(words))
    last = first + 1 + int(draw.random() * min(3, len(words) - first))
    kept = words[first:last]
    if draw.random() < 0.5:
        kept[-1] = kept[-1][: 1 + int(draw.random() * len(kept[-1]))]
    return " ".join(kept)


def _mistyped(query: str, draw: random.Random) -> str:
    """Miss a letter or swap two in one of five longer queries."""
    if len(query) < TYPO_LETTERS or draw.random() >= TYPO_SHARE:
        return query
    at = 1 + int(draw.random() * (len(query) - 2))
    if draw.random() < 0.5:
        return query[:at] + query[at + 1 :]
    return query[:at] + query[at + 1] + query[at] + query[at + 2 :]
