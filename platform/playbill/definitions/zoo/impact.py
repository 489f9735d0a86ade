"""What depends on what: the zoo, feature_repo and registered versions as one graph.

An edge goes from what depends to what it depends on, and says why. Definitions stand in layers (`KINDS`), and an edge
never goes to a later layer, so nothing goes round in a circle; within a layer only views are made of views, sources of
sources and models started from models.

Rows, canvases and pages are shared: each blends the heads of every model that serves it. A model depends on those with
its own heads, and on no head of another model (`_own_heads`).

Some edges end where they lead: a row is shown on a canvas and depends on what that says of requests, but not on the
heads the canvas blends for its own list. A version's record ends at every definition it names, since a definition of
today may say something else; only views are looked through.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

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
from playbill.definitions.zoo.loading import Zoo
from playbill.definitions.zoo.parsing import Checked, place_of
from playbill.errors import UnknownNameError

KINDS = (
    "label",
    "source",
    "feature_view",
    "feature",
    "feature_service",
    "reward",
    "policy",
    "head",
    "canvas",
    "row",
    "page",
    "model",
    "ensemble",
    "version",
)
"""Layers, from what depends on nothing to what depends on all."""


@dataclass(frozen=True, slots=True, order=True)
class ImpactNode:
    """One thing that something may depend on."""

    kind: str
    """One of `KINDS`."""
    name: str
    """Such as `discovery_play`, `title_profile.kind`, `everycanvas.thumbs_up`, or `everycanvas:3` of a version."""
    version: int | None = None
    """Of a definition of the zoo."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f":{self.version}" if self.version is not None else "")


@dataclass(frozen=True, slots=True)
class Edge:
    """`what` depends on `on`."""

    what: ImpactNode
    """The dependent."""
    on: ImpactNode
    """What it depends on."""
    why: str
    """In words, such as `learns it`."""
    ends: bool = False
    """Whether `what` does not depend on what `on` depends on in turn."""


@dataclass(frozen=True, slots=True)
class Found:
    """A node that was reached, and the edges on the way: the shortest one."""

    node: ImpactNode
    path: tuple[Edge, ...]


@dataclass
class Graph:
    """Nodes and edges. Adding one twice changes nothing."""

    nodes: set[ImpactNode] = field(default_factory=set)
    places: dict[ImpactNode, str] = field(default_factory=dict)
    """Where a definition is written, file and line."""
    _below: dict[ImpactNode, dict[ImpactNode, Edge]] = field(default_factory=lambda: defaultdict(dict))
    _above: dict[ImpactNode, dict[ImpactNode, Edge]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, node: ImpactNode, place: str | None = None) -> ImpactNode:
        """Add a node, and return it."""
        self.nodes.add(node)
        if place is not None:
            self.places[node] = place
        return node

    def depends(self, what: ImpactNode, on: ImpactNode | None, why: str, *, ends: bool = False) -> None:
        """Say that one thing depends on another; None, which stands for what is not known, says nothing.

        Raises:
            ValueError: The other one is in a later layer, or is the thing itself.
        """
        if on is None:
            return
        if KINDS.index(on.kind) > KINDS.index(what.kind) or on == what:
            raise ValueError(f"{what} cannot depend on {on}")
        edge = Edge(self.add(what), self.add(on), why, ends)
        self._below[what].setdefault(on, edge)
        self._above[on].setdefault(what, edge)

    @property
    def edges(self) -> Iterator[Edge]:
        """Every edge."""
        return (edge for edges in self._below.values() for edge in edges.values())

    def find(self, requested: str) -> list[ImpactNode]:
        """Return what a text means: `kind:name` is every version of it, `kind:name:2` one, `name` that of any kind.

        Raises:
            UnknownNameError: There is none; the nearest one is suggested.
        """
        found = sorted(node for node in self.nodes if requested in (str(node), f"{node.kind}:{node.name}", node.name))
        if found:
            return found
        kind = requested.partition(":")[0]
        if ":" not in requested:
            raise UnknownNameError("name", requested, {node.name for node in self.nodes})
        if kind not in KINDS:
            raise UnknownNameError("kind of thing", kind, KINDS)
        own = [node for node in self.nodes if node.kind == kind]
        name = requested.removeprefix(f"{kind}:")
        versions = {f"{node.name}:{node.version}" for node in own if name.startswith(f"{node.name}:")}
        raise UnknownNameError(kind.replace("_", " "), name, versions or {node.name for node in own})

    def dependents(self, nodes: Iterable[ImpactNode]) -> list[Found]:
        """Return everything that depends on some nodes, directly or through others, by layer and name."""

        def follows(path: tuple[Edge, ...], edge: Edge) -> bool:
            return not (path and edge.ends) and _own_heads((edge, *reversed(path)))

        return self._reached(nodes, self._above, follows)

    def dependencies(self, nodes: Iterable[ImpactNode]) -> list[Found]:
        """Return everything that some nodes depend on, by layer and name."""

        def follows(path: tuple[Edge, ...], edge: Edge) -> bool:
            return not any(step.ends for step in path) and _own_heads((*path, edge))

        return self._reached(nodes, self._below, follows)

    def _reached(
        self,
        nodes: Iterable[ImpactNode],
        step: dict[ImpactNode, dict[ImpactNode, Edge]],
        follows: Callable[[tuple[Edge, ...], Edge], bool],
    ) -> list[Found]:
        start = {node: () for node in nodes}
        # A node may be reached by a way that ends there and by another that goes on.
        paths: dict[tuple[ImpactNode, bool], tuple[Edge, ...]] = {(node, False): () for node in start}
        waiting = list(paths)
        while waiting:
            further: list[tuple[ImpactNode, bool]] = []
            for state in waiting:
                for other, edge in sorted(step.get(state[0], {}).items()):
                    next_state = other, state[1] or edge.ends
                    if other not in start and next_state not in paths and follows(paths[state], edge):
                        paths[next_state] = (*paths[state], edge)
                        further.append(next_state)
            waiting = further
        shortest: dict[ImpactNode, tuple[Edge, ...]] = {}
        for (node, _), path in sorted(paths.items(), key=lambda item: len(item[1])):
            shortest.setdefault(node, path)
        reached = (Found(node, path) for node, path in shortest.items() if path)
        return sorted(reached, key=lambda found: (KINDS.index(found.node.kind), found.node))


def _own_heads(way: tuple[Edge, ...]) -> bool:
    """Say whether every head on a way, from dependents down, is of the model above it.

    Nothing is lost by leaving out ways to other models' heads: a model reaches its own without a row in between.
    """
    model: ImpactNode | None = None
    for edge in way:
        if edge.what.kind == "model":
            model = edge.what
        if model is not None and edge.on.kind == "head":
            head_of = (edge.on.name.partition(".")[0], edge.on.version)
            if head_of != (model.name, model.version):
                return False
    return True


def graph_of(zoo: Zoo, features: FeatureRepo | None = None) -> Graph:
    """Build the graph of every version of every definition without mistakes, and of feature_repo's views."""
    graph = Graph()
    for definition in features.definitions.values() if features else ():
        _add_features(graph, definition, zoo)
    for checked in zoo.index.all_checked():
        spec, kind = checked.spec, type(checked.spec).model_fields["kind"].default
        if zoo.mistakes.of(kind, spec.reference):
            continue
        node = ImpactNode(kind.lower(), spec.name, spec.version)
        place = place_of(checked, ("name",))
        graph.add(node, f"{place.file}:{place.line}")
        _add(graph, zoo, node, checked)
    return graph


def _add_features(graph: Graph, definition: FeatureDefinition, zoo: Zoo) -> None:
    node = graph.add(ImpactNode(definition.kind, definition.name), definition.place)
    if definition.kind == "feature_view":
        for column in definition.columns:
            graph.depends(ImpactNode("feature", f"{definition.name}.{column}"), node, "is a column of it")
    if definition.label is not None:
        graph.depends(node, _node(zoo, "Label", definition.label), "holds its published values")
    for reading in definition.reads:
        read = ImpactNode(reading.kind, reading.name)
        what = "all its columns" if reading.columns is None else ", ".join(reading.columns)
        reads = {"source": "reads it", "feature_service": "extends it"}.get(reading.kind, f"reads {what}")
        graph.depends(node, read, reads)
        if definition.kind == "feature_service":
            for column in reading.columns or ():
                graph.depends(node, ImpactNode("feature", f"{reading.name}.{column}"), "has it")


def _node(zoo: Zoo, kind: str, reference: str) -> ImpactNode | None:
    found = zoo.index.find(kind, reference)
    return None if found is None else ImpactNode(kind.lower(), found.spec.name, found.spec.version)


def _add(graph: Graph, zoo: Zoo, node: ImpactNode, checked: Checked) -> None:
    match checked.spec:
        case RewardSpec() as reward:
            for label, term in reward.terms.items():
                otherwise = f", {term.otherwise:g} where it says no" if term.otherwise else ""
                why = f"counts it with weight {term.weight:g}{otherwise}"
                graph.depends(node, _node(zoo, "Label", label), why)
        case CanvasSpec() as canvas:
            graph.depends(node, _node(zoo, "Label", canvas.metric), "is judged by it")
            if canvas.rows_of is None:
                graph.depends(node, ImpactNode("policy", canvas.fallback), "falls back on it")
            else:
                graph.depends(node, _node(zoo, "Canvas", canvas.rows_of), "ranks its rows")
        case RowSpec() as row:
            _add_row(graph, zoo, node, row)
        case ModelSpec() as model:
            _add_model(graph, zoo, node, model)
        case EnsembleSpec(models=models):
            for role, member in models.items():
                graph.depends(node, _node(zoo, "Model", str(member.name)), f"has it as '{role}'")
        case LabelSpec():
            pass


def _add_row(graph: Graph, zoo: Zoo, node: ImpactNode, row: RowSpec) -> None:
    graph.depends(node, _node(zoo, "Canvas", row.canvas), "is shown there", ends=True)
    if row.scored_as is not None:
        graph.depends(node, _node(zoo, "Canvas", row.scored_as), "is scored as there", ends=True)
    for policy, why in ((row.policy, "is ranked by it"), (row.fallback, "is filled up by it")):
        if policy is not None:
            graph.depends(node, ImpactNode("policy", policy), why)


def _add_model(graph: Graph, zoo: Zoo, node: ImpactNode, model: ModelSpec) -> None:
    resolved, service = zoo.model(model.reference), ImpactNode("feature_service", model.features)
    graph.depends(node, service, "reads its features")
    heads = _add_heads(graph, zoo, node, model, service)
    for canvas in map(split_reference, model.canvases):
        own = _node(zoo, "Canvas", canvas[0] if canvas[1] is None else f"{canvas[0]}:{canvas[1]}")
        graph.depends(node, own, "serves it")
        if own is not None:
            _blend(graph, own, resolved.canvases[own.name].blend, heads)
    for row in resolved.rows.values():
        own = ImpactNode("row", row.name, row.version)
        graph.depends(node, own, "fills it")
        _blend(graph, own, row.blend or {}, heads)
    _add_pages(graph, node, resolved, heads)
    if model.evaluate.reward is not None:
        graph.depends(node, _node(zoo, "Reward", model.evaluate.reward), "is measured by it")
    start = _node(zoo, "Model", model.init_from.name) if model.init_from else None
    if start is not None and start != node:
        graph.depends(node, start, "starts from its weights")


def _add_heads(
    graph: Graph, zoo: Zoo, node: ImpactNode, model: ModelSpec, service: ImpactNode
) -> dict[str, ImpactNode]:
    heads = {name: ImpactNode("head", f"{model.name}.{name}", model.version) for name in model.heads}
    for name, spec in model.heads.items():
        graph.depends(node, heads[name], "predicts it")
        graph.depends(heads[name], service, "reads its features")
        if spec.label is not None:
            graph.depends(heads[name], _node(zoo, "Label", spec.label), "learns it")
        if spec.reward is not None:
            graph.depends(heads[name], _node(zoo, "Reward", spec.reward), "weighs its examples by it")
    return heads


def _blend(graph: Graph, node: ImpactNode, blend: Mapping[str, float], heads: Mapping[str, ImpactNode]) -> None:
    for head, weight in blend.items():
        if head not in TERMS:
            graph.depends(node, heads.get(head), f"blends it with weight {weight:g}")


def _add_pages(graph: Graph, node: ImpactNode, resolved: ResolvedModel, heads: Mapping[str, ImpactNode]) -> None:
    for name, canvas in resolved.canvases.items():
        rows = resolved.rows_of(name)
        if not rows:
            continue
        page = ImpactNode("page", name, canvas.version)
        graph.depends(node, page, "builds it")
        graph.depends(page, ImpactNode("canvas", name, canvas.version), "is its page", ends=True)
        for row in rows:
            graph.depends(page, ImpactNode("row", row.name, row.version), "shows it")
        spec = getattr(canvas, "page", None)
        if spec is not None:
            _blend(graph, page, spec.blend, heads)
            if spec.placed is not None:
                graph.depends(page, heads.get(spec.placed.head), f"places row {spec.placed.row} by it")
