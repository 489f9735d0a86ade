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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

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
class Node:
    """One thing that something may depend on.

    Args:
        kind: One of `KINDS`.
        name: Such as `discovery_play`, `title_profile.kind`, `everycanvas.thumbs_up`, or `everycanvas:3` of a version.
        version: Of a definition of the zoo.
    """

    kind: str
    name: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f":{self.version}" if self.version is not None else "")


@dataclass(frozen=True, slots=True)
class Edge:
    """`what` depends on `on`.

    Args:
        what: The dependent.
        on: What it depends on.
        why: In words, such as `learns it`.
        ends: Whether `what` does not depend on what `on` depends on in turn.
    """

    what: Node
    on: Node
    why: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A node that was reached, and the edges on the way: the shortest one."""

    node: Node
    path: tuple[Edge, ...]


@dataclass
class Graph:
    """Nodes and edges. Adding one twice changes nothing."""

    nodes: set[Node] = field(default_factory=set)
    places: dict[Node, str] = field(default_factory=dict)
    """Where a definition is written, file and line."""
    _below: dict[Node, dict[Node, Edge]] = field(default_factory=lambda: defaultdict(dict))
    _above: dict[Node, dict[Node, Edge]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, node: Node, place: str | None = None) -> Node:
        """Add a node, and return it."""
        self.nodes.add(node)
        if place is not None:
            self.places[node] = place
        return node

    def depends(self, what: Node, on: Node | None, why: str, *, ends: bool = False) -> None:
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

    def find(self, asked: str) -> list[Node]:
        """Return what a text means: `kind:name` is every version of it, `kind:name:2` one, `name` that of any kind.

        Raises:
            UnknownNameError: There is none; the nearest one is suggested.
        """
        found = sorted(node for node in self.nodes if asked in _names(node))
        if found:
            return found
        kind = asked.partition(":")[0]
        if ":" not in asked:
            raise UnknownNameError("name", asked, {node.name for node in self.nodes})
        if kind not in KINDS:
            raise UnknownNameError("kind of thing", kind, KINDS)
        own = [node for node in self.nodes if node.kind == kind]
        name = asked.removeprefix(f"{kind}:")
        versions = {f"{node.name}:{node.version}" for node in own if name.startswith(f"{node.name}:")}
        raise UnknownNameError(kind.replace("_", " "), name, versions or {node.name for node in own})

    def dependents(self, nodes: Iterable[Node]) -> list[Found]:
        """Return everything that depends on some nodes, directly or through others, by layer and name."""

        def follows(path: tuple[Edge, ...], edge: Edge) -> bool:
            return not (path and edge.ends) and _own_heads((edge, *reversed(path)))

        return self._reached(nodes, self._above, follows)

    def dependencies(self, nodes: Iterable[Node]) -> list[Found]:
        """Return everything that some nodes depend on, by layer and name."""

        def follows(path: tuple[Edge, ...], edge: Edge) -> bool:
            return not any(step.ends for step in path) and _own_heads((*path, edge))

        return self._reached(nodes, self._below, follows)

    def _reached(
        self,
        nodes: Iterable[Node],
        step: dict[Node, dict[Node, Edge]],
        follows: Callable[[tuple[Edge, ...], Edge], bool],
    ) -> list[Found]:
        start = {node: () for node in nodes}
        # A node may be reached by a way that ends there and by another that goes on.
        paths: dict[tuple[Node, bool], tuple[Edge, ...]] = {(node, False): () for node in start}
        waiting = list(paths)
        while waiting:
            further: list[tuple[Node, bool]] = []
            for state in waiting:
                for other, edge in sorted(step.get(state[0], {}).items()):
                    next_state = other, state[1] or edge.ends
                    if other not in start and next_state not in paths and follows(paths[state], edge):
                        paths[next_state] = (*paths[state], edge)
                        further.append(next_state)
            waiting = further
        shortest: dict[Node, tuple[Edge, ...]] = {}
        for (node, _), path in sorted(paths.items(), key=lambda item: len(item[1])):
            shortest.setdefault(node, path)
        reached = (Found(node, path) for node, path in shortest.items() if path)
        return sorted(reached, key=lambda found: (KINDS.index(found.node.kind), found.node))


def _own_heads(way: tuple[Edge, ...]) -> bool:
    """Say whether every head on a way, from dependents down, is of the model above it.

    Nothing is lost by leaving out ways to other models' heads: a model reaches its own without a row in between.
    """
    model: Node | None = None
    for edge in way:
        if edge.what.kind == "model":
            model = edge.what
        if model is not None and edge.on.kind == "head" and not _is_head_of(edge.on, model):
            return False
    return True


def _is_head_of(head: Node, model: Node) -> bool:
    return (head.name.partition(".")[0], head.version) == (model.name, model.version)


def _names(node: Node) -> set[str]:
    return {str(node), f"{node.kind}:{node.name}", node.name}
