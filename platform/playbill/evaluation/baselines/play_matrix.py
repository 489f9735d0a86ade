"""Plays as a sparse binary matrix: what the item-to-item and factor baselines are fitted on and asked with.

Axis letters: N requests, U members, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from playbill.datasets import Request
from playbill.errors import ConfigError
from playbill.evaluation.cases.event_log import PLAY
from playbill.evaluation.cases.order import UNKNOWN, TitleOrder
from playbill.metrics.topk import Indices
from playbill.ranking.scoring.history_terms import together


def play_matrix(catalogue: TitleOrder, plays: pl.DataFrame) -> sparse.csr_array:
    """Return who played what, [U, T] float32 of zeros and ones, members by id.

    Args:
        catalogue: The titles; plays of others are left out, and so are members without any other.
        plays: member_id and title_id; repeated plays count once.
    """
    columns = catalogue.codes(plays["title_id"])
    known = columns != UNKNOWN
    members = plays["member_id"].filter(pl.Series(known)).rank("dense").to_numpy().astype(np.int64) - 1
    return _binary(members, columns[known], len(catalogue))


def past_matrix(catalogue: TitleOrder, requests: Sequence[Request]) -> sparse.csr_array:
    """Return what each request's history played, [N, T] float32 of zeros and ones."""
    rows, columns = played(requests, catalogue)
    return _binary(rows, columns, len(catalogue), len(requests))


def played(requests: Sequence[Request], catalogue: TitleOrder) -> tuple[Indices, Indices]:
    """Return pairs (request, title column) of the plays in each request's history."""
    histories = [(row, request.history) for row, request in enumerate(requests) if request.history is not None]
    if not histories:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    lengths = [history.height for _, history in histories]
    rows = np.repeat(np.array([row for row, _ in histories], dtype=np.int64), lengths)
    frames = [history for _, history in histories]
    columns = catalogue.codes(together(frames, "title_id"))
    plays = together(frames, "action") == PLAY
    known = (columns != UNKNOWN) & plays.to_numpy()
    return rows[known], columns[known]


def check_size(name: str, catalogue: TitleOrder, largest: int, why: str) -> None:
    """Refuse a catalogue that a baseline cannot hold.

    Args:
        name: The baseline, as it is registered.
        catalogue: The titles.
        largest: Titles it was made for.
        why: What grows with the titles.

    Raises:
        ConfigError: There are more titles.
    """
    if len(catalogue) > largest:
        raise ConfigError(
            f"baseline '{name}' {why}; it is meant for at most {largest} titles, and there are {len(catalogue)}. "
            f"Leave '{name}' out of the baselines"
        )


def _binary(rows: Indices, columns: Indices, titles: int, height: int | None = None) -> sparse.csr_array:
    height = int(rows.max(initial=-1)) + 1 if height is None else height
    cells = np.unique(rows * max(1, titles) + columns)
    place = (cells // max(1, titles), cells % max(1, titles))
    return sparse.csr_array((np.ones(cells.size, dtype=np.float32), place), shape=(height, titles))
