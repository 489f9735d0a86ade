"""Sums over a member's history that are added to a head's scores: what is short-ranged, linear or of this week.

| term | what it is, 0 where a request has no history |
|---|---|
| transitions | log counts of the title after each of the last plays, less a share of its log popularity |
| ease | EASE's weights of the member's titles |
| recent_ease | the same, each title counting less the more plays came after it |
| item_knn | shrunk cosines of the member's titles |
| popular_7d | log plays of the last seven days, from the title snapshot |

Each is standardised over the titles that the member has not played, so that a weight means the same for a short and a
long history. A head's score becomes l + sum_k w_k z_k, where w depends on the canvas and on how many plays the history
has. A network learns these patterns too, but from few events badly: counts know them at once.
Everything is fitted on the training part; the weights are learnt where the training part ends, by
`playbill.training.term_weights`. Nothing here is trained with the network.
Axis letters: H heads, C canvases, B history lengths, K terms, T titles, J neighbours, U histories, E plays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from playbill.arrays import Bools, Floats32, Floats64, Ints64
from playbill.models.config import HistoryTermsConfig
from playbill.models.ease import strongest_weights
from playbill.models.item_knn import DEFAULT_SHRINKAGE, similarities
from playbill.models.strongest import strongest

EASE_PENALTY = 200.0  # between 50 and 500 sums were the same within noise (docs/LOG.md)
LAG_WEIGHTS = (1.0, 0.6, 0.4, 0.3, 0.2)  # what a title counts as a successor one to five plays later
LAST_PLAYS, LAST_DECAY = 5, 0.7  # `transitions` reads so many plays, each counting so much less than the one after it
POPULARITY_SHARE = 0.3  # how much of its log popularity a successor is discounted by
RECENT_DECAY = 0.95  # what a title counts less with each play after it, in `recent_ease`
FORGOTTEN = 1e-4  # smaller weights of a history are left out
LENGTHS = (1, 5, 20, 80)  # plays from which on a history is in the next group (axis B)
TABLES = {"transitions": "transitions", "ease": "ease", "recent_ease": "ease", "item_knn": "item_knn"}
"""Term -> table it reads."""
KNN_TITLES = 100_000  # titles up to which every title is compared with every other


@dataclass(frozen=True, slots=True)
class Plays:
    """Plays of U histories, oldest first within each."""

    owner: Ints64
    title: Ints64
    moment: Ints64
    count: int

    def lengths(self) -> Ints64:
        """[U] plays of each."""
        return np.bincount(self.owner, minlength=self.count).astype(np.int64)

    def later(self) -> Floats64:
        """[E] how many plays came after each. Those of one moment have no order, so they share their mean."""
        if not len(self.owner):
            return np.zeros(0)
        ends = np.cumsum(self.lengths())
        back = ends[self.owner] - 1 - np.arange(len(self.owner))
        group = _groups(self.owner, self.moment)
        mean: Floats64 = (np.bincount(group, back) / np.bincount(group))[group]
        return mean

    def matrix(self, weight: Floats64, titles: int) -> sparse.csr_array:
        """Return [U, T] the largest weight of each title's plays."""
        kept = np.flatnonzero(weight > FORGOTTEN)
        cell = self.owner[kept] * titles + self.title[kept]
        order = np.lexsort((-weight[kept], cell))
        cell, value = cell[order], weight[kept][order]
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        owner, title = np.divmod(cell[first], titles)
        ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=self.count))])
        return sparse.csr_array((value[first].astype(np.float32), title, ends), shape=(self.count, titles))


class _Cells(NamedTuple):
    """Some titles of U histories."""

    row: Ints64
    title: Ints64
    histories: int  # U

    def sums(self, values: Floats64) -> Floats64:
        """Return [U] sums of a value of each."""
        return np.bincount(self.row, values, self.histories).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class WeekPlays:
    """What was played in the week before each of U histories ends."""

    values: Floats32
    moment: Ints64

    def moments(self, played: _Cells, count: Floats64) -> tuple[Floats64, Floats64]:
        """Return [U] mean and deviation over the `count` [U] titles that were not played."""
        own = self.values[self.moment[played.row], played.title].astype(np.float64)
        total_S = self.values.sum(axis=1, dtype=np.float64)
        # No product of vectors: BLAS would wake its threads for one of more than 10,000, and they spin until the next.
        square_S = np.array([np.square(exact).sum() for exact in map(np.float64, self.values)])
        total = total_S[self.moment] - played.sums(own)
        return _mean_and_deviation(total, square_S[self.moment] - played.sums(own**2), count)


class HistoryTerms(nn.Module):
    """The terms of one model version.

    Attributes:
        weights: [H, C, B, K] what each term is multiplied by. Canvas 0 is any that the log has no requests of.
        neighbour: [tables, T, J] titles that a table says something of, by the title it says it about; 0 = none.
        value: [tables, T, J] what it says.
        popularity: [T] log plays in the training part.
    """

    weights: Tensor
    neighbour: Tensor
    value: Tensor
    popularity: Tensor

    def __init__(self, config: HistoryTermsConfig, titles: int, canvases: int) -> None:
        super().__init__()
        self.config = config
        self.tables = tuple(dict.fromkeys(TABLES[term] for term in config.terms if term in TABLES))
        size = (len(self.tables), titles, min(config.neighbours, titles))
        shape = (len(config.heads), canvases, len(LENGTHS) + 1, len(config.terms))
        self.register_buffer("weights", torch.zeros(shape))
        self.register_buffer("neighbour", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("value", torch.zeros(size))
        self.register_buffer("popularity", torch.zeros(titles))
        self._matrices: dict[str, sparse.csr_array] = {}

    @torch.no_grad()
    def fit(self, plays: Plays) -> None:
        """Learn the tables from the plays of the training part, one history for each member."""
        _, titles, kept = self.neighbour.shape
        counts = np.bincount(plays.title, minlength=titles)
        counts[0] = 0
        self.popularity.copy_(torch.from_numpy(np.log1p(counts)))
        makers = {"transitions": successors, "ease": _ease, "item_knn": _item_knn}
        for place, table in enumerate(self.tables):
            neighbour, value = strongest(makers[table](plays, titles, kept), kept)
            self.neighbour[place] = torch.from_numpy(neighbour)
            self.value[place] = torch.from_numpy(value)
        self._matrices = {}

    def values(self, plays: Plays, week: WeekPlays | None, titles: int) -> Floats32:
        """Return [U, K, titles] standardised terms; those of the padding row are 0.

        `titles` are those of now: the padding row and those that came after training are among them.
        """
        known = len(self.popularity)
        found = np.zeros((plays.count, len(self.config.terms), titles), np.float32)
        later = plays.later()
        unseen = np.ones((plays.count, titles), np.bool_)
        unseen[plays.owner, plays.title] = False
        unseen[:, 0] = False
        for place, term in enumerate(self.config.terms):
            if term == "popular_7d":
                if week is not None:
                    found[:, place] = week.values[week.moment]
            else:
                each, share = self._sparse(term, plays, later)
                found[:, place, :known] = each.toarray()
                if share.any():
                    found[:, place, :known] -= np.outer(share, self.popularity.numpy()).astype(np.float32)
            found[:, place] = standardised(found[:, place], unseen)
        return found

    def sums(
        self,
        plays: Plays,
        week: WeekPlays | None,
        titles: int,
        weights_NK: Floats32,
        history_N: Ints64 | None = None,
    ) -> Floats32:
        """Return [N, titles] the weighted sums of `values`, whose standardised terms are never made.

        Mean and deviation of a term come from the few titles it says something of. What it says of all titles is of a
        moment, or the same for everybody, so one product makes it for all histories, and the rest is added where it is.

        `weights_NK` are those of the terms, and `history_N` which of the histories each row is of; None = one each.
        """
        later, each_history = plays.later(), np.arange(plays.count)
        history_N = each_history if history_N is None else history_N
        unseen = np.ones((plays.count, titles), np.bool_)
        unseen[plays.owner, plays.title] = False
        unseen[:, 0] = False
        row, title = np.nonzero(~unseen)
        played = _Cells(row, title, plays.count)
        count = np.maximum(titles - np.bincount(played.row, minlength=plays.count), 1).astype(np.float64)
        logs = np.pad(self.popularity.numpy(), (0, titles - len(self.popularity)))
        moments = 0 if week is None else len(week.values)
        # Of everybody: 1, log popularity, and the week's plays at each moment.
        share_NX = np.zeros((len(history_N), 2 + moments))
        own_NT = np.zeros((len(history_N), titles))
        for place, term in enumerate(self.config.terms):
            if not weights_NK[:, place].any():
                continue
            if term == "popular_7d":
                if week is None:
                    continue
                mean, spread = week.moments(played, count)
                scale = _scales(weights_NK[:, place], mean[history_N], spread[history_N])
                share_NX[np.arange(len(history_N)), 2 + week.moment[history_N]] += scale
            else:
                each, share = self._sparse(term, plays, later)
                row, values = np.repeat(each_history, np.diff(each.indptr)), each.data.astype(np.float64)
                inside = unseen.ravel()[row * titles + each.indices]
                own = _Cells(row[inside], each.indices[inside], plays.count)
                mean, spread = _moments_of(own, values[inside], (played, count), logs, share)
                scale = _scales(weights_NK[:, place], mean[history_N], spread[history_N])
                for sums_T, times, history in zip(own_NT, scale.tolist(), history_N.tolist(), strict=True):
                    cells = slice(each.indptr[history], each.indptr[history + 1])
                    sums_T[each.indices[cells]] += times * values[cells]
                share_NX[:, 1] -= scale * share[history_N]
            share_NX[:, 0] -= scale * mean[history_N]
        general_XT = np.concatenate(
            [np.ones((1, titles), np.float32), logs[None], *([] if week is None else [week.values])]
        )
        found: Floats32 = share_NX.astype(np.float32) @ general_XT
        found += own_NT.astype(np.float32)
        found[:, 0] = 0
        return found

    def weights_of(self, head: str, canvas: Ints64, lengths: Ints64) -> Floats32:
        """Return [N, K] the weights of a head's terms in N requests, by canvas and plays in the history."""
        own = self.weights[self.config.heads.index(head)].numpy()
        found: Floats32 = own[canvas, length_group(lengths)]
        return found

    def _sparse(self, term: str, plays: Plays, later: Floats64) -> tuple[sparse.csr_array, Floats64]:
        """Return [U, T] what a term says of titles, and [U] what is then taken off each per log popularity."""
        if term == "transitions":
            weight = np.where(later < LAST_PLAYS, LAST_DECAY**later, 0.0)
        else:
            weight = RECENT_DECAY**later if term == "recent_ease" else np.ones(len(later))
        history = plays.matrix(weight, len(self.popularity))
        found = history @ self._matrix(TABLES[term])
        if term != "transitions":
            return found, np.zeros(plays.count)
        return found, POPULARITY_SHARE * np.asarray(history.sum(axis=1), np.float64).ravel()

    def _matrix(self, table: str) -> sparse.csr_array:
        if table not in self._matrices:
            place, titles = self.tables.index(table), len(self.popularity)
            neighbour, value = self.neighbour[place].numpy(), self.value[place].numpy()
            used = value != 0
            cell = (np.nonzero(used)[0], neighbour[used])
            found = sparse.csr_array((value[used], cell), shape=(titles, titles))
            # A title's nearest ones are kept by the title, as the neighbours of which it is scored.
            self._matrices[table] = found.T.tocsr() if table == "item_knn" else found
        return self._matrices[table]


def length_group(lengths: Ints64) -> Ints64:
    """Return the group (axis B) of histories of so many plays."""
    return np.searchsorted(np.array(LENGTHS), lengths, side="right").astype(np.int64)


def standardised(values: Floats32, inside: Bools) -> Floats32:
    """Return rows with mean 0 and deviation 1 over the columns inside; 0 where these are all alike."""
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    mean = (values * inside).sum(axis=1, keepdims=True, dtype=np.float64) / count
    centred = values - mean.astype(np.float32)
    spread = np.sqrt((centred**2 * inside).sum(axis=1, keepdims=True, dtype=np.float64) / count)
    scale = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
    found: Floats32 = centred * scale.astype(np.float32)
    found[:, 0] = 0
    return found


def _moments_of(
    cells: _Cells, values: Floats64, rest: tuple[_Cells, Floats64], logs: Floats32, share: Floats64
) -> tuple[Floats64, Floats64]:
    """Return [U] mean and deviation of `values - share * logs` over the titles that were not played.

    The values are those of some cells, none of them played, and 0 elsewhere; `rest` has the titles that were played,
    and [U] how many were not.
    """
    total, square, (played, count) = cells.sums(values), cells.sums(values**2), rest
    if share.any():
        exact = logs.astype(np.float64)
        both, own = cells.sums(values * exact[cells.title]), exact[played.title]
        of_logs, of_squares = exact.sum() - played.sums(own), (exact**2).sum() - played.sums(own**2)
        square += share * (share * of_squares - 2 * both)
        total -= share * of_logs
    return _mean_and_deviation(total, square, count)


def _mean_and_deviation(total: Floats64, square: Floats64, count: Floats64) -> tuple[Floats64, Floats64]:
    mean = total / count
    return mean, np.sqrt(np.maximum(square / count - mean**2, 0.0))


def _scales(weight: Floats32, mean: Floats64, spread: Floats64) -> Floats64:
    """Return [U] what values are multiplied by: a weight over their deviation, 0 where all are alike."""
    alike = spread <= np.maximum(1e-6, 1e-7 * np.abs(mean))
    return np.where(alike, 0.0, weight / np.where(alike, 1.0, spread))


def successors(plays: Plays, titles: int, _kept: int) -> sparse.csr_array:
    """Return [T, T] log counts of a title within five plays after another.

    Two plays of one moment came in no order: each counts half as the successor of the other.
    """
    total = sparse.csr_array((titles, titles), dtype=np.float32)
    for lag, weight in enumerate(LAG_WEIGHTS, start=1):
        left, right = slice(None, -lag), slice(lag, None)
        one, other = plays.title[left], plays.title[right]
        used = (plays.owner[left] == plays.owner[right]) & (one != other) & (one > 0) & (other > 0)
        tied = (plays.moment[left] == plays.moment[right])[used]
        forward = np.where(tied, weight / 2, weight).astype(np.float32)
        one, other = one[used], other[used]
        rows, columns = np.concatenate([one, other[tied]]), np.concatenate([other, one[tied]])
        values = np.concatenate([forward, forward[tied]])
        total = total + sparse.coo_array((values, (rows, columns)), shape=(titles, titles)).tocsr()
    total = total.tocsr()
    total.data = np.log1p(total.data)
    return total


def _ease(plays: Plays, titles: int, kept: int) -> sparse.csr_array:
    return strongest_weights(plays.title, plays.owner, titles, keep=kept, penalty=EASE_PENALTY)


def _item_knn(plays: Plays, titles: int, kept: int) -> sparse.csr_array:
    if titles > KNN_TITLES:
        return sparse.csr_array((titles, titles), dtype=np.float32)
    binary = plays.matrix(np.ones(len(plays.owner)), titles)
    return similarities(binary, kept, DEFAULT_SHRINKAGE).T.tocsr()


def _groups(owner: Ints64, moment: Ints64) -> Ints64:
    changed = (np.diff(owner, prepend=-1) != 0) | (np.diff(moment, prepend=-1) != 0)
    return np.cumsum(changed) - 1
