"""Training inside a study: the training set, the network and the loop of `playbill train`, without a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playbill.clock import parse_moment
from playbill.datasets import Split, TrainingSet, build_training_set
from playbill.definitions.specs import ResolvedModel
from playbill.ranking.scoring.bundle import Bundle, read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.build import build_network, loop_settings, network_config
from playbill.training.contract import Progress
from playbill.training.example_weights import example_weights
from playbill.training.loop import fit
from playbill_lab.bridge.live_features import SimulationFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog
from playbill_lab.simulator.world.world import World

WATERMARK = "watermark"


@dataclass(frozen=True)
class Fitted:
    """A model that a study has trained."""

    bundle: Bundle  # As `playbill train` would have written it
    parameters: int
    examples: int
    seconds: float
    loss: float

    def scorer(self, world: World, features: SimulationFeatures) -> Scorer:
        """Return a scorer over every title of a world, those that launch after training included."""
        as_of = parse_moment(self.bundle.extra[WATERMARK])
        return Scorer(self.bundle, world.titles, world.availability, features, as_of=as_of)


def fit_model(
    log: SimulatedLog,
    resolved: ResolvedModel,
    split: Split,
    features: SimulationFeatures,
    folder: Path,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Train one model on the training part of a simulated log.

    Raises:
        DataError: A head's label has no positive row.
        StateError: There is nothing to train on.
    """
    return trained_on(training_set(log, resolved, split, features), resolved, folder, progress)


def training_set(log: SimulatedLog, resolved: ResolvedModel, split: Split, features: SimulationFeatures) -> TrainingSet:
    """Build what a model learns from; models that differ in nothing but their networks can share it.

    Raises:
        DataError: A head's label has no positive row.
        StateError: There is nothing to train on.
    """
    return build_training_set(log, resolved, split, features, log.clock(), weights=example_weights(resolved))


def trained_on(
    data: TrainingSet, resolved: ResolvedModel, folder: Path, progress: Callable[[Progress], None] | None = None
) -> Fitted:
    """Train one model on a training set; see `fit_model`."""
    resolved = data.trained(resolved)
    network = build_network(resolved, data)
    result = fit(network, data, loop_settings(resolved), progress=progress)
    write_bundle(
        folder,
        resolved=resolved,
        encoder=data.encoder,
        config=network_config(resolved, data.encoder),
        weights=result.network.cpu().state_dict(),
        plays=data.plays,
        extra={WATERMARK: data.watermark.isoformat()},
    )
    return Fitted(
        bundle=read_bundle(folder),
        parameters=sum(weight.numel() for weight in result.network.parameters()),
        examples=len(data.snapshot),
        seconds=sum(report["seconds"] for report in result.reports),
        loss=float(result.reports[-1]["loss"]),
    )
