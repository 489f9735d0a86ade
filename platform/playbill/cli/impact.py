"""`playbill impact`: what depends on a thing, and what a registered version depends on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.errors import PlaybillError, StateError

if TYPE_CHECKING:
    from playbill.config import Workspace
    from playbill.definitions.zoo.impact import Found, Graph, ImpactNode
    from playbill.definitions.zoo.versions import VersionPart, VersionRecord

SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of the things that were asked about.

    Args:
        requested: The text.
        graph: Of everything.
        nodes: What the text means.
        records: Registered versions that could be read.
        parts: Version -> what it was trained from, for versions that were asked about or depend on it.
        notes: What could not be read.
    """

    requested: str
    graph: Graph
    nodes: Sequence[ImpactNode]
    records: Sequence[VersionRecord]
    parts: dict[str, list[VersionPart]]
    notes: Sequence[str]

    @property
    def reverse(self) -> bool:
        """Whether what the nodes depend on is wanted too."""
        return any(node.kind in ("version", "model", "ensemble") for node in self.nodes)


@click.command("impact")
@click.argument("thing")
@click.option("--versions/--no-versions", default=True, help="Also look at registered versions (some seconds).")
@click.option("--deep", is_flag=True, help="Also ask Feast whether feature services have changed (some seconds).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def impact(selection: Selection, thing: str, versions: bool, deep: bool, as_json: bool) -> None:
    """Say what depends on THING, with the way from one to the other; for a model or a version also the reverse.

    THING is kind:name, such as feature_view:title_profile, feature:title_profile.kind, feature_service:everycanvas_v1,
    source:title_profile, label:discovery_play, reward:long_term, policy:popular_7d, canvas:home, row:top_picks,
    page:home, head:everycanvas.thumbs_up, model:everycanvas, ensemble:NAME or version:everycanvas:3. A name alone is
    looked for in every kind.

    Example: playbill impact label:discovery_play --no-versions
    """
    started = time.perf_counter()
    answer = find(selection, thing, versions=versions, deep=deep)
    if as_json:
        click.echo(json.dumps(as_dict(answer) | {"seconds": round(time.perf_counter() - started, 3)}))
    else:
        _show(answer, time.perf_counter() - started)


def find(selection: Selection, thing: str, *, versions: bool, deep: bool) -> Answer:
    """Look a thing up in the zoo, in feature_repo, and in the registry unless that is not wanted.

    Raises:
        UnknownNameError: There is no such thing.
        StateError: A version was asked for, and there is none.
        DefinitionError: The zoo has mistakes.
    """
    from playbill.definitions.zoo import open_zoo
    from playbill.definitions.zoo.feature_definitions import read_feature_repo
    from playbill.definitions.zoo.impact import graph_of
    from playbill.definitions.zoo.versions import add_version, parts_of

    project = selection.folder
    zoo, features = open_zoo(project.model_zoo, project.feature_repo), read_feature_repo(project.feature_repo)
    graph = graph_of(zoo, features)
    records, notes = _records(selection.workspace) if versions else ([], [])
    for record in records:
        add_version(graph, record)
    if thing.startswith("version:") and not records:
        why = notes[0] if notes else "no version was looked at"
        raise StateError(f"there is no registered version to look at: {why}")
    nodes = graph.find(thing)
    named = {node.name for node in nodes} | {found.node.name for found in graph.dependents(nodes)}
    shown = [record for record in records if record.node.name in named]
    hashes = _service_versions(selection, shown, notes) if deep else {}
    parts = {record.node.name: parts_of(record, zoo, features, hashes.get(record.service)) for record in shown}
    return Answer(thing, graph, nodes, records, parts, notes)


def _records(workspace: Workspace) -> tuple[list[VersionRecord], list[str]]:
    """Return every registered version, and a note for each that cannot be read."""
    uri = workspace.mlflow_uri
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return [], [f"workspace '{workspace.name}' has no registered version"]
    from playbill.versions.tracking import Tracking

    records, notes = [], []
    try:
        tracking = Tracking(workspace)
        for version in (found for model in tracking.models() for found in tracking.versions(model)):
            try:
                records.append(tracking.record(version))
            except PlaybillError as error:
                notes.append(str(error))
    except PlaybillError as error:
        notes.append(f"registered versions are left out: {error}")
    return records, notes


def _service_versions(selection: Selection, records: Iterable[VersionRecord], notes: list[str]) -> dict[str, str]:
    """Ask Feast what services are now."""
    from playbill.features import FeatureDoor

    door, found = FeatureDoor(selection.workspace), {}
    for service in {record.service for record in records}:
        try:
            found[service] = door.schema(service).version
        except PlaybillError as error:
            notes.append(str(error))
    return found


def as_dict(answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON-ready data."""
    graph = answer.graph
    return {
        "asked": answer.requested,
        "means": [_node(graph, node) for node in answer.nodes],
        "dependents": _by_kind(graph, graph.dependents(answer.nodes)),
        "dependencies": _by_kind(graph, graph.dependencies(answer.nodes)) if answer.reverse else None,
        "versions": {name: [_part(part) for part in parts] for name, parts in answer.parts.items()},
        "notes": list(answer.notes),
    }


def _node(graph: Graph, node: ImpactNode) -> dict[str, Any]:
    return {"thing": str(node), "kind": node.kind, "name": node.name, "version": node.version} | (
        {"place": graph.places[node]} if node in graph.places else {}
    )


def _by_kind(graph: Graph, found: Iterable[Found]) -> dict[str, list[dict[str, Any]]]:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        way = [{"what": str(edge.what), "why": edge.why, "on": str(edge.on)} for edge in one.path]
        kinds.setdefault(one.node.kind, []).append(_node(graph, one.node) | {"way": way})
    return kinds


def _part(part: VersionPart) -> dict[str, Any]:
    return {"thing": str(part.node), "content": part.content, "now": part.now, "detail": part.detail}


def _show(answer: Answer, seconds: float) -> None:
    from rich.text import Text
    from rich.tree import Tree

    from playbill.cli.console import Console

    console, graph = Console(highlight=False), answer.graph
    for node in answer.nodes:
        where = graph.places.get(node)
        console.print(Text.assemble((str(node), "bold"), f"  {where}" if where else ""))
    directions = [("depends on it", graph.dependents(answer.nodes))]
    if answer.reverse:
        directions.append(("it depends on", graph.dependencies(answer.nodes)))
    for title, found in directions:
        tree = Tree(title if found else f"nothing {title}" if title == "depends on it" else "it depends on nothing")
        for kind, ones in _kinds(found).items():
            branch = tree.add(Text.assemble((kind.replace("_", " "), "bold"), f" ({len(ones)})"))
            for one in ones:
                branch.add(_line(one))
        console.print(tree)
    for name, parts in answer.parts.items():
        console.print(_drift(name, parts), soft_wrap=True)
    for note in answer.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"{len(graph.nodes)} things, {seconds * 1000:.0f} ms", style="dim")


def _kinds(found: Iterable[Found]) -> dict[str, list[Found]]:
    kinds: dict[str, list[Found]] = {}
    for one in found:
        kinds.setdefault(one.node.kind, []).append(one)
    return kinds


def _line(found: Found) -> str:
    """Return a node, why it is there, and the rest of the way, read from the node's own end."""
    name = str(found.node).partition(":")[2]
    if found.path[-1].what == found.node:
        first, *rest = reversed(found.path)
        return f"{name}: {first.why} ({first.on})" + "".join(f" → {edge.on}" for edge in rest)
    last, *before = reversed(found.path)
    way = "".join(f" ← {edge.what}" for edge in before)
    return f"{name}: {last.what} {last.why}{way}"


def _drift(name: str, parts: Sequence[VersionPart]) -> str:
    moved = [part for part in parts if part.now not in ("same", "unknown")]
    unknown = [part for part in parts if part.now == "unknown"]
    if not moved:
        rest = f", {len(unknown)} cannot be compared" if unknown else ""
        return f"version {name}: nothing it was trained from has changed ({len(parts)} parts{rest})"
    lines = [f"  {part.now:8} {part.node}: {part.detail}" for part in moved]
    return "\n".join([f"version {name}: {len(moved)} of its {len(parts)} parts have moved on", *lines])
