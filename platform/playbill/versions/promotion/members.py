"""An ensemble is held against its members, on the requests that both answered.

On no canvas may it be significantly worse than a member that answers there too, and in no group of its guard by more
than the guard allows. Members are compared as they were registered: each by its own network, whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from playbill.definitions.specs import EnsembleSpec, GateSpec, ResolvedModel
from playbill.definitions.specs.base import format_percent
from playbill.errors import IntegrityError, UnknownNameError
from playbill.versions.promotion.gates import GateResult, judge_against
from playbill.versions.tracking import Evaluation, Tracking

Members = Mapping[str, Mapping[str, str]]


class MemberGate(NamedTuple):
    """A limit against one member."""

    role: str
    gate: GateSpec
    countries: tuple[str, ...] = ()  # where it counts; empty is everywhere


def judge_members(folder: Path, candidate: Sequence[Evaluation], tracking: Tracking) -> tuple[GateResult, ...]:
    """Hold the ensemble inside a bundle against its members; nothing for a version that is none.

    A member whose version was deleted is compared with no more.

    Raises:
        IntegrityError: The bundle cannot be read, or values by request that were kept are missing or were changed.
        ServiceError: MLflow cannot be reached.
    """
    resolved, members = _read(folder)
    if resolved is None or resolved.ensemble is None:
        return ()
    found: list[GateResult] = []
    for own in member_gates(resolved.ensemble, resolved.model.evaluate.k[0], resolved.model.evaluate.slices):
        reference = members[own.role]["version"]
        try:
            version = tracking.resolve(reference)
        except UnknownNameError:
            continue
        name = f"{own.role} ({reference})"
        evaluations = [shared_numbers(one, own, resolved.canvases) for one in tracking.evaluations(version)]
        results = judge_against(own.gate, candidate, evaluations, name)
        found += [replace(one, gate=one.gate.replace(f"against {own.role}", f"against {name}")) for one in results]
    return tuple(found)


def member_gates(ensemble: EnsembleSpec, cutoff: int, slices: Sequence[str]) -> Iterator[MemberGate]:
    """Yield what an ensemble is held to, with NDCG at a cut-off: on every canvas, and in the groups of its guard."""
    metric, guard = f"ndcg@{cutoff}", ensemble.guard
    for role, member in ensemble.models.items():
        if member.canvas is not None:
            continue  # it was measured on other canvases
        if not member.countries:
            yield MemberGate(role, GateSpec(metric=metric, against=role, tolerance="0%", significant=True))
        elif "country" in slices:
            limit = GateSpec(metric=metric, against=role, slice="country", worst="0%", significant=True)
            yield MemberGate(role, limit, member.countries)
        if guard is not None and role in ensemble.guarded and not member.countries:
            limit = GateSpec(
                metric=metric, against=role, slice=guard.slice, worst=format_percent(guard.worst), significant=True
            )
            yield MemberGate(role, limit)


def shared_numbers(evaluation: Evaluation, own: MemberGate, canvases: Collection[str]) -> Evaluation:
    """Return a member's evaluation with the numbers of the ensemble's canvases, in the countries where it counts."""
    endings = tuple(f"/country={country}" for country in own.countries) or ("",)
    numbers = evaluation.metrics.items()
    kept = {name: value for name, value in numbers if name.partition("/")[0] in canvases and name.endswith(endings)}
    return replace(evaluation, metrics=kept)


def _read(folder: Path) -> tuple[ResolvedModel | None, Members]:
    """Return the definition inside a bundle and the versions of its members; None and nothing where it has none."""
    try:
        extra = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("extra", {})
        members: Members = extra.get("members", {})
        if not members:
            return None, {}
        return ResolvedModel.from_json((folder / "spec.json").read_text(encoding="utf-8")), members
    except (OSError, ValueError, ValidationError, AttributeError) as error:
        raise IntegrityError(f"the bundle's definition cannot be read: {error}") from error
