"""The MLflow door: runs with their lineage, model versions, aliases and verified downloads."""

from playbill.versions.tracking.door import Tracking
from playbill.versions.tracking.registry import Lineage, ModelVersion
from playbill.versions.tracking.runs import Evaluation, RunHandle

__all__ = ["Evaluation", "Lineage", "ModelVersion", "RunHandle", "Tracking"]
