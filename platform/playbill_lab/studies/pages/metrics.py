"""Metrics of pages: rows of titles, looked at from the top left corner.

Axis letters: N pages, R rows of a page, C columns of a row, M (page, relevant title) pairs, G genres, T titles. A page
is [N, R, C] title columns, -1 = an empty place; relevant are the pairs of page `rows` [M] and title columns `titles`
[M]. `VIEWPORTS` are the screens that Recall@m-by-n is told for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.arrays import AnyInts, Bools, Floats64, Indices
from playbill.definitions.specs.canvas import VIEWPORTS
from playbill.ranking.page_rules import ROW_DECAY

__all__ = ["VIEWPORTS", "attention", "duplicate_rate", "page_coverage", "page_diversity", "page_ndcg", "page_recall"]

COLUMN_DECAY = 0.86  # How much of the attention at a title reaches the next one of its row


def relevant_places(pages: AnyInts, rows: Indices, titles: Indices) -> Bools:
    """Mark [N, R, C] the places of pages that hold a relevant title, the first place of each title only.

    A title that is shown twice is found once, its later places are wasted; a pair that is there twice counts once.
    """
    flat = pages.reshape(len(pages), -1).astype(np.int64)
    base = int(max(flat.max(initial=0), np.max(titles, initial=0))) + 1
    keys = np.arange(len(flat))[:, None] * base + flat
    found = (flat >= 0) & np.isin(keys, np.asarray(rows, np.int64) * base + titles)
    return (found & first_places(flat)).reshape(pages.shape)


def first_places(flat: AnyInts) -> Bools:
    """Mark each title's first place on its page, [N, P]; empty places are not marked."""
    order = np.argsort(flat, axis=1, kind="stable")
    ordered = np.take_along_axis(flat, order, 1)
    first = np.ones(flat.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    found = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(found, order, first & (ordered >= 0), 1)
    return found


def page_recall(pages: AnyInts, rows: Indices, titles: Indices, m: int, n: int) -> Floats64:
    """Recall@m-by-n: relevant titles within the first m rows and n columns, over all relevant titles of the page.

    Recall@m-by-n = |{relevant titles in rows 1..m, columns 1..n}| / |{relevant titles}|. Range [0, 1], NaN for a page
    without a relevant title. A title shown twice counts once, and a short row's empty places hold nothing, so
    duplicates and short rows are punished without a term of their own. Source: Alvino and Basilico, "Learning a
    personalized homepage", Netflix Technology Blog, 2015.
    """
    if m < 1 or n < 1:
        raise ValueError(f"m and n must be at least 1, got {m} and {n}")
    found = relevant_places(pages[:, :m, :n], rows, titles).sum(axis=(1, 2)).astype(np.float64)
    return _over(found, _relevant(len(pages), rows, titles))


def attention(rows: int, columns: int, row_decay: float = ROW_DECAY, column_decay: float = COLUMN_DECAY) -> Floats64:
    """Attention to each place of a page, [R, C]: row_decay^r x column_decay^c, the top left corner 1.

    Someone who has looked at a title looks at the next of its row with probability `column_decay`, and at the head of
    the next row with probability `row_decay`, both whatever they saw. The defaults are the simulated service's own.

    Source: the geometric user model of rank-biased precision (Moffat and Zobel, TOIS 2008), once for each axis.
    """
    for name, decay in (("row_decay", row_decay), ("column_decay", column_decay)):
        if not 0 < decay <= 1:
            raise ValueError(f"{name} must lie in (0, 1], got {decay}")
    return row_decay ** np.arange(rows)[:, None] * column_decay ** np.arange(columns)[None, :]


def page_ndcg(pages: AnyInts, rows: Indices, titles: Indices, weights: Floats64 | None = None) -> Floats64:
    """Page NDCG: attention that relevant titles get, over the most that as many titles could get on such a page.

    DCG = sum over places that hold a relevant title (first place of each) of attention[r, c], or of `weights` [R, C];
    the ideal puts the relevant titles on the places with the most attention. Range [0, 1]; NaN without a relevant
    title. With one row it is NDCG with a geometric discount. Source: Järvelin and Kekäläinen, TOIS 2002, with the
    two-dimensional discount of `attention`.
    """
    seen = attention(*pages.shape[1:]) if weights is None else weights
    gained = (relevant_places(pages, rows, titles) * seen).sum(axis=(1, 2))
    best = np.concatenate([[0.0], np.cumsum(np.sort(seen.ravel())[::-1])])
    wanted = _relevant(len(pages), rows, titles)
    return _over(gained, np.where(wanted > 0, best[np.minimum(wanted.astype(np.int64), seen.size)], 0.0))


def duplicate_rate(pages: AnyInts) -> Floats64:
    """Share of a page's filled places whose title is further up or left already, [N]. Range [0, 1); NaN when empty."""
    flat = pages.reshape(len(pages), -1)
    filled = (flat >= 0).sum(axis=1).astype(np.float64)
    return _over(filled - first_places(flat).sum(axis=1), filled)


def page_diversity(pages: AnyInts, genres: npt.NDArray[Any]) -> Floats64:
    """Intra-page diversity: 1 - the mean cosine of genres [T, G] over pairs of different titles on the page, [N].

    Range [0, 1]; NaN for fewer than two titles; a title without a genre is like no other. Source: intra-list distance,
    Ziegler, McNee, Konstan and Lausen, WWW 2005, over the whole page.
    """
    flags = np.asarray(genres, np.float64)
    norms = np.linalg.norm(flags, axis=1, keepdims=True)
    units = np.divide(flags, norms, out=np.zeros_like(flags), where=norms > 0)
    flat = pages.reshape(len(pages), -1)
    first = first_places(flat)
    summed = np.zeros((len(flat), units.shape[1]))
    own = np.zeros(len(flat))
    for place in range(flat.shape[1]):
        vector = units[np.maximum(flat[:, place], 0)] * first[:, place, None]
        summed += vector
        own += (vector * vector).sum(axis=1)
    count = first.sum(axis=1).astype(np.float64)
    alike = _over((summed * summed).sum(axis=1) - own, count * (count - 1))
    return 1.0 - alike


def page_coverage(pages: AnyInts, titles: int) -> float:
    """Catalogue coverage: share of the titles that are on some page. Range [0, 1].

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy", RecSys 2010.
    """
    shown = np.unique(pages[pages >= 0])
    return float(len(shown) / titles) if titles else float("nan")


def _relevant(pages: int, rows: Indices, titles: Indices) -> Floats64:
    """Return [N] how many different titles are relevant to each page."""
    pairs = np.unique(np.stack([np.asarray(rows, np.int64), np.asarray(titles, np.int64)]), axis=1)
    return np.bincount(pairs[0], minlength=pages).astype(np.float64)


def _over(part: Floats64, whole: Floats64) -> Floats64:
    found: Floats64 = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found
