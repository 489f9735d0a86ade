"""How well titles answer a query by their texts, exactly and at once: no training, any script, from the first letter.

A bag of a title (one of its names, one of its characters, its facets, its synopsis) answers a query by the share of
the query's weight that it has, weighed down by its own length as in BM25:

    match(q, bag) = sum_{g in q and bag} a_g r_g / norm(bag)  over  c + sum_{g in q} a_g r*_g
    norm(bag) = 1 - b + b |bag| / mean |bag of its field|

`r` is the rarity of a gram among the titles of a field, `r*` the largest over fields (1 for a gram that no title has),
`a` how much the gram counts in a query. So a bag of mean length that has all of a long query matches it by about 1, and
one letter, which c outweighs, says little. Of one field a title
counts with its best bag; its fields are added with weights. Robertson and Zaragoza, "The probabilistic relevance
framework: BM25 and beyond", 2009; fields as in Zaragoza et al., TREC 2004.

Facets are words that many titles share, so their rarity says nothing of how well "drama 1994" is answered. Of a query
that is typed, the titles whose facets have most of it, and at least half, count with r* for every gram, whatever else
their facets have.
Axis letters: N queries, T titles, E bags, F fields.

A title has one bag for each name and each character, so that a query is held against one name at a time; one for all
its facets (genres, kind, year and decade as words: "horror", "1994", "90s"); and one for the words of its synopsis,
whole and by their first letters, so that "zombies" finds "zombie".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.datasets.encoding.text import description_gram, gram_arrays, word_arrays

FIELDS = ("name", "character", "facet", "synopsis")  # kinds of bags; their places are what `SearchTexts.field` holds
SYNOPSIS_WORDS = 128


@dataclass(frozen=True)
class SearchTexts:
    """E bags of grams."""

    grams: Ints64  # gram ids, flat
    offsets: Ints64  # [E] start of each bag
    title: Ints64  # [E] whose it is, as a row of the titles they were made from
    field: Ints64  # [E] place in `FIELDS`

    def owned_by(self, rows: Ints64) -> SearchTexts:
        """Return the same bags with the titles numbered otherwise: title t becomes `rows[t]`."""
        return replace(self, title=rows[self.title])

    @classmethod
    def of(cls, titles: pl.DataFrame, buckets: int) -> SearchTexts:
        """Read canonical titles, one row per title; columns that are missing add nothing."""
        texts = [every_name(titles), _characters(titles), _facets(titles)]
        bags = [(owner, *gram_arrays(lines, buckets)) for owner, lines in texts]
        synopses = titles["synopsis"].fill_null("").to_list() if "synopsis" in titles.columns else [""] * titles.height
        stems = word_arrays(synopses, buckets, SYNOPSIS_WORDS, stems=True)
        bags.append((np.arange(titles.height), *stems))
        ends = np.cumsum([len(grams) for _, grams, _ in bags])
        starts = [ends[place] - len(grams) for place, (_, grams, _) in enumerate(bags)]
        return cls(
            grams=np.concatenate([grams for _, grams, _ in bags]),
            offsets=np.concatenate([start + offsets for start, (_, _, offsets) in zip(starts, bags, strict=True)]),
            title=np.concatenate([owner for owner, _, _ in bags]),
            field=np.repeat(np.arange(len(bags)), [len(owner) for owner, _, _ in bags]),
        )


Texts = tuple[Ints64, Sequence[str]]  # owner of each text, and the texts


def every_name(titles: pl.DataFrame) -> Texts:
    """Return every different name of every title, in all languages, with the row of its title."""
    own = titles.select(row=_row(), text="name")
    if "names" not in titles.columns:
        return _texts(own)
    others = titles.select(row=_row(), text=pl.col("names").list.eval(pl.element().struct.field("name")))
    return _texts(pl.concat([own, others.explode("text")]))


def _characters(titles: pl.DataFrame) -> Texts:
    if "characters" not in titles.columns:
        return np.zeros(0, np.int64), []
    return _texts(titles.select(row=_row(), text="characters").explode("text"))


def _facets(titles: pl.DataFrame) -> Texts:
    parts = []
    if "genres" in titles.columns:
        parts.append(pl.col("genres").list.join(" ", ignore_nulls=True).str.replace_all("_", " "))
    if "kind" in titles.columns:
        parts.append(pl.col("kind"))
    if "release_date" in titles.columns:
        year = pl.col("release_date").dt.year()
        decade = year // 10 * 10
        parts += [year.cast(pl.String), pl.format("{}s", decade), pl.format("{}s", (decade % 100))]
    return _texts(titles.select(row=_row(), text=pl.concat_str(parts, separator=" ", ignore_nulls=True)))


def _row() -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.Int64)


def _texts(frame: pl.DataFrame) -> Texts:
    kept = frame.filter(pl.col("text").str.len_chars() > 0).unique(maintain_order=True)
    return kept["row"].to_numpy(), kept["text"].to_list()


LENGTH_SHARE = {"name": 0.25, "character": 0.25, "facet": 0.2, "synopsis": 0.45}
"""Field -> how much its bags' length counts (b)."""
FIELD_WEIGHTS = {"name": 1.0, "character": 0.8, "facet": 0.6, "synopsis": 0.2}
"""Field -> weight of a perfect match with what is typed on the way to a name: docs/results/search.md."""
ENOUGH = 4.0  # weight of a query at which a perfect match counts half (c): that of some four letters
FACET = FIELDS.index("facet")
FACETS_ENOUGH = 0.5
"""Share of what is typed that facets must have, so that "star wars" does not call for every film of war."""
FACET_GRAMS = 4  # grams from which on a query may mean a facet: those of three letters
FACETS_NEAR = 0.97  # share of the best title's facets that a title must have: "drama 1994" calls for no drama of 1995
DESCRIPTION_WEIGHTS = {"name": 0.3, "character": 0.3, "facet": 0.6, "synopsis": 1.0}
"""The same for descriptions, where a word of the story says more than one that is also in some name."""


@dataclass(frozen=True)
class TextIndex:
    """The texts of T titles, ready to be searched."""

    postings: sparse.csr_array  # [grams, E] `r / norm` of the grams of each bag
    rarest: Floats32  # [grams] `r*`
    starts: Ints64  # [F + 1] first bag of each field and, last, E
    title: Ints64  # [E] whose each bag is; ascending within a field
    titles: int  # T
    facets: sparse.csr_array  # [grams, facet bags] r* of the grams of each bag of facets
    # [2, F] of the fields, for what is typed and for descriptions
    weights: Floats32 = field(
        default_factory=lambda: np.array([_by_field(FIELD_WEIGHTS), _by_field(DESCRIPTION_WEIGHTS)])
    )

    @classmethod
    def of(cls, texts: SearchTexts, titles: int, buckets: int) -> TextIndex:
        """Index texts of titles below `titles`, with so many gram ids."""
        order = np.lexsort((texts.title, texts.field))
        sizes = np.diff(texts.offsets, append=len(texts.grams))
        bag = np.repeat(np.arange(len(order)), sizes)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        cells = _distinct(place[bag] * buckets + texts.grams)
        bag, gram = cells // buckets, cells % buckets
        kind, title = texts.field[order], texts.title[order]
        length = np.bincount(bag, minlength=len(order)).astype(np.float64)
        rarity = _rarity(kind[bag], title[bag], gram, (titles, buckets))
        rarest = np.zeros(buckets, np.float32)
        np.maximum.at(rarest, gram, rarity.astype(np.float32))
        norm, starts = _norm(kind, length)[bag], np.searchsorted(kind, np.arange(len(FIELDS) + 1))
        found = sparse.csr_array(((rarity / norm).astype(np.float32), (gram, bag)), shape=(buckets, len(order)))
        low, high = starts[FACET], starts[FACET + 1]
        own = (low <= bag) & (bag < high)
        values = rarest[gram][own]
        facets = sparse.csr_array((values, (gram[own], bag[own] - low)), shape=(buckets, high - low))
        return cls(found, np.where(rarest > 0, rarest, 1.0), starts, title, titles, facets)

    def scores(self, grams: Ints64, offsets: Ints64, importance: npt.NDArray[np.floating] | None = None) -> Floats32:
        """Match queries: [N, T], 0 where nothing matches; see `by_field`."""
        weights = self.weights[self.described(grams, offsets)]
        found = np.zeros((len(offsets), self.titles), np.float32)
        for kind, matches in self._fields(grams, offsets, importance):
            matches *= weights[:, kind, None]
            found += matches
        return found

    def described(self, grams: Ints64, offsets: Ints64) -> Ints64:
        """Return [N] 1 for queries that are descriptions, 0 for others."""
        found = np.zeros(len(offsets), np.int64)
        rows = np.repeat(np.arange(len(offsets)), np.diff(offsets, append=len(grams)))
        found[rows[grams == description_gram(self.postings.shape[0])]] = 1
        return found

    def by_field(self, grams: Ints64, offsets: Ints64, importance: npt.NDArray[np.floating] | None = None) -> Floats32:
        """Match queries with each field alone, [N, T, F].

        Queries are flat gram ids with the start of each, [N]; an empty one matches nothing. `importance` [grams] is how
        much a gram counts in a query (a); all alike if it is None.
        """
        found = np.zeros((len(offsets), self.titles, len(FIELDS)), np.float32)
        for kind, matches in self._fields(grams, offsets, importance):
            found[:, :, kind] = matches
        return found

    def _fields(
        self, grams: Ints64, offsets: Ints64, importance: npt.NDArray[np.floating] | None
    ) -> Iterator[tuple[int, Floats32]]:
        """Yield each field that answers a query, and [N, T] how well its best bag of each title does."""
        rows = np.repeat(np.arange(len(offsets)), np.diff(offsets, append=len(grams)))
        cells = _distinct(rows * self.postings.shape[0] + grams)
        rows, columns = cells // self.postings.shape[0], cells % self.postings.shape[0]
        weight = np.ones(len(rows)) if importance is None else np.asarray(importance, np.float64)[columns]
        total = np.bincount(rows, weight * self.rarest[columns], minlength=len(offsets))
        values = (weight / (total + ENOUGH)[rows]).astype(np.float32)
        queries = sparse.csr_array((values, (rows, columns)), shape=(len(offsets), self.postings.shape[0]))
        matches = sparse.csr_array(queries @ self.postings)
        row, bag, value = np.repeat(np.arange(len(offsets)), np.diff(matches.indptr)), matches.indices, matches.data
        facets = self._exact_facets(queries, offsets, grams, rows, FACETS_ENOUGH * total / (total + ENOUGH))
        for kind in range(len(FIELDS)):
            own = (self.starts[kind] <= bag) & (bag < self.starts[kind + 1])
            cell, best = row[own] * self.titles + self.title[bag[own]], value[own]
            if kind == FACET:
                cell, best = np.concatenate([cell, facets[0]]), np.concatenate([best, facets[1]])
            if len(cell):
                found = np.zeros(len(offsets) * self.titles, np.float32)
                np.maximum.at(found, cell, best)
                yield kind, found.reshape(len(offsets), self.titles)

    def _exact_facets(
        self, queries: sparse.csr_array, offsets: Ints64, grams: Ints64, rows: Ints64, least: Floats64
    ) -> tuple[Ints64, Floats32]:
        """Return cells of [N, T] whose title's facets have enough of what was typed, and how much: near the most."""
        longer = np.bincount(rows, minlength=len(offsets)) >= FACET_GRAMS
        typed = np.flatnonzero((self.described(grams, offsets) == 0) & longer)
        exact = sparse.csr_array(queries[typed] @ self.facets)
        row = np.repeat(np.arange(len(typed)), np.diff(exact.indptr))
        most = np.zeros(len(typed), np.float32)
        np.maximum.at(most, row, exact.data)
        enough = exact.data >= np.maximum(least[typed], FACETS_NEAR * most)[row]
        title = self.title[self.starts[FACET] + exact.indices[enough]]
        return typed[row[enough]] * self.titles + title, exact.data[enough]


def _by_field(weights: Mapping[str, float]) -> Floats32:
    return np.array([weights[name] for name in FIELDS], np.float32)


def query_importance(queries: Sequence[Ints64], buckets: int, power: float = 1.5, prior: int = 1000) -> Floats32:
    """Return in (0, 1] how much each gram counts in a query, by how few past queries (grams of each) have it.

    `power` is of the rarity, `prior` the queries without the gram that are taken to have come before.
    """
    seen = np.concatenate([np.unique(grams) for grams in queries]) if queries else np.zeros(0, np.int64)
    requested = np.bincount(seen, minlength=buckets)
    total = len(queries) + prior
    found: Floats32 = ((np.log(total + 1) - np.log(requested + 1)) / np.log(total + 1)).astype(np.float32) ** power
    return found


def _rarity(kind: Ints64, title: Ints64, gram: Ints64, shape: tuple[int, int]) -> Floats64:
    """Return the inverse document frequency in [0, 1] of the gram of each cell among the titles of its field."""
    titles, buckets = shape
    seen = _distinct((kind * titles + title) * buckets + gram)
    counts = np.bincount(seen // (titles * buckets) * buckets + seen % buckets, minlength=len(FIELDS) * buckets)
    frequency = counts[kind * buckets + gram]
    found: Floats64 = np.log(1 + (titles - frequency + 0.5) / (frequency + 0.5)) / np.log(titles + 2)
    return found


def _norm(kind: Ints64, length: Floats64) -> Floats64:
    share = np.array([LENGTH_SHARE[name] for name in FIELDS])[kind]
    mean = np.bincount(kind, length, minlength=len(FIELDS)) / np.maximum(np.bincount(kind, minlength=len(FIELDS)), 1)
    found: Floats64 = 1 - share + share * length / np.maximum(mean[kind], 1.0)
    return found


def _distinct(values: Ints64) -> Ints64:
    """Return the different values, ascending: what `np.unique` does, by sorting, since its hashing takes seconds."""
    ordered = np.sort(values)
    first = np.append(True, ordered[1:] != ordered[:-1])
    found: Ints64 = ordered[first[: len(ordered)]]
    return found
