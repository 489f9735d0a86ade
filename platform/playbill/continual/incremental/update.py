"""One update: the champion goes on learning from the events that came since, and a candidate is registered.

Nothing that the champion's bundle has is made again: its vocabularies grow, its weights and its optimizer go on, and
what it counted from the log stays. An update is one record (`continual.incremental.watermarks`) and one folder of the
runs; killed at any moment, the same command goes on with the same events.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from playbill import __version__
from playbill.config import Workspace
from playbill.continual.incremental.definitions import require_same_features, updated_definition
from playbill.continual.incremental.examples import watermark_of
from playbill.continual.incremental.growth import update_settings
from playbill.continual.incremental.run import NOTHING, Taken, UpdateRun
from playbill.continual.incremental.watermarks import UpdateLease, UpdateRecords, UpdateRow
from playbill.continual.incremental.window import UpdateWindow, find_window, log_state, same_window
from playbill.datasets import Split
from playbill.definitions.zoo import open_zoo
from playbill.errors import IntegrityError, StateError
from playbill.evaluation.canvases.loaded_version import SPLIT, frozen_split
from playbill.features import FeatureDoor
from playbill.files import replaced_folder
from playbill.ranking.scoring.bundle import VECTORS, read_bundle
from playbill.tables import Tables, workspace_clock
from playbill.training.build import loop_settings
from playbill.training.inherit import Parent
from playbill.training.options import TrainOptions, check_workers
from playbill.training.plan import RunPlan
from playbill.training.run_folder import Checks, RunFolder
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.promotion import Decision, GateResult, PromotionLog, promote
from playbill.versions.promotion.gates import CHAMPION, judge
from playbill.versions.tracking import ModelVersion, Tracking

Status = Literal["nothing to do", "updated"]
UPDATES = "-update-"  # in the name of an update's folder, after the model's, which has no hyphen
WINDOW = "window"  # folder of an update's split, in its run's folder


@dataclass(frozen=True)
class UpdateOutcome:
    """What came of an update."""

    status: Status
    model: str
    parent: str  # the champion it starts from, `model:version`
    reason: str  # in one sentence, what was decided, or why there was nothing to do
    version: int | None = None  # the candidate; of "nothing to do" one that has learnt everything and is not champion
    taken: Taken = NOTHING
    new_titles: int = 0  # that the champion has not learnt
    gates: tuple[GateResult, ...] = ()
    promoted: bool = False
    optimizer_carried: bool = True  # False where the champion's run is not in this workspace: its moments are zero
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def events(self) -> int:
        """Events that the candidate has learnt from for the first time in its lineage."""
        return self.taken.events

    @property
    def late_events(self) -> int:
        """Of these, those that were older than what the champion had learnt when they arrived."""
        return self.taken.late_events

    @property
    def replayed(self) -> int:
        """Events that were learnt from again."""
        return self.taken.replayed


def update(
    workspace: Workspace, model: str, options: TrainOptions | None = None, watcher: ProgressListener | None = None
) -> UpdateOutcome:
    """Train a model's champion on with the events that came since, and register the result as a candidate.

    One that was killed goes on by the same call with the same events; what has arrived meanwhile is the next one's.
    Of `options` those of workers and devices count.

    Raises:
        UnknownNameError: No such model.
        DefinitionError: The zoo has mistakes, or the definition or the feature service is not the champion's.
        StateError: The model has no champion, or another process is updating it.
        ConfigError: Workers are wanted that cannot be had.
        IntegrityError: The champion's files or the record of its update are not what they should be.
        ServiceError: MLflow, the database, Feast's store or the cluster cannot be reached.
    """
    begun = time.perf_counter()
    prepare = partial(_Update.prepare, workspace, model, options or TrainOptions(), watcher or Silent())
    found = prepare()
    with UpdateLease(workspace, model).held() as lease:
        if found.decide_waiting():
            found = prepare()
        outcome = found.execute(lease)
    return replace(outcome, seconds=time.perf_counter() - begun)


@dataclass(frozen=True)
class _Update:
    """One update. Everything that can be checked before long work was checked by `prepare`."""

    plan: RunPlan  # as it stands before it is known what there is to take
    parent: Parent
    champion: ModelVersion
    learnt: Split  # the champion's
    records: UpdateRecords
    watcher: ProgressListener

    @classmethod
    def prepare(cls, workspace: Workspace, model: str, options: TrainOptions, watcher: ProgressListener) -> _Update:
        """Check the definition, the champion, features and services."""
        begun = time.perf_counter()
        watcher.stage("check the champion, definitions and data")
        now = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(model)
        check_workers(workspace, options)
        tables = Tables(workspace).require()
        features, tracking = FeatureDoor(workspace), Tracking(workspace)
        champion = _champion(tracking, model)
        folder = tracking.download(model, champion.version)
        parent = Parent(champion.reference, read_bundle(folder, champion.digest))
        resolved, vectors = updated_definition(now, parent), parent.bundle.extra.get(VECTORS, {})
        schema, learnt = features.schema(resolved.model.features), _learnt_split(parent)
        require_same_features(schema, parent)
        features.require_pinned(vectors, champion.reference)
        plan = RunPlan(
            workspace=workspace,
            resolved=resolved,
            options=options,
            tables=tables,
            clock=workspace_clock(workspace),
            features=features,
            schema=schema,
            tracking=tracking,
            checks=Checks("", learnt, ()),
            settings=loop_settings(resolved),
            truth=None,
            parent=parent,
            folder=RunFolder(workspace.runs),
            begun=begun,
            vectors=vectors,
        )
        return cls(plan, parent, champion, learnt, UpdateRecords(workspace, model), watcher)

    @property
    def model(self) -> str:
        """Its name."""
        return self.plan.resolved.model.name

    def execute(self, lease: UpdateLease) -> UpdateOutcome:
        """Go on with the update that is under way, or begin one where there is something to take."""
        self._check_records()
        self.watcher.stage("find what is new")
        tables, spec, row = self.plan.tables, self.plan.resolved.model.update, self.records.open()
        window = None if row is None else self._same(row)
        if row is None or window is None:
            state = log_state(tables)
            if (done := self._done(lambda row: row.log_state == state)) is not None:
                return done
            found = find_window(tables, self.learnt, watermark_of(self.parent), spec)
            if isinstance(found, str):
                return self._nothing(found)
            window = found
            # What arrived is all held out, so what could be learnt from is what was.
            if (done := self._done(lambda row: row.window == found.digest)) is not None:
                return done
            row = self._begin(lease, window, state)
        folder, checks = RunFolder(self.plan.workspace.runs / row.folder), Checks("", window.split, ())
        settings = update_settings(self.plan.settings, spec, window.share)
        plan = replace(self.plan, folder=folder, checks=checks, settings=settings)
        given = (plan, self.parent, self.champion, self.learnt, window, self.watcher)
        run = UpdateRun(*given, lambda digest: self.records.trained(row, lease, digest))
        version = run.execute()
        self.records.published(row, lease, version, run.digest)
        folder.drop_training_set()
        decided = self._decided(version, run)
        self._drop_folders()
        return decided

    def _drop_folders(self) -> None:
        """Remove the folders of the model's updates that nothing goes on from any more."""
        kept = self.records.folders_kept(self.parent.digest)
        for folder in self.plan.workspace.runs.glob(f"{self.model}{UPDATES}*"):
            if folder.name not in kept:
                RunFolder(folder).clear()

    def decide_waiting(self) -> bool:
        """Have the gates held of a version that promotes itself, and whose update was killed before it could."""
        if self.plan.resolved.model.promote != "auto":
            return False
        known = {one.version for one in self.plan.tracking.versions(self.model)}
        own = (row for row in self.records.rows() if self.parent.digest in (row.parent_digest, row.digest))
        row = next((row for row in own if row.state == "published" and row.version in known), None)
        # One made by another definition was not to promote itself.
        if row is None or row.version is None or row.definition != self.plan.resolved.spec_hash:
            return False
        if self._decision(row.version) is not None:
            return False
        promote(self.plan.workspace, f"{self.model}:{row.version}")
        return True

    def _check_records(self) -> None:
        """Make sure that the records and the champion's own split say the same.

        Raises:
            IntegrityError: They do not.
        """
        row = self.records.of_version(self.parent.digest)
        count = self.learnt.counts()["train"]
        if row is not None and row.learnt_after != count:
            raise IntegrityError(
                f"{self.parent.reference} has learnt {row.learnt_after:,} events by the record of its update, and "
                f"{count:,} by its split; train the model anew: playbill train {self.model}"
            )

    def _same(self, row: UpdateRow) -> UpdateWindow | None:
        """Return the window of an open update, None where it cannot be gone on with."""
        if (row.parent_digest, row.definition) != (self.parent.digest, self.plan.resolved.spec_hash):
            return None
        try:
            split = Split.load(self.plan.workspace.runs / row.folder / WINDOW / SPLIT)
        except (StateError, IntegrityError):
            return None
        window = same_window(self.plan.tables, self.learnt, split, row.late)
        return window if window.digest == row.window else None

    def _done(self, same: Callable[[UpdateRow], bool]) -> UpdateOutcome | None:
        """Return what is known where the same was made before, from the same version by the same definition."""
        mine = (self.parent.digest, self.plan.resolved.spec_hash, "published")
        rows = (row for row in self.records.rows() if (row.parent_digest, row.definition, row.state) == mine)
        row = next(filter(same, rows), None)
        if row is None or row.version not in {one.version for one in self.plan.tracking.versions(self.model)}:
            return None
        RunFolder(self.plan.workspace.runs / row.folder).drop_training_set()
        known = f"{self.model}:{row.version} has learnt all that there is to learn from"
        decision = self._decision(row.version)
        stands = "it waits to be promoted" if decision is None else f"it was {decision.verdict}: {decision.reason}"
        return self._nothing(f"{known}; {stands}", row.version)

    def _decision(self, version: int) -> Decision | None:
        history = PromotionLog(self.plan.workspace).history(self.model)
        return next((one for one in history if one.version == version), None)

    def _nothing(self, reason: str, version: int | None = None) -> UpdateOutcome:
        new = len(set(self.plan.tables.vocabulary("title").entries) - set(self.parent.state.titles))
        if new and version is None:
            reason += f"; {new:,} new titles are ranked by their metadata until an update learns from their events"
        return UpdateOutcome("nothing to do", self.model, self.parent.reference, reason, version, new_titles=new)

    def _begin(self, lease: UpdateLease, window: UpdateWindow, state: str) -> UpdateRow:
        definition = self.plan.resolved.spec_hash
        parts = (self.parent.digest, window.digest, window.split.digest, definition, __version__)
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        folder = RunFolder(self.plan.workspace.runs / f"{self.model}{UPDATES}{name}")
        folder.clear()
        with replaced_folder(folder.path / WINDOW, "the window of the update") as unfinished:
            window.split.save(unfinished / SPLIT)
        return self.records.begin(
            lease,
            parent_version=self.champion.version,
            parent_digest=self.parent.digest,
            window=window.digest,
            definition=definition,
            log_state=state,
            learnt_before=window.learnt_before,
            learnt_after=window.learnt_after,
            late=window.late,
            folder=folder.path.name,
        )

    def _decided(self, version: int, run: UpdateRun) -> UpdateOutcome:
        """Hold the gates, and where the definition says so make the version champion."""
        self.watcher.stage("hold the gates")
        reference, gates = f"{self.model}:{version}", self.plan.resolved.model.gates
        made = UpdateOutcome("updated", self.model, self.parent.reference, "", version, run.taken, run.taken.new_titles)
        made = replace(made, notes=run.resolved.notes, optimizer_carried=run.carried)
        if self.plan.resolved.model.promote == "auto":
            promotion = promote(self.plan.workspace, reference)
            approved, reason = promotion.verdict == "approved", f"{promotion.verdict}: {promotion.reason}"
            return replace(made, reason=reason, gates=promotion.gates, promoted=approved)
        tracking = self.plan.tracking
        ours, theirs = (tracking.evaluations(one) for one in (tracking.version(self.model, version), self.champion))
        results = judge(gates, ours, theirs)
        failed = [result for result in results if not result.passed]
        advice = f"playbill promote {reference} makes it champion"
        text = "; ".join(f"{one.gate}: {one.reason}" for one in failed) or f"its gates hold; {advice}"
        return replace(made, reason=text, gates=results)


def _champion(tracking: Tracking, model: str) -> ModelVersion:
    if model not in tracking.models():
        raise StateError(f"model '{model}' has no version yet, so there is none to update: playbill train {model}")
    number = tracking.alias(model, CHAMPION)
    if number is None:
        advice = f"playbill promote {model} makes its newest version champion"
        raise StateError(f"model '{model}' has no champion to update; {advice}")
    return tracking.version(model, number)


def _learnt_split(parent: Parent) -> Split:
    """Return the champion's split, which says what it has learnt.

    Raises:
        IntegrityError: It is not the one that the champion was registered with.
    """
    split = frozen_split(parent.bundle.folder)
    if split.digest != parent.bundle.extra.get("split_digest", split.digest):
        raise IntegrityError(f"the split of {parent.reference} changed since it was registered")
    return split
