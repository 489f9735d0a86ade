"""Training: one loop for a single process, for workers of a Ray cluster, and for trials.

Only `training.ray_trainer` imports Ray; import it by name where it is wanted.
"""

from playbill.training.contract import Batch, BatchSource, FitResult, LoopSettings, Progress, WorkerPlace
from playbill.training.loop import fit

__all__ = ["Batch", "BatchSource", "FitResult", "LoopSettings", "Progress", "WorkerPlace", "fit"]
