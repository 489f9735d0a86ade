"""Playbill: one recommender for every canvas.

What is public is `__all__`: it changes only with a note in the changelog. Everything else may change, but for what
plug-ins are written on (`playbill.registry`, `playbill.testing` and the guides about them). A name is imported
when it is first used, so that `import playbill` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbill.errors import PlaybillError
    from playbill.evaluation import EvaluationReport
    from playbill.project import Project
    from playbill.project.evaluation import EvaluationResult
    from playbill.serving import RecommendResponse
    from playbill.serving.explain import Explanation
    from playbill.sources import IngestReport, PushReport
    from playbill.training.run import TrainOutcome
    from playbill.versions.promotion import Promotion

__version__ = "0.2.0"

__all__ = [
    "EvaluationReport",
    "EvaluationResult",
    "Explanation",
    "IngestReport",
    "PlaybillError",
    "Project",
    "Promotion",
    "PushReport",
    "RecommendResponse",
    "TrainOutcome",
    "__version__",
]

_MODULES = {
    "EvaluationReport": "playbill.evaluation",
    "EvaluationResult": "playbill.project.evaluation",
    "Explanation": "playbill.serving.explain",
    "IngestReport": "playbill.sources",
    "PlaybillError": "playbill.errors",
    "Project": "playbill.project",
    "Promotion": "playbill.versions.promotion",
    "PushReport": "playbill.sources",
    "RecommendResponse": "playbill.serving",
    "TrainOutcome": "playbill.training.run",
}
"""Where each public name is."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'playbill' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
