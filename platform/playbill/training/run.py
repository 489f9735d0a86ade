"""One training run, from the canonical tables to a registered version with its lineage and its measures."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import polars as pl
import torch

from playbill import __version__
from playbill.clock import Clock
from playbill.config import Workspace
from playbill.datasets import Split, TrainingSet, build_training_set, make_split
from playbill.datasets.examples.sampling import Stratum
from playbill.definitions.specs import ResolvedModel, reward_versions
from playbill.definitions.zoo import open_zoo
from playbill.definitions.zoo.feature_definitions import read_feature_repo
from playbill.evaluation.canvases.model import ModelEvaluation, evaluate_model
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables
from playbill.evaluation.ceiling import KnownTruth, truth_of
from playbill.evaluation.compare import assert_vectors_not_trained_on
from playbill.evaluation.feature_report import FeatureReport, feature_report
from playbill.features import FeatureDoor, ServiceSchema
from playbill.models import Network
from playbill.ranking.scoring.bundle import FEATURE_FILES, VECTORS, read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings, network_config, text_encoder
from playbill.training.contract import LoopSettings
from playbill.training.example_weights import example_weights
from playbill.training.inherit import Parent, inherited
from playbill.training.loop import FitResult, Progress, WorkerPlace, fit
from playbill.training.options import TrainOptions, check_workers
from playbill.training.recording import (
    about_version,
    examples_summary,
    learnt_labels,
    log_card,
    log_evaluation,
    log_examples,
    log_features,
    log_lineage,
    log_terms,
    quality,
    run_name,
    run_params,
)
from playbill.training.run_folder import Checks, RunFolder, sources_digest
from playbill.training.start import assert_unseen, find_parent, parent_record, started_from
from playbill.training.term_weights import ValidationFold, add_terms, learn_weights, log_of, terms_config
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.promotion.descriptions import describe_version
from playbill.versions.tracking import Lineage, RunHandle, Tracking
from playbill.versions.tracking.registry import git_revision

BUNDLE = "bundle"
CHECKPOINTS = "checkpoints"
SPLIT = "split.parquet"


@dataclass(frozen=True)
class TrainOutcome:
    """A finished run."""

    model: str
    version: int  # registered version
    run_id: str
    digest: str
    protocol: str
    evaluation: ModelEvaluation
    features: FeatureReport
    notes: tuple[str, ...]
    strata: tuple[Stratum, ...]  # groups that examples were drawn by, smallest first; empty without `sampling`
    epochs: int
    resumed_from: int | None  # epochs a killed run had finished before; None for a fresh run
    train_seconds: float  # in the training loop, those of a killed run included
    seconds: float  # from the first table read to the registered version
    tokens_per_second: float  # median over epochs
    final_loss: float  # training loss of the last epoch

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each canvas, model or baseline, and metric: `value`, `low` and `high`."""
        return self.evaluation.to_polars()


def train(
    workspace: Workspace, model: str, options: TrainOptions | None = None, watcher: ProgressListener | None = None
) -> TrainOutcome:
    """Train, evaluate and register one model.

    A run is named by the hash of everything it depends on. When it was killed, the same call goes on from its
    newest checkpoint and in the same MLflow run; when it had finished, it starts afresh.

    Raises:
        DefinitionError: The zoo has mistakes.
        ConfigError: Workers are wanted, and the cluster's address is one of Ray Client; or a network is to be shared
            out among fewer than two.
        StateError: Data, features or a registry is missing; the text names the command to run first.
        DataError: The label of a head that is not optional has no positive row, or a feature view of the project's
            own knows the event it is joined to.
        ComparisonError: Published vectors that it reads, or the version that it starts from, were learnt from what
            would be held out.
        IntegrityError: The run's newest checkpoint is damaged.
        ServiceError: MLflow, Feast's store or the cluster cannot be reached.
    """
    return _TrainingRun.prepare(workspace, model, options or TrainOptions(), watcher or Silent()).execute()


def train_once(
    workspace: Workspace, model: str, options: TrainOptions | None = None, watcher: ProgressListener | None = None
) -> tuple[int, TrainOutcome | None]:
    """Return the version of a run, trained now unless one of the same definition, data, features and options is there.

    The outcome is None for a version that was there. Raises what `train` does.
    """
    run = _TrainingRun.prepare(workspace, model, options or TrainOptions(), watcher or Silent())
    version = (run.folder.state() or {}).get("version")
    if version in {one.version for one in run.tracking.versions(run.resolved.model.name)}:
        return int(version), None
    outcome = run.execute()
    return outcome.version, outcome


@dataclass
class _TrainingRun:
    """One run under way. Everything that can be checked before long work was checked by `prepare`."""

    workspace: Workspace
    resolved: ResolvedModel
    options: TrainOptions
    watcher: ProgressListener
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
    begun: float
    vectors: dict[str, dict[str, str]] = field(default_factory=dict)  # published vectors that are read, by view
    snapshots: KeptSnapshots = field(default_factory=KeptSnapshots)

    @classmethod
    def prepare(
        cls, workspace: Workspace, model: str, options: TrainOptions, watcher: ProgressListener
    ) -> _TrainingRun:
        """Check definitions, data, features and MLflow, and name the run."""
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
            split = make_split(resolved.model.evaluate.protocol, tables.interactions())
            assert_vectors_not_trained_on(split, workspace.features, vectors)
            return split, notes

        files = json.dumps(features.file_digests(service))
        key = _content_hash(*depends_on, files, sources_digest(workspace.project.feature_repo), __version__)
        checks = Checks.of(workspace.runs, resolved.model.name, key, check)
        lineage: tuple[str, ...] = ()
        if parent is not None:
            assert_unseen(parent, checks.split)
            lineage = (parent.reference, parent.digest)
        name = _content_hash(*depends_on, checks.split.digest, *lineage)
        return cls(
            workspace=workspace,
            resolved=resolved.model_copy(update={"notes": (*resolved.notes, *checks.notes)}),
            options=options,
            watcher=watcher,
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

    def execute(self) -> TrainOutcome:
        """Build the training set; then fit, write, measure and register inside one MLflow run.

        Data that cannot be trained on fails before there is a run.
        """
        model = self.resolved.model.name
        earlier = self._earlier_run()
        data, start = self._examples()
        self.folder.keep_checks(self.checks)
        self.resolved = data.trained(self.resolved)
        self._note_parent(data)
        params = run_params(self.resolved, self.settings, self.workers) | {"examples": examples_summary(data)}
        name, command = run_name(model, self.split, self.folder.path.name), f"playbill train {model}"
        opened = self.tracking.start_run(model, name, {}, params, resume=earlier, command=command)
        with opened as run:
            self.folder.remember(run_id=run.run_id)
            lineage = self._lineage(data)
            run.set_tags(lineage.tags())
            log_lineage(run, lineage)
            self.tracking.log_tables(run, self.tables)
            log_examples(run, data)
            log_card(run, self.workspace.project.model_zoo / "models" / model)
            if self.resolved.notes:
                run.log_text("\n".join(self.resolved.notes), "notes.txt")
            result = self._fit(data, start, run)
            network = self._with_terms(result.network.cpu(), data, lineage, run)
            digest = self._write(network, data, lineage)
            evaluation, features = self._evaluate(data, digest)
            log_evaluation(run, evaluation, self.split)
            log_features(run, features)
            self.watcher.stage("register")
            version = self.tracking.register(run, self.folder.path / BUNDLE, model, lineage.tags(), _summary(result))
            about = about_version(self.resolved, lineage, self.workspace.name, run)
            describe_version(self.tracking, model, version, quality(evaluation, self.resolved.main_canvas), about)
        self.folder.remember(run_id=run.run_id, version=version, digest=digest)
        self.folder.drop_training_set()
        return TrainOutcome(
            model=model,
            version=version,
            run_id=run.run_id,
            digest=digest,
            protocol=self.split.protocol,
            evaluation=evaluation,
            features=features,
            notes=self.resolved.notes,
            strata=data.strata,
            epochs=len(result.reports),
            resumed_from=result.resumed_from,
            seconds=time.perf_counter() - self.begun,
            **_summary(result),
        )

    def _earlier_run(self) -> str | None:
        state = self.folder.state()
        if state is None:
            return None
        run_id = str(state["run_id"])
        if "version" not in state and self.tracking.has_run(run_id):
            return run_id
        self.folder.clear()
        return None

    def _examples(self) -> tuple[TrainingSet, Network]:
        """Return the training set and the network before its first step: those of a killed attempt, or new ones."""
        self.watcher.stage("build the training set")
        data = self.folder.load_training_set()
        if data is not None:
            start = self.folder.load_start(network_config(data.trained(self.resolved), data.encoder))
            if start is not None:
                return data, start
        weights = example_weights(self.resolved)
        data = build_training_set(self.tables, self.resolved, self.split, self.features, self.clock, weights=weights)
        self.watcher.stage("start the network")
        start = build_network(data.trained(self.resolved), data, self.parent)
        self.folder.keep_training_set(data, start, self.features.file_digests(self.schema.service))
        return data, start

    def _note_parent(self, data: TrainingSet) -> None:
        if self.parent is not None:
            taken = inherited(data.encoder.state, data.plays, self.resolved.model.heads, self.parent)
            note = started_from(self.resolved, taken, self.parent)
            self.resolved = self.resolved.model_copy(update={"notes": (*self.resolved.notes, note)})

    def _fit(self, data: TrainingSet, network: Network, run: RunHandle) -> FitResult:
        training = self.workspace.project.settings.training
        gpu = training.gpu if self.options.gpu is None else self.options.gpu
        epochs = self.settings.total_epochs(data.steps(max(1, self.workers)))

        def report(numbers: dict[str, float], _checkpoint: Path | None) -> None:
            run.log_metrics({name: value for name, value in numbers.items() if name != "epoch"}, int(numbers["epoch"]))
            if self.workers:  # Steps are counted on the workers; epochs are what is heard of here.
                self.watcher.advance(int(numbers["epoch"]), epochs, f"epochs, loss {numbers['loss']:.3f}")

        self.watcher.stage("train")
        folder = self.folder.path / CHECKPOINTS
        if self.workers:
            from playbill.training.ray_trainer import Cluster, fit_distributed

            threads = max(1, training.threads)
            sharded, address = self.options.is_sharded(training), self.workspace.ray_address
            cluster = Cluster(workers=self.workers, gpu=gpu, threads=threads, address=address, sharded=sharded)
            saved, storage = self.folder.training_set, self._storage()
            return fit_distributed(
                network, data, self.settings, cluster, folder=folder, storage=storage, saved=saved, report=report
            )
        if training.threads:
            torch.set_num_threads(training.threads)
        place = (
            WorkerPlace(device=torch.device("cuda"))
            if gpu is not False and torch.cuda.is_available()
            else WorkerPlace()
        )
        return fit(network, data, self.settings, folder=folder, report=report, progress=self._progress, place=place)

    def _storage(self) -> str | None:
        shared = self.workspace.training_storage
        return None if shared is None else f"{shared.rstrip('/')}/{self.workspace.name}/{self.folder.path.name}"

    def _progress(self, progress: Progress) -> None:
        detail = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
        self.watcher.advance(progress.step, progress.steps, detail)

    def _with_terms(self, network: Network, data: TrainingSet, lineage: Lineage, run: RunHandle) -> Network:
        """Return the network with the terms that its heads ask for, and learn their weights and those of blends."""
        wanted = terms_config(self.resolved, data.encoder)
        if wanted is None:
            return network
        self.watcher.stage("learn the weights of terms")
        log, seed = log_of(self.split, self.frames), self.resolved.model.training.seed
        network = add_terms(network, wanted, log, data.encoder)
        self._write(network, data, lineage)
        scorer = self._scorer(network, data.watermark)
        fold = ValidationFold(scorer, log, self.split, self.frames, self.features, seed)
        learnt, self.resolved = learn_weights(fold, self.resolved)
        log_terms(run, learnt)
        return network

    @cached_property
    def frames(self) -> EvaluationTables:
        """The canonical tables."""
        return EvaluationTables.read(self.tables)

    def _scorer(self, network: Network, moment: datetime) -> Scorer:
        """Return a scorer of the bundle that was written last, whose network is loaded already."""
        bundle, frames = read_bundle(self.folder.path / BUNDLE), self.frames
        given = (bundle, frames.titles_at(moment), frames.availability, self.features)
        return Scorer(*given, as_of=moment, network=network, kept_states=MOST_PASTS, snapshots=self.snapshots)

    def _write(self, network: Network, data: TrainingSet, lineage: Lineage) -> str:
        digest = write_bundle(
            self.folder.path / BUNDLE,
            resolved=self.resolved,
            encoder=data.encoder,
            config=network.config,
            weights=network.cpu().state_dict(),
            plays=data.plays,
            extra={
                "watermark": data.watermark.isoformat(),
                "split_digest": self.split.digest,
                "feature_views": dict(lineage.feature_views),
                FEATURE_FILES: self.folder.feature_files(),
                **({VECTORS: self.vectors} if self.vectors else {}),
                **({} if self.parent is None else parent_record(self.parent)),
            },
        )
        self.split.save(self.folder.path / BUNDLE / SPLIT)
        return digest

    def _evaluate(self, data: TrainingSet, digest: str) -> tuple[ModelEvaluation, FeatureReport]:
        self.watcher.stage("evaluate")
        scorer = self._scorer(read_bundle(self.folder.path / BUNDLE).network(), data.watermark)
        given = (self.split, self.frames, self.resolved, self.features)
        evaluation = evaluate_model(
            scorer,
            *given,
            progress=lambda canvas, done, total: self.watcher.advance(done, total, canvas),
            truth=self.truth,
            measured=self.folder.reports(digest).measured,
        )
        self.watcher.stage("try the features")
        seed, advance = self.resolved.model.training.seed, self.watcher.advance
        features = feature_report(
            scorer, data, *given, seed=seed, progress=lambda done, total: advance(done, total, "features")
        )
        return evaluation, features

    def _lineage(self, data: TrainingSet) -> Lineage:
        return Lineage(
            spec_hash=self.resolved.spec_hash,
            data_snapshot=self.tables.snapshot_id(),
            feature_service=self.schema.service,
            feature_service_version=self.schema.version,
            protocol=self.split.protocol,
            split_digest=self.split.digest,
            watermark=data.watermark,
            labels=learnt_labels(self.resolved),
            rewards=reward_versions(self.resolved),
            git_revision=git_revision(self.workspace.project.root),
            parent_version=None if self.parent is None else self.parent.reference,
            parent_digest=None if self.parent is None else self.parent.digest,
            feature_views=read_feature_repo(self.workspace.project.feature_repo).service_hashes(self.schema.service),
            vectors=self.vectors,
        )


def _summary(result: FitResult) -> dict[str, float]:
    speeds = sorted(report["tokens_per_second"] for report in result.reports)
    return {
        "train_seconds": sum(report["seconds"] for report in result.reports),
        "tokens_per_second": speeds[len(speeds) // 2],
        "final_loss": result.reports[-1]["loss"],
    }


def _content_hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()[:12]
