"""Which titles have to do with what a request names, a query or a source title, without any model.

Fallbacks order titles by popularity and the like. Where a request names something, they may only show titles that fit
it: titles whose names, characters or genres match the query, and titles that share genres, characters or words of
their name with the source title. Both are worked out from the catalogue alone.
Axis letters: T titles, G groups (genres and characters).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from playbill.arrays import Ints64
from playbill.datasets.encoding.text import DESCRIPTION_WORDS, fold, gram_arrays
from playbill.ranking.blend import Scores
from playbill.ranking.catalogue import Catalogue
from playbill.ranking.scoring.text_match import ENOUGH, FIELD_WEIGHTS, SearchTexts, TextIndex

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]

BUCKETS = 1 << 20  # gram ids of the index of names; nothing is learnt from them, so they need not be those of a model
LEAST_MATCH = 0.3
"""Share of a query's weight that a title must have in one of its texts; below it only some letters agree."""
LEAST_DESCRIBED = 0.05  # the same of a description: one or two of its words
NEAR_BEST = 0.6
"""Share of the best title's match that a title must have, so that a good match is not followed by poor ones."""
POPULAR = 0.5  # how much more a match of the most played title counts than that of one without plays
GROUPS = {"genres": 1.0, "characters": 2.0}
"""Metadata that titles share -> its weight beside its rarity: a shared character says more than a shared genre."""


def matches_of_query(catalogue: Catalogue, query: str, popularity: Numbers | None = None) -> Scores:
    """Return how well titles match a query by name, character, genre or year.

    `popularity` [T] is a prior among titles that match: the beginning of a long name that many play answers better than
    a whole word of a name that nobody plays. Order alone; none is added or left out.

    Returns:
        [T] share of the query's weight that the title's best text has, about 1 for an exact name, by up to half more
        for popular ones; 0 for a title that does not match.
    """
    shares = _of_query(catalogue, query)
    found: Scores = np.where(shares >= max(LEAST_MATCH, NEAR_BEST * shares.max(initial=0.0)), shares, 0.0)
    return found if popularity is None else found * (1 + POPULAR * popularity_prior(popularity))


def is_matched(catalogue: Catalogue, query: str) -> bool:
    """Say whether any title matches a query; of a description, which no title has most of, whether any has some."""
    least = LEAST_DESCRIBED if len(fold(query).split()) > DESCRIPTION_WORDS else LEAST_MATCH
    return bool(_of_query(catalogue, query).max(initial=0.0) >= least)


def popularity_prior(plays: Numbers) -> Scores:
    """Return [T] from 0 for a title without plays to 1 for the one with most, by the logarithm."""
    logs = np.log1p(np.maximum(plays, 0).astype(np.float64))
    found: Scores = logs / max(float(logs.max(initial=0)), 1e-9)
    return found


def matches_of_source(catalogue: Catalogue, source: int) -> Scores:
    """Return how much titles have in common with the title of column `source`, which itself has 0, [T].

    Genres and characters are weighed by their rarity and compared by cosine; a name that begins alike (a sequel) adds
    to it.
    """
    weights_GT = catalogue.once("rarity of genres and characters", lambda: _weighted_groups(catalogue))
    shared: Scores = (weights_GT[:, [source]].T @ weights_GT).toarray()[0]
    index = catalogue.once("names, characters and genres", lambda: _index(catalogue))
    names = _shares(index, *gram_arrays([catalogue.name(source)], BUCKETS), fields=("name",))
    found = shared + np.where(names >= 0.5, names, 0.0)
    found[source] = 0.0
    return found


def _of_query(catalogue: Catalogue, query: str) -> Scores:
    index = catalogue.once("names, characters and genres", lambda: _index(catalogue))
    return _shares(index, *gram_arrays([query], BUCKETS, query=True))


def _index(catalogue: Catalogue) -> TextIndex:
    return TextIndex.of(SearchTexts.of(catalogue.texts, BUCKETS), len(catalogue), BUCKETS)


def _shares(index: TextIndex, grams: Ints64, offsets: Ints64, fields: tuple[str, ...] = ()) -> Scores:
    """Return the share of one text's weight that the best field of each title has, [T]."""
    weight = float(index.rarest[np.unique(grams)].sum())
    if not weight:
        return np.zeros(index.titles)
    by_field_TF = index.by_field(grams, offsets)[0].astype(np.float64)
    wanted = [place for place, name in enumerate(FIELD_WEIGHTS) if not fields or name in fields]
    # `by_field` divides by more than the query's weight, so that short queries say little; here every query counts.
    shares: Scores = by_field_TF[:, wanted].max(axis=1) * (weight + ENOUGH) / weight
    return shares


def _weighted_groups(catalogue: Catalogue) -> sparse.csr_array:
    """Return [G, T] rarity of each genre and character of a title; the column of a title has length 1, or 0."""
    frame = catalogue.described.frame.with_row_index("column")
    pairs = [
        frame.select("column", value=kind)
        .explode("value")
        .drop_nulls("value")
        .select("column", value=pl.format("{} {}", pl.lit(kind), "value"), weight=pl.lit(weight))
        for kind, weight in GROUPS.items()
    ]
    found = pl.concat(pairs).unique(["column", "value"], maintain_order=True)
    titles = pl.len().over("value")
    rarity = (pl.lit(len(catalogue)) / titles).log1p() * pl.col("weight")
    found = found.with_columns(rarity=rarity).with_columns(
        share=pl.col("rarity") / (pl.col("rarity") ** 2).sum().over("column").sqrt(),
        group=pl.col("value").rank("dense") - 1,
    )
    shape = (int(found["group"].max() or 0) + 1, len(catalogue))  # type: ignore[arg-type]
    cells = found["group"].to_numpy().astype(np.int64), found["column"].to_numpy().astype(np.int64)
    return sparse.csr_array((found["share"].to_numpy().astype(np.float64), cells), shape=shape)
