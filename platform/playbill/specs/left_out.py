"""A model without some of its heads: what is left of the canvases, rows, tasks and gates that spoke of them."""

from __future__ import annotations

from collections.abc import Mapping

from playbill.errors import StateError
from playbill.specs.canvas import CanvasSpec
from playbill.specs.measures import GateSpec
from playbill.specs.model import ModelSpec
from playbill.specs.resolved import ResolvedModel
from playbill.specs.row import RowSpec


def without_heads(resolved: ResolvedModel, reasons: Mapping[str, str]) -> ResolvedModel:
    """Return a model that never had some heads, with a note of everything that went with them.

    Blends lose their terms. A row whose whole blend is gone is filled by the fallback of its canvas. A canvas whose
    whole blend is gone is dropped, and with it its rows, rows scored as on it, a canvas that ranks its rows, its task
    and its gates.

    Args:
        resolved: The model.
        reasons: Head -> why it is left out; every one is among the model's.

    Raises:
        StateError: No head is left, or no canvas.
    """
    if not reasons:
        return resolved
    gone = frozenset(reasons)
    kept = {name: head for name, head in resolved.model.heads.items() if name not in gone}
    if not kept:
        raise StateError("no head is left to train:" + "".join(f"\n  {name}: {why}" for name, why in reasons.items()))
    canvases, lost = _canvases(resolved, gone)
    if not canvases:
        raise StateError(f"without the heads {_listed(gone)} no canvas has a blend left, so there is nothing to serve")
    rows, changed = _rows(resolved, gone, canvases)
    model = _model(resolved.model, kept, canvases, rows)
    notes = [f"head '{name}' is left out: {why}" for name, why in reasons.items()]
    return resolved.model_copy(
        update={
            "model": model,
            "canvases": canvases,
            "rows": rows,
            "notes": (*resolved.notes, *notes, *lost, *changed),
        }
    )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _left(blend: Mapping[str, float], gone: frozenset[str]) -> dict[str, float]:
    """Return the terms that stay; none when they only say what should come last.

    `similarity` by itself is no blend of heads, yet it ranks.
    """
    left = {head: weight for head, weight in blend.items() if head not in gone}
    return left if any(weight > 0 for weight in left.values()) else {}


def _emptied(blend: Mapping[str, float], gone: frozenset[str]) -> str:
    if gone.issuperset(blend):
        return f"it blends {_listed(frozenset(blend))} alone"
    return f"without {_listed(gone.intersection(blend))} no weight of its blend is above 0"


def _canvases(resolved: ResolvedModel, gone: frozenset[str]) -> tuple[dict[str, CanvasSpec], list[str]]:
    found, notes = {}, []
    for name, canvas in resolved.canvases.items():
        if blend := _left(canvas.blend, gone):
            page = None if canvas.page is None else canvas.page.without(gone)
            found[name] = canvas.model_copy(update={"blend": blend, "page": page})
        else:
            notes.append(f"canvas '{name}' is dropped: {_emptied(canvas.blend, gone)}")
    for name, canvas in list(found.items()):
        if canvas.asked_as in resolved.canvases and canvas.asked_as not in found:
            notes.append(f"canvas '{name}' is dropped: it ranks the rows of canvas '{canvas.asked_as}'")
            del found[name]
    return found, notes


def _rows(
    resolved: ResolvedModel, gone: frozenset[str], canvases: Mapping[str, CanvasSpec]
) -> tuple[dict[str, RowSpec], list[str]]:
    found, notes = {}, []
    for name, row in resolved.rows.items():
        if row.canvas not in canvases:
            continue
        if row.scored_as is not None and row.scored_as not in canvases:
            notes.append(f"row '{name}' is dropped: it is scored as on canvas '{row.scored_as}'")
            continue
        blend = None if row.blend is None else _left(row.blend, gone)
        if row.blend is not None and not blend:
            policy = canvases[row.canvas].fallback
            notes.append(f"row '{name}' is filled by {policy}: {_emptied(row.blend, gone)}")
            row = row.model_copy(update={"blend": None, "policy": policy, "scored_as": None})
        elif blend is not None:
            row = row.model_copy(update={"blend": blend})
        found[name] = row
    return found, notes


def _model(
    model: ModelSpec, heads: Mapping[str, object], canvases: Mapping[str, CanvasSpec], rows: Mapping[str, RowSpec]
) -> ModelSpec:
    def holds(gate: GateSpec) -> bool:
        return (gate.head is None or gate.head in heads) and (gate.canvas == "all" or gate.canvas in canvases)

    update = {
        "heads": dict(heads),
        "canvases": tuple(canvases),
        "rows": tuple(rows),
        "tasks": {name: task for name, task in model.tasks.items() if name in canvases},
        "gates": tuple(gate for gate in model.gates if holds(gate)),
    }
    return model.model_copy(update=update)
