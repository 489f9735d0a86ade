"""Lists of titles like a title, judged by what is known of the titles instead of by what was played next.

Axis letters: S source titles, T titles, K places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

BANDS = ("head", "torso", "tail", "new")
"""By share of plays: the titles of the first half, of the next four tenths, of the last tenth, and those of none."""
HEAD_SHARE, TORSO_SHARE = 0.5, 0.9

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def popularity_bands(plays: Floats) -> npt.NDArray[np.str_]:
    """Return [T] the band of each title.

    Args:
        plays: [T] plays before the moment that is judged; 0 = a title that nobody has played.
    """
    order = np.argsort(-plays, kind="stable")
    share = np.empty(len(plays))
    share[order] = np.cumsum(plays[order]) / max(float(plays.sum()), 1.0)
    before = share - plays / max(float(plays.sum()), 1.0)
    place = np.select([plays == 0, before < HEAD_SHARE, before < TORSO_SHARE], [3, 0, 1], 2)
    found: npt.NDArray[np.str_] = np.array(BANDS)[place]
    return found


def shared_metadata(titles: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Return [T, T] how much of their genres, language and kind two titles share, from 0 to 1.

    The mean of the genres' Jaccard index, with weight 0.6, and of being of one language and of one kind, with 0.2 each.
    It stands in for judgements by people. What it is made of is also what semantic likeness reads, so it can show that
    a list is about something, and not that the list is good.
    """
    genres = sorted({genre for own in titles["genres"].to_list() for genre in own or []})
    place = {genre: number for number, genre in enumerate(genres)}
    has = np.zeros((titles.height, len(genres)))
    for row, own in enumerate(titles["genres"].to_list()):
        has[row, [place[genre] for genre in own or []]] = 1.0
    common = has @ has.T
    either = has.sum(axis=1)[:, None] + has.sum(axis=1)[None, :] - common
    shared: npt.NDArray[np.float64] = 0.6 * common / np.maximum(either, 1.0)
    for column in ("original_language", "kind"):
        values = titles[column].fill_null("").to_numpy().astype(str)
        shared += 0.2 * ((values[:, None] == values[None, :]) & (values != "")[:, None])
    return shared


def listed(scores: Floats, candidates: Mask, sources: Ints, k: int = 10) -> Ints:
    """Return [S, K] the titles most like each source, the source itself left out.

    Args:
        scores: [S, T].
        candidates: [T] what may be listed.
        sources: [S] column of each source.
        k: Places.
    """
    masked = np.where(candidates[None, :], scores, -np.inf)
    masked[np.arange(len(sources)), sources] = -np.inf
    found: Ints = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    return found


def mean_likeness(lists: Ints, judged: Floats, candidates: Mask, sources: Ints) -> Floats:
    """Return [S] the likeness of each list to its source, as a share of the best list that there could be.

    Args:
        lists: [S, K] columns, from `listed`.
        judged: [S, T] likeness by truth, by metadata, or by any other judge.
        candidates: [T].
        sources: [S].
    """
    masked = np.where(candidates[None, :], judged, -np.inf)
    masked[np.arange(len(sources)), sources] = -np.inf
    best = -np.sort(-masked, axis=1)[:, : lists.shape[1]].sum(axis=1)
    got = np.take_along_axis(masked, lists, axis=1).sum(axis=1)
    found: Floats = np.divide(got, best, out=np.full(len(sources), np.nan), where=best > 0)
    return found
