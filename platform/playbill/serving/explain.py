"""Why a title is in an answer, or is not: what each rule says of it, and what each head and term adds to its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydantic import AwareDatetime

from playbill.ranking.candidates import Columns, Mask, explain
from playbill.ranking.row_plans import RowPlan
from playbill.serving.active_model import ActiveModel
from playbill.serving.messages import MODEL_POLICY, Message
from playbill.serving.ranker import RankingQuery, RankingResult, ScoredLists, score_lists

NOTHING = 0.005
"""A head whose part differs by less from that of the titles shown neither raises nor lowers a title."""


class Part(Message):
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


class Place(Message):
    """A canvas's own list, or a row, and one title."""

    name: str
    """The canvas, or the row's `row_id`."""
    rules: dict[str, bool]
    """Rule that is asked there -> whether it allows the title. All must, unless a short row is filled up."""
    position: int | None = None
    """Where it is in the list, from 0; null when it is not there."""
    ranked_by: str
    """`blend`, or the name of the policy that ranks the list."""
    parts: tuple[Part, ...] = ()
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
    places: tuple[Place, ...]
    """The canvas's own list where it has one, then its rows in the order they are written in."""
    notes: tuple[str, ...] = ()


def why(served: ActiveModel, query: RankingQuery, answer: RankingResult, title: int) -> Explanation:
    """Explain one title of one answer.

    Args:
        served: What answered.
        query: The request.
        answer: The answer to it.
        title: Column of the title.
    """
    catalogue = served.snapshot.catalogue
    scored = None
    if answer.policy == MODEL_POLICY and answer.scorer is not None:
        scored = score_lists(served, query, answer.scorer)
    places = []
    if query.canvas.target == "title":
        rules = explain(catalogue, query.canvas.candidates, query.viewer, title)
        own = Place(
            name=query.canvas.name,
            rules=rules,
            position=_position(answer.items.columns, title),
            ranked_by=answer.policy if scored is None else "blend",
            parts=_parts(scored, None, title, answer.items.columns),
        )
        places.append(own)
    shown = {row.plan.row_id: row.titles.columns for row in answer.rows or ()}
    places += [_row(served, query, plan, shown, title, scored) for plan in query.plans or ()]
    return Explanation(
        title_id=catalogue.title_ids[title],
        name=catalogue.name(title, query.request.language),
        canvas=query.canvas.name,
        at=query.request.at,
        policy=answer.policy,
        places=tuple(places),
        notes=answer.notes,
    )


def _row(
    served: ActiveModel,
    query: RankingQuery,
    plan: RowPlan,
    shown: Mapping[str, Columns],
    title: int,
    scored: ScoredLists | None,
) -> Place:
    catalogue = served.snapshot.catalogue
    rules = explain(catalogue, plan.spec.candidates, replace(query.viewer, source=plan.source), title)
    if plan.only is not None or plan.genre is not None:
        about: Mask = plan.about(catalogue.mask_of(np.array([title])), catalogue)
        rules["what the row is about"] = bool(about[title])
    rules["the row is shown"] = plan.row_id in shown
    columns = shown.get(plan.row_id)
    by_blend = scored is not None and plan.spec.blend is not None
    return Place(
        name=plan.row_id,
        rules=rules,
        position=_position(columns, title),
        ranked_by="blend" if by_blend else plan.spec.policy or query.canvas.fallback,
        parts=_parts(scored, plan.row_id, title, columns),
    )


def _parts(scored: ScoredLists | None, name: str | None, title: int, shown: Columns | None) -> tuple[Part, ...]:
    """Compare the parts of a title's score with those of the titles shown; nothing where it is no candidate."""
    found = None if scored is None or shown is None or not len(shown) else scored.of(name, 1)
    if scored is None or shown is None or found is None or not found[1][title]:
        return ()
    candidates = shown[found[1][shown]]
    parts = [
        Part(
            name=head,
            weight=weight,
            score=float(values[0]),
            against_shown=float(values[0] - values[1:].mean()) if len(candidates) else 0.0,
        )
        for head, (weight, values) in scored.parts(name, np.append(title, candidates)).items()
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.against_shown)))


def _position(columns: Columns | None, title: int) -> int | None:
    places = [] if columns is None else columns.tolist()
    return places.index(title) if title in places else None
