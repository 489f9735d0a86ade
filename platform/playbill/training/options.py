"""What a run may override of its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from playbill.config import TrainingSettings, Workspace
from playbill.datasets.splits import Split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.measures import AUTO, PROTOCOLS
from playbill.errors import ConfigError, UnknownNameError
from playbill.ray_cluster import cluster_address

LEAST_SHARDED = 2  # workers that a network can be shared out among

Frozen = TypeVar("Frozen", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a run may override. None keeps what the definition or the project says."""

    protocol: str | None = None
    epochs: int | None = None
    seed: int | None = None
    workers: int | None = None
    gpu: bool | None = None
    sharded: bool | None = None
    split: Split | None = None
    """Which events are held out, in place of those that the protocol would hold out now."""

    def worker_count(self, training: TrainingSettings) -> int:
        """Return the Ray workers of a run, 0 = this process."""
        return training.workers if self.workers is None else self.workers

    def is_sharded(self, training: TrainingSettings) -> bool:
        """Return whether workers hold a part of the network each."""
        return training.sharded if self.sharded is None else self.sharded

    def applied(self, resolved: ResolvedModel) -> ResolvedModel:
        """Return the definition with protocol, epochs and seed in place, so that the run's record is what was run.

        Raises:
            UnknownNameError: No such protocol.
        """
        if self.protocol is not None and self.protocol not in (AUTO, *PROTOCOLS):
            raise UnknownNameError("protocol", self.protocol, (AUTO, *PROTOCOLS))
        model = resolved.model
        min_steps = None if self.epochs is None else 0
        training = _updated(model.training, epochs=self.epochs, min_steps=min_steps, seed=self.seed)
        evaluate = _updated(model.evaluate, protocol=self.protocol)
        return _updated(resolved, model=_updated(model, training=training, evaluate=evaluate))


def check_workers(workspace: Workspace, options: TrainOptions) -> None:
    """Check what a run asks of workers, before anything is built.

    Raises:
        ConfigError: The cluster's address is one of Ray Client, or a network is to be shared out among fewer than two.
    """
    training = workspace.project.settings.training
    workers = options.worker_count(training)
    if workers:
        cluster_address(workspace.ray_address)
    if options.is_sharded(training) and workers < LEAST_SHARDED:
        raise ConfigError(
            f"a network is shared out among {LEAST_SHARDED} workers or more, and this run has {workers}: "
            f"pass --workers {LEAST_SHARDED}, set training.workers in playbill.toml, or pass --no-sharded"
        )


def _updated(spec: Frozen, **changes: Any) -> Frozen:
    return spec.model_copy(update={name: value for name, value in changes.items() if value is not None})
