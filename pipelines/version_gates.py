"""Which version a flow is about, and what its gates say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from project_flow import show_gates

if TYPE_CHECKING:
    from playbill.definitions.specs import EnsembleSpec, ResolvedModel
    from playbill.project import Project


def hold_gates(project: Project, reference: str) -> str:
    """Hold the gates of a version, show them, and return what was decided in one line.

    A version becomes champion where there is none yet, or where its definition promotes by itself; else a person does.
    """
    from playbill.versions.promotion import approved
    from playbill.versions.promotion.gates import judge
    from playbill.versions.promotion.members import judge_members
    from playbill.versions.tracking import Tracking

    workspace, model = project.workspace, reference.partition(":")[0]
    tracking, champion = Tracking(workspace), approved(workspace, model)
    version = tracking.resolve(reference)
    folder = tracking.download(model, version.version)
    resolved = _definition(folder)
    automatic = resolved.ensemble is None and resolved.model.promote == "auto"
    if champion is None or automatic or champion.version == version.version:
        decided = project.promote(reference)
        show_gates(decided.gates)
        return f"{reference} {decided.verdict}: {decided.reason}"
    own, standing = (tracking.evaluations(one) for one in (version, tracking.version(model, champion.version)))
    gates = (*judge(resolved.model.gates, own, standing), *judge_members(folder, own, tracking))
    show_gates(gates)
    failed = [f"{gate.gate}: {gate.reason}" for gate in gates if not gate.passed]
    return f"{reference}: {'; '.join(failed) or 'its gates hold'}; playbill promote {reference} makes it champion"


def ensemble_definition(project: Project, name: str) -> EnsembleSpec:
    """Return an ensemble of the zoo."""
    from playbill.definitions.specs import EnsembleSpec
    from playbill.definitions.zoo import open_zoo

    folder = project.workspace.project
    found = open_zoo(folder.model_zoo, folder.feature_repo).find("Ensemble", name)
    assert isinstance(found, EnsembleSpec)
    return found


def _definition(folder: Path) -> ResolvedModel:
    from playbill.definitions.specs import ResolvedModel

    return ResolvedModel.from_json((folder / "spec.json").read_text(encoding="utf-8"))
