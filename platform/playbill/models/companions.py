"""Which titles the log puts beside a title: what a play of one says of the other when everything else is known.

    link(s, t) = log(1 + trust(s) z(s, t)),   trust(s) = sqrt(n_s / (n_s + 20))

z are the weights of EASE from s (`playbill.models.ease`), standardised over the titles, n_s the members who played s.
Where counts of pairs say that popular titles go with everything, EASE's weights say what is left of that once all other
titles are accounted for: on hand-made lists of companions they find .57 where the cosine finds .51 and the lift .37
(docs/results/companions.md). For titles beyond the most played ones z are shrunk cosines instead.
Axis letters: T titles, S sources, U members, K titles kept.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from playbill.arrays import Floats32, Ints64
from playbill.models.ease import DEFAULT_PENALTY, SOLVED, binary_plays, solve_most_played
from playbill.models.strongest import largest_of_rows

TRUSTED_PLAYS = 20.0  # members at which what is played beside a title counts seven tenths of what it does in the end
SHRINKAGE = 20.0  # members that a cosine must overcome, as in `item_knn`
SOURCES_AT_ONCE = 256


class Companions(nn.Module):
    """What the training part puts beside each title. Nothing here is trained by gradients.

    Attributes:
        title: [T, K] titles of training, 0 = none.
        link: [T, K] above 0, the largest first.
    """

    title: Tensor
    link: Tensor

    def __init__(self, titles: int, keep: int) -> None:
        super().__init__()
        self.keep = min(keep, titles)
        if not self.keep:
            return
        self.register_buffer("title", torch.zeros(titles, self.keep, dtype=torch.int32))
        self.register_buffer("link", torch.zeros(titles, self.keep))

    @torch.no_grad()
    def fit(self, title: Ints64, member: Ints64, solved: int = SOLVED) -> None:
        """Learn from events [E] of the training part, title 0 = none; EASE is solved for the `solved` most played."""
        if not self.keep:
            return
        plays = binary_plays(title, member, len(self.title))
        played = np.asarray(plays.sum(axis=0)).ravel()
        # A penalty that outweighs the counts leaves the counts themselves, so what is popular is beside everything.
        most, weights = solve_most_played(plays, max(1.0, min(DEFAULT_PENALTY, plays.shape[0] / 2)), solved)
        trust = np.sqrt(played / (played + TRUSTED_PLAYS))
        for start in range(0, len(most), SOURCES_AT_ONCE):
            block = weights[start : start + SOURCES_AT_ONCE]
            sources, sizes = most[start : start + SOURCES_AT_ONCE], np.full(len(block), len(most))
            self._keep(sources, trust, sizes, np.tile(most, len(block)), block.ravel())
        others = np.setdiff1d(np.flatnonzero(played), most)
        turned = sparse.csr_array(plays.T)
        for start in range(0, len(others), SOURCES_AT_ONCE):
            sources = others[start : start + SOURCES_AT_ONCE]
            both = sparse.csr_array(turned[sources] @ plays)
            both.sort_indices()
            sizes = np.diff(both.indptr).astype(np.int64)
            own, column = np.repeat(sources, sizes), both.indices.astype(np.int64)
            cosine = both.data / (np.sqrt(played[own] * played[column]) + SHRINKAGE)
            self._keep(sources, trust, sizes, column, np.where(own == column, 0, cosine))

    def _keep(self, sources: Ints64, trust: Floats32, sizes: Ints64, column: Ints64, value: Floats32) -> None:
        """Keep the largest links of some titles, of whom all other titles have 0.

        `trust` is [T]; each of the [S] sources has `sizes` titles with a `value`, [P] source after source.
        """
        row, count = np.repeat(np.arange(len(sources)), sizes), len(self.title) - 1
        mean = np.bincount(row, value, len(sources)) / count
        squares = np.bincount(row, (value - mean[row]) ** 2, len(sources)) + (count - sizes) * mean**2
        spread = np.sqrt(squares / count)
        links = (value - mean[row]) / np.where(spread > 1e-9, spread, np.inf)[row] * trust[sources][row]
        links = np.log1p(np.where(value > 0, np.maximum(links, 0), 0))
        entries, kept, place = largest_of_rows(sizes, links, self.keep)
        used = links[entries] > 0
        title, link = np.zeros((len(sources), self.keep), np.int32), np.zeros((len(sources), self.keep), np.float32)
        title[kept[used], place[used]] = column[entries][used]
        link[kept, place] = links[entries]
        self.title[sources], self.link[sources] = torch.from_numpy(title), torch.from_numpy(link)

    def links(self, sources: Ints64, index: Ints64) -> sparse.csr_array:
        """Return [S, T] what was played beside some titles (rows of `index`), empty where nothing says so.

        `index` [T] is the title of training of each title now, 0 = one that came later.
        """
        place = np.zeros(len(self.title), np.int64)
        place[index] = np.arange(len(index))
        column, link = place[self.title.numpy()[index[sources]]], self.link.numpy()[index[sources]]
        row, rank = np.nonzero((link > 0) & (column > 0))
        return sparse.csr_array((link[row, rank], (row, column[row, rank])), shape=(len(sources), len(index)))
