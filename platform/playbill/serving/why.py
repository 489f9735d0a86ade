"""Why a title is in an answer, or is not: what each rule of the canvas and of every row says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydantic import AwareDatetime

from playbill.ranking.candidates import Columns, explain
from playbill.ranking.rows import RowPlan
from playbill.serving.answering import Answer, Asked
from playbill.serving.messages import Message
from playbill.serving.served import Served


class Place(Message):
    """A canvas's own list, or a row, and one title."""

    name: str
    """The canvas, or the row's `row_id`."""
    rules: dict[str, bool]
    """Rule that is asked there -> whether it allows the title. All must, unless a short row is filled up."""
    position: int | None = None
    """Where it is in the list, from 0; null when it is not there."""

    @property
    def verdict(self) -> str:
        """What comes of it, in words."""
        against = [rule for rule, allows in self.rules.items() if not allows]
        if self.position is not None:
            added = f", to fill the row up, though not by {', '.join(against)}" if against else ""
            return f"at place {self.position + 1}{added}"
        if against:
            return f"out by {', '.join(against)}"
        return "may be shown, but others come before it, or an earlier row has it"


class Why(Message):
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


def why(served: Served, asked: Asked, found: Answer, title: int) -> Why:
    """Explain one title of one answer.

    Args:
        served: What answered.
        asked: The request.
        found: The answer to it.
        title: Column of the title.
    """
    catalogue = served.shelf.catalogue
    places = []
    if asked.canvas.target == "title":
        own = explain(catalogue, asked.canvas.candidates, asked.viewer, title)
        places.append(Place(name=asked.canvas.name, rules=own, position=_position(found.items.columns, title)))
    shown = {row.plan.row_id: row.titles.columns for row in found.rows or ()}
    places += [_row(served, asked, plan, shown, title) for plan in asked.plans or ()]
    return Why(
        title_id=catalogue.title_ids[title],
        name=catalogue.name(title, asked.request.language),
        canvas=asked.canvas.name,
        at=asked.request.at,
        policy=found.policy,
        places=tuple(places),
        notes=found.notes,
    )


def _row(served: Served, asked: Asked, plan: RowPlan, shown: Mapping[str, Columns], title: int) -> Place:
    catalogue = served.shelf.catalogue
    rules = explain(catalogue, plan.spec.candidates, replace(asked.viewer, source=plan.source), title)
    if plan.only is not None or plan.genre is not None:
        rules["what the row is about"] = bool(plan.about(catalogue.mask_of(np.array([title])), catalogue)[title])
    rules["the row is shown"] = plan.row_id in shown
    return Place(name=plan.row_id, rules=rules, position=_position(shown.get(plan.row_id), title))


def _position(columns: Columns | None, title: int) -> int | None:
    places = [] if columns is None else columns.tolist()
    return places.index(title) if title in places else None
