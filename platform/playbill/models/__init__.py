"""The network: title tower, event tokens, causal trunk, request context and heads, in torch.

It knows nothing of tables, polars, Feast, Ray or MLflow: it reads the dataclasses of `batch` and nothing else.
"""

from playbill.models.batch import ContextBatch, HistoryBatch, TargetBatch, TitleInputs
from playbill.models.config import HeadConfig, NetworkConfig

__all__ = ["ContextBatch", "HeadConfig", "HistoryBatch", "NetworkConfig", "TargetBatch", "TitleInputs"]
