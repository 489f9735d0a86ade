"""Pre-training: a foundation model is trained and registered, and its vectors are published for other models."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.config import Workspace
from playbill.foundation.vectors import VectorOptions, VectorsReport, publish_vectors
from playbill.training.options import TrainOptions
from playbill.training.run import TrainOutcome, train, train_once
from playbill.training.watch import ProgressListener, Silent


@dataclass(frozen=True, slots=True)
class PretrainOutcome:
    """A finished pre-training."""

    model: str
    version: int  # registered version
    trained: TrainOutcome | None  # None where the same run had finished before, so that only vectors were due
    vectors: VectorsReport


def pretrain(
    workspace: Workspace,
    model: str,
    options: TrainOptions | None = None,
    vectors: VectorOptions | None = None,
    watcher: ProgressListener | None = None,
    *,
    again: bool = False,
) -> PretrainOutcome:
    """Train a model on what members did, register it, and publish vectors of members and titles.

    A run of the same definition, data and options that has finished is not repeated, and one that was killed goes on
    where it was: in training at its newest checkpoint, in publishing at what is missing.

    Args:
        workspace: Where the log is.
        model: A definition of the zoo, by name.
        options: What the run overrides of the definition.
        vectors: What is published.
        watcher: Hears of progress.
        again: Train anew, also where the same run has finished.

    Raises:
        DefinitionError: The zoo has mistakes.
        DataError: The label of a head that is not optional has no positive row.
        StateError: Data, features or a registry is missing; the text names the command to run first.
        IntegrityError: A checkpoint or what was published before is damaged.
        ServiceError: MLflow, the feature store or the cluster cannot be reached.
    """
    watcher = watcher or Silent()
    trained: TrainOutcome | None
    if again:
        outcome = train(workspace, model, options, watcher)
        version, trained = outcome.version, outcome
    else:
        version, trained = train_once(workspace, model, options, watcher)
    report = publish_vectors(workspace, f"{model}:{version}", vectors, watcher)
    return PretrainOutcome(model, version, trained, report)
