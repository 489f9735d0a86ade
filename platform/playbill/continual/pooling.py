"""What gains of many small groups are worth: each group's own mean, drawn towards that of all as far as it is unsure.

A group of forty members cannot show a gain of three per cent by itself. Where many groups gain, it is likely to gain as
well; where groups differ, only its own requests can tell. Both are one model: groups' true gains are normal around a
common mean, and what is measured of a group is normal around its true gain.
Sources: DerSimonian and Laird, "Meta-analysis in clinical trials", Controlled Clinical Trials 1986, for the variance
between groups; Hastie, Tibshirani and Friedman, "The elements of statistical learning" 2009, section 7.10, for the rule
of one standard error. Letters: N requests, G groups, E candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices, Ints64
from playbill.metrics import MemberBootstrap

SEED = 17  # of draws of members

SIGNIFICANT = 1.96
"""Standard errors by which a gain must be above 0. That is one case in forty by chance for a single candidate, and with
a few that are chosen from hardly more than one in twenty."""


def pooled(means: Floats64, errors: Floats64) -> tuple[Floats64, Floats64]:
    """Return [G] means of groups drawn towards each other, and [G] their standard errors.

    Args:
        means: [G] what was measured.
        errors: [G] its standard errors, above 0.
    """
    if means.size < 2:
        return means.copy(), errors.copy()
    sure = 1.0 / errors**2
    fixed = float((sure * means).sum() / sure.sum())
    surplus = float((sure * (means - fixed) ** 2).sum()) - (means.size - 1)
    between = max(0.0, surplus / (sure.sum() - (sure**2).sum() / sure.sum()))
    weight = 1.0 / (errors**2 + between)
    common = float((weight * means).sum() / weight.sum())
    drawn = errors**2 / (errors**2 + between)  # how far a group is drawn to the common mean
    found = drawn * common + (1.0 - drawn) * means
    return found, np.sqrt((1.0 - drawn) * errors**2 + drawn**2 / weight.sum())


def choose(means: Floats64, errors: Floats64, sizes: Floats64 | Ints64) -> tuple[Indices, Floats64, Floats64]:
    """Choose for each group one of E candidates, from the most cautious one on, or none.

    All groups together are judged first, since they have the most to say: where a candidate is significantly ahead over
    all of them, the best one of those is taken by each group whose pooled gain is above 0. That is an expected gain
    wherever it is taken, however small the group. A group that has none so far can still be significantly ahead by
    itself: then it takes the first candidate within one standard error of its best.

    Args:
        means: [G, E] gains over doing nothing.
        errors: [G, E] their standard errors, above 0.
        sizes: [G] how much each group counts in all of them together, such as its requests.

    Returns:
        [G] numbers of candidates, -1 for none; and [G, E] pooled gains and errors.
    """
    columns = [pooled(means[:, place], errors[:, place]) for place in range(means.shape[1])]
    gains, sure = (np.stack(own, axis=1) for own in zip(*columns, strict=True))
    allowed = gains - SIGNIFICANT * sure > 0
    best = np.where(allowed, gains, -np.inf).argmax(axis=1)
    rows = np.arange(len(gains))
    near = allowed & (gains >= (gains - sure)[rows, best][:, None])
    alone = np.where(allowed.any(axis=1), near.argmax(axis=1), -1)
    share = sizes / sizes.sum()
    total_E, error_E = share @ means, np.sqrt(share**2 @ errors**2)
    ahead = total_E - SIGNIFICANT * error_E > 0
    if not ahead.any():
        return alone.astype(np.int64), gains, sure
    common = int(np.where(ahead, total_E, -np.inf).argmax())
    return np.where(gains[:, common] > 0, common, alone).astype(np.int64), gains, sure


@dataclass(frozen=True)
class CountryGains:
    """Gains of G countries by E sets of weights over having none of their own."""

    requests: Ints64  # [G]
    members: Ints64  # [G]
    means: Floats64  # [G, E]
    errors: Floats64  # [G, E] standard errors over members, above 0


def country_gains(frame: pl.DataFrame, values: Floats64, countries: Sequence[str] | Sequence[int]) -> CountryGains:
    """Return what sets of weights gain by country.

    Where few members hardly differ their own spread says little, so a country's standard error is at least what the
    spread of all gives for as many members.

    Args:
        frame: Of the requests: `member_id` and `country`.
        values: [1 + E, N] a measure of each request, first without weights.
        countries: In the order of the result; each has a request.
    """
    change = (values[1:] - values[0]).T
    spread = np.sqrt(np.maximum(change.var(axis=0), np.finfo(np.float64).tiny))
    requests, members, means, errors = [], [], [], []
    for code in countries:
        own = (frame["country"] == code).fill_null(False).to_numpy()
        codes = frame["member_id"].filter(pl.Series(own)).rank("dense").to_numpy().astype(np.int64) - 1
        drawn = MemberBootstrap(codes, seed=SEED)
        count = int(codes.max()) + 1
        sure = np.sqrt([drawn.variance(column) for column in change[own].T])
        requests.append(int(own.sum()))
        members.append(count)
        means.append(change[own].mean(axis=0))
        errors.append(np.maximum(sure, spread / np.sqrt(count)))
    return CountryGains(np.array(requests), np.array(members), np.stack(means), np.stack(errors))
