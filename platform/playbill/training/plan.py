"""What can be checked before a training run begins its long work, the run's name, and its record in MLflow."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from playbill import __version__
from playbill.clock import Clock
from playbill.config import Workspace
from playbill.datasets import Split, TrainingSet, make_split
from playbill.datasets.protocol_choice import model_split
from playbill.datasets.splits import SPLIT_COLUMNS
from playbill.definitions.specs import ResolvedModel, reward_versions
from playbill.definitions.specs.measures import AUTO
from playbill.definitions.zoo import open_zoo
from playbill.definitions.zoo.feature_definitions import read_feature_repo
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.evaluation.canvases.model import ModelEvaluation
from playbill.evaluation.ceiling import KnownTruth, truth_of
from playbill.evaluation.compare import assert_vectors_not_trained_on
from playbill.features import FeatureDoor, ServiceSchema
from playbill.ranking.scoring.bundle import FEATURE_FILES, VECTORS
from playbill.tables import Tables, workspace_clock
from playbill.training.build import loop_settings, text_encoder
from playbill.training.contract import LoopSettings
from playbill.training.inherit import Parent
from playbill.training.options import TrainOptions, check_workers
from playbill.training.recording import (
    about_version,
    examples_summary,
    learnt_labels,
    log_card,
    log_examples,
    log_lineage,
    quality,
    run_name,
    run_params,
)
from playbill.training.run_folder import Checks, RunFolder, sources_digest
from playbill.training.start import assert_unseen, find_parent, parent_record
from playbill.training.watch import ProgressListener
from playbill.versions.promotion.descriptions import describe_version
from playbill.versions.tracking import Lineage, RunHandle, Tracking
from playbill.versions.tracking.registry import git_revision

BUNDLE = "bundle"  # in the run's folder: what is registered


@dataclass(frozen=True)
class RunPlan:
    """A run whose definitions, data, features and services were checked, and that has a name."""

    workspace: Workspace
    resolved: ResolvedModel  # as it stood before the run, options applied
    options: TrainOptions
    tables: Tables
    clock: Clock
    features: FeatureDoor
    schema: ServiceSchema
    tracking: Tracking
    checks: Checks
    settings: LoopSettings
    truth: KnownTruth | None
    parent: Parent | None
    folder: RunFolder
    begun: float  # reading of time.perf_counter
    vectors: dict[str, dict[str, str]]  # published vectors that are read, by view

    @classmethod
    def of(cls, workspace: Workspace, model: str, options: TrainOptions, watcher: ProgressListener) -> RunPlan:
        """Check definitions, data, features and MLflow, and name the run.

        Raises what `playbill.training.run.train` does, up to the training set.
        """
        begun = time.perf_counter()
        watcher.stage("check definitions, data and services")
        zoo = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo)
        resolved = options.applied(zoo.model(model))
        text_encoder(resolved)
        tables = Tables(workspace).require()
        features, tracking = FeatureDoor(workspace), Tracking(workspace)
        schema = features.schema(resolved.model.features)
        tracking.models()
        check_workers(workspace, options)
        parent = find_parent(tracking, resolved, tables)
        settings, service = loop_settings(resolved), resolved.model.features
        vectors = features.vector_pins(service)
        read = f"{schema.version} {json.dumps(vectors)}" if vectors else schema.version
        depends_on = (resolved.spec_hash, tables.snapshot_id(), read, settings.model_dump_json())

        def check() -> tuple[Split, tuple[str, ...]]:
            notes = features.require_no_leaks(service)
            split = options.split or _split(resolved, tables, parent)
            assert_vectors_not_trained_on(split, workspace.features, vectors)
            return split, notes

        files = json.dumps(features.file_digests(service))
        given: tuple[str, ...] = () if options.split is None else (options.split.digest,)
        given += () if parent is None else (parent.digest,)
        key = _content_hash(*depends_on, *given, files, sources_digest(workspace.project.feature_repo), __version__)
        checks = Checks.of(workspace.runs, resolved.model.name, key, check)
        lineage: tuple[str, ...] = ()
        if parent is not None:
            assert_unseen(parent, checks.split)
            lineage = (parent.reference, parent.digest)
        name = _content_hash(*depends_on, checks.split.digest, *lineage)
        return cls(
            workspace=workspace,
            resolved=resolved.model_copy(update={"notes": (*checks.split.notes, *resolved.notes, *checks.notes)}),
            options=options,
            tables=tables,
            clock=workspace_clock(workspace),
            features=features,
            schema=schema,
            tracking=tracking,
            checks=checks,
            settings=settings,
            truth=truth_of(workspace.folder),
            parent=parent,
            folder=RunFolder(workspace.runs / f"{resolved.model.name}-{name}"),
            begun=begun,
            vectors=vectors,
        )

    @property
    def split(self) -> Split:
        """What is held out."""
        return self.checks.split

    @property
    def workers(self) -> int:
        """Ray workers, 0 = this process."""
        return self.options.worker_count(self.workspace.project.settings.training)

    def lineage(self, resolved: ResolvedModel, watermark: datetime) -> Lineage:
        """Return what a version of this run is made of.

        Args:
            resolved: The definition as it was trained.
            watermark: The last moment of the training set.
        """
        return Lineage(
            spec_hash=resolved.spec_hash,
            data_snapshot=self.tables.snapshot_id(),
            feature_service=self.schema.service,
            feature_service_version=self.schema.version,
            protocol=self.split.protocol,
            protocol_reason=self.split.reason,
            split_digest=self.split.digest,
            watermark=watermark,
            labels=learnt_labels(resolved),
            rewards=reward_versions(resolved),
            git_revision=git_revision(self.workspace.project.root),
            parent_version=None if self.parent is None else self.parent.reference,
            parent_digest=None if self.parent is None else self.parent.digest,
            feature_views=read_feature_repo(self.workspace.project.feature_repo).service_hashes(self.schema.service),
            vectors=self.vectors,
        )

    @contextmanager
    def opened(
        self, resolved: ResolvedModel, data: TrainingSet, verb: str, resume: str | None, **params: Any
    ) -> Iterator[tuple[RunHandle, Lineage]]:
        """Open the run in MLflow, or go on in the one to resume, with what is known of it before the first step.

        Args:
            resolved: The definition as it is trained.
            data: What it is trained on.
            verb: The command, such as `train`.
            resume: Id of the run of a killed attempt.
            params: Parameters besides those of definition, loop and examples.
        """
        model = resolved.model.name
        params = run_params(resolved, self.settings, self.workers) | {"examples": examples_summary(data)} | params
        name, command = run_name(model, self.split, self.folder.path.name), f"playbill {verb} {model}"
        with self.tracking.start_run(model, name, {}, params, resume=resume, command=command) as run:
            self.folder.remember(run_id=run.run_id)
            lineage = self.lineage(resolved, data.watermark)
            run.set_tags(lineage.tags())
            log_lineage(run, lineage)
            self.tracking.log_tables(run, self.tables)
            log_examples(run, data)
            log_card(run, self.workspace.project.model_zoo / "models" / model)
            if resolved.notes:
                run.log_text("\n".join(resolved.notes), "notes.txt")
            yield run, lineage

    def register(
        self,
        run: RunHandle,
        resolved: ResolvedModel,
        lineage: Lineage,
        metrics: Mapping[str, float],
        evaluation: ModelEvaluation,
    ) -> int:
        """Register the bundle of the run's folder, describe the version by its evaluation, and return its number."""
        model = resolved.model.name
        version = self.tracking.register(run, self.folder.path / BUNDLE, model, lineage.tags(), metrics)
        about = about_version(resolved, lineage, self.workspace.name, run)
        describe_version(self.tracking, model, version, quality(evaluation, resolved.main_canvas), about)
        return version

    def record(self, lineage: Lineage, watermark: datetime) -> dict[str, object]:
        """Return what the manifest of the run's bundle says beside the network's own files."""
        return {
            "watermark": watermark.isoformat(),
            "split_digest": self.split.digest,
            "feature_views": dict(lineage.feature_views),
            FEATURE_FILES: self.folder.feature_files(),
            **({VECTORS: self.vectors} if self.vectors else {}),
            **({} if self.parent is None else parent_record(self.parent)),
        }


def _split(resolved: ResolvedModel, tables: Tables, parent: Parent | None) -> Split:
    """Split as the definition says; left to the log, a model that starts from a version is held out as that was.

    By another protocol its parent would have learnt from what is held out.
    """
    interactions = tables.interactions(columns=SPLIT_COLUMNS)
    if parent is None or resolved.model.evaluate.protocol != AUTO:
        return model_split(resolved, interactions)
    protocol = frozen_split(parent.bundle.folder).protocol
    reason = f"the model starts from {parent.reference}, which is"
    return replace(make_split(protocol, interactions), reason=reason)


def _content_hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()[:12]
