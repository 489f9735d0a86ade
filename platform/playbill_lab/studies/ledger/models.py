"""The models of a ledger: the consolidated one, and the separate ones that it replaces, derived from its definition.

A separate model is the consolidated one with a single canvas: the same network, history, features and recipe, with
the heads that its canvas and its rows blend, and nothing to learn from but its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from playbill.definitions.specs import ResolvedModel, TrainingSpec
from playbill.definitions.specs.canvas import SIMILARITY
from playbill.definitions.specs.prune_heads import prune_heads
from playbill.errors import UnknownNameError


def heads_of(resolved: ResolvedModel, canvas: str) -> tuple[str, ...]:
    """Return the heads that a canvas, its own rows and its page blend, in the model's order.

    Raises:
        UnknownNameError: The model has no such canvas.
    """
    page = resolved.canvas(canvas).page
    blends = [resolved.canvas(canvas).blend]
    if page is not None:
        blends += [page.blend, {} if page.placed is None else {page.placed.head: 1.0}]
        blends += [] if page.expected is None else [{page.expected.head: page.expected.weight}]
    blends += [row.blend for row in _own_rows(resolved, canvas) if row.blend is not None]
    used = {head for blend in blends for head in blend} - {SIMILARITY}
    return tuple(head for head in resolved.model.heads if head in used)


def separate_model(
    resolved: ResolvedModel, canvas: str, taught: Callable[[str], bool] = lambda _head: True
) -> ResolvedModel:
    """Return the model that a consolidated one replaces on a canvas.

    Rows that are scored as on another canvas are that canvas's model's to rank. Heads that have nothing to learn there
    by `taught` are left out, as in training: noise in a blend would make the separate model look worse than it has to
    be.

    Raises:
        UnknownNameError: The model has no such canvas.
        StateError: No head of the canvas has anything to learn there.
    """
    heads = [head for head in heads_of(resolved, canvas) if taught(head)]
    rows = {row.name: row for row in _own_rows(resolved, canvas)}
    spec = resolved.canvas(canvas)
    own = spec.model_copy(update={"rows": tuple(name for name in spec.rows if name in rows)})
    model = resolved.model.model_copy(
        update={
            "name": f"{canvas.replace('.', '_')}_alone",
            "canvases": (canvas,),
            "rows": None if resolved.model.rows is None else tuple(rows),
            "tasks": {name: task for name, task in resolved.model.tasks.items() if name == canvas},
            "gates": tuple(gate for gate in resolved.model.gates if gate.canvas == canvas),
        }
    )
    in_process = resolved.model_copy(update={"model": model, "canvases": {canvas: own}, "rows": rows})
    others = {head: f"not of '{canvas}' alone" for head in resolved.model.heads if head not in heads}
    found = prune_heads(in_process, others)
    used = _labels(found)
    labels = {name: label for name, label in found.labels.items() if name in used}
    return found.model_copy(update={"labels": labels, "notes": resolved.notes})


def only_head(resolved: ResolvedModel, head: str) -> ResolvedModel:
    """Return the model with one head, which every canvas then blends: it is asked for that head alone."""
    others = {name: "it is trained alone" for name in resolved.model.heads if name != head}
    canvases = {
        name: canvas.model_copy(update={"blend": {head: 1.0}, "rows": (), "page": None})
        for name, canvas in resolved.canvases.items()
    }
    model = resolved.model.model_copy(update={"rows": None if resolved.model.rows is None else ()})
    return prune_heads(resolved.model_copy(update={"canvases": canvases, "rows": {}, "model": model}), others)


def with_recipe(resolved: ResolvedModel, seed: int, **changes: Any) -> ResolvedModel:
    """Return a model under another seed, and with other numbers of its training where some are given.

    Steps that are asked for are made, however many passes that takes.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if "min_steps" in given:
        given.setdefault("max_epochs", TrainingSpec.model_fields["max_epochs"].default)
    training = resolved.model.training.model_copy(update={"seed": seed, **given})
    return resolved.model_copy(update={"model": resolved.model.model_copy(update={"training": training})})


def with_trunk(resolved: ResolvedModel, dim: int | None) -> ResolvedModel:
    """Return a model of another width; None keeps its own."""
    if dim is None:
        return resolved
    trunk = resolved.model.trunk.model_copy(update={"dim": dim})
    return resolved.model_copy(update={"model": resolved.model.model_copy(update={"trunk": trunk})})


def ledger_canvases(resolved: ResolvedModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the canvases of a ledger: those asked for, or all.

    Raises:
        UnknownNameError: The model has no such canvas.
    """
    for name in wanted:
        if name not in resolved.canvases:
            raise UnknownNameError("canvas", name, resolved.canvases)
    return tuple(wanted) or tuple(resolved.canvases)


def definition_size(resolved: ResolvedModel) -> dict[str, int]:
    """Return the YAML files and lines that define a model: its own, those of its canvases, rows, labels and rewards.

    Every definition is written out in the same way, defaults left out, so that sizes of two models can be compared.
    """
    specs: list[Any] = [resolved.model, *resolved.canvases.values(), *resolved.rows.values()]
    specs += [*resolved.labels.values(), *resolved.rewards.values()]
    return {"files": len(specs), "lines": sum(_lines(spec) for spec in specs)}


def shared_size(models: Mapping[str, ResolvedModel]) -> dict[str, int]:
    """Return the YAML files and lines of several models together, each file counted once.

    Two models share a label, a canvas or a row where its definition is the same to the letter.
    """
    seen: dict[tuple[str, str], int] = {}
    for resolved in models.values():
        for spec in (resolved.model, *resolved.canvases.values(), *resolved.rows.values(), *resolved.labels.values()):
            seen[(type(spec).__name__, _text(spec))] = _lines(spec)
        for reward in resolved.rewards.values():
            seen[("RewardSpec", _text(reward))] = _lines(reward)
    return {"files": len(seen), "lines": sum(seen.values())}


def _own_rows(resolved: ResolvedModel, canvas: str) -> list[Any]:
    return [row for row in resolved.rows_of(canvas) if row.scored_as in (None, canvas)]


def _labels(resolved: ResolvedModel) -> set[str]:
    used = {head.label for head in resolved.model.heads.values() if head.label is not None}
    used |= {canvas.metric for canvas in resolved.canvases.values()}
    return used | {name for reward in resolved.rewards.values() for name in reward.terms}


def _text(spec: Any) -> str:
    content = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=True, default_flow_style=None, width=120, allow_unicode=True)


def _lines(spec: Any) -> int:
    return len(_text(spec).splitlines())
