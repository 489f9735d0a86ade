"""Labels and features to batches: splits, the encoder, and the training set. Free of torch."""

from playbill.datasets.arrays import ContextArrays, HistoryArrays, TargetArrays, TitleArrays
from playbill.datasets.batching.batches import Batch
from playbill.datasets.build import build_training_set
from playbill.datasets.encoding.encoder import Encoder, EncoderState
from playbill.datasets.encoding.requests import Request
from playbill.datasets.encoding.titles import title_arrays
from playbill.datasets.examples.labelled import request_context
from playbill.datasets.splits import Split, make_split
from playbill.datasets.training_set import TrainingSet

__all__ = [
    "Batch",
    "ContextArrays",
    "Encoder",
    "EncoderState",
    "HistoryArrays",
    "Request",
    "Split",
    "TargetArrays",
    "TitleArrays",
    "TrainingSet",
    "build_training_set",
    "make_split",
    "request_context",
    "title_arrays",
]
