"""What of a typed query is read: the same in training, evaluation and serving.

Letters and digits of any script are read, from left to right or from right to left, in the order they were typed.
Control and invisible characters are dropped, emoji and other symbols separate words, and only the beginning counts.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import islice

from playbill.datasets.encoding.text import fold

QUERY_LETTERS = 200
"""Characters of a query that are read, the first ones."""
_BLANKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")
"""Control characters that separate words."""


@dataclass(frozen=True, slots=True)
class TypedQuery:
    """A query as it is read.

    Attributes:
        text: What is read; empty where nothing of it can be. A space at the end stays: the last word is complete.
        notes: What was not read, in words.
    """

    text: str
    notes: tuple[str, ...] = ()


def read_query(query: str) -> TypedQuery:
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
    return read_query(query).text


def _kept(letter: str) -> bool:
    return letter in _BLANKS or unicodedata.category(letter)[0] != "C"
