"""Registered versions in the graph: what each was trained from, and whether that has moved on since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from playbill.definitions.specs import Definition, ResolvedModel, content_hash, prune_heads
from playbill.definitions.zoo.feature_definitions import SHOWN, FeatureRepo
from playbill.definitions.zoo.impact import Graph, ImpactNode
from playbill.definitions.zoo.loading import Zoo

Now = Literal["same", "changed", "newer", "gone", "unknown"]
"""What has become of a part since: `changed` under the same version number, `newer` a higher version, `gone` nothing
of that name is left, `unknown` there is no hash to compare with."""


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What a registered version was trained from, as its own record says."""

    model: str
    """Without the workspace."""
    version: int
    """Its number."""
    resolved: ResolvedModel
    """The definition it was trained with."""
    service: str
    """Feature service."""
    service_version: str
    """Hash of the service as Feast knew it."""
    columns: tuple[str, ...] = ()
    """`view__feature` of every feature that it reads."""
    views: Mapping[str, str] = field(default_factory=dict)
    """View -> content hash in feature_repo; empty where that was not recorded."""
    aliases: tuple[str, ...] = ()
    """That point at it now."""
    parent: str | None = None
    """The version it was warm-started from."""

    @property
    def node(self) -> ImpactNode:
        """Its node."""
        return ImpactNode("version", f"{self.model}:{self.version}")


@dataclass(frozen=True, slots=True)
class VersionPart:
    """One thing that a version was trained from."""

    node: ImpactNode
    """Which, in the version it had then."""
    content: str | None
    """Hash of what it said then, None where that is not known."""
    now: Now
    """What has become of it."""
    detail: str = ""
    """In words, empty where it is the same."""


def add_version(graph: Graph, record: VersionRecord) -> ImpactNode:
    """Add a version and everything its record names, and return its node."""
    node, resolved = graph.add(record.node), record.resolved
    model = ImpactNode("model", resolved.model.name, resolved.model.version)
    graph.depends(node, model, "was trained from it", ends=True)
    graph.depends(node, ImpactNode("feature_service", record.service), "read its features", ends=True)
    for column in record.columns:
        view, _, feature = column.partition("__")
        graph.depends(node, ImpactNode("feature", f"{view}.{feature}"), "read it", ends=True)
        graph.depends(node, ImpactNode("feature_view", view), "read columns of it")
    for view in record.views:
        graph.depends(node, ImpactNode("feature_view", view), "read what is made of it")
    for name, head in resolved.model.heads.items():
        graph.depends(node, ImpactNode("head", f"{model.name}.{name}", model.version), "has it", ends=True)
        if head.label is not None:
            graph.depends(node, _defined(resolved, "label", head.label), f"its head {name} learnt it", ends=True)
        if head.reward is not None:
            weighed = f"its head {name} was weighed by it"
            graph.depends(node, _defined(resolved, "reward", head.reward), weighed, ends=True)
    for kind, name, why in _used(resolved):
        graph.depends(node, _defined(resolved, kind, name), why, ends=True)
    if record.parent is not None:
        graph.depends(node, ImpactNode("version", record.parent), "was warm-started from it", ends=True)
    return node


def _used(resolved: ResolvedModel) -> Iterator[tuple[str, str, str]]:
    for reward in resolved.rewards.values():
        yield "reward", reward.name, "was weighed or measured by it"
        yield from (("label", term, f"its reward {reward.name} counts it") for term in reward.terms)
    for canvas in resolved.canvases.values():
        yield "canvas", canvas.name, "serves it"
        yield "label", canvas.metric, f"its canvas {canvas.name} is judged by it"
        yield "policy", canvas.fallback, f"its canvas {canvas.name} falls back on it"
    for row in resolved.rows.values():
        yield "row", row.name, "fills it"
        yield from (("policy", name, f"its row {row.name} uses it") for name in (row.policy, row.fallback) if name)


def _defined(resolved: ResolvedModel, kind: str, name: str) -> ImpactNode | None:
    if kind == "policy":
        return ImpactNode("policy", name)
    shelves: Mapping[str, Mapping[str, Definition]] = {
        "label": resolved.labels,
        "reward": resolved.rewards,
        "canvas": resolved.canvases,
        "row": resolved.rows,
    }
    found = shelves[kind].get(name)
    return None if found is None else ImpactNode(kind, name, found.version)


def parts_of(
    record: VersionRecord, zoo: Zoo, features: FeatureRepo | None = None, service_version: str | None = None
) -> list[VersionPart]:
    """Return what a version was trained from, and what has become of each part in the zoo and feature_repo of now.

    `service_version` is the hash of the service as Feast knows it now; None = not asked.
    """
    current = _current(record, zoo)
    parts = [_part(spec, current.get((kind, spec.name)), zoo) for kind, spec in _definitions(record.resolved)]
    return [*parts, *_feature_parts(record, features, service_version)]


def _definitions(resolved: ResolvedModel) -> Iterator[tuple[str, Definition]]:
    yield "model", resolved.model
    for kind, named in (
        ("label", resolved.labels),
        ("reward", resolved.rewards),
        ("canvas", resolved.canvases),
        ("row", resolved.rows),
    ):
        yield from ((kind, spec) for spec in named.values())


def _current(record: VersionRecord, zoo: Zoo) -> dict[tuple[str, str], Definition]:
    """Return the model's definitions of today in plain names, without the heads that training left out."""
    name = record.resolved.model.name
    if not zoo.index.versions("Model", name):
        return {}
    own = record.resolved.model.reference
    resolved = zoo.model(own if zoo.index.find("Model", own) else name)
    left_out = {head: why for head, why in record.resolved.left_out.heads.items() if head in resolved.model.heads}
    if left_out:
        resolved = prune_heads(resolved, left_out)
    return {(kind, spec.name): spec for kind, spec in _definitions(resolved)}


def _part(then: Definition, now: Definition | None, zoo: Zoo) -> VersionPart:
    kind = type(then).model_fields["kind"].default
    node, content = ImpactNode(kind.lower(), then.name, then.version), _content(then)
    versions = zoo.index.versions(kind, then.name)
    if not versions:
        return VersionPart(node, content, "gone", f"the zoo has no {kind.lower()} '{then.name}' any more")
    newest = max(versions)
    if newest > then.version:
        return VersionPart(node, content, "newer", f"the zoo has version {newest}")
    if now is None:
        return VersionPart(node, content, "gone", "the model does not use it any more")
    if _content(now) == content:
        return VersionPart(node, content, "same")
    return VersionPart(node, content, "changed", f"{', '.join(_differing(then, now))} differ")


def _content(spec: Definition) -> str:
    return content_hash(_keys(spec))[:SHOWN]


def _keys(spec: Definition) -> dict[str, object]:
    content: dict[str, object] = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value for key, value in content.items() if key != "description"}


def _differing(then: Definition, now: Definition) -> list[str]:
    before, after = _keys(then), _keys(now)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _feature_parts(
    record: VersionRecord, features: FeatureRepo | None, service_version: str | None
) -> Iterator[VersionPart]:
    service = ImpactNode("feature_service", record.service)
    if service_version is None:
        yield VersionPart(service, record.service_version, "unknown", "Feast was not queried")
    elif service_version == record.service_version:
        yield VersionPart(service, record.service_version, "same")
    else:
        yield VersionPart(service, record.service_version, "changed", f"its content is {service_version} now")
    current = features.service_hashes(record.service) if features else {}
    read = {column.partition("__")[0] for column in record.columns}
    for view in sorted(read | set(record.views)):
        yield _view_part(ImpactNode("feature_view", view), record.views.get(view), current.get(view), features)


def _view_part(node: ImpactNode, then: str | None, now: str | None, features: FeatureRepo | None) -> VersionPart:
    if features is None or (now is not None and then is None):
        return VersionPart(node, then, "unknown", "its content was not recorded")
    if now is None:
        there = (node.kind, node.name) in features.definitions
        return VersionPart(node, then, "gone", "the service has it no more" if there else "feature_repo has it no more")
    return (
        VersionPart(node, then, "same")
        if now == then
        else VersionPart(node, then, "changed", f"its content is {now} now")
    )
