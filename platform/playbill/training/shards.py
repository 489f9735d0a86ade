"""A network of which every worker holds a part: for tables of titles that one worker has no room for.

Rows of the tables of titles are dealt out: worker r of W holds rows r ceil(T / W) to (r + 1) ceil(T / W), with their
gradients, Adam's moments and average. A step asks the others for the rows that its part of the batch reads and sends
their gradients back, so no worker ever sees a whole table unless a head ranks against every title. The trunk is sharded
by torch's `fully_shard`, which gathers a block while it is computed; its parts are cut in the same way. All else is
small, and whole on every worker, its gradients averaged by DDP. Imported where a run is sharded: torch's part of this
takes most of a second.

`fully_shard` alone would not do for the tables: it gathers the whole table in every step, and adds up a whole gradient
of it on every worker before each takes its part.
Letters: W workers, T titles, U titles that this worker's part of a batch reads, O rows that other workers read of this
one, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from playbill.models import Network
from playbill.training.contract import WorkerPlace
from playbill.training.optimizer import Average, Optimizer
from playbill.training.replicas import averaging


def own_rows(count: int, place: WorkerPlace) -> slice:
    """Return the rows of `count` that a worker holds; the last ones may hold fewer, or none."""
    each = rows_each(count, place.world)
    return slice(min(place.rank * each, count), min((place.rank + 1) * each, count))


def rows_each(count: int, world: int) -> int:
    """Return the rows of `count` that a worker holds, but for the last ones."""
    return -(-count // world)


@dataclass(frozen=True)
class Route:
    """Where the rows of one look-up lie, and which rows others look up here. The same for every table."""

    order: Tensor  # [U] places of the indices, those of worker 0 first
    wanted: list[int]  # rows that this worker reads of each
    requested: Tensor  # [O] rows of this worker's part that others read, those of worker 0 first
    lent: list[int]  # rows that each reads of this worker

    @classmethod
    def of(cls, index_U: Tensor, count: int, place: WorkerPlace) -> Route:
        """Tell every worker which of its rows this one reads."""
        each = rows_each(count, place.world)
        owner_U = index_U // each
        order = torch.argsort(owner_U, stable=True)
        wanted = torch.bincount(owner_U, minlength=place.world)
        lent = torch.empty_like(wanted)
        dist.all_to_all_single(lent, wanted)
        wanted_W, lent_W = wanted.tolist(), lent.tolist()
        requested = index_U.new_empty(sum(lent_W))
        dist.all_to_all_single(requested, index_U[order], lent_W, wanted_W)
        return cls(order, wanted_W, requested - each * place.rank, lent_W)

    def fetch(self, rows: Tensor) -> Tensor:
        """Return [U, D] the rows of a table that this worker reads, from [own rows, D]."""
        received = rows.new_empty(len(self.order), rows.shape[1])
        dist.all_to_all_single(received, rows[self.requested], self.wanted, self.lent)
        found = torch.empty_like(received)
        found[self.order] = received
        return found

    def give_back(self, grad_UD: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of this worker's rows, added up over workers, from that of what each had fetched."""
        received = grad_UD.new_empty(len(self.requested), grad_UD.shape[1])
        dist.all_to_all_single(received, grad_UD[self.order], self.lent, self.wanted)
        return torch.zeros_like(rows).index_add_(0, self.requested, received)


class ShardedTable(nn.Embedding):
    """A worker's rows of an embedding table of `count` rows.

    What a look-up returns is a leaf of autograd, so that no worker waits in its backward pass for another that has no
    use for the table: `take_gradient` comes afterwards.
    """

    def __init__(self, table: nn.Embedding, place: WorkerPlace, routes: dict[int, tuple[Tensor, Route]]) -> None:
        own = table.weight.detach()[own_rows(table.num_embeddings, place)].clone()
        super().__init__(own.shape[0], own.shape[1], _weight=own, _freeze=not table.weight.requires_grad)
        self.count, self.place, self.padding, self.routes = table.num_embeddings, place, table.padding_idx, routes
        self.fetched: tuple[Tensor, Tensor, Route] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return [U, D]; every worker must call it as often as the others."""
        index_U = input
        with torch.no_grad():
            route = self._route(index_U)
            rows_UD = route.fetch(self.weight)
        if torch.is_grad_enabled() and self.weight.requires_grad:
            rows_UD.requires_grad_()
            self.fetched = (index_U, rows_UD, route)
        return rows_UD

    def _route(self, index_U: Tensor) -> Route:
        """Return the route of a look-up; tables of one batch are read for the same titles one after the other."""
        kept = self.routes.get(self.count)
        if kept is None or kept[0] is not index_U:
            self.routes[self.count] = kept = (index_U, Route.of(index_U, self.count, self.place))
        return kept[1]

    @torch.no_grad()
    def take_gradient(self, reached: bool) -> None:
        """Set the gradient of this worker's rows to the mean over workers; None where no worker's loss reached any."""
        if self.fetched is None:  # frozen
            return
        (index_U, rows_UD, route), self.fetched = self.fetched, None
        self.weight.grad = None
        if not reached:
            return
        grad_UD = torch.zeros_like(rows_UD) if rows_UD.grad is None else rows_UD.grad
        if self.padding is not None:
            grad_UD[index_U == self.padding] = 0.0
        self.weight.grad = route.give_back(grad_UD, self.weight).div_(self.place.world)


class ShardedNetwork:
    """A network of which every worker holds a part, with the methods of `WholeNetwork`.

    What is returned whole is whole on the first worker, on the processor, and empty or a part on the others; all of
    them must call, since each sends its part.

    Attributes:
        parameters: Name -> this worker's part of each parameter, in the order of the whole network's.
    """

    def __init__(self, network: Network, place: WorkerPlace) -> None:
        self.network, self.place = network, place
        self.shapes = {name: own.shape for name, own in network.named_parameters()}
        self.tables = _deal_tables(network, place)
        network.to(place.device)
        _shard_trunk(network.trunk, place)
        self._given = dict(network.named_parameters())
        self.parameters = {name: _plain(own) for name, own in self._given.items()}
        self.parts = {name for name, own in self._given.items() if isinstance(own, DTensor)}
        self.parts |= {f"{name}.weight" for name in self.tables}
        self.model: nn.Module = averaging(network, place, but=self.parts)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Bring the gradients of the last backward pass to `parameters`."""
        fetched = [table.fetched for table in self.tables.values()]
        reached = torch.tensor([own is not None and own[1].grad is not None for own in fetched], dtype=torch.int32)
        reached = reached.to(self.place.device)
        dist.all_reduce(reached)
        for table, workers in zip(self.tables.values(), reached.tolist(), strict=True):
            table.take_gradient(reached=workers > 0)
        for name, given in self._given.items():
            if isinstance(given, DTensor):
                grad, given.grad = given.grad, None
                self.parameters[name].grad = None if grad is None else _local(grad)

    @torch.no_grad()
    def clip(self, largest: float) -> Tensor:
        """Shrink all gradients of the whole network together, and return the norm that they had."""
        squares = torch.zeros(2, device=self.place.device)  # of what is whole everywhere, of parts
        for name, own in self.parameters.items():
            if own.grad is not None:
                squares[int(name in self.parts)] += own.grad.square().sum()
        dist.all_reduce(squares[1])
        norm = squares.sum().sqrt()
        grads = [own.grad for own in self.parameters.values() if own.grad is not None]
        torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], optimizer: Optimizer, moments: dict[str, Any]) -> None:
        """Go on from whole weights and the state of the optimizer, of any number of workers."""
        for name, own in (self.network.state_dict() | self.parameters).items():
            own.copy_(self.part(name, weights[name]))
        optimizer.load_state_dict(self._each_moment(optimizer, moments, self.part))

    def part(self, name: str, whole: Tensor) -> Tensor:
        """Return what this worker holds of a tensor that is shaped as a parameter."""
        return whole[own_rows(len(whole), self.place)] if name in self.parts else whole

    def weights(self) -> dict[str, Tensor]:
        """Return every parameter and statistic, whole."""
        return self.whole(self.network.state_dict() | self.parameters)

    def whole(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors that are shaped as the parameters they are named by, whole; nothing but on the first worker.

        One after the other, so that no device holds a whole table.
        """
        found = {name: self._gathered(name, value) for name, value in values.items()}
        return found if self.place.rank == 0 else {}

    def moments(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of the optimizer, whole."""
        return self._each_moment(optimizer, optimizer.state_dict(), self._gathered)

    @contextmanager
    def averaged(self, average: Average) -> Iterator[Network]:
        """Give a network with the average weights, whole on the first worker."""
        yield self.result(average, None)

    def result(self, average: Average, best: Mapping[str, Tensor] | None) -> Network:
        """Return a network with the average weights, or with the best, whole on the first worker.

        `best` is None on every worker, or on none: on the others than the first it may be empty.
        """
        values = dict(zip(self.parameters, average.values, strict=True))
        weights = self.weights() | self.whole(values) if best is None else best
        if self.place.rank != 0:
            return self.network
        network = Network(self.network.config)
        network.load_state_dict(weights)
        return network.to(self.place.device)

    def _gathered(self, name: str, own: Tensor) -> Tensor:
        own, place = own.detach(), self.place
        if name not in self.parts:
            return own.cpu()
        whole = torch.empty(self.shapes[name] if place.rank == 0 else 0, dtype=own.dtype)
        for rank in range(place.world):
            rows = own_rows(self.shapes[name][0], WorkerPlace(rank, place.world))
            if place.rank == rank == 0:
                whole[rows] = own.cpu()
            elif place.rank == rank and len(own):
                dist.send(own.contiguous(), 0)
            elif place.rank == 0 and rows.stop > rows.start:
                received = own.new_empty(rows.stop - rows.start, *own.shape[1:])
                dist.recv(received, rank)
                whole[rows] = received.cpu()
        return whole

    def _each_moment(
        self, optimizer: Optimizer, state: dict[str, Any], change: Callable[[str, Tensor], Tensor]
    ) -> dict[str, Any]:
        names = {id(own): name for name, own in self.parameters.items()}
        order = [names[id(own)] for group in optimizer.param_groups for own in group["params"]]
        changed = {
            place: {key: change(order[place], value) if value.ndim else value for key, value in own.items()}
            for place, own in state["state"].items()
        }
        return {**state, "state": changed}


def _deal_tables(network: Network, place: WorkerPlace) -> dict[str, ShardedTable]:
    """Put a worker's rows in the place of every table of titles."""
    tables = {id(table) for table in network.title_tables()}
    found: dict[str, ShardedTable] = {}
    routes: dict[int, tuple[Tensor, Route]] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Embedding) and id(module) in tables:
            above, _, own = name.rpartition(".")
            found[name] = ShardedTable(module, place, routes)
            setattr(network.get_submodule(above), own, found[name])
    return found


def _shard_trunk(trunk: nn.Module, place: WorkerPlace) -> None:
    """Shard the blocks of a trunk, each gathered while it is computed, and what is left of it."""
    mesh = init_device_mesh(place.device.type, (place.world,))
    single = {own for own in trunk.parameters() if not own.ndim}  # a number has no rows to deal out
    for blocks in trunk.children():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                fully_shard(block, mesh=mesh, ignored_params=single)
    fully_shard(trunk, mesh=mesh, ignored_params=single)


def _plain(parameter: nn.Parameter) -> nn.Parameter:
    """Return a parameter that shares the memory of a worker's part."""
    if not isinstance(parameter, DTensor):
        return parameter
    return nn.Parameter(_local(parameter.detach()), requires_grad=parameter.requires_grad)


def _local(value: Tensor) -> Tensor:
    assert isinstance(value, DTensor)
    local: Tensor = value.to_local()
    return local
