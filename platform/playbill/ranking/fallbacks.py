"""Policies: orders of titles that no model makes. Rows may be ranked by one, and one answers when the model cannot.

A policy is a function `policy(plays, viewer) -> scores`, registered in `definitions.specs.FALLBACKS` by its name. It
reads what was known strictly before the request. Scores are finite and only ever compared among candidates.
Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache

import numpy as np

from playbill.clock import to_microseconds
from playbill.datasets.candidate_masks import NEVER
from playbill.definitions.specs import FALLBACKS
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Columns, Viewer
from playbill.ranking.popularity import PlayLog

__all__ = ["PlayLog", "fallback_scores"]

TWO_DAYS = timedelta(days=2)
_LAST = -1e9


def popular(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by plays strictly before the request, [T]."""
    return plays.before(viewer.at).astype(np.float64)


def popular_7d(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by plays of the last seven days; ties, and weeks without a play, by all plays before the request.

    Returns:
        [T] plays of the week plus the all-time share in [0, 1), which only breaks ties.
    """
    return plays.of_week(viewer.at).astype(np.float64) + _share(popular(plays, viewer))


def top_10(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by plays of the last seven days in the request's country; ties by those of the week everywhere.

    In an unknown country, plays everywhere count.
    """
    return plays.of_week(viewer.at, viewer.country).astype(np.float64) + _share(popular_7d(plays, viewer))


def trending(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by how plays in the request's country grow: the last two days against the last seven, by the day.

    The score is (n2 / 2 + s) / (n7 / 7 + s) with n2 and n7 the title's plays in the last two and seven days and s the
    mean of n7 / 7 over titles played in the week, so a title needs about as many plays as others have before a change
    of its own counts, and the order does not depend on how large the country is. Without a play in the week every
    title scores 1. Ties by plays of the week.
    """
    week = plays.of_week(viewer.at, viewer.country) / 7.0
    recent = plays.between(viewer.at - TWO_DAYS, viewer.at, viewer.country) / 2.0
    played = week > 0
    smoothing = week[played].mean() if played.any() else 1.0
    growth: Scores = (recent + smoothing) / (week + smoothing)
    return growth + 1e-6 * _share(popular_7d(plays, viewer))


def newest(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by launch in the request's country, the newest first, [T] in days; without one last."""
    launches = plays.catalogue.launches(viewer.country)
    now = to_microseconds(viewer.at)
    return np.where(launches <= now, -_days(now - np.minimum(launches, now)), _LAST)


def next_launch(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score by the launch to come in the request's country that is known, the soonest first, [T] in days."""
    launches = plays.catalogue.known_launches(viewer.at, viewer.country)
    now = to_microseconds(viewer.at)
    ahead = np.where(launches == NEVER, now, launches) - now
    return np.where(launches == NEVER, _LAST, -_days(ahead))


def recently_added_to_my_list(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score titles of the member's list, the one added last first; all others 0."""
    return _in_order(viewer.own.my_list, plays.titles)


def last_watched(plays: PlayLog, viewer: Viewer) -> Scores:
    """Score titles the member has played, the one played last first; all others 0."""
    return _in_order(viewer.own.played, plays.titles)


def fallback_scores(policy: str, plays: PlayLog, viewer: Viewer) -> Scores:
    """Score every title by the policy registered under a name, [T].

    Raises:
        UnknownNameError: No policy has the name.
    """
    scores: Scores = np.asarray(_policy(policy)(plays, viewer), dtype=np.float64)
    return scores


@cache
def _policy(name: str) -> Callable[[PlayLog, Viewer], Scores]:
    policy: Callable[[PlayLog, Viewer], Scores] = FALLBACKS[name].load()
    return policy


def _share(counts: Scores) -> Scores:
    """Return counts as shares of one more than the greatest, in [0, 1)."""
    shares: Scores = counts / (counts.max(initial=0.0) + 1.0)
    return shares


def _days(microseconds: Columns) -> Scores:
    days: Scores = microseconds / 86_400e6
    return days


def _in_order(columns: Columns, titles: int) -> Scores:
    scores = np.zeros(titles)
    scores[columns] = np.arange(len(columns), 0, -1)
    return scores
