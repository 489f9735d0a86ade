"""The Feast door: feature values as of each moment, registered, retrieved and served.

Importing this imports neither Feast nor pandas; `FeatureDoor` does when a method needs them.
"""

from playbill.features.build import BuildReport, BuiltView, backfill_features, build_features
from playbill.features.door import FeatureDoor
from playbill.features.labels import LabelValues, PublishedLabel
from playbill.features.online_state import OnlineStoreState, online_store_state
from playbill.features.reports import (
    OF_TITLES,
    ApplyReport,
    FeatureColumn,
    FeatureDifference,
    FeatureEntity,
    FeatureKind,
    FeaturePushReport,
    LeakReport,
    MaterializedView,
    MaterializeReport,
    OnlineFeatures,
    ParityReport,
    ServiceSchema,
    TitleSnapshots,
    ViewParity,
    feature_of,
    other_files,
)
from playbill.features.store_errors import as_known_on

__all__ = [
    "OF_TITLES",
    "ApplyReport",
    "BuildReport",
    "BuiltView",
    "FeatureColumn",
    "FeatureDifference",
    "FeatureDoor",
    "FeatureEntity",
    "FeatureKind",
    "FeaturePushReport",
    "LabelValues",
    "LeakReport",
    "MaterializeReport",
    "MaterializedView",
    "OnlineFeatures",
    "OnlineStoreState",
    "ParityReport",
    "PublishedLabel",
    "ServiceSchema",
    "TitleSnapshots",
    "ViewParity",
    "as_known_on",
    "backfill_features",
    "build_features",
    "feature_of",
    "online_store_state",
    "other_files",
]
