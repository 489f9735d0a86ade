"""A model and everything it refers to -> one ResolvedModel in plain names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

from playbill.specs import (
    CanvasSpec,
    Definition,
    LabelSpec,
    ModelSpec,
    ResolvedModel,
    RewardSpec,
    RowSpec,
    split_reference,
)
from playbill.specs.canvas import OF_THE_PAGE
from playbill.zoo.definitions import Checked, Shelf

Kind = TypeVar("Kind", bound=Definition)


def plain(reference: str) -> str:
    """Return a reference without its version."""
    return split_reference(reference)[0]


def rows_of_model(shelf: Shelf, model: ModelSpec) -> list[Checked]:
    """Return the rows a model fills, in the order of the page.

    Canvas by canvas: first the rows the canvas names, then its other rows by name.
    """
    if model.rows is not None:
        found = {plain(reference): shelf.find("Row", reference) for reference in model.rows}
    else:
        found = {name: shelf.find("Row", name) for name in shelf.written["Row"]}
    rows = {name: row for name, row in found.items() if row is not None}
    ordered: list[Checked] = []
    for reference in model.canvases:
        canvas = shelf.find("Canvas", reference)
        first = [plain(row) for row in cast(CanvasSpec, canvas.spec).rows] if canvas else []
        here = {name for name, row in rows.items() if plain(cast(RowSpec, row.spec).canvas) == plain(reference)}
        names = [name for name in first if name in here] + sorted(here.difference(first))
        ordered.extend(rows[name] for name in names)
    return ordered


def resolve(shelf: Shelf, model: ModelSpec) -> ResolvedModel:
    """Gather everything a checked model uses. The shelf must have passed `check_references`."""
    canvases = [_get(shelf, "Canvas", reference, CanvasSpec) for reference in model.canvases]
    rows = [cast(RowSpec, row.spec) for row in rows_of_model(shelf, model)]
    heads = model.heads.values()
    named = (*(head.reward for head in heads), model.evaluate.reward)
    rewards = [_get(shelf, "Reward", reward, RewardSpec) for reward in named if reward is not None]
    wanted = [
        *(head.label for head in heads if head.label is not None),
        *(canvas.metric for canvas in canvases),
        *(term for reward in rewards for term in reward.terms),
    ]
    return ResolvedModel(
        model=_plain_model(model, rows),
        labels=_by_name(_get(shelf, "Label", reference, LabelSpec) for reference in wanted),
        rewards=_by_name(map(_plain_reward, rewards)),
        canvases=_with_rows_canvases(_by_name(map(_plain_canvas, canvases))),
        rows=_by_name(map(_plain_row, rows)),
    )


def resolve_reward(shelf: Shelf, reward: RewardSpec) -> tuple[RewardSpec, dict[str, LabelSpec]]:
    """Return a checked reward in plain names, with the labels its terms name in the versions they name."""
    labels = _by_name(_get(shelf, "Label", reference, LabelSpec) for reference in reward.terms)
    return _plain_reward(reward), labels


def _get(shelf: Shelf, kind: str, reference: str, spec: type[Kind]) -> Kind:
    found = shelf.find(kind, reference)
    if found is None or not isinstance(found.spec, spec):
        raise LookupError(f"{kind} '{reference}' passed the check and is not there")
    return found.spec


def _by_name(definitions: Iterable[Kind]) -> dict[str, Kind]:
    """The first of a name wins: heads come before metrics and terms."""
    named: dict[str, Kind] = {}
    for definition in definitions:
        named.setdefault(definition.name, definition)
    return named


def _plain_model(model: ModelSpec, rows: list[RowSpec]) -> ModelSpec:
    heads = {
        name: head.model_copy(
            update={
                "label": head.label and plain(head.label),
                "reward": head.reward and plain(head.reward),
            }
        )
        for name, head in model.heads.items()
    }
    reward = model.evaluate.reward
    update = {
        "evaluate": model.evaluate.model_copy(update={"reward": reward and plain(reward)}),
        "canvases": tuple(map(plain, model.canvases)),
        "rows": tuple(row.name for row in rows),
        "heads": heads,
    }
    return model.model_copy(update=update)


def _plain_canvas(canvas: CanvasSpec) -> CanvasSpec:
    update = {
        "metric": plain(canvas.metric),
        "rows": tuple(map(plain, canvas.rows)),
        "rows_of": canvas.rows_of and plain(canvas.rows_of),
    }
    return canvas.model_copy(update=update)


def _with_rows_canvases(canvases: dict[str, CanvasSpec]) -> dict[str, CanvasSpec]:
    """Give canvases of rows what they have from the canvas whose rows they rank."""
    shared = [key for key in OF_THE_PAGE if key not in ("rows", "page")]
    found = {}
    for name, canvas in canvases.items():
        page = canvases[canvas.asked_as]
        own = {} if page is canvas else {key: getattr(page, key) for key in shared}
        found[name] = canvas.model_copy(update=own)
    return found


def _plain_row(row: RowSpec) -> RowSpec:
    scored_as = row.scored_as and plain(row.scored_as)
    return row.model_copy(update={"canvas": plain(row.canvas), "scored_as": scored_as})


def _plain_reward(reward: RewardSpec) -> RewardSpec:
    terms = {plain(term): weight for term, weight in reward.terms.items()}
    return reward.model_copy(update={"terms": terms, "delayed": tuple(map(plain, reward.delayed))})
