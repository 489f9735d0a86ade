"""The network: title tower, event tokens, causal trunk, request context and heads, in torch.

It knows nothing of tables, polars, Feast, Ray or MLflow: it reads the dataclasses of `batch` and nothing else.
"""

from playbill.models.batch import ContextBatch, HistoryBatch, NegativeBatch, TargetBatch, TitleInputs
from playbill.models.config import (
    AdaptationConfig,
    ContextConfig,
    EventConfig,
    HeadConfig,
    NetworkConfig,
    RowConfig,
    TextConfig,
    TitleConfig,
    TrunkConfig,
)
from playbill.models.heads import TitleVectors
from playbill.models.network import Network

__all__ = [
    "AdaptationConfig",
    "ContextBatch",
    "ContextConfig",
    "EventConfig",
    "HeadConfig",
    "HistoryBatch",
    "NegativeBatch",
    "Network",
    "NetworkConfig",
    "RowConfig",
    "TargetBatch",
    "TextConfig",
    "TitleConfig",
    "TitleInputs",
    "TitleVectors",
    "TrunkConfig",
]
