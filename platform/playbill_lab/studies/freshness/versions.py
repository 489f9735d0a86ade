"""A model trained up to a moment of a log, and trained on from there: by `playbill.continual`, without MLflow.

Versions are kept by what they follow from, so that a study that was killed goes on. Terms of histories and of
popularity, whose weights `playbill train` learns after training, are left out: they count the log and are never stale.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from playbill.clock import FixedClock
from playbill.continual.incremental.examples import update_examples
from playbill.continual.incremental.growth import OptimizerState, grown_network, update_settings
from playbill.continual.incremental.window import same_window
from playbill.datasets import Split, TrainingSet, build_training_set
from playbill.datasets.splits import FOLDS
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.files import write_text
from playbill.models import Network, TitleInputs
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.training.build import build_network, loop_settings
from playbill.training.checkpoint import checkpoints
from playbill.training.example_weights import example_weights
from playbill.training.inherit import Parent
from playbill.training.loop import fit
from playbill_lab.studies.cells import digest

BUNDLE, CHECKPOINTS, COST = "bundle", "checkpoints", "cost.json"


@dataclass(frozen=True)
class VersionCost:
    """What one training took."""

    events: int  # That were learnt from for the first time
    rows: int  # Of the training set, those drawn again included
    cpu_seconds: float  # Of building the training set, training, and writing the version


@dataclass(frozen=True)
class TrainedVersion:
    """A model that has learnt every event before a moment."""

    name: str
    parent: Parent  # Its bundle, from which an update starts
    cutoff: datetime
    cost: VersionCost
    folder: Path


@dataclass
class VersionTrainer:
    """Trains one model on one log up to any moment, anew or from an earlier version."""

    tables: Any  # `playbill.tables.Tables`, or what stands for them
    resolved: ResolvedModel
    features: Any  # `playbill.features.FeatureDoor`
    folder: Path
    progress: Callable[[str], None] = lambda _name: None
    _log: pl.DataFrame = field(init=False)
    _snapshot: str = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.tables.interactions(columns=("event_id", "event_at"))
        self._snapshot = self.tables.snapshot_id()

    def split(self, cutoff: datetime) -> Split:
        """Return the split whose training part is every event before a moment."""
        fold = pl.when(pl.col("event_at") < cutoff).then(pl.lit("train")).otherwise(pl.lit("test"))
        return Split.at(self._log.select("event_id", fold=fold.cast(pl.Enum(FOLDS))), cutoff)

    def train(self, cutoff: datetime) -> TrainedVersion:
        """Train anew on every event before a moment.

        Raises:
            StateError: Nothing before it can be learnt from.
            DataError: The label of a head that is not optional has no positive row.
        """

        def make(folder: Path) -> VersionCost:
            begun, split, clock = time.process_time(), self.split(cutoff), FixedClock(cutoff)
            weights = example_weights(self.resolved)
            data = build_training_set(self.tables, self.resolved, split, self.features, clock, weights=weights)
            resolved = data.trained(self.resolved).afresh()
            settings = loop_settings(resolved)
            found = fit(build_network(resolved, data), data, settings, folder=folder / CHECKPOINTS)
            _write(folder, resolved, data, found.network.cpu())
            return VersionCost(split.counts()["train"], len(data.rows), time.process_time() - begun)

        return self._kept(f"trained-{cutoff:%Y%m%dT%H%M}", cutoff, {}, make)

    def update(self, version: TrainedVersion, cutoff: datetime, replay: float | None = None) -> TrainedVersion:
        """Train a version on with the events from its moment to another one, as `playbill update` does.

        Args:
            version: Where to start.
            cutoff: The later moment.
            replay: Share of the examples that are older ones (default: the definition's).

        Returns:
            The new version, or `version` where nothing in between can be learnt from.
        """
        spec = version.parent.bundle.resolved.model.update
        if replay is not None:
            spec = spec.model_copy(update={"replay": replay})

        bundle, learnt, split = version.parent.bundle, self.split(version.cutoff), self.split(cutoff)
        model = bundle.resolved.model.model_copy(update={"update": spec})
        resolved = bundle.resolved.model_copy(update={"model": model})

        def make(folder: Path) -> VersionCost:
            begun, parent = time.process_time(), version.parent
            window = same_window(self.tables, learnt, split, 0)
            try:
                made = update_examples(self.tables, resolved, window, parent, learnt, self.features)
            except StateError as error:
                raise _NothingToLearnError from error
            titles, seed = TitleInputs.from_arrays(made.data.titles), resolved.model.training.seed
            network = grown_network(parent, made.data.encoder, titles, spec.new_titles, seed)
            settings = update_settings(loop_settings(resolved), spec, window.share)
            place = folder / CHECKPOINTS
            state = OptimizerState.read(version.folder / CHECKPOINTS)
            if state is not None and not checkpoints(place):
                state.grown(network, made.data.encoder, parent).begin(place, network, made.data, settings, 0)
            found = fit(network, made.data, settings, folder=place)
            _write(folder, resolved, made.data, found.network.cpu())
            return VersionCost(window.taken.height, len(made.data.rows), time.process_time() - begun)

        given = {"from": version.parent.digest, "update": spec.model_dump(mode="json")}
        try:
            return self._kept(f"updated-{cutoff:%Y%m%dT%H%M}", cutoff, given, make)
        except _NothingToLearnError:
            return version

    def _kept(
        self, name: str, cutoff: datetime, given: dict[str, Any], make: Callable[[Path], VersionCost]
    ) -> TrainedVersion:
        """Return the version that follows from what is given, as it was kept, or made now."""
        key = digest(model=self.resolved.spec_hash, data=self._snapshot, cutoff=cutoff.isoformat(), **given)
        folder = self.folder / f"{name}-{key[:12]}"
        if not (folder / COST).is_file():
            cost = make(folder)
            write_text(folder / COST, json.dumps(asdict(cost)), "a version's cost")
            self.progress(name)
        cost = VersionCost(**json.loads((folder / COST).read_text(encoding="utf-8")))
        return TrainedVersion(name, Parent(name, read_bundle(folder / BUNDLE)), cutoff, cost, folder)


class _NothingToLearnError(Exception):
    """No event of a window has a label that is known by its end."""


def _write(folder: Path, resolved: ResolvedModel, data: TrainingSet, network: Network) -> None:
    write_bundle(
        folder / BUNDLE,
        resolved=resolved,
        encoder=data.encoder,
        config=network.config,
        weights=network.state_dict(),
        plays=data.plays,
        extra={"watermark": data.watermark.isoformat()},
    )
