"""Everything of a title that people may search by, as bags of grams: its names, its characters, its facets, its story.

A title has one bag for each of its names and one for each of its characters, so that a query is held against one name
at a time; one for all its facets (genres, kind, year and decade as words: "horror", "1994", "90s"); and one for the
words of its synopsis, whole and by their first letters, so that "zombies" finds "zombie".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from playbill.datasets.arrays import Int
from playbill.datasets.encoding.text import gram_arrays, word_arrays

FIELDS = ("name", "character", "facet", "synopsis")
"""Kinds of bags; their places are what `SearchTexts.field` holds."""
SYNOPSIS_WORDS = 128


@dataclass(frozen=True)
class SearchTexts:
    """E bags of grams.

    Args:
        grams: Gram ids, flat.
        offsets: [E] start of each bag.
        title: [E] whose it is, as a row of the titles they were made from.
        field: [E] place in `FIELDS`.
    """

    grams: Int
    offsets: Int
    title: Int
    field: Int

    def owned_by(self, rows: Int) -> SearchTexts:
        """Return the same bags with the titles numbered otherwise: title t becomes `rows[t]`."""
        return replace(self, title=rows[self.title])

    @classmethod
    def of(cls, titles: pl.DataFrame, buckets: int) -> SearchTexts:
        """Read canonical titles; columns that are missing add nothing.

        Args:
            titles: One row per title.
            buckets: Number of gram ids, as of the queries.
        """
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


Texts = tuple[Int, Sequence[str]]
"""Owner of each text, and the texts."""


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
    """Return the words of genres, kind, year and decade of every title."""
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
