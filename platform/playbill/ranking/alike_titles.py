"""Likeness of titles to a source title: what is played together, and above it what anybody would name in one breath.

    likeness = .5 lift + 2.5 max(0, kin - 2)
    kin = .4 (1 + sqrt(genres)) links + .3 z(genres)^1.3 + .25 z(year) + 6 names

| part | what it is |
|---|---|
| lift | log lift of the two being played together, metadata as the prior (`playbill.models.likeness`) |
| links | what a play of the source says of the title (`playbill.models.companions`); half of it needs shared genres |
| genres | cosine of genres weighed by rarity |
| year | how near the years of release are |
| names | likeness of names, in the company of shared genres (`playbill.ranking.name_likeness`) |

z standardises over the titles, so kin is about in standard deviations. What is above 2 is a sequel, of one maker, or
of one rare kind; below, the lift alone orders titles, which follows what is played next more closely. A title that
nobody has played has neither links nor counts, and is placed by the rest. The weights were chosen on the first half of
a list of films with companions that people expect, and on next plays of a validation fold: docs/results/companions.md.
Axis letters: S sources, T titles and the padding row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.datasets import Encoder
from playbill.models import Network, TitleInputs
from playbill.models.alike import TitleLikeness
from playbill.models.companions import standardised
from playbill.ranking.name_likeness import NameLikeness

LINKS, GENRES, YEAR, NAMES = 0.4, 0.3, 0.25, 6.0
GENRES_POWER = 1.3
"""Of genres in standard deviations: sharing a rare one is more than sharing several that many have."""
LIFT, KIN, KIN_FROM = 0.5, 2.5, 2.0

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AlikeTitles:
    """The titles of one model version, ready to be compared.

    Args:
        network: The model, with what training learnt of pairs of titles.
        metadata: The titles as it reads them.
        names: Their names.
        index: [T] title of training of each, 0 = one that came later.
    """

    network: Network
    metadata: TitleLikeness
    names: NameLikeness
    index: Ints

    @classmethod
    def of(cls, network: Network, inputs: TitleInputs, titles: pl.DataFrame, encoder: Encoder) -> AlikeTitles:
        """Read the titles.

        Args:
            network: The model.
            inputs: The titles as it reads them.
            titles: Their canonical rows.
            encoder: Numbers of titles.
        """
        rows = encoder.title_rows.encode(titles["title_id"]).astype(np.int64)
        names = NameLikeness.of(titles, rows, encoder.title_rows.size)
        return cls(network, TitleLikeness.of(inputs), names, inputs.index.numpy())

    def semantic(self, sources: Ints) -> Floats:
        """Return [S, T] the log lift that metadata leads one to expect."""
        return self.network.likeness.prior(sources, self.metadata).astype(np.float32)

    def co_play(self, sources: Ints) -> Floats:
        """Return [S, T] the log lift that the log says, without metadata."""
        nothing = np.zeros((len(sources), self.metadata.count))
        return self.network.likeness.posterior(sources, self.index, nothing).astype(np.float32)

    def lift(self, sources: Ints) -> Floats:
        """Return [S, T] the log lift of being played together, metadata as the prior."""
        prior = self.network.likeness.prior(sources, self.metadata)
        return self.network.likeness.posterior(sources, self.index, prior).astype(np.float32)

    def likeness(self, sources: Ints) -> Floats:
        """Return [S, T] the sum; a title is most like itself. A version without companions has the lift alone."""
        lift = self.lift(sources)
        if not self.network.companions.keep:
            return lift
        found: Floats = LIFT * lift + KIN * np.maximum(self.kin(sources) - KIN_FROM, 0)
        found[np.arange(len(sources)), sources] = found.max(axis=1)
        return found

    def kin(self, sources: Ints) -> Floats:
        """Return [S, T] how much titles belong together, in standard deviations; 0 for the source itself."""
        own = (np.arange(len(sources)), sources)
        genres = self.metadata.rare_genres(sources)
        year = self.metadata.years(sources)
        genres[own] = year[own] = 0
        described = np.diff(self.metadata.genre_bags.indptr) > 0
        found: Floats = (
            LINKS * self.network.companions.links(sources, self.index) * (1 + np.sqrt(np.maximum(genres, 0)))
        )
        shared = standardised(genres)
        found += GENRES * np.sign(shared) * np.abs(shared) ** GENRES_POWER + YEAR * standardised(year)
        found += NAMES * np.stack([self.names.row(*pair, described) for pair in zip(sources, genres, strict=True)])
        found[own] = 0
        return found
