"""`Tracking`: everything Playbill asks of MLflow, for one workspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from playbill.clock import Clock, WallClock
from playbill.config import Workspace
from playbill.datasets.splits import REQUESTS
from playbill.definitions.zoo.versions import VersionRecord
from playbill.tables import Tables
from playbill.versions.tracking.connection import Connection
from playbill.versions.tracking.download import Pair, Verify, download, pair_of, read_record
from playbill.versions.tracking.packaging import CatalogueCopy, Packager
from playbill.versions.tracking.registry import PROTOCOL, REQUESTS_VERSION, SPLIT_DIGEST, ModelRegistry, ModelVersion
from playbill.versions.tracking.runs import Evaluation, RunHandle, Runs

EVALUATED = "playbill.evaluated"
EVALUATIONS = "evaluations"


def read_digest(folder: Path) -> str:
    """Verify every file of a bundle against its manifest and return its digest.

    Raises:
        IntegrityError: A file is missing, added or changed.
    """
    from playbill.ranking.scoring.bundle import verify_bundle

    return verify_bundle(folder)


class Tracking(ModelRegistry):
    """MLflow as one workspace sees it. Opens nothing until it is used; safe to share between threads.

    Args:
        workspace: Whose `mlflow_uri`, artifact folder and names apply.
        verify: How a bundle folder is checked; returns its digest.
        catalogue: What a registered model carries of the catalogue; the workspace's tables by default.
        clock: Stamps metrics.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        verify: Verify = read_digest,
        catalogue: Callable[[Workspace], CatalogueCopy] = CatalogueCopy.of,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(workspace, Connection(workspace.mlflow_uri))
        self._verify, self._catalogue = verify, catalogue
        self._runs = Runs(workspace, self.connection, clock or WallClock())

    def start_run(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        resume: str | None = None,
        command: str = "playbill",
    ) -> AbstractContextManager[RunHandle]:
        """Open a run in experiment `WORKSPACE/experiment`, closed as FINISHED, FAILED or KILLED.

        Inside the block it is MLflow's own active run in this thread and MLflow's tracking URI is the
        workspace's, so Feast's MLflow integration writes its lineage tags onto it.

        `params` may be nested, names become dotted; they are not logged again when a run is resumed by its id.
        `command` is shown as the run's source beside its user and git revision.

        Raises:
            ServiceError: MLflow cannot be reached.
        """
        return self._runs.start(experiment, name, tags, params, resume, command)

    def log_tables(self, run: RunHandle, tables: Tables) -> None:
        """Log the workspace's tables as what a run was trained on; the run leads back to this snapshot of them.

        Raises:
            StateError: Nothing has been ingested yet.
            ServiceError: MLflow cannot be reached.
        """
        from playbill.versions.tracking.dataset_source import log_tables  # imports MLflow

        log_tables(run, self.workspace, tables)

    def has_run(self, run_id: str) -> bool:
        """Return whether a run exists and was not deleted, so that it can be resumed."""
        return self._runs.exists(run_id)

    def register(
        self,
        run: RunHandle,
        bundle_folder: Path,
        model: str,
        tags: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> int:
        """Verify a bundle, log it as a pyfunc model, and register it as a version, whose number is returned.

        Tags are of the version and of its run, such as `Lineage.tags()`; the digest is added. Metrics are logged on the
        run; gates read them where the run has no table (`RunHandle.log_numbers`).

        Raises:
            IntegrityError: The bundle does not match its manifest.
            StateError: The workspace has no titles.
            ServiceError: MLflow cannot be reached.
        """
        digest = self._verify(bundle_folder)
        run.set_tags(tags)
        run.log_metrics(metrics or {})
        copy = partial(self._catalogue, self.workspace)
        packager = Packager(self.connection, self._runs, self, copy)
        return packager.register(run, bundle_folder, digest, model, tags)

    def log_evaluation(
        self,
        version: ModelVersion,
        protocol: str,
        split_digest: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[RunHandle]:
        """Open a run of experiment `WORKSPACE/evaluations` that records the numbers of a registered version.

        Gates use it as they use those of the run that trained the version: its metrics, or the table that is logged
        inside the block (`RunHandle.log_numbers`).
        """
        own = {EVALUATED: version.reference, PROTOCOL: protocol, SPLIT_DIGEST: split_digest, REQUESTS_VERSION: REQUESTS}
        return self._runs.evaluation(EVALUATIONS, f"{version.reference} {protocol}", own | dict(tags or {}), metrics)

    def evaluations(self, version: ModelVersion) -> tuple[Evaluation, ...]:
        """Return every evaluation of a version: later ones newest first, then that of its training run."""
        return self.evaluations_of(version.reference, version.run_id)

    def evaluations_of(self, reference: str, run_id: str | None) -> tuple[Evaluation, ...]:
        """Return the evaluations of a version that may have been deleted, given what trained it."""
        found = self._runs.search(EVALUATIONS, EVALUATED, reference)
        return (*found, *(self._runs.evaluation_of(run_id) if run_id else ()))

    def alias(self, model: str, name: str) -> int | None:
        """Return the version an alias points at, or None."""
        return self.aliases(model).get(name)

    def record(self, version: ModelVersion) -> VersionRecord:
        """Return what a version was trained from, as its bundle and its tags say. Weights are not fetched.

        Raises:
            IntegrityError: It was not registered by Playbill, its record is missing or was changed, or another version
                of Playbill wrote it.
            ServiceError: MLflow or the artifact store cannot be reached.
        """
        return read_record(self.workspace, self.connection, version)

    def download(self, model: str, version: int, digest: str | None = None) -> Path:
        """Return the folder of a version's bundle, fetched into the workspace's serving folder and verified.

        With the `digest` of an approved pair a sound copy that was fetched before is returned without asking MLflow;
        without, it is that of the version's tag.

        Raises:
            UnknownNameError: There is no such version.
            IntegrityError: It has no digest, or its bundle is missing or differs from it.
            ServiceError: MLflow or the artifact store cannot be reached.
        """
        known = Pair(model, version, digest) if digest else pair_of(self.version(model, version))
        return download(self.workspace, self.connection, known, self._verify)
