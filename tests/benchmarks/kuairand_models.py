"""One model of every head, and one model for each head: the same rows, network and passes over the data.

All of them read the same requests of the same titles, so requests are encoded once for all.
Axis letters: N requests, T titles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from playbill.clock import from_microseconds
from playbill.datasets import Request, Split, TrainingSet, build_training_set
from playbill.datasets.encoding.requests import encode_requests, history_lengths
from playbill.datasets.encoding.titles import snapshot_values
from playbill.definitions.specs import ResolvedModel
from playbill.errors import ConfigError, UnknownNameError
from playbill.evaluation import EvaluationTables
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.features import FeatureDoor
from playbill.models import ContextBatch, HistoryBatch, Network, TitleInputs
from playbill.models.heads import TitleVectors
from playbill.ranking.blend import blend_rows, head_losses
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit

COSTS = ("seconds", "cpu_seconds", "steps")
_SLOTS, _REQUESTS = 12_800, 256
"""History slots and requests of one pass of a network."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A few requests, encoded.

    Args:
        rows: Which of the requests.
        history: Their pasts.
        context: What is asked.
        snapshots: [S, T + 1, F] raw title features of their moments.
    """

    rows: npt.NDArray[np.int64]
    history: HistoryBatch
    context: ContextBatch
    snapshots: torch.Tensor


class Reader:
    """Encodes requests; the last ones asked for are kept for the next model.

    Args:
        data: The training set: encoder and titles.
        door: Features as of each moment.
        resolved: The definition, for its feature service.
    """

    def __init__(self, data: TrainingSet, door: FeatureDoor, resolved: ResolvedModel) -> None:
        self.encoder, self.titles = data.encoder, TitleInputs.from_arrays(data.titles)
        self.title_ids: tuple[str, ...] = data.encoder.title_rows.entries
        self._door = door
        self._asker = CanvasScorer(self, resolved, next(iter(resolved.canvases)), door)
        self._kept: tuple[Sequence[Request], list[Part]] | None = None
        self._raw: dict[int, npt.NDArray[np.float32]] = {}

    def parts(self, requests: Sequence[Request]) -> list[Part]:
        """Return the requests, encoded, shortest histories first."""
        if self._kept is None or self._kept[0] is not requests:
            requested = self._asker.with_features(requests)
            longest = self.encoder.state.history_length
            self._kept = (requests, [self._part(requested, rows) for rows in _batches(requested, longest)])
        return self._kept[1]

    def _part(self, requested: Sequence[Request], rows: npt.NDArray[np.int64]) -> Part:
        found = encode_requests(self.encoder, [requested[row] for row in rows])
        history, context = HistoryBatch.from_arrays(found.history), ContextBatch.from_arrays(found.context)
        raw = np.stack([self._snapshot(moment) for moment in found.moments.tolist()])
        return Part(rows, history, context, torch.from_numpy(raw))

    def _snapshot(self, moment: int) -> npt.NDArray[np.float32]:
        if moment not in self._raw:
            state = self.encoder.state
            found = self._door.title_snapshots(state.service, [from_microseconds(moment)], self.title_ids)
            self._raw[moment] = snapshot_values(found, state.title_snapshot)[0]
        return self._raw[moment]


def _batches(requests: Sequence[Request], longest: int) -> Iterator[npt.NDArray[np.int64]]:
    lengths = np.minimum(history_lengths(requests), longest)
    order, start = np.argsort(lengths, kind="stable"), 0
    for stop in range(1, len(order) + 1):
        full = stop - start >= _REQUESTS or (stop - start + 1) * (lengths[order[stop - 1]] + 1) > _SLOTS
        if stop == len(order) or full:
            yield order[start:stop]
            start = stop


@dataclass(frozen=True)
class Service:
    """What every model of the study shares.

    Args:
        tables: The canonical tables.
        resolved: The definition with every head.
        split: What is held out.
        door: Features as of each moment.
    """

    tables: Tables
    resolved: ResolvedModel
    split: Split
    door: FeatureDoor

    @cached_property
    def frames(self) -> EvaluationTables:
        """The tables as evaluation reads them."""
        return EvaluationTables.read(self.tables)

    @cached_property
    def data(self) -> TrainingSet:
        """The training set with every head's labels: all models learn from the same exposures, in the same order."""
        clock = workspace_clock(self.door.workspace)
        return build_training_set(self.tables, self.resolved, self.split, self.door, clock)

    @cached_property
    def reader(self) -> Reader:
        """Encodes requests for all models."""
        return Reader(self.data, self.door, self.resolved)


@dataclass(frozen=True)
class Trained:
    """One trained model.

    Args:
        heads: What it predicts.
        network: With its final weights.
        reader: Encodes what it is asked.
        seconds: In the training loop, wall clock.
        cpu_seconds: The same, processor time.
        steps: Optimizer steps.
    """

    heads: tuple[str, ...]
    network: Network
    reader: Reader
    seconds: float
    cpu_seconds: float
    steps: int

    def kept(self) -> dict[str, Any]:
        """Return what brings it back without training."""
        return {"weights": self.network.state_dict(), **{name: getattr(self, name) for name in COSTS}}

    @property
    def parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self.network.parameters())

    def score(self, requests: Sequence[Request]) -> dict[str, Scores]:
        """Return head -> [N, T] logits of every title."""
        found = {head: np.empty((len(requests), len(self.reader.title_ids)), np.float32) for head in self.heads}
        for rows, logits in self._logits(requests):
            for head in self.heads:
                found[head][rows] = logits[head][:, 1:].numpy()
        return found

    def own(self, requests: Sequence[Request], columns: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
        """Return head -> [N] logits of one title each."""
        found = {head: np.empty(len(requests)) for head in self.heads}
        for rows, logits in self._logits(requests):
            place = torch.from_numpy(columns[rows] + 1).unsqueeze(-1)
            for head in self.heads:
                values = logits[head]
                if self.network.config.heads[self.heads.index(head)].loss == "softmax":
                    values = torch.log_softmax(values, dim=-1)
                found[head][rows] = values.gather(1, place)[:, 0].numpy()
        return found

    @torch.inference_mode()
    def _logits(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[npt.NDArray[np.int64], Mapping[str, torch.Tensor]]]:
        for part in self.reader.parts(requests):
            prepared = replace(self._vectors.prepared, snapshots=self.network.titles.dynamic.distinct(part.snapshots))
            vectors = replace(self._vectors, prepared=prepared)
            states = self.network.last_states(part.history, part.context, vectors)
            yield part.rows, self.network.scores(part.history, part.context, self.reader.titles, vectors, states)

    @cached_property
    def _vectors(self) -> TitleVectors:
        with torch.inference_mode():
            return self.network.title_vectors(self.reader.titles)


def with_heads(resolved: ResolvedModel, heads: Sequence[str]) -> ResolvedModel:
    """Return the definition with some heads, and canvases that blend no others.

    Raises:
        UnknownNameError: No such head.
        ConfigError: A canvas would blend nothing.
    """
    for name in heads:
        if name not in resolved.model.heads:
            raise UnknownNameError("head", name, resolved.model.heads)
    canvases = {}
    for name, canvas in resolved.canvases.items():
        blend = {head: weight for head, weight in canvas.blend.items() if head in heads}
        if not blend:
            raise ConfigError(f"canvas '{name}' blends {', '.join(canvas.blend)}: keep one of these heads")
        canvases[name] = canvas.model_copy(update={"blend": blend})
    kept = {name: resolved.model.heads[name] for name in heads}
    return resolved.model_copy(
        update={"model": resolved.model.model_copy(update={"heads": kept}), "canvases": canvases}
    )


def train_model(
    service: Service, heads: Sequence[str], seed: int, epochs: int, kept: Mapping[str, Any] | None = None
) -> Trained:
    """Train one model of some heads, as `playbill train` would; or take one that was kept, see `Trained.kept`."""
    training = service.resolved.model.training.model_copy(update={"seed": seed, "epochs": epochs})
    own = {name: service.resolved.model.heads[name] for name in heads}
    model = service.resolved.model.model_copy(update={"heads": own, "training": training})
    resolved = service.resolved.model_copy(update={"model": model})
    whole = service.data
    rows = replace(whole.rows, labels={name: whole.labels[name] for name in heads})
    softmax = tuple(name for name in whole.settings.softmax if name in heads)
    data = replace(whole, rows=rows, settings=replace(whole.settings, seed=seed, softmax=softmax))
    network = build_network(resolved, data)
    if kept is not None:
        network.load_state_dict(kept["weights"])
        return Trained(tuple(heads), network.eval(), service.reader, **{name: kept[name] for name in COSTS})
    begun = time.process_time()
    result = fit(network, data, loop_settings(resolved))
    spent, steps = time.process_time() - begun, data.steps() * len(result.reports)
    return Trained(tuple(heads), result.network.cpu(), service.reader, result.seconds, spent, steps)


class Blend:
    """A canvas's blend of heads, whichever models they are of.

    Args:
        models: Which have the heads.
        resolved: The definition with every head.
        weights: Head -> weight.
    """

    def __init__(self, models: Sequence[Trained], resolved: ResolvedModel, weights: Mapping[str, float]) -> None:
        self._models = [model for model in models if set(model.heads) & set(weights)]
        self._losses, self._weights = head_losses(resolved), weights
        self.title_ids = self._models[0].reader.title_ids

    def score(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """Return [N, T] blended scores."""
        logits = {head: values for model in self._models for head, values in model.score(requests).items()}
        return blend_rows(logits, self._losses, self._weights)
