"""What heads about rows and pages are trained on: the probability of their label for each row, or for the page.

Axis letters: N prediction rows, n rows that train a head, A rows above, D width.
"""

from __future__ import annotations

from torch import Tensor

from playbill.models.batch import TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.objectives import row_weights
from playbill.models.row_tower import FORGET_SHARE, PageHead, RowHead, row_logits
from playbill.models.scoring_batch import Scene, chosen_rows
from playbill.models.softmax_loss import binary_loss


def page_head_sum(
    settings: HeadConfig, head: RowHead | PageHead, scene: Scene, targets: TargetBatch
) -> tuple[Tensor, Tensor]:
    """Return a head's weighted sum of binary cross-entropies, and the weight that it stands for.

    Args:
        settings: The head's.
        head: About rows or pages.
        scene: N requests; it embeds rows where there are heads about them.
        targets: What happened in them; `rows` for a head about rows.
    """
    weight_N = row_weights(settings, targets)
    chosen, share = chosen_rows(weight_N)
    label_n = targets.labels[settings.name][chosen].nan_to_num()
    state = scene.page_states(head, chosen)
    if isinstance(head, PageHead):
        return binary_loss(head(state), label_n, share), weight_N.sum()
    assert scene.embed is not None
    rows = {name: values[chosen] for name, values in targets.rows.items()}
    forget = FORGET_SHARE if head.training else 0.0
    logits = row_logits(head, state, rows, scene.embed, forget=forget)
    return binary_loss(logits, label_n, share), weight_N.sum()
