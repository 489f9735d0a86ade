"""Likeness of titles to a source title: what is played together, and above it what anybody would name in one breath.

    likeness = .5 lift + 2.5 max(0, kin - 2)
    kin = .4 (1 + sqrt(genres)) links + .3 z(genres)^1.3 + .25 z(year) + 6 names

| part | what it is |
|---|---|
| lift | log lift of the two being played together, metadata as the prior (`playbill.models.item_similarity`) |
| links | what a play of the source says of the title (`playbill.models.companions`); half of it needs shared genres |
| genres | cosine of genres weighed by rarity |
| year | how near the years of release are |
| names | likeness of names, in the company of shared genres (`playbill.ranking.scoring.name_similarity`) |

z standardises over the titles, so kin is about in standard deviations. What is above 2 is a sequel, of one maker, or
of one rare kind; below, the lift alone orders titles, which follows what is played next more closely. A title that
nobody has played has neither links nor counts, and is placed by the rest. The weights were chosen on the first half of
a list of films with companions that people expect, and on next plays of a validation fold: docs/results/companions.md.
Axis letters: S sources, T titles and the padding row, G groups of titles with the same genres, kind, language and year.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from scipy import sparse

from playbill.arrays import Floats32, Ints64
from playbill.datasets import Encoder
from playbill.models import Network, TitleInputs
from playbill.models.metadata_similarity import TitleLikeness
from playbill.ranking.scoring.name_similarity import NameLikeness

LINKS, GENRES, YEAR, NAMES = 0.4, 0.3, 0.25, 6.0
GENRES_POWER = 1.3  # of genres in standard deviations: sharing a rare one is more than sharing several that many have
LIFT, KIN, KIN_FROM = 0.5, 2.5, 2.0


@dataclass(frozen=True)
class AlikeTitles:
    """The titles of one model version, ready to be compared."""

    network: Network  # the model, with what training learnt of pairs of titles
    metadata: TitleLikeness  # the titles as it reads them
    names: NameLikeness  # their names
    index: Ints64  # [T] title of training of each, 0 = one that came later

    @classmethod
    def of(cls, network: Network, inputs: TitleInputs, titles: pl.DataFrame, encoder: Encoder) -> AlikeTitles:
        """Read the titles: canonical rows, and as the model reads them."""
        rows = encoder.title_rows.encode(titles["title_id"]).astype(np.int64)
        names = NameLikeness.of(titles, rows, encoder.title_rows.size)
        return cls(network, TitleLikeness.of(inputs), names, inputs.index.numpy())

    def semantic(self, sources: Ints64) -> Floats32:
        """Return [S, T] the log lift that metadata leads one to expect."""
        return self.network.likeness.prior(sources, self.metadata).astype(np.float32)

    def co_play(self, sources: Ints64) -> Floats32:
        """Return [S, T] the log lift that the log says, without metadata."""
        nothing = np.zeros((len(sources), self.metadata.count))
        return self.network.likeness.posterior(sources, self.index, nothing).astype(np.float32)

    def lift(self, sources: Ints64) -> Floats32:
        """Return [S, T] the log lift of being played together, metadata as the prior."""
        prior = self.network.likeness.prior(sources, self.metadata)
        return self.network.likeness.posterior(sources, self.index, prior).astype(np.float32)

    def likeness(self, sources: Ints64) -> Floats32:
        """Return [S, T] the sum; a title is most like itself. A version without companions has the lift alone."""
        lift = self.lift(sources)
        if not self.network.companions.keep:
            return lift
        own, groups = (np.arange(len(sources)), sources), self.metadata.groups
        general_SG, special = self._kin(sources)
        found, lift_of_own = np.float32(LIFT) * lift, LIFT * lift[own]
        raised_SG = np.float32(KIN) * np.maximum(general_SG - KIN_FROM, 0)
        for place in np.flatnonzero(raised_SG.any(axis=1)).tolist():
            found[place] += raised_SG[place, groups.of]
        row = np.repeat(own[0], np.diff(special.indptr))
        general = general_SG[row, groups.of[special.indices]]
        more = np.maximum(general + special.data - KIN_FROM, 0) - np.maximum(general - KIN_FROM, 0)
        found[row, special.indices] += np.float32(KIN) * more
        found[own] = lift_of_own
        found[own] = found.max(axis=1)
        return found

    def kin(self, sources: Ints64) -> Floats32:
        """Return [S, T] how much titles belong together, in standard deviations; 0 for the source itself."""
        general_SG, special = self._kin(sources)
        found: Floats32 = general_SG[:, self.metadata.groups.of] + special.toarray()
        found[np.arange(len(sources)), sources] = 0
        return found

    def _kin(self, sources: Ints64) -> tuple[Floats32, sparse.csr_array]:
        """Return [S, G] what genres and years say of each group of titles, and [S, T] what links and names add."""
        of = self.metadata.groups.of
        genres, year = self.metadata.rare_genres(sources), self.metadata.years(sources)
        shared, years = self._standardised(genres, sources), self._standardised(year, sources)
        general_SG = GENRES * np.sign(shared) * np.abs(shared) ** GENRES_POWER + YEAR * years
        links = self.network.companions.links(sources, self.index)
        row = np.repeat(np.arange(len(sources)), np.diff(links.indptr))
        links.data *= LINKS * (1 + np.sqrt(np.maximum(genres[row, of[links.indices]], 0)))
        described, rows = np.diff(self.metadata.genre_bags.indptr) > 0, []
        for source, own in zip(sources.tolist(), genres, strict=True):
            titles, alike = self.names.near(source, partial(_of_titles, own, of), described)
            cells = (np.zeros(len(titles), np.int64), titles)
            rows.append(sparse.csr_array((np.float32(NAMES) * alike, cells), shape=(1, len(of))))
        special = links + sparse.vstack(rows, format="csr")
        return general_SG.astype(np.float32), sparse.csr_array(special).astype(np.float32)

    def _standardised(self, values_SG: Floats32, sources: Ints64) -> Floats32:
        """Return [S, G] values in standard deviations over all titles but the padding row; the source itself has 0."""
        groups, exact = self.metadata.groups, values_SG.astype(np.float64)
        counts = np.bincount(groups.of[1:], minlength=len(groups.first)).astype(np.float64)
        own, count = exact[np.arange(len(sources)), groups.of[sources]], max(len(groups.of) - 1, 1)
        mean = (exact @ counts - own) / count
        spread = np.sqrt(np.maximum(((exact**2) @ counts - own**2) / count - mean**2, 0))[:, None]
        different = spread > 1e-6
        found = np.where(different, (exact - mean[:, None]) / np.where(different, spread, 1), 0)
        return found.astype(np.float32)


def _of_titles(of_groups: Floats32, of: Ints64, titles: Ints64) -> Floats32:
    return of_groups[of[titles]]
