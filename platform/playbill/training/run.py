"""One training run, from the canonical tables to a registered version with its lineage and its measures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import polars as pl

from playbill.config import Workspace
from playbill.datasets import TrainingSet, build_training_set
from playbill.datasets.examples.sampling import Stratum
from playbill.datasets.parts import build_in_parts, learnt_of_everything
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.canvases.model import ModelEvaluation, evaluate_model
from playbill.evaluation.cases.build import assert_measurable
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables
from playbill.evaluation.feature_report import FeatureReport, feature_report
from playbill.models import Network
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill.training.build import build_network, network_config
from playbill.training.example_weights import example_weights
from playbill.training.inherit import inherited, knowing
from playbill.training.loop import FitResult
from playbill.training.options import TrainOptions
from playbill.training.placement import TrainingPlace
from playbill.training.plan import BUNDLE, RunPlan
from playbill.training.recording import log_evaluation, log_features, log_terms
from playbill.training.start import started_from
from playbill.training.term_weights import ValidationFold, add_terms, learn_weights, log_of, terms_config
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.tracking import Lineage, RunHandle

SPLIT = "split.parquet"


@dataclass(frozen=True)
class TrainOutcome:
    """A finished run."""

    model: str
    version: int  # registered version
    run_id: str
    digest: str
    protocol: str
    protocol_reason: str  # why, where the log has chosen it
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
        DataError: The label of a head that is not optional has no positive row, nothing that is held out can be a
            target of any canvas, or a feature view of the project's own knows the event it is joined to.
        ComparisonError: Published vectors that it reads, or the version that it starts from, were learnt from what
            would be held out.
        IntegrityError: The run's newest checkpoint is damaged.
        ServiceError: MLflow, Feast's store or the cluster cannot be reached.
    """
    return _TrainingRun.prepare(workspace, model, options, watcher).execute()


def train_once(
    workspace: Workspace, model: str, options: TrainOptions | None = None, watcher: ProgressListener | None = None
) -> tuple[int, TrainOutcome | None]:
    """Return the version of a run, trained now unless one of the same definition, data, features and options is there.

    The outcome is None for a version that was there. Raises what `train` does.
    """
    run = _TrainingRun.prepare(workspace, model, options, watcher)
    version = (run.plan.folder.state() or {}).get("version")
    if version in {one.version for one in run.plan.tracking.versions(run.resolved.model.name)}:
        return int(version), None
    outcome = run.execute()
    return outcome.version, outcome


@dataclass
class _TrainingRun:
    """One run under way."""

    plan: RunPlan
    watcher: ProgressListener
    resolved: ResolvedModel  # with what the run adds: notes, optional heads that are left out, learnt weights
    snapshots: KeptSnapshots = field(default_factory=KeptSnapshots)

    @classmethod
    def prepare(
        cls, workspace: Workspace, model: str, options: TrainOptions | None, watcher: ProgressListener | None
    ) -> _TrainingRun:
        watcher = watcher or Silent()
        plan = RunPlan.of(workspace, model, options or TrainOptions(), watcher)
        return cls(plan, watcher, plan.resolved)

    def execute(self) -> TrainOutcome:
        """Build the training set; then fit, write, measure and register inside one MLflow run.

        Data that cannot be trained on fails before there is a run.
        """
        plan = self.plan
        model = self.resolved.model.name
        earlier = self._earlier_run()
        assert_measurable(self.resolved, plan.split, EvaluationTables.read(plan.tables))
        data, start = self._examples()
        plan.folder.keep_checks(plan.checks)
        self.resolved = data.trained(self.resolved)
        self._note_parent(data)
        with plan.opened(self.resolved, data, "train", earlier) as (run, lineage):
            result = self._fit(data, start, run)
            network = self._with_terms(result.network.cpu(), data, lineage, run)
            digest = self._write(network, data, lineage)
            evaluation, features = self._evaluate(data, digest)
            log_evaluation(run, evaluation, plan.split)
            log_features(run, features)
            self.watcher.stage("register")
            version = plan.register(run, self.resolved, lineage, result.summary(), evaluation)
        plan.folder.remember(run_id=run.run_id, version=version, digest=digest)
        plan.folder.drop_training_set()
        return TrainOutcome(
            model=model,
            version=version,
            run_id=run.run_id,
            digest=digest,
            protocol=plan.split.protocol,
            protocol_reason=plan.split.reason,
            evaluation=evaluation,
            features=features,
            notes=self.resolved.notes,
            strata=data.strata,
            epochs=len(result.reports),
            resumed_from=result.resumed_from,
            seconds=time.perf_counter() - plan.begun,
            **result.summary(),
        )

    def _earlier_run(self) -> str | None:
        plan = self.plan
        state = plan.folder.state()
        if state is None:
            return None
        run_id = str(state["run_id"])
        if "version" not in state and plan.tracking.has_run(run_id):
            return run_id
        plan.folder.clear()
        return None

    def _examples(self) -> tuple[TrainingSet, Network]:
        """Return the training set and the network before its first step: those of a killed attempt, or new ones."""
        plan = self.plan
        self.watcher.stage("build the training set")
        data = plan.folder.load_training_set()
        if data is not None:
            start = plan.folder.load_start(network_config(data.trained(self.resolved), data.encoder))
            if start is not None:
                return data, start
        data = knowing(self._build(), self.resolved, plan.parent)
        self.watcher.stage("start the network")
        start = build_network(data.trained(self.resolved), data, plan.parent)
        plan.folder.keep_training_set(data, start, plan.features.file_digests(plan.schema.service))
        return plan.folder.without_parts(data), start

    def _build(self) -> TrainingSet:
        """Build the training set: in parts where the log has more events than are to be in memory at a time."""
        plan, most = self.plan, self.plan.workspace.project.settings.training.events_in_memory
        given = (plan.tables, self.resolved, plan.split, plan.features, plan.clock)
        if plan.tables.event_count() <= most:
            return build_training_set(*given, weights=example_weights(self.resolved))
        if why := learnt_of_everything(self.resolved):
            note = f"{why}: the training set was built of the whole log in memory, despite training.events_in_memory"
            self.resolved = self.resolved.model_copy(update={"notes": (*self.resolved.notes, note)})
            return build_training_set(*given, weights=example_weights(self.resolved))
        return build_in_parts(*given, plan.folder.new_parts(), most)

    def _note_parent(self, data: TrainingSet) -> None:
        plan = self.plan
        if plan.parent is not None:
            taken = inherited(data.encoder.state, data.plays, self.resolved.model.heads, plan.parent)
            note = started_from(self.resolved, taken, plan.parent)
            self.resolved = self.resolved.model_copy(update={"notes": (*self.resolved.notes, note)})

    def _fit(self, data: TrainingSet, network: Network, run: RunHandle) -> FitResult:
        plan = self.plan
        self.watcher.stage("train")
        place = TrainingPlace.of(plan.workspace, plan.options, plan.folder)
        return place.fit(network, data, plan.settings, run.log_metrics, self.watcher)

    def _with_terms(self, network: Network, data: TrainingSet, lineage: Lineage, run: RunHandle) -> Network:
        """Return the network with the terms that its heads ask for, and learn their weights and those of blends."""
        plan = self.plan
        wanted = terms_config(self.resolved, data.encoder)
        if wanted is None:
            return network
        self.watcher.stage("learn the weights of terms")
        log, seed = log_of(plan.split, self.frames), self.resolved.model.training.seed
        only = self.resolved.model.only if plan.parent is None else None
        fitted = log if only is None else log.from_countries(only.country)
        network = add_terms(network, wanted, fitted, data.encoder)
        self._write(network, data, lineage)
        scorer = self._scorer(network, data.watermark)
        fold = ValidationFold(scorer, log, plan.split, self.frames, plan.features, seed)
        learnt, self.resolved = learn_weights(fold, self.resolved)
        log_terms(run, learnt)
        return network

    @cached_property
    def frames(self) -> EvaluationTables:
        """The canonical tables."""
        return EvaluationTables.read(self.plan.tables)

    def _scorer(self, network: Network, moment: datetime) -> Scorer:
        """Return a scorer of the bundle that was written last, whose network is loaded already."""
        plan = self.plan
        bundle, frames = read_bundle(plan.folder.path / BUNDLE), self.frames
        given = (bundle, frames.titles_at(moment), frames.availability, plan.features)
        return Scorer(*given, as_of=moment, network=network, kept_states=MOST_PASTS, snapshots=self.snapshots)

    def _write(self, network: Network, data: TrainingSet, lineage: Lineage) -> str:
        plan = self.plan
        digest = write_bundle(
            plan.folder.path / BUNDLE,
            resolved=self.resolved,
            encoder=data.encoder,
            config=network.config,
            weights=network.cpu().state_dict(),
            plays=data.plays,
            extra=plan.record(lineage, data.watermark),
        )
        plan.split.save(plan.folder.path / BUNDLE / SPLIT)
        return digest

    def _evaluate(self, data: TrainingSet, digest: str) -> tuple[ModelEvaluation, FeatureReport]:
        plan = self.plan
        self.watcher.stage("evaluate")
        scorer = self._scorer(read_bundle(plan.folder.path / BUNDLE).network(), data.watermark)
        given = (plan.split, self.frames, self.resolved, plan.features)
        evaluation = evaluate_model(
            scorer,
            *given,
            progress=lambda canvas, done, total: self.watcher.advance(done, total, canvas),
            truth=plan.truth,
            measured=plan.folder.reports(digest).measured,
        )
        self.watcher.stage("try the features")
        seed, advance = self.resolved.model.training.seed, self.watcher.advance
        features = feature_report(
            scorer, data, *given, seed=seed, progress=lambda done, total: advance(done, total, "features")
        )
        return evaluation, features
