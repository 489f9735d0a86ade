"""Where a run's loop computes: in this process or on Ray workers, with its checkpoints in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from playbill.config import Workspace
from playbill.datasets import TrainingSet
from playbill.models import Network
from playbill.training.contract import LoopSettings
from playbill.training.loop import FitResult, Progress, WorkerPlace, fit
from playbill.training.options import TrainOptions
from playbill.training.run_folder import RunFolder
from playbill.training.watch import ProgressListener

CHECKPOINTS = "checkpoints"
LogMetrics = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class TrainingPlace:
    """Workers and device of one run."""

    folder: RunFolder
    workers: int  # Ray workers, 0 = this process
    sharded: bool
    gpu: bool | None
    threads: int  # of torch; 0 = as many as it takes
    address: str | None  # of the cluster
    storage: str | None  # shared by the cluster's nodes

    @classmethod
    def of(cls, workspace: Workspace, options: TrainOptions, folder: RunFolder) -> TrainingPlace:
        """Return what the project and the run's options say."""
        training, shared = workspace.project.settings.training, workspace.training_storage
        return cls(
            folder=folder,
            workers=options.worker_count(training),
            sharded=options.is_sharded(training),
            gpu=training.gpu if options.gpu is None else options.gpu,
            threads=training.threads,
            address=workspace.ray_address,
            storage=None if shared is None else f"{shared.rstrip('/')}/{workspace.name}/{folder.path.name}",
        )

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder.path / CHECKPOINTS

    def fit(
        self, network: Network, data: TrainingSet, settings: LoopSettings, log: LogMetrics, watcher: ProgressListener
    ) -> FitResult:
        """Train, or go on from the newest checkpoint; `log` gets each epoch's numbers. Raises what the loop does."""
        epochs = settings.total_epochs(data.steps(max(1, self.workers)))

        def report(numbers: dict[str, float], _checkpoint: Path | None) -> None:
            log({name: value for name, value in numbers.items() if name != "epoch"}, int(numbers["epoch"]))
            if self.workers:  # Steps are counted on the workers; epochs are what is heard of here.
                watcher.advance(int(numbers["epoch"]), epochs, f"epochs, loss {numbers['loss']:.3f}")

        def progress(progress: Progress) -> None:
            detail = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
            watcher.advance(progress.step, progress.steps, detail)

        if self.workers:
            from playbill.training.ray_trainer import Cluster, fit_distributed

            cluster = Cluster(
                workers=self.workers,
                gpu=self.gpu,
                threads=max(1, self.threads),
                address=self.address,
                sharded=self.sharded,
            )
            folder, storage, saved = self.checkpoints, self.storage, self.folder.training_set
            return fit_distributed(
                network, data, settings, cluster, folder=folder, storage=storage, saved=saved, report=report
            )
        if self.threads:
            torch.set_num_threads(self.threads)
        on_gpu = self.gpu is not False and torch.cuda.is_available()
        device = WorkerPlace(device=torch.device("cuda")) if on_gpu else WorkerPlace()
        return fit(network, data, settings, folder=self.checkpoints, report=report, progress=progress, place=device)
