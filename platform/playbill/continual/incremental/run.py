"""The work of one update, from its window of events to a registered version.

What a killed attempt has finished is not done again: the training set and the network before its first step are kept,
training goes on at its newest checkpoint, and a version that is registered is found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from playbill.continual.incremental.examples import UpdateExamples, update_examples
from playbill.continual.incremental.growth import OptimizerState, grown_config, grown_network
from playbill.continual.incremental.measuring import Measurement, measure_champion, record_evaluation
from playbill.continual.incremental.window import UpdateWindow
from playbill.datasets import Split, TrainingSet
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.canvases.loaded_version import SPLIT
from playbill.evaluation.canvases.model import ModelEvaluation
from playbill.evaluation.compare import assert_vectors_not_trained_on
from playbill.files import write_text
from playbill.models import Network, TitleInputs
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill.training.checkpoint import checkpoints
from playbill.training.inherit import Parent
from playbill.training.placement import CHECKPOINTS, TrainingPlace
from playbill.training.plan import BUNDLE, RunPlan
from playbill.training.run_folder import RunFolder
from playbill.training.watch import ProgressListener
from playbill.versions.tracking import Lineage, ModelVersion, RunHandle

FACTS = "update.json"  # file of a run's folder with how much of what the update takes


@dataclass(frozen=True, slots=True)
class Taken:
    """How much an update learns from."""

    events: int = 0  # learnt from for the first time in the version's lineage
    late_events: int = 0  # of these, older than what the champion had learnt when they arrived
    held_out: int = 0  # the newest ones, which the gates are measured on and the next update learns from
    matured: int = 0  # learnt before, of which a label has become known
    replayed: int = 0  # learnt from again
    new_titles: int = 0  # that the champion had not learnt


NOTHING = Taken()


@dataclass
class UpdateRun:
    """An update under way."""

    plan: RunPlan
    parent: Parent
    champion: ModelVersion
    learnt: Split  # the champion's
    window: UpdateWindow
    watcher: ProgressListener
    trained: Callable[[str], None]  # called with the bundle's digest, once it is written
    taken: Taken = NOTHING
    digest: str = ""  # of the bundle
    carried: bool = True  # whether the champion's optimizer goes on
    resolved: ResolvedModel = field(init=False)  # with the notes of this update

    def execute(self) -> int:
        """Train, write, measure and register, and return the version."""
        plan = self.plan
        data, start = self._examples()
        place = TrainingPlace.of(plan.workspace, plan.options, plan.folder)
        self.carried = self._carry_optimizer(place, data, start)
        self.resolved = self._noted()
        opened = plan.opened(self.resolved, data, "update", self._earlier_run(), taken=asdict(self.taken))
        with opened as (run, lineage):
            self.watcher.stage("train")
            result = place.fit(start, data, plan.settings, run.log_metrics, self.watcher)
            self._write(result.network.cpu(), data, lineage)
            self.trained(self.digest)
            evaluation = self._evaluate(run)
            self.watcher.stage("register")
            version = plan.register(run, self.resolved, lineage, result.summary(), evaluation)
        plan.folder.remember(run_id=run.run_id, version=version, digest=self.digest)
        return version

    def _earlier_run(self) -> str | None:
        run_id = str((self.plan.folder.state() or {}).get("run_id", ""))
        return run_id if run_id and self.plan.tracking.has_run(run_id) else None

    def _examples(self) -> tuple[TrainingSet, Network]:
        """Return the training set and the network before its first step: those of a killed attempt, or new ones."""
        plan, file = self.plan, self.plan.folder.path / FACTS
        self.watcher.stage("build the training set")
        data = plan.folder.load_training_set()
        if data is not None and file.is_file():
            start = plan.folder.load_start(grown_config(self.parent.bundle.config, data.encoder))
            if start is not None:
                self.taken = Taken(**json.loads(file.read_text(encoding="utf-8")))
                return data, start
        made = update_examples(plan.tables, plan.resolved, self.window, self.parent, self.learnt, plan.features)
        self.watcher.stage("grow the network")
        titles, model = TitleInputs.from_arrays(made.data.titles), plan.resolved.model
        start = grown_network(self.parent, made.data.encoder, titles, model.update.new_titles, model.training.seed)
        self.taken = self._counted(made)
        write_text(file, json.dumps(asdict(self.taken)), "what the update takes")
        plan.folder.keep_training_set(made.data, start, plan.features.file_digests(plan.schema.service))
        return made.data, start

    def _counted(self, made: UpdateExamples) -> Taken:
        had, learnt = set(self.parent.state.titles), set(self.parent.titles)
        plays = zip(made.data.encoder.state.titles, made.data.plays[1:].tolist(), strict=True)
        return Taken(
            events=self.window.taken.height,
            late_events=self.window.late,
            held_out=self.window.split.counts()["test"],
            matured=made.matured,
            replayed=made.replayed,
            new_titles=sum(title not in had or (count > 0 and title not in learnt) for title, count in plays),
        )

    def _carry_optimizer(self, place: TrainingPlace, data: TrainingSet, start: Network) -> bool:
        """Let the run begin with the champion's optimizer state; False where no checkpoint of its run is here."""
        folder = self._champions_run()
        state = None if folder is None else OptimizerState.read(folder.path / CHECKPOINTS)
        if state is None:
            return False
        if not checkpoints(place.checkpoints):
            grown = state.grown(start, data.encoder, self.parent)
            grown.begin(place.checkpoints, start, data, self.plan.settings, place.workers)
        return True

    def _champions_run(self) -> RunFolder | None:
        wanted = (self.champion.version, self.champion.digest)
        for path in sorted(self.plan.workspace.runs.glob(f"{self.champion.model}-*")):
            state = RunFolder(path).state() or {}
            if (state.get("version"), state.get("digest")) == wanted:
                return RunFolder(path)
        return None

    def _noted(self) -> ResolvedModel:
        taken, parent = self.taken, self.parent.reference
        late = f" ({taken.late_events:,} late)" if taken.late_events else ""
        notes = [
            f"updated from {parent}: {taken.events:,} new events{late}, {taken.matured:,} of before whose labels "
            f"became known, {taken.replayed:,} learnt from again, {taken.new_titles:,} new titles"
        ]
        if not self.carried:
            notes.append(f"the optimizer starts anew: the checkpoints of {parent} are not in this workspace")
        resolved = self.plan.resolved
        return resolved.model_copy(update={"notes": (*resolved.notes, *notes)})

    def _write(self, network: Network, data: TrainingSet, lineage: Lineage) -> None:
        folder = self.plan.folder.path / BUNDLE
        self.digest = write_bundle(
            folder,
            resolved=self.resolved,
            encoder=data.encoder,
            config=network.config,
            weights=network.state_dict(),
            plays=data.plays,
            extra=self.plan.record(lineage, data.watermark),
        )
        self.window.split.save(folder / SPLIT)

    def _evaluate(self, run: RunHandle) -> ModelEvaluation:
        plan, split = self.plan, self.window.split
        assert_vectors_not_trained_on(split, plan.workspace.features, plan.vectors)
        measurement = Measurement(plan.tables, plan.features, split, self.resolved, self.watcher)
        frames, snapshots = measurement.frames(), KeptSnapshots()
        measure_champion(measurement, plan.tracking, self.champion, self.parent.bundle, self.learnt, frames, snapshots)
        self.watcher.stage("evaluate")
        evaluation = measurement.of(read_bundle(plan.folder.path / BUNDLE), frames, snapshots)
        record_evaluation(run, evaluation)
        return evaluation
