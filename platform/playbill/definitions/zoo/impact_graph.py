"""The zoo and feature_repo -> the graph of what depends on what."""

from __future__ import annotations

from collections.abc import Mapping

from playbill.definitions.specs import (
    CanvasSpec,
    EnsembleSpec,
    LabelSpec,
    ModelSpec,
    ResolvedModel,
    RewardSpec,
    RowSpec,
    split_reference,
)
from playbill.definitions.specs.canvas import TERMS
from playbill.definitions.zoo.feature_definitions import FeatureDefinition, FeatureRepo
from playbill.definitions.zoo.impact import Graph, Node
from playbill.definitions.zoo.loading import Zoo
from playbill.definitions.zoo.parsing import Checked, place_of


def graph_of(zoo: Zoo, features: FeatureRepo | None = None) -> Graph:
    """Build the graph.

    Args:
        zoo: Every version of every definition counts, not only the newest; what has mistakes is left out.
        features: What feature_repo/ says; without it services have no views.
    """
    graph = Graph()
    for definition in features.definitions.values() if features else ():
        _add_features(graph, definition, zoo)
    for checked in zoo.shelf.all_checked():
        spec, kind = checked.spec, type(checked.spec).model_fields["kind"].default
        if zoo.mistakes.of(kind, spec.reference):
            continue
        node = Node(kind.lower(), spec.name, spec.version)
        place = place_of(checked, ("name",))
        graph.add(node, f"{place.file}:{place.line}")
        _add(graph, zoo, node, checked)
    return graph


def _add_features(graph: Graph, definition: FeatureDefinition, zoo: Zoo) -> None:
    node = graph.add(Node(definition.kind, definition.name), definition.place)
    if definition.kind == "feature_view":
        for column in definition.columns:
            graph.depends(Node("feature", f"{definition.name}.{column}"), node, "is a column of it")
    if definition.label is not None:
        graph.depends(node, _node(zoo, "Label", definition.label), "holds its published values")
    for reading in definition.reads:
        read = Node(reading.kind, reading.name)
        what = "all its columns" if reading.columns is None else ", ".join(reading.columns)
        reads = {"source": "reads it", "feature_service": "extends it"}.get(reading.kind, f"reads {what}")
        graph.depends(node, read, reads)
        if definition.kind == "feature_service":
            for column in reading.columns or ():
                graph.depends(node, Node("feature", f"{reading.name}.{column}"), "has it")


def _node(zoo: Zoo, kind: str, reference: str) -> Node | None:
    found = zoo.shelf.find(kind, reference)
    return None if found is None else Node(kind.lower(), found.spec.name, found.spec.version)


def _add(graph: Graph, zoo: Zoo, node: Node, checked: Checked) -> None:
    match checked.spec:
        case RewardSpec() as reward:
            _add_reward(graph, zoo, node, reward)
        case CanvasSpec() as canvas:
            graph.depends(node, _node(zoo, "Label", canvas.metric), "is judged by it")
            if canvas.rows_of is None:
                graph.depends(node, Node("policy", canvas.fallback), "falls back on it")
            else:
                graph.depends(node, _node(zoo, "Canvas", canvas.rows_of), "ranks its rows")
        case RowSpec() as row:
            _add_row(graph, zoo, node, row)
        case ModelSpec() as model:
            _add_model(graph, zoo, node, model)
        case EnsembleSpec(members=members):
            for role, member in members.items():
                graph.depends(node, _node(zoo, "Model", member.partition("@")[0]), f"has it as '{role}'")
        case LabelSpec():
            pass


def _add_reward(graph: Graph, zoo: Zoo, node: Node, reward: RewardSpec) -> None:
    for label, term in reward.terms.items():
        otherwise = f", {term.otherwise:g} where it says no" if term.otherwise else ""
        graph.depends(node, _node(zoo, "Label", label), f"counts it with weight {term.weight:g}{otherwise}")


def _add_row(graph: Graph, zoo: Zoo, node: Node, row: RowSpec) -> None:
    graph.depends(node, _node(zoo, "Canvas", row.canvas), "is shown there", ends=True)
    if row.scored_as is not None:
        graph.depends(node, _node(zoo, "Canvas", row.scored_as), "is scored as there", ends=True)
    for policy, why in ((row.policy, "is ranked by it"), (row.fallback, "is filled up by it")):
        if policy is not None:
            graph.depends(node, Node("policy", policy), why)


def _add_model(graph: Graph, zoo: Zoo, node: Node, model: ModelSpec) -> None:
    resolved, service = zoo.model(model.reference), Node("feature_service", model.features)
    graph.depends(node, service, "reads its features")
    heads = _add_heads(graph, zoo, node, model, service)
    for canvas in map(split_reference, model.canvases):
        own = _node(zoo, "Canvas", canvas[0] if canvas[1] is None else f"{canvas[0]}:{canvas[1]}")
        graph.depends(node, own, "serves it")
        if own is not None:
            _blend(graph, own, resolved.canvases[own.name].blend, heads)
    for row in resolved.rows.values():
        own = Node("row", row.name, row.version)
        graph.depends(node, own, "fills it")
        _blend(graph, own, row.blend or {}, heads)
    _add_pages(graph, node, resolved, heads)
    if model.evaluate.reward is not None:
        graph.depends(node, _node(zoo, "Reward", model.evaluate.reward), "is measured by it")
    start = _node(zoo, "Model", model.init_from.partition("@")[0]) if model.init_from else None
    if start is not None and start != node:
        graph.depends(node, start, "starts from its weights")


def _add_heads(graph: Graph, zoo: Zoo, node: Node, model: ModelSpec, service: Node) -> dict[str, Node]:
    heads = {name: Node("head", f"{model.name}.{name}", model.version) for name in model.heads}
    for name, spec in model.heads.items():
        graph.depends(node, heads[name], "predicts it")
        graph.depends(heads[name], service, "reads its features")
        if spec.label is not None:
            graph.depends(heads[name], _node(zoo, "Label", spec.label), "learns it")
        if spec.reward is not None:
            graph.depends(heads[name], _node(zoo, "Reward", spec.reward), "weighs its examples by it")
    return heads


def _blend(graph: Graph, node: Node, blend: Mapping[str, float], heads: Mapping[str, Node]) -> None:
    for head, weight in blend.items():
        if head not in TERMS:
            graph.depends(node, heads.get(head), f"blends it with weight {weight:g}")


def _add_pages(graph: Graph, node: Node, resolved: ResolvedModel, heads: Mapping[str, Node]) -> None:
    for name, canvas in resolved.canvases.items():
        rows = resolved.rows_of(name)
        if not rows:
            continue
        page = Node("page", name, canvas.version)
        graph.depends(node, page, "builds it")
        graph.depends(page, Node("canvas", name, canvas.version), "is its page", ends=True)
        for row in rows:
            graph.depends(page, Node("row", row.name, row.version), "shows it")
        spec = getattr(canvas, "page", None)
        if spec is not None:
            _blend(graph, page, spec.blend, heads)
            if spec.placed is not None:
                graph.depends(page, heads.get(spec.placed.head), f"places row {spec.placed.row} by it")
