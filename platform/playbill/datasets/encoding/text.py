"""Names and queries as bags of hashed grams: any script, any accent, from the first keystroke on.

A word gives a gram for each of its prefixes, one for the whole of it, one for every three letters in a row, and
one for each short prefix together with the word before it. Prefixes find what is half typed, whole words prefer
what is spelled out, triples survive a wrong letter, and pairs of words know their order.
The hash (FNV-1a over code points, Fowler, Noll and Vo) is the same in every process and on every machine.

Of a typed query letters and digits of any script are read, from left to right or from right to left, in the order they
were typed. Control and invisible characters are dropped, emoji and other symbols separate words, and only the beginning
counts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import Ints64

PREFIX_LETTERS = 10  # longest prefix with a gram of its own
AFTER_LETTERS = 4  # longest prefix with a gram together with the word before it
STEM_LETTERS = 5  # letters by which a longer word of a description or a synopsis is known beside the whole of it
DESCRIPTION_WORDS = 8  # a query of more words describes what is wanted: its words count, not the letters of names
WORD_LETTERS = 32  # letters of a word that count for its whole-word gram

_SPACE = 0x20
_IDEOGRAPHS = 0x2E80  # from here on scripts write words without spaces, so single letters and pairs count too
_ACCENTS = range(0x0300, 0x0370)
_JOINERS = frozenset("'\u2019\u02bc`\u200d\u200c")

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PREFIX, _WORD, _TRIPLE, _SINGLE, _PAIR, _AFTER, _SAID = (np.uint64(seed) for seed in (1, 2, 3, 4, 5, 6, 7))

Hashes = NDArray[np.uint64]


class _Folding(dict[int, str | None]):
    """Code point -> what it becomes: nothing, a space, or itself. Filled as code points are met."""

    def __missing__(self, code: int) -> str | None:
        letter = chr(code)
        kept: str | None = letter
        if code in _ACCENTS or letter in _JOINERS:
            kept = None
        elif unicodedata.category(letter)[0] in "PSZC":
            kept = " "
        self[code] = kept
        return kept


_FOLDING = _Folding()


def fold(text: str) -> str:
    """Return `text` without case, accents and punctuation; every other mark of a script is kept.

    A trailing space stays: it says that the last word is complete.
    """
    return unicodedata.normalize("NFKD", text.casefold()).casefold().translate(_FOLDING)


def gram_arrays(texts: Sequence[str], buckets: int, *, query: bool = False) -> tuple[Ints64, Ints64]:
    """Hash N texts to bags of gram ids, flat int64, and [N] the start of each text's grams.

    Id 0 is never given; 1 bucket switches text off. The last word of a query is still being typed unless a space
    follows it, so it is a prefix, not a whole word. A query of more than `DESCRIPTION_WORDS` words gives whole words
    and stems alone, and `description_gram`.
    """
    letters = _Letters(texts)
    described = letters.words() > DESCRIPTION_WORDS if query else np.zeros(len(letters.code), np.bool_)
    prefix = letters.place < PREFIX_LETTERS
    whole = letters.ends & ~(letters.unfinished if query else False)
    parts = [
        (prefix & ~letters.space & (~described | (letters.place == STEM_LETTERS - 1)), letters.prefixes, _PREFIX),
        (whole, letters.prefixes, _WORD),
        (letters.follows & (letters.place < AFTER_LETTERS) & ~described, letters.after(), _AFTER),
        ((letters.place >= 2) & ~described, letters.runs(3), _TRIPLE),
        (letters.ideograph, letters.runs(1), _SINGLE),
        (letters.ideograph & (letters.place >= 1), letters.runs(2), _PAIR),
        (described & letters.begins, np.full(len(letters.code), _OFFSET), _SAID),
    ]
    return _bags(letters, [(np.nonzero(chosen)[0], values, seed) for chosen, values, seed in parts], buckets)


def description_gram(buckets: int) -> int:
    """Return the gram that a query has once if it is a description."""
    return int(_ids(np.array([_OFFSET]), _SAID, buckets)[0])


def word_arrays(texts: Sequence[str], buckets: int, limit: int = 64, *, stems: bool = False) -> tuple[Ints64, Ints64]:
    """Hash the first `limit` words of longer texts, such as synopses. Same ids and results as of `gram_arrays`.

    With `stems` longer words give a second gram, that of their first `STEM_LETTERS` letters.
    """
    letters = _Letters([" ".join(text.split()[:limit]) for text in texts])
    parts = [(np.nonzero(letters.ends)[0], letters.prefixes, _WORD)]
    if stems:
        inside = (letters.place == STEM_LETTERS - 1) & ~letters.ends
        parts.append((np.nonzero(inside)[0], letters.prefixes, _PREFIX))
    ids, offsets = _bags(letters, parts, buckets)
    sizes = np.diff(offsets, append=len(ids))
    within = np.arange(len(ids)) - np.repeat(offsets, sizes)
    most = limit * (2 if stems else 1)
    kept = np.minimum(sizes, most)
    return ids[within < most], np.cumsum(kept) - kept


class _Letters:
    """The folded letters of all texts in a row, a space after each text."""

    def __init__(self, texts: Sequence[str]) -> None:
        folded = [fold(text) for text in texts]
        self.count = len(folded)
        joined = " ".join(folded) + " "
        self.code = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        sizes = np.fromiter((len(text) + 1 for text in folded), np.int64, self.count)
        self.text = np.repeat(np.arange(self.count), sizes) if self.count else np.zeros(1, np.int64)
        self.space = self.code == _SPACE
        numbers = np.arange(len(self.code))
        self.begins = np.append(True, np.diff(self.text) > 0)
        """Whether it is the first letter of its text, a space if the text is empty."""
        last_space = np.maximum.accumulate(np.where(self.space, numbers, -1))
        self.place = np.where(self.space, -1, numbers - last_space - 1)
        """Place of the letter in its word, from 0; -1 for a space."""
        self.ends = ~self.space & np.append(self.space[1:], True)
        self.unfinished = np.zeros(len(self.code), np.bool_)
        last = np.cumsum(sizes) - 2
        self.unfinished[last[sizes > 1]] = True
        self.ideograph = ~self.space & (self.code >= _IDEOGRAPHS)
        word = np.cumsum(self.place == 0) - 1
        ends = np.nonzero(self.ends)[0]
        self._last_letter = ends[np.maximum(word - 1, 0)] if len(ends) else np.zeros_like(word)
        """Last letter of the word before, where `follows` holds."""
        self.follows = ~self.space & (word > 0) & (self.text[self._last_letter] == self.text)
        self.prefixes = self._prefixes()

    def _prefixes(self) -> Hashes:
        """Hash of the word up to and with each letter; the letters after `WORD_LETTERS` add nothing."""
        hashes = np.zeros(len(self.code), np.uint64)
        deepest = min(int(self.place.max(initial=-1)), WORD_LETTERS - 1)
        at = np.nonzero(self.place == 0)[0]
        hashes[at] = _step(np.full(len(at), _OFFSET), self.code[at])
        for _ in range(deepest):
            at = at + 1
            at = at[~self.space[at]]
            hashes[at] = _step(hashes[at - 1], self.code[at])
        for late in np.nonzero(self.ends & (self.place >= WORD_LETTERS))[0]:
            hashes[late] = hashes[late - self.place[late] + WORD_LETTERS - 1]
        return hashes

    def words(self) -> Ints64:
        """Return how many words the text of each letter has."""
        found: Ints64 = np.bincount(self.text, self.place == 0)[self.text].astype(np.int64)
        return found

    def after(self) -> Hashes:
        """Hash of each prefix with the whole word before it."""
        with np.errstate(over="ignore"):
            paired: Hashes = self.prefixes[self._last_letter] * _MIX + self.prefixes
        return paired

    def runs(self, length: int) -> Hashes:
        """Hash of each letter with the `length - 1` before it."""
        hashes = np.full(len(self.code), _OFFSET)
        for back in reversed(range(length)):
            hashes = _step(hashes, np.roll(self.code, back))
        return hashes


def _step(hashes: Hashes, codes: NDArray[np.uint32]) -> Hashes:
    with np.errstate(over="ignore"):
        mixed: Hashes = (hashes ^ codes.astype(np.uint64)) * _PRIME
    return mixed


def _bags(letters: _Letters, parts: Sequence[tuple[Ints64, Hashes, np.uint64]], buckets: int) -> tuple[Ints64, Ints64]:
    if buckets <= 1 or not letters.count:
        return np.zeros(0, np.int64), np.zeros(letters.count, np.int64)
    text = np.concatenate([letters.text[at] for at, _, _ in parts])
    ids = np.concatenate([_ids(values[at], seed, buckets) for at, values, seed in parts])
    order = np.argsort(text, kind="stable")
    sizes = np.bincount(text, minlength=letters.count)
    return ids[order], (np.cumsum(sizes) - sizes).astype(np.int64)


def _ids(hashes: Hashes, seed: np.uint64, buckets: int) -> Ints64:
    with np.errstate(over="ignore"):
        mixed = (hashes + seed) * _MIX
    return ((mixed >> np.uint64(32)) % np.uint64(buckets - 1)).astype(np.int64) + 1


QUERY_LETTERS = 200  # characters of a query that are read, the first ones
_BLANKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")  # control characters that separate words


@dataclass(frozen=True, slots=True)
class TypedQuery:
    """A query as it is read.

    Attributes:
        text: What is read; empty where nothing of it can be. A space at the end stays: the last word is complete.
        notes: What was not read, in words.
    """

    text: str
    notes: tuple[str, ...] = ()


def normalise_query(query: str) -> TypedQuery:
    """Return what of a query is read, and what is not."""
    kept = "".join(islice(filter(_kept, query), QUERY_LETTERS + 1))
    text = "".join(" " if letter in _BLANKS else letter for letter in kept[:QUERY_LETTERS])
    notes = []
    if len(kept) > QUERY_LETTERS:
        notes.append(f"the query has {len(query)} characters: the first {QUERY_LETTERS} were read")
    if hidden := sum(not _kept(letter) for letter in query):
        notes.append(f"{hidden} control or invisible characters of the query were dropped")
    if any(unicodedata.category(letter) == "So" for letter in text):
        notes.append("emoji and symbols in the query are not read")
    if not query.strip():
        return TypedQuery("", ("the query is empty: titles are ranked as before the first key",))
    if not any(unicodedata.category(letter)[0] in "LN" for letter in fold(text)):
        notes.append("nothing in the query can be read: titles are ranked as before the first key")
        return TypedQuery("", tuple(notes))
    return TypedQuery(text, tuple(notes))


def typed_text(query: str) -> str:
    """Return what of a query is read, quickly where it is plain."""
    if len(query) <= QUERY_LETTERS and query.isascii() and query.isprintable() and any(map(str.isalnum, query)):
        return query
    return normalise_query(query).text


def _kept(letter: str) -> bool:
    return letter in _BLANKS or unicodedata.category(letter)[0] != "C"
