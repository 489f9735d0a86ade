"""A model and everything it refers to -> one ResolvedModel in plain names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar, cast

from playbill.definitions.specs import (
    CanvasSpec,
    Definition,
    LabelSpec,
    ModelSpec,
    ResolvedModel,
    RewardSpec,
    RowSpec,
    split_reference,
)
from playbill.definitions.specs.canvas import OF_THE_PAGE, TERMS
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex

Kind = TypeVar("Kind", bound=Definition)


def plain(reference: str) -> str:
    """Return a reference without its version."""
    return split_reference(reference)[0]


def rows_of_model(index: DefinitionIndex, model: ModelSpec) -> list[Checked]:
    """Return the rows a model fills, in the order of the page.

    Canvas by canvas: first the rows the canvas names, then its other rows by name. Rows that only another model can
    fill are left out, unless the model names its rows.
    """
    if model.rows is not None:
        found = {plain(reference): index.find("Row", reference) for reference in model.rows}
    else:
        others = rows_of_others(index, model)
        found = {name: index.find("Row", name) for name in index.written["Row"] if name not in others}
    rows = {name: row for name, row in found.items() if row is not None}
    ordered: list[Checked] = []
    for reference in model.canvases:
        canvas = index.find("Canvas", reference)
        first = [plain(row) for row in cast(CanvasSpec, canvas.spec).rows] if canvas else []
        here = {name for name, row in rows.items() if plain(cast(RowSpec, row.spec).canvas) == plain(reference)}
        names = [name for name in first if name in here] + sorted(here.difference(first))
        ordered.extend(rows[name] for name in names)
    return ordered


def rows_of_others(index: DefinitionIndex, model: ModelSpec) -> dict[str, str]:
    """Return the rows on a model's canvases that another model of the zoo can fill and this one cannot -> why.

    A row that no model can fill is a mistake in the row, and none of these.
    """
    if model.rows is not None:
        return {}
    models = [one.spec for one in index.all_checked() if isinstance(one.spec, ModelSpec)]
    canvases, found = set(map(plain, model.canvases)), {}
    for name in index.written["Row"]:
        checked = index.find("Row", name)
        row = cast(RowSpec, checked.spec) if checked is not None and checked.knows("canvas") else None
        if row is None or plain(row.canvas) not in canvases or (lacks := _lacks(index, model, row)) is None:
            continue
        serving = (one for one in models if plain(row.canvas) in map(plain, one.canvases))
        if any(_lacks(index, one, row) is None for one in serving):
            found[name] = lacks
    return found


def _lacks(index: DefinitionIndex, model: ModelSpec, row: RowSpec) -> str | None:
    """Say what a model lacks to fill a row, or return None; nothing while mistakes hide its heads or canvases."""
    checked = index.find("Model", model.reference)
    if checked is None or not checked.knows("heads", "canvases"):
        return None
    if missing := [name for name in row.blend or {} if name not in model.heads and name not in TERMS]:
        return f"has no head '{missing[0]}'"
    if row.scored_as is not None and plain(row.scored_as) not in map(plain, model.canvases):
        return f"has no canvas '{row.scored_as}'"
    return None


def resolve(index: DefinitionIndex, model: ModelSpec) -> ResolvedModel:
    """Gather everything a checked model uses. The index must have passed `check_references`."""
    canvases = [_get(index, "Canvas", reference, CanvasSpec) for reference in model.canvases]
    rows = [cast(RowSpec, row.spec) for row in rows_of_model(index, model)]
    heads = model.heads.values()
    named = (*(head.reward for head in heads), model.evaluate.reward)
    rewards = [_get(index, "Reward", reward, RewardSpec) for reward in named if reward is not None]
    wanted = [
        *(head.label for head in heads if head.label is not None),
        *(canvas.metric for canvas in canvases),
        *(term for reward in rewards for term in reward.terms),
    ]
    return ResolvedModel(
        model=_plain_model(model, rows),
        labels=_by_name(_get(index, "Label", reference, LabelSpec) for reference in wanted),
        rewards=_by_name(map(_plain_reward, rewards)),
        canvases=_with_rows_canvases(
            _by_name(_plain_canvas(canvas, rows_of_others(index, model)) for canvas in canvases)
        ),
        rows=_by_name(map(_plain_row, rows)),
    )


def resolve_reward(index: DefinitionIndex, reward: RewardSpec) -> tuple[RewardSpec, dict[str, LabelSpec]]:
    """Return a checked reward in plain names, with the labels its terms name in the versions they name."""
    labels = _by_name(_get(index, "Label", reference, LabelSpec) for reference in reward.terms)
    return _plain_reward(reward), labels


def _get(index: DefinitionIndex, kind: str, reference: str, spec: type[Kind]) -> Kind:
    found = index.find(kind, reference)
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


def _plain_canvas(canvas: CanvasSpec, gone: Collection[str]) -> CanvasSpec:
    page = canvas.page
    if page is not None and gone:
        pinned = tuple(row for row in page.pinned if plain(row) not in gone)
        placed = None if page.placed is not None and plain(page.placed.row) in gone else page.placed
        page = page.model_copy(update={"pinned": pinned, "placed": placed})
    update = {
        "metric": plain(canvas.metric),
        "rows": tuple(row for row in map(plain, canvas.rows) if row not in gone),
        "rows_of": canvas.rows_of and plain(canvas.rows_of),
        "page": page,
    }
    return canvas.model_copy(update=update)


def _with_rows_canvases(canvases: dict[str, CanvasSpec]) -> dict[str, CanvasSpec]:
    """Give canvases of rows what they have from the canvas whose rows they rank."""
    shared = [key for key in OF_THE_PAGE if key not in ("rows", "page")]
    found = {}
    for name, canvas in canvases.items():
        page = canvases[canvas.requested_as]
        own = {} if page is canvas else {key: getattr(page, key) for key in shared}
        found[name] = canvas.model_copy(update=own)
    return found


def _plain_row(row: RowSpec) -> RowSpec:
    scored_as = row.scored_as and plain(row.scored_as)
    return row.model_copy(update={"canvas": plain(row.canvas), "scored_as": scored_as})


def _plain_reward(reward: RewardSpec) -> RewardSpec:
    terms = {plain(term): weight for term, weight in reward.terms.items()}
    return reward.model_copy(update={"terms": terms, "delayed": tuple(map(plain, reward.delayed))})
