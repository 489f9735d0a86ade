"""The foundation model's room: pre-training, and what other models take from it."""

from playbill.foundation.pretrain import PretrainOutcome, pretrain
from playbill.foundation.vectors import VectorOptions, VectorsReport, publish_vectors

__all__ = ["PretrainOutcome", "VectorOptions", "VectorsReport", "pretrain", "publish_vectors"]
