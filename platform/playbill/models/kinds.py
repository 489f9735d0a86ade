"""What a head may be about: the module that scores it, and how it learns.

Axis letters: N prediction rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from playbill.models.batch import TargetBatch
from playbill.models.config import HeadConfig, NetworkConfig
from playbill.models.heads import Head
from playbill.models.objectives import head_sum, row_weights
from playbill.models.page_objective import page_head_sum
from playbill.models.row_tower import PageHead, RowHead
from playbill.models.scoring_batch import Scene


@dataclass(frozen=True, slots=True)
class Kind:
    """Heads about one kind of thing.

    Attributes:
        module: Made of the configuration and the head's place in it; it keeps the place as `position`.
        weights: [N] weight of each row of a batch in a head; 0 = the row does not train it.
        total: A head's weighted sum of losses, and the weight that it stands for.
    """

    module: Callable[[NetworkConfig, int], nn.Module]
    weights: Callable[[HeadConfig, TargetBatch], Tensor]
    total: Callable[[HeadConfig, Any, Scene, TargetBatch], tuple[Tensor, Tensor]]


KINDS: dict[str, Kind] = {
    "title": Kind(Head, row_weights, head_sum),
    "row": Kind(RowHead, row_weights, page_head_sum),
    "page": Kind(PageHead, row_weights, page_head_sum),
}
"""By `HeadConfig.target`."""
