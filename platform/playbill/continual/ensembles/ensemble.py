"""One run that makes an ensemble: members opened, folded and weighed, the whole measured and registered as a version.

The version is a bundle like any other: the base's definition, encoder and network, with the other members in it. So it
is evaluated, promoted, served and rebuilt as a model is; its record names every member with its digest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from playbill.config import Workspace
from playbill.continual.ensembles.ensemble_report import log_ensemble, log_weights, notes_of
from playbill.continual.ensembles.folding import Folded, folded_network
from playbill.continual.ensembles.gate import LearntGate, learn_gate
from playbill.continual.ensembles.gate_window import GateWindow
from playbill.continual.ensembles.members import (
    MEMBERS,
    Member,
    UnchangedEnsemble,
    open_members,
    require_window,
    unchanged_ensemble,
)
from playbill.datasets import Request, Split
from playbill.definitions.specs import EnsembleSpec, ResolvedModel, reward_versions
from playbill.definitions.zoo import open_zoo
from playbill.evaluation.canvases.loaded_version import SPLIT
from playbill.evaluation.canvases.model import ModelEvaluation, evaluate_model
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables, EventLog
from playbill.evaluation.cases.score_function import with_features
from playbill.evaluation.ceiling import truth_of
from playbill.features import FeatureDoor
from playbill.models import Network
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables
from playbill.training.recording import about_version, learnt_labels, log_evaluation, log_lineage, quality, run_name
from playbill.training.term_weights import log_of
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.promotion.descriptions import describe_version
from playbill.versions.tracking import Lineage, RunHandle, Tracking
from playbill.versions.tracking.registry import git_revision

BUNDLE = "bundle"
TIMED = 40  # requests that are timed one by one


@dataclass(frozen=True)
class Cost:
    """Milliseconds of scoring one request, history and titles, in the median."""

    base_ms: float
    ensemble_ms: float

    @property
    def ratio(self) -> float:
        """The ensemble's over its base's."""
        return self.ensemble_ms / max(self.base_ms, 1e-9)


@dataclass(frozen=True)
class EnsembleOutcome:
    """A finished run."""

    model: str
    version: int  # registered version
    run_id: str
    digest: str
    protocol: str
    base: str  # role of the base
    members: dict[str, str]  # role -> version of a model, or term
    folded: tuple[Folded, ...]
    gate: LearntGate
    cost: Cost
    evaluation: ModelEvaluation
    notes: tuple[str, ...]
    seconds: float

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each canvas, model or baseline, and metric: `value`, `low` and `high`."""
        return self.evaluation.to_polars()


def train_ensemble(
    workspace: Workspace, ensemble: str, watcher: ProgressListener | None = None, *, again: bool = False
) -> EnsembleOutcome | UnchangedEnsemble:
    """Fold members into one network, learn the gate, measure the whole, and register it.

    A version that was learnt from the same definition, members and data is returned instead, unless it is wanted
    `again`.

    Raises:
        DefinitionError: The zoo has mistakes, or members cannot stand beside one another; all are named.
        UnknownNameError: There is no such ensemble.
        StateError: The window after the members' training is empty, or data, features or a registry is missing.
        ServiceError: MLflow or the feature store cannot be reached.
    """
    watcher = watcher or Silent()
    watcher.stage("check definitions, members and services")
    spec = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).find("Ensemble", ensemble)
    assert isinstance(spec, EnsembleSpec)
    tables, tracking = Tables(workspace).require(), Tracking(workspace)
    same = None if again else unchanged_ensemble(spec, tracking, tables.snapshot_id())
    return same or _EnsembleRun.prepare(workspace, spec, tables, tracking, watcher).execute()


@dataclass
class _EnsembleRun:
    """One run under way. Everything that can be checked before long work was checked by `prepare`."""

    workspace: Workspace
    spec: EnsembleSpec
    watcher: ProgressListener
    tables: Tables
    frames: EvaluationTables
    features: FeatureDoor
    tracking: Tracking
    members: dict[str, Member]
    begun: float

    @classmethod
    def prepare(
        cls, workspace: Workspace, spec: EnsembleSpec, tables: Tables, tracking: Tracking, watcher: ProgressListener
    ) -> _EnsembleRun:
        """Open the members, and see that there is a window to learn from."""
        begun = time.perf_counter()
        features, frames = FeatureDoor(workspace), EvaluationTables.read(tables)
        members = open_members(spec, tracking, frames, features)
        require_window(members[spec.base].model.trained)
        return cls(workspace, spec, watcher, tables, frames, features, tracking, members, begun)

    @property
    def base(self) -> Member:
        """The member whose network reads requests."""
        return self.members[self.spec.base]

    @property
    def split(self) -> Split:
        """What is held out: what the base was trained apart from."""
        return self.base.model.trained

    @property
    def seed(self) -> int:
        """The base's own."""
        return self.base.resolved.model.training.seed

    @cached_property
    def log(self) -> EventLog:
        """The events with their folds."""
        return log_of(self.split, self.frames)

    @cached_property
    def resolved(self) -> ResolvedModel:
        """The base's definition, served under the ensemble's name."""
        base, spec = self.base.resolved, self.spec
        changes = {"name": spec.name, "version": spec.version, "description": spec.description, "gates": spec.gates}
        notes = (f"an ensemble over {self.base.version.reference}",)
        model = base.model.model_copy(update=changes)
        return base.model_copy(update={"model": model, "ensemble": spec, "notes": (*base.notes, *notes)})

    def execute(self) -> EnsembleOutcome:
        """Fold, weigh, write, measure and register inside one MLflow run."""
        model, lineage = self.spec.name, self._lineage()
        name, params = run_name(model, self.split, f"{model}-{self.resolved.spec_hash}"), self._params()
        with self.tracking.start_run(model, name, {}, params, command=f"playbill ensemble {model}") as run:
            run.set_tags(lineage.tags())
            log_lineage(run, lineage)
            self.tracking.log_tables(run, self.tables)
            self.watcher.stage("fold the members")
            network, folded = folded_network(self.spec, self.members, self.log, self.features, self.seed, self.watcher)
            with tempfile.TemporaryDirectory(prefix="ensemble-") as scratch:
                return self._weighed(run, Path(scratch) / BUNDLE, network, folded, lineage)

    def _weighed(
        self, run: RunHandle, folder: Path, network: Network, folded: list[Folded], lineage: Lineage
    ) -> EnsembleOutcome:
        self._write(folder, network, lineage)
        self.watcher.stage("learn the gate")
        window = GateWindow(
            ensemble=self.spec,
            scorer=self._scorer(folder, network),
            resolved=self.resolved,
            members=self.members,
            log=self.log,
            split=self.split,
            tables=self.frames,
            features=self.features,
            seed=self.seed,
        )
        gate = learn_gate(window)
        digest = self._write(folder, network, lineage)
        log_ensemble(run, folded, gate)
        log_weights(run, gate, self.spec)
        self.watcher.stage("evaluate")
        scorer = self._scorer(folder, read_bundle(folder).network())
        evaluation = self._evaluate(scorer)
        cost = self._cost(scorer, window)
        run.log_metrics({"request_ms": cost.ensemble_ms, "base_request_ms": cost.base_ms})
        log_evaluation(run, evaluation, self.split)
        notes = notes_of(self.spec, folded, gate)
        run.log_text("\n".join((*self.resolved.notes, *notes)), "notes.txt")
        self.watcher.stage("register")
        version = self.tracking.register(run, folder, self.spec.name, lineage.tags())
        about = [self._about(), *about_version(self.resolved, lineage, self.workspace.name, run)]
        quality_of = quality(evaluation, self.resolved.main_canvas)
        describe_version(self.tracking, self.spec.name, version, quality_of, about)
        return EnsembleOutcome(
            model=self.spec.name,
            version=version,
            run_id=run.run_id,
            digest=digest,
            protocol=self.split.protocol,
            base=self.spec.base,
            members=self._named(),
            folded=tuple(folded),
            gate=gate,
            cost=cost,
            evaluation=evaluation,
            notes=notes,
            seconds=time.perf_counter() - self.begun,
        )

    def _scorer(self, folder: Path, network: Network) -> Scorer:
        given, own = read_bundle(folder), self.base.model.scorer
        titles = self.frames.titles_at(own.as_of)
        return Scorer(
            given,
            titles,
            self.frames.availability,
            self.features,
            as_of=own.as_of,
            network=network,
            kept_states=MOST_PASTS,
        )

    def _write(self, folder: Path, network: Network, lineage: Lineage) -> str:
        bundle = self.base.model.scorer.bundle
        plays = np.append(np.float32(0), bundle.titles["plays"].to_numpy())
        digest = write_bundle(
            folder,
            resolved=self.resolved,
            encoder=bundle.encoder,
            config=network.config,
            weights=network.state_dict(),
            plays=plays,
            extra={
                **bundle.extra,
                "parent": {"version": lineage.parent_version, "digest": lineage.parent_digest},
                MEMBERS: {role: member.record() for role, member in self.members.items()},
            },
        )
        self.split.save(folder / SPLIT)
        return digest

    def _evaluate(self, scorer: Scorer) -> ModelEvaluation:
        return evaluate_model(
            scorer,
            self.split,
            self.frames,
            self.resolved,
            self.features,
            progress=lambda canvas, done, total: self.watcher.advance(done, total, canvas),
            truth=truth_of(self.workspace.folder),
        )

    def _cost(self, scorer: Scorer, window: GateWindow) -> Cost:
        """Time requests of the window one by one, by the base and by the ensemble in turn."""
        case = window.cases()[0]
        blend = self.resolved.canvas(case.canvas).blend
        requests: list[Request] = next(case.chunks()).requests[:TIMED]
        requests = with_features(requests, self.resolved.model.features, self.features)
        own, other = (self._without_memory(one) for one in (self.base.model.scorer, scorer))
        times: dict[str, list[float]] = {"base": [], "ensemble": []}
        for request in requests:
            for name, timed in (("base", own), ("ensemble", other)):
                timed.remember([request.at])
                begun = time.perf_counter()
                timed.score([request], blend)
                times[name].append(1e3 * (time.perf_counter() - begun))
        return Cost(statistics.median(times["base"]), statistics.median(times["ensemble"]))

    def _without_memory(self, scorer: Scorer) -> Scorer:
        """Return a scorer that reads every history anew."""
        titles = self.frames.titles_at(scorer.as_of)
        given = (scorer.bundle, titles, self.frames.availability, self.features)
        return Scorer(*given, as_of=scorer.as_of, network=scorer.network)

    def _lineage(self) -> Lineage:
        base, extra = self.base, self.base.model.scorer.bundle.extra
        tags = base.version.tags
        return Lineage(
            spec_hash=self.resolved.spec_hash,
            data_snapshot=self.tables.snapshot_id(),
            feature_service=self.resolved.model.features,
            feature_service_version=tags.get("playbill.feature_service_version", ""),
            protocol=self.split.protocol,
            protocol_reason=self.split.reason,
            split_digest=self.split.digest,
            watermark=base.model.scorer.as_of,
            labels=learnt_labels(self.resolved),
            rewards=reward_versions(self.resolved),
            git_revision=git_revision(self.workspace.project.root),
            parent_version=base.version.reference,
            parent_digest=base.model.digest,
            feature_views=extra.get("feature_views", {}),
            vectors=extra.get("vectors", {}),
            members={role: member.record() for role, member in self.members.items()},
        )

    def _named(self) -> dict[str, str]:
        terms = {role: str(member.term) for role, member in self.spec.terms.items()}
        return {role: member.version.reference for role, member in self.members.items()} | terms

    def _params(self) -> Mapping[str, object]:
        return {"ensemble": self.spec.model_dump(mode="json"), MEMBERS: self._named()}

    def _about(self) -> str:
        named = ", ".join(f"{role} {what}" for role, what in self._named().items() if role != self.spec.base)
        return f"An ensemble: {self.spec.base} is {self.base.version.reference}; beside it {named}."
