"""A version's network and optimizer state with more titles, and more of everything else that is counted.

Vocabularies only ever grow at their end, and values go where the same labels meet (`training.inherit`), so every row
that the version has learnt is bit for bit what it was, and its moments go on. Rows of titles that it has not learnt
start by a named rule; other new values start as the unknown value of their field. Moments of new rows are zero.
What is counted from the log and not trained (neighbours, companions, terms of histories) stays as it was: a new title
is to it one that came later, until the model is trained anew.
Axis letters: T titles, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.datasets import Encoder
from playbill.datasets.encoding.row_entries import row_config
from playbill.definitions.specs import UpdateSpec
from playbill.models import Network, NetworkConfig, TitleInputs
from playbill.ranking.scoring.bundle import Bundle
from playbill.training.checkpoint import Checkpoint, checkpoints, load_checkpoint, save_checkpoint
from playbill.training.contract import BatchSource, LoopSettings
from playbill.training.inherit import OF_THE_LOG, NamedTensors, Parent, axes_of, take, years_among
from playbill.training.loop import optimizer_of, tables_by_rows
from playbill.training.optimizer import NAMES

NEIGHBOURS = 10  # learnt titles whose mean a new one starts from
NOISE = 0.1  # of a mean: this share of the deviation of learnt vectors
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def update_settings(training: LoopSettings, spec: UpdateSpec, share: float) -> LoopSettings:
    """Return how an update learns, from how its model is trained, if it takes `share` of all that is learnt by then.

    A day is passed over `spec.epochs` times. A large part of the whole, such as all that the training of the champion
    had held out, is passed over nearly as often as in training, and as often from a quarter of the whole on. The rate
    of biases of titles is for the few steps of a day, so it falls as passes rise.
    """
    passes = max(spec.epochs, min(training.epochs, round(4 * share * training.epochs)))
    own = {
        "epochs": passes,
        "min_steps": 0,
        "learning_rate": training.learning_rate * spec.rate,
        "title_rate": max(1.0, spec.title_rate * spec.epochs / passes),
    }
    return training.model_copy(update=own)


def grown_config(config: NetworkConfig, encoder: Encoder) -> NetworkConfig:
    """Return a network's configuration with the sizes of an encoder that knows more."""
    sizes, rows = encoder.network_sizes(), row_config(encoder.state)
    raw = config.model_dump()
    for part, own in sizes.items():
        raw[part] = raw[part] | own if isinstance(own, dict) else own
    return NetworkConfig.model_validate(raw | {"rows": rows})


@torch.no_grad()
def grown_network(parent: Parent, encoder: Encoder, titles: TitleInputs, rule: str, seed: int) -> Network:
    """Return the parent's network with a row for everything that an encoder knows.

    `titles` are the encoder's; `rule` says where those start that the parent has not learnt, see
    `UpdateSpec.new_titles`; `seed` is that of noise.
    """
    torch.manual_seed(seed)
    network = Network(grown_config(parent.bundle.config, encoder))
    theirs = parent.bundle.network()
    _carry(network, theirs, encoder, parent.bundle, start=True)
    for name, tensor in theirs.state_dict().items():
        if name.startswith(OF_THE_LOG):
            _leading(network.state_dict()[name], tensor)
    start_titles(network, titles, _learnt(parent, encoder), rule)
    network.forget_titles()
    return network


def _learnt(parent: Parent, encoder: Encoder) -> Tensor:
    """Return [T] whether the parent has learnt each title."""
    known = set(parent.titles)
    return torch.tensor([False, *(title in known for title in encoder.state.titles)])


def _carry(network: Network, theirs: Network, encoder: Encoder, bundle: Bundle, *, start: bool) -> None:
    """Copy every value of a network into one that knows more."""
    state, before = encoder.state, bundle.encoder.state
    own = NamedTensors(network, axes_of(network.config, state, state.titles, years_among(state, state)))
    other = NamedTensors(theirs, axes_of(theirs.config, before, before.titles, years_among(before, before)))
    for name in own.tensors.keys() & other.tensors.keys():
        here, there = own.tensors[name], other.tensors[name]
        if name in own.axes or here.shape == there.shape:
            take(name, own, other, start=start)
        else:
            _leading(here, there)


def _leading(here: Tensor, there: Tensor) -> None:
    """Put a tensor at the beginning of a larger one: titles and canvases keep their numbers."""
    here[tuple(slice(size) for size in there.shape)] = there


@torch.no_grad()
def start_titles(network: Network, titles: TitleInputs, learnt_T: Tensor, rule: str) -> None:
    """Start the rows of titles that are not learnt, in every table of titles, by a named rule; others stay."""
    new = (~learnt_T).nonzero().squeeze(-1)[1:]  # without the padding row
    known = learnt_T.nonzero().squeeze(-1)
    if not len(new) or not len(known):
        return
    if rule == "metadata_neighbours" and not network.config.titles.metadata:
        rule = "mean_noise"
    tables = [table.weight for table in network.title_tables()]
    if rule == "metadata_neighbours":
        nearest = _nearest(network, titles, new, known)
        for weight in tables:
            weight[new] = weight[nearest].mean(dim=1)
    elif rule == "mean_noise":
        for weight in tables:
            mean, spread = weight[known].mean(dim=0), weight[known].std(dim=0, correction=0)
            weight[new] = mean + NOISE * spread * torch.randn(len(new), weight.shape[1])
    else:
        for weight in tables:
            weight[new] = 0.0
        ids = network.titles.id.weight
        if rule == "fallback":
            ids[new] = _without_an_id(network, titles)[new]
        else:
            ids[new] = torch.randn(len(new), ids.shape[1]) * ids[known].std()


def _nearest(network: Network, titles: TitleInputs, new: Tensor, known: Tensor) -> Tensor:
    """Return [new, N] the learnt titles whose metadata vectors point most nearly the same way."""
    prepared = network.titles.prepare(titles, network.grams)
    vectors_TD = F.normalize(network.titles.metadata(titles, prepared), dim=-1)
    alike = vectors_TD[new] @ vectors_TD[known].T
    return known[alike.topk(min(NEIGHBOURS, len(known)), dim=1).indices]


def _without_an_id(network: Network, titles: TitleInputs) -> Tensor:
    """Return [T, D] what stands for titles whose id cannot be read: metadata, and the vector of the kind."""
    tower = network.titles
    found = torch.zeros_like(tower.id.weight)
    if tower.config.metadata:
        found += tower.metadata(titles, tower.prepare(titles, network.grams))
    if tower.fallback is not None:
        found += tower.fallback(titles.kind)
    return found


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer knows of a network's parameters, by their names, and what the balance of heads has learned."""

    moments: dict[str, dict[str, Tensor]]  # `exp_avg` and `exp_avg_sq` -> parameter -> values
    steps: dict[str, float]  # parameter -> steps that moved it
    balance: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> OptimizerState | None:
        """Read that of a finished run from its checkpoints; None where it has none that names its parameters.

        Raises:
            IntegrityError: The newest checkpoint is damaged.
        """
        found = checkpoints(folder)
        if not found:
            return None
        saved = load_checkpoint(found[-1], None)
        entries = dict[str, dict[str, Any]]()
        for part in _parts(saved.optimizer):
            names = _names(part)
            if names is None:
                return None
            entries.update({names[place]: entry for place, entry in part["state"].items()})
        moments = {moment: {name: entry[moment] for name, entry in entries.items()} for moment in MOMENTS}
        return cls(moments, {name: float(entry[STEP]) for name, entry in entries.items()}, saved.balance)

    def grown(self, network: Network, encoder: Encoder, parent: Parent) -> OptimizerState:
        """Return that of the grown network: moments of rows that are new or start anew are zero."""
        learnt_T, moments = _learnt(parent, encoder), {}
        here, there = Network(network.config), Network(parent.bundle.config)
        for moment, values in self.moments.items():
            _hold(here, {})
            _hold(there, values)
            _carry(here, there, encoder, parent.bundle, start=False)
            for table in here.title_tables():
                table.weight.detach()[~learnt_T] = 0.0
            own = here.named_parameters()
            moments[moment] = {name: tensor.detach().clone() for name, tensor in own if name in values}
        return OptimizerState(moments, self.steps, self.balance)

    def begin(self, folder: Path, network: Network, data: BatchSource, settings: LoopSettings, workers: int) -> None:
        """Write a checkpoint before the first step, which a run in this folder goes on from."""
        by_rows = tables_by_rows(network, data, max(1, workers))
        state = optimizer_of(network, settings, by_rows).state_dict()
        dense, *rows = _parts(state)
        dense["state"] = self._entries(dense, lambda step: torch.tensor(step))
        for part in rows:
            part["state"] = self._entries(part, int)
        checkpoint = Checkpoint(
            epoch=0,
            step=0,
            settings=settings.digest(network.config),
            weights=network.state_dict(),
            average=dict(network.named_parameters()),
            optimizer=state,
            balance=self.balance,
        )
        save_checkpoint(folder, checkpoint)

    def _entries(self, part: Mapping[str, Any], step: Callable[[float], Any]) -> dict[int, dict[str, Any]]:
        return {
            place: {STEP: step(self.steps[name]), **{moment: self.moments[moment][name] for moment in MOMENTS}}
            for place, name in (_names(part) or {}).items()
            if name in self.steps
        }


def _parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the state of an optimizer's dense parameters, and of tables by rows if it has any."""
    return [state, *([state["rows"]] if "rows" in state else [])]


def _names(part: Mapping[str, Any]) -> dict[int, str] | None:
    """Return what the numbers in a part of an optimizer's state stand for, None where it does not say."""
    groups = part["param_groups"]
    if not all(NAMES in group for group in groups):
        return None
    return {place: name for group in groups for place, name in zip(group["params"], group[NAMES], strict=True)}


@torch.no_grad()
def _hold(network: Network, values: Mapping[str, Tensor]) -> None:
    """Put values into a network's parameters, and zeros everywhere else."""
    for name, tensor in network.state_dict().items():
        if name in values:
            tensor.copy_(values[name])
        else:
            tensor.zero_()
