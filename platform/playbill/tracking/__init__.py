"""The MLflow door: runs with their lineage, model versions, aliases and verified downloads."""

from playbill.tracking.door import Tracking
from playbill.tracking.lineage import Lineage
from playbill.tracking.registry import ModelVersion
from playbill.tracking.runs import Evaluation, RunHandle

__all__ = ["Evaluation", "Lineage", "ModelVersion", "RunHandle", "Tracking"]
