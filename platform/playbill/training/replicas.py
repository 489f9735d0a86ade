"""A network of which every worker holds all, and averages its gradients with the others'."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from playbill.models import Network
from playbill.training.contract import WorkerPlace
from playbill.training.optimizer import Average, Optimizer, clip_gradients


class WholeNetwork:
    """A network of which every worker holds all.

    Attributes:
        model: What a step calls. Workers average their gradients in its backward pass.
        parameters: Name -> parameter.
    """

    def __init__(self, network: Network, place: WorkerPlace) -> None:
        self.network = network.to(place.device)
        self.parameters = dict(network.named_parameters())
        self.model: nn.Module = network if place.world == 1 else averaging(network, place)

    def take_gradients(self) -> None:
        """Do nothing: they are where they belong."""

    def clip(self, largest: float) -> Tensor:
        """Shrink all gradients together to a norm of at most `largest`; return the norm they had."""
        return clip_gradients(self.parameters.values(), largest)

    def load(self, weights: Mapping[str, Tensor], optimizer: Optimizer, moments: dict[str, Any]) -> None:
        """Go on from whole weights and the state of the optimizer."""
        self.network.load_state_dict(weights)
        optimizer.load_state_dict(moments)

    def part(self, name: str, whole: Tensor) -> Tensor:
        """Return what this worker holds of a tensor that is shaped as a parameter."""
        return whole

    def weights(self) -> dict[str, Tensor]:
        """Return every parameter and statistic, whole."""
        found: dict[str, Tensor] = self.network.state_dict()
        return found

    def whole(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors that are shaped as the parameters they are named by, whole."""
        return dict(values)

    def moments(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of the optimizer, whole."""
        return optimizer.state_dict()

    @contextmanager
    def averaged(self, average: Average) -> Iterator[Network]:
        """Give the network its average weights for a while."""
        average.swap()
        yield self.network
        average.swap()

    def result(self, average: Average, best: Mapping[str, Tensor] | None) -> Network:
        """Return the network with its average weights, or with the best where there are any."""
        if best:
            self.network.load_state_dict(best)
        else:
            average.swap()
        return self.network


def averaging(network: Network, place: WorkerPlace, but: Collection[str] = ()) -> nn.Module:
    """Wrap a network so that workers average the gradients of its parameters but some.

    A head without a labelled row in a batch gets no gradient there, hence `find_unused_parameters`.
    """
    if but:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, list(but))  # type: ignore[no-untyped-call]
    devices = [place.device] if place.device.type != "cpu" else None
    return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=True)
