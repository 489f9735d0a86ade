"""How weights move: AdamW, a one-cycle learning rate, and a running average of weights.

Of a large catalogue a step reads the titles of its batch alone. The rows of the others then have no gradient, do not
move, and cost nothing: Adam's moments and the average of a row are brought up to date when it is read again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.98)
START_DIVISOR = 25.0
END_DIVISOR = 1e5

OF_TITLES = ("title_bias.", "canvas_titles.")  # how much each title is wanted, in all and on each canvas
OF_HEADS = ("heads.", "sharing.", *OF_TITLES)
"""Parameters that heads or canvases do not share, or share as they like."""
LITTLE = 3e-4
"""Where biases of titles have a rate of their own: a title moves half of a full step where its plays are so much more
or less than expected, as a share of all that a step learns from and times the weight of the head. Adam's steps are full
ones however little that is."""
SMALLEST_DECAY = 1e-30  # a decay counts as at least so much where its logarithm is needed
TIMES = "times"  # key of a parameter group: its learning rate over the schedule's
NAMES = "names"  # key of a parameter group: what its parameters are called, in their order


class _WithoutCompiler(torch.optim.Optimizer):
    """Methods that do not import torch's compiler, which takes a second and is of use to a compiled step alone.

    torch wraps them so that a compiler leaves them alone, and imports it to say so. What they do is the same.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class _AdamW(_WithoutCompiler, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class _SparseAdam(_WithoutCompiler, torch.optim.SparseAdam):
    pass


class Optimizer:
    """Fused AdamW, and Adam on the rows of tables of titles whose gradients are of some rows, if there are any."""

    def __init__(self, dense: torch.optim.AdamW, rows: torch.optim.SparseAdam | None) -> None:
        self._dense, self._rows = dense, rows

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Every group of parameters with its settings."""
        return [*self._dense.param_groups, *(self._rows.param_groups if self._rows is not None else ())]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self._dense.step()
        if self._rows is not None:
            self._rows.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        rows = {} if self._rows is None else {"rows": self._rows.state_dict()}
        return {**self._dense.state_dict(), **rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._dense.load_state_dict({name: value for name, value in state.items() if name != "rows"})
        if self._rows is not None:
            self._rows.load_state_dict(state["rows"])


def build_optimizer(
    network: nn.Module,
    weight_decay: float,
    head_rate: float = 1.0,
    by_rows: Collection[Tensor] = (),
    parts: Mapping[str, nn.Parameter] | None = None,
    rates: Mapping[str, float] | None = None,
    title_rate: float = 1.0,
) -> Optimizer:
    """Return an optimizer. Only matrices of linear maps decay: no embedding, bias, norm or single vector does.

    `head_rate` is the learning rate of the heads' own parameters over that of all others, `rates` have that of single
    ones by prefix, such as `heads.3.`; decay (decoupled) does not rise with them. A `title_rate` above `head_rate` is
    that of biases of titles, which then move less where a step says little of a title (`LITTLE`). Gradients of the
    tables `by_rows` are sparse. Frozen parameters are left out. `parts` are moved in place of the network's parameters,
    by the same names.
    """
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    tables = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, embeddings)}
    sparse = {id(parameter) for parameter in by_rows}
    groups: dict[tuple[bool, bool, float, bool, bool], dict[str, nn.Parameter]] = {}
    for name, parameter in (dict(network.named_parameters()) if parts is None else parts).items():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and name not in tables
        general = head_rate if name.startswith(OF_HEADS) else 1.0
        times = next((rate for prefix, rate in (rates or {}).items() if name.startswith(prefix)), general)
        apart = title_rate > head_rate and name.startswith(OF_TITLES)
        times = title_rate if apart else times
        key = (id(parameter) in sparse, times != 1.0, times, not decays, apart)
        groups.setdefault(key, {})[name] = parameter
    made: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (rows, _, times, free, apart), parameters in sorted(groups.items(), key=lambda item: item[0]):
        own = {} if rows else {"weight_decay": 0.0 if free else weight_decay / times}
        own |= {"eps": LITTLE} if apart else {}
        made[rows].append({"params": list(parameters.values()), NAMES: list(parameters), TIMES: times, **own})
    dense = _AdamW(made[False], lr=0.0, betas=BETAS, fused=True)
    return Optimizer(dense, _SparseAdam(made[True], betas=BETAS) if made[True] else None)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Shrink all gradients together to a norm of at most `largest`, and return the norm that they had."""
    own = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(parameter.grad.is_sparse for parameter in own if parameter.grad is not None):
        return nn.utils.clip_grad_norm_(own, largest)
    grads = []
    for parameter in own:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        grads.append(parameter.grad._values() if parameter.grad.is_sparse else parameter.grad)
    norm = nn.utils.get_total_norm(grads)
    torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def one_cycle(step: int, total: int, peak: float, warm_up: float) -> float:
    """Return the learning rate of a step: cosine from peak / 25 up to peak, then down to nearly 0.

    Smith & Topin, arXiv 1708.07120, with fixed betas. `warm_up` is the share of the steps that rise.
    """
    rising = max(1.0, warm_up * total)
    if step < rising:
        return _cosine(peak / START_DIVISOR, peak, step / rising)
    return _cosine(peak, peak / END_DIVISOR, (step - rising) / max(1.0, total - rising))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group its multiple of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[TIMES]


class Average:
    """A running average of parameters: what is evaluated and kept in place of the last step's weights.

    The decay grows from 0.1 towards `decay` in the first steps, so that the start is forgotten. A decay of 0 keeps the
    weights themselves. Of parameters `by_rows` only rows with a gradient move: a row that stands still comes nearer to
    its weights by the product of the decays, which is worked out when it moves again or its average is read.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float, by_rows: Collection[Tensor] = ()) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self._values = [parameter.detach().clone() for parameter in self.parameters]
        sparse = {id(parameter) for parameter in by_rows}
        self._dense = [place for place, own in enumerate(self.parameters) if id(own) not in sparse]
        self._decayed = 0.0
        self._since = {
            place: torch.zeros(len(own), dtype=torch.float64, device=own.device)
            for place, own in enumerate(self.parameters)
            if id(own) in sparse
        }

    @property
    def values(self) -> list[Tensor]:
        """The averages, in the order of the parameters."""
        for place, since in self._since.items():
            self._catch_up(place, (since != self._decayed).nonzero().squeeze(-1))
        return self._values

    @torch.no_grad()
    def before_step(self) -> None:
        """Take in, of the rows that are about to move, that they stood still until now."""
        for place in self._since:
            self._catch_up(place, self._moved(place))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (1 for the first)."""
        decay = min(self.decay, step / (9 + step))
        dense = [self.parameters[place].detach() for place in self._dense]
        if dense:
            torch._foreach_lerp_([self._values[place] for place in self._dense], dense, 1 - decay)
        self._decayed += math.log(max(decay, SMALLEST_DECAY))
        for place, since in self._since.items():
            rows = self._moved(place)
            self._values[place][rows] = torch.lerp(self._values[place][rows], self.parameters[place][rows], 1 - decay)
            since[rows] = self._decayed

    def _moved(self, place: int) -> Tensor:
        grad = self.parameters[place].grad
        return torch.zeros(0, dtype=torch.int64) if grad is None else grad._indices()[0]

    @torch.no_grad()
    def _catch_up(self, place: int, rows: Tensor) -> None:
        since, weights = self._since[place], self.parameters[place].detach()[rows]
        left = torch.exp(self._decayed - since[rows]).to(weights.dtype).unsqueeze(-1)
        self._values[place][rows] = weights + (self._values[place][rows] - weights) * left
        since[rows] = self._decayed

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their averages; a second call puts them back."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def load(self, values: Iterable[Tensor]) -> None:
        """Set the averages, in the order of the parameters."""
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)
