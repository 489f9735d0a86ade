"""Labels and features to batches: splits, the encoder, and the training set. Free of torch."""

from playbill.datasets.arrays import ContextArrays, HistoryArrays, TargetArrays, TitleArrays
from playbill.datasets.encoder import Encoder, EncoderState
from playbill.datasets.request import Request
from playbill.datasets.splits import Split, make_split

__all__ = [
    "ContextArrays",
    "Encoder",
    "EncoderState",
    "HistoryArrays",
    "Request",
    "Split",
    "TargetArrays",
    "TitleArrays",
    "make_split",
]
