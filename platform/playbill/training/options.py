"""What a run may override of its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from playbill.datasets.splits import PROTOCOLS
from playbill.definitions.specs import ResolvedModel
from playbill.errors import UnknownNameError

Frozen = TypeVar("Frozen", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a run may override. None keeps what the definition or the project says."""

    protocol: str | None = None
    epochs: int | None = None
    seed: int | None = None
    workers: int | None = None
    gpu: bool | None = None

    def applied(self, resolved: ResolvedModel) -> ResolvedModel:
        """Return the definition with protocol, epochs and seed in place, so that the run's record is what was run.

        Raises:
            UnknownNameError: No such protocol.
        """
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", self.protocol, PROTOCOLS)
        model = resolved.model
        min_steps = None if self.epochs is None else 0
        training = _updated(model.training, epochs=self.epochs, min_steps=min_steps, seed=self.seed)
        evaluate = _updated(model.evaluate, protocol=self.protocol)
        return _updated(resolved, model=_updated(model, training=training, evaluate=evaluate))


def _updated(spec: Frozen, **changes: Any) -> Frozen:
    return spec.model_copy(update={name: value for name, value in changes.items() if value is not None})
