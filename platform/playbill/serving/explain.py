"""Why a title is in an answer, or is not: what each rule says of it, and what each head and term adds to its score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import AwareDatetime

from playbill.ranking.candidates import Columns, Mask, explain
from playbill.ranking.row_plans import RowPlan
from playbill.serving.messages import Message
from playbill.serving.ranking_context import BlendedLists, RankingContext

NOTHING = 0.005
"""A head whose part differs by less from that of the titles shown neither raises nor lowers a title."""


class ScorePart(Message):
    """What one head, or one term beside the heads, adds to a title's score in one list."""

    name: str
    """The head or term; `head.term` is what a term of the member's history adds to a head."""
    weight: float
    """Its weight in the blend."""
    score: float
    """Weight times log probability (times value, for a term): the parts of a title add up to its score."""
    against_shown: float
    """`score` minus its mean over the titles that the list shows: above 0 it moves the title up among them."""

    @property
    def moves(self) -> float:
        """1.0 where it moves the title up among the titles shown, -1.0 down, 0.0 neither."""
        return float(np.sign(self.against_shown)) if abs(self.against_shown) >= NOTHING else 0.0


class ListPlace(Message):
    """A canvas's own list, or a row, and one title."""

    name: str
    """The canvas, or the row's `row_id`."""
    rules: dict[str, bool]
    """Rule that is asked there -> whether it allows the title. All must, unless a short row is filled up."""
    position: int | None = None
    """Where it is in the list, from 0; null when it is not there."""
    ranked_by: str
    """`blend`, or the name of the policy that ranks the list."""
    parts: tuple[ScorePart, ...] = ()
    """Of the blend, the one that moves the title most first; empty where a policy ranks or a rule excludes it."""

    @property
    def verdict(self) -> str:
        """What comes of it, in words."""
        against = [rule for rule, allows in self.rules.items() if not allows]
        if self.position is not None:
            added = f", to fill the row up, though not by {', '.join(against)}" if against else ""
            return f"at place {self.position + 1}{added}"
        if against:
            return f"excluded by {', '.join(against)}"
        return "allowed, but ranked below the titles shown, or shown by an earlier row"

    @property
    def influence(self) -> str:
        """Which heads and terms move the title up and down among the titles shown, in words."""
        if not self.parts:
            return "" if self.ranked_by == "blend" else f"policy {self.ranked_by}"
        texts = []
        for direction, sign in (("up", 1.0), ("down", -1.0)):
            moved = [f"{part.name} {part.against_shown:+.2f}" for part in self.parts if part.moves == sign]
            texts += [f"{direction}: {', '.join(moved)}"] if moved else []
        return "; ".join(texts) or "like the titles shown"


class Explanation(Message):
    """Everywhere a title could have been on a canvas."""

    title_id: str
    name: str
    canvas: str
    at: AwareDatetime
    """The moment it was asked for."""
    policy: str
    """`model`, or the name of the fallback that answered."""
    places: tuple[ListPlace, ...]
    """The canvas's own list where it has one, then its rows in the order they are written in."""
    notes: tuple[str, ...] = ()


def explain_title(context: RankingContext, title: int) -> Explanation:
    """Explain one title of one answer.

    Args:
        context: The request and its answer.
        title: Column of the title.
    """
    catalogue, query, result = context.parsed.active.snapshot.catalogue, context.query, context.result
    blended = result.scored.blended
    places = []
    if query.spec.target == "title":
        own = ListPlace(
            name=query.spec.name,
            rules=explain(catalogue, query.spec.candidates, query.viewer, title),
            position=_position(result.items.columns, title),
            ranked_by=result.scored.policy if blended is None else "blend",
            parts=_parts(blended, None, title, result.items.columns),
        )
        places.append(own)
    shown = {row.candidate.plan.row_id: row.titles.columns for row in result.rows or ()}
    places += [_row(context, plan, shown.get(plan.row_id), title) for plan in query.plans or ()]
    return Explanation(
        title_id=catalogue.title_ids[title],
        name=catalogue.name(title, query.request.language),
        canvas=query.spec.name,
        at=query.request.at,
        policy=result.scored.policy,
        places=tuple(places),
        notes=result.scored.notes,
    )


def _row(context: RankingContext, plan: RowPlan, shown: Columns | None, title: int) -> ListPlace:
    catalogue, query, blended = context.parsed.active.snapshot.catalogue, context.query, context.result.scored.blended
    rules = explain(catalogue, plan.spec.candidates, replace(query.viewer, source=plan.source), title)
    if plan.only is not None or plan.genre is not None:
        about: Mask = plan.about(catalogue.mask_of(np.array([title])), catalogue)
        rules["what the row is about"] = bool(about[title])
    rules["the row is shown"] = shown is not None
    by_blend = blended is not None and plan.spec.blend is not None
    return ListPlace(
        name=plan.row_id,
        rules=rules,
        position=_position(shown, title),
        ranked_by="blend" if by_blend else plan.spec.policy or query.spec.fallback,
        parts=_parts(blended, plan.row_id, title, shown),
    )


def _parts(blended: BlendedLists | None, name: str | None, title: int, shown: Columns | None) -> tuple[ScorePart, ...]:
    """Compare the parts of a title's score with those of the titles shown; nothing where it is no candidate."""
    scored = None if blended is None or shown is None or not len(shown) else blended.of(name, 1)
    if blended is None or shown is None or scored is None or not scored.candidates[title]:
        return ()
    candidates = shown[scored.candidates[shown]]
    parts = [
        ScorePart(
            name=head,
            weight=weight,
            score=float(values[0]),
            against_shown=float(values[0] - values[1:].mean()) if len(candidates) else 0.0,
        )
        for head, (weight, values) in blended.parts(name, np.append(title, candidates)).items()
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.against_shown)))


def _position(columns: Columns | None, title: int) -> int | None:
    places = [] if columns is None else columns.tolist()
    return places.index(title) if title in places else None
