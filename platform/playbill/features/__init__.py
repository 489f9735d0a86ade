"""The Feast door: feature values as of each moment, registered, retrieved and served.

Importing this imports neither Feast nor pandas; `FeatureDoor` does when a method needs them.
"""

from playbill.features.build import BuildReport, BuiltView, build_features
from playbill.features.door import FeatureDoor
from playbill.features.reports import (
    ApplyReport,
    FeatureColumn,
    FeatureEntity,
    FeatureKind,
    MaterializedView,
    MaterializeReport,
    ServiceSchema,
    TitleSnapshots,
)

__all__ = [
    "ApplyReport",
    "BuildReport",
    "BuiltView",
    "FeatureColumn",
    "FeatureDoor",
    "FeatureEntity",
    "FeatureKind",
    "MaterializeReport",
    "MaterializedView",
    "ServiceSchema",
    "TitleSnapshots",
    "build_features",
]
