"""Training: one loop for a single process, for workers of a Ray cluster, and for trials.

Only `training.ray_trainer` imports Ray; import it by name where it is wanted.
"""

from playbill.training.loop import Batch, BatchSource, FitResult, Place, Progress, fit
from playbill.training.settings import LoopSettings

__all__ = ["Batch", "BatchSource", "FitResult", "LoopSettings", "Place", "Progress", "fit"]
