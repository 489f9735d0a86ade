"""A model without some of its heads: what is left of the canvases, rows, tasks and gates that spoke of them."""

from __future__ import annotations

from collections.abc import Mapping

from playbill.definitions.specs.canvas import CanvasSpec
from playbill.definitions.specs.label import LabelSpec
from playbill.definitions.specs.measures import GateSpec
from playbill.definitions.specs.model import ModelSpec
from playbill.definitions.specs.resolved import LeftOut, ResolvedModel
from playbill.definitions.specs.reward import RewardSpec
from playbill.definitions.specs.row import RowSpec
from playbill.errors import StateError


def prune_heads(resolved: ResolvedModel, reasons: Mapping[str, str]) -> ResolvedModel:
    """Return a model that never had some heads (head -> why), with a note of everything that went with them.

    Labels and rewards that nothing else uses go with their heads. Blends lose their terms. A row whose whole blend is
    gone is filled by the fallback of its canvas, as its rules still say what it shows. One that loses its heaviest head
    and keeps lighter ones is dropped, since it would be ranked by something else than its name promises, unless a rule
    about the member's own past makes it what it is. A canvas whose whole blend is gone is dropped, and with it its
    rows, rows scored as on it, a canvas that ranks its rows, its task and its gates.

    Raises:
        StateError: No head is left, or no canvas.
    """
    if not reasons:
        return resolved
    gone = frozenset(reasons)
    kept = {name: head for name, head in resolved.model.heads.items() if name not in gone}
    if all(head.label is None for head in kept.values()):
        raise StateError("no head is left to train:" + "".join(f"\n  {name}: {why}" for name, why in reasons.items()))
    canvases, dropped = _canvases(resolved, gone)
    if not canvases:
        raise StateError(f"without the heads {_listed(gone)} no canvas has a blend left, so there is nothing to serve")
    rows, absent, filled = _rows(resolved, gone, canvases)
    model = _model(resolved.model, kept, canvases, rows)
    rewards, labels = _used(resolved, model, canvases)
    notes = [f"head '{name}' is left out: {why}" for name, why in reasons.items()]
    notes += [f"canvas '{name}' is dropped: {why}" for name, why in dropped.items()]
    notes += [f"row '{name}' is dropped: {why}" for own in absent.values() for name, why in own.items()]
    lost = {
        name: tuple(head for head in resolved.canvases[name].blend if head in gone)
        for name, canvas in canvases.items()
        if len(canvas.blend) < len(resolved.canvases[name].blend)
    }
    left_out = LeftOut(heads=dict(reasons), canvases=dropped, rows=absent, blends=lost)
    return resolved.model_copy(
        update={
            "model": model,
            "labels": labels,
            "rewards": rewards,
            "canvases": canvases,
            "rows": rows,
            "notes": (*resolved.notes, *notes, *filled),
            "left_out": resolved.left_out.and_also(left_out),
        }
    )


def _used(
    resolved: ResolvedModel, model: ModelSpec, canvases: Mapping[str, CanvasSpec]
) -> tuple[dict[str, RewardSpec], dict[str, LabelSpec]]:
    """Return the rewards and labels that what stays still uses: a record names nothing that was not learnt from."""
    named = {head.reward for head in model.heads.values()} | {model.evaluate.reward}
    rewards = {name: reward for name, reward in resolved.rewards.items() if name in named}
    wanted = {head.label for head in model.heads.values()} | {canvas.metric for canvas in canvases.values()}
    wanted |= {term for reward in rewards.values() for term in reward.terms}
    return rewards, {name: label for name, label in resolved.labels.items() if name in wanted}


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
        return f"it blends only {_listed(frozenset(blend))}"
    return f"without {_listed(gone.intersection(blend))} no weight of its blend is above 0"


def _canvases(resolved: ResolvedModel, gone: frozenset[str]) -> tuple[dict[str, CanvasSpec], dict[str, str]]:
    """Return the canvases that are left, and why each other one is not."""
    found, dropped = {}, {}
    for name, canvas in resolved.canvases.items():
        if blend := _left(canvas.blend, gone):
            page = None if canvas.page is None else canvas.page.without(gone)
            found[name] = canvas.model_copy(update={"blend": blend, "page": page})
        else:
            dropped[name] = _emptied(canvas.blend, gone)
    for name, canvas in list(found.items()):
        if canvas.requested_as in resolved.canvases and canvas.requested_as not in found:
            dropped[name] = f"it ranks the rows of canvas '{canvas.requested_as}'"
            del found[name]
    return found, dropped


def _rows(
    resolved: ResolvedModel, gone: frozenset[str], canvases: Mapping[str, CanvasSpec]
) -> tuple[dict[str, RowSpec], dict[str, dict[str, str]], list[str]]:
    """Return the rows that are left; canvas -> row -> why it is dropped; and notes on rows that a policy fills now."""
    found: dict[str, RowSpec] = {}
    dropped: dict[str, dict[str, str]] = {}
    notes = []
    for name, row in resolved.rows.items():
        if row.canvas not in canvases:
            continue
        if row.scored_as is not None and row.scored_as not in canvases:
            dropped.setdefault(row.canvas, {})[name] = f"it is scored as on canvas '{row.scored_as}'"
            continue
        heaviest = None if row.candidates.personal else _lost_heaviest(row.blend or {}, gone)
        if heaviest is not None:
            dropped.setdefault(row.canvas, {})[name] = f"it is ranked above all by head '{heaviest}', which is left out"
            continue
        blend = None if row.blend is None else _left(row.blend, gone)
        if row.blend is not None and not blend:
            policy = canvases[row.canvas].fallback
            notes.append(f"row '{name}' is filled by {policy}: {_emptied(row.blend, gone)}")
            row = row.model_copy(update={"blend": None, "policy": policy, "scored_as": None})
        elif blend is not None:
            row = row.model_copy(update={"blend": blend})
        found[name] = row
    return found, dropped, notes


def _lost_heaviest(blend: Mapping[str, float], gone: frozenset[str]) -> str | None:
    """Return the head that outweighs everything which is left of a blend, None where there is none such."""
    left = _left(blend, gone)
    if not left:
        return None
    heaviest = max(blend, key=lambda head: blend[head])
    return heaviest if heaviest in gone and blend[heaviest] > max(left.values()) else None


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
