"""Rows whose rules leave too few titles: left out, or filled up, as their definition says.

Axis letters: T titles.
"""

from __future__ import annotations

import numpy as np

from playbill.definitions.specs import CandidatesSpec
from playbill.definitions.specs.candidates import ABOUT_TITLES
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Mask, Viewer, select
from playbill.ranking.fallbacks import fallback_scores
from playbill.ranking.popularity import PlayLog
from playbill.ranking.row_plans import RowPlan

_KEPT = (*ABOUT_TITLES, "hours", "available", "watched", "exclude_source")


def spare_rules(rules: CandidatesSpec) -> CandidatesSpec:
    """Return the rules that what fills a row up must satisfy: all but those about popularity, launches and lists."""
    said = {name: getattr(rules, name) for name in _KEPT}
    return CandidatesSpec(**{name: value for name, value in said.items() if value is not None})


def filled_up(
    plan: RowPlan, scores: Scores, candidates: Mask, plays: PlayLog, viewer: Viewer, policy: str
) -> tuple[Scores, Mask, str]:
    """Add titles to a row that is too short, where its definition wants that; they come after its own.

    Args:
        plan: The row.
        scores: [T] its own.
        candidates: [T] that its rules allow.
        plays: What all members did.
        viewer: Who asks, with the row's own source title.
        policy: The canvas's fallback, which orders what is added unless the row names one.

    Returns:
        Scores, candidates, and a sentence for the answer's notes: empty where nothing was added.
    """
    own, needed = plan.about(candidates, plays.catalogue), plan.spec.minimum_length
    if plan.spec.when_short == "drop" or own.sum() >= needed:
        return scores, candidates, ""
    policy = plan.spec.fallback or policy
    spare = select(plays.catalogue, spare_rules(plan.spec.candidates), viewer) & ~candidates
    if not spare.any():
        return scores, candidates, ""
    order = fallback_scores(policy, plays, viewer)
    floor = scores[candidates].min(initial=0.0) - 1.0
    found = np.where(spare, floor - (order[spare].max() - order), scores)
    note = f"row {plan.row_id}: {int(own.sum())} titles after filtering, fewer than {needed}: filled up by {policy}"
    return found, candidates | spare, note
