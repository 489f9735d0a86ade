"""From a request to ranked titles and rows: over HTTP and in the shell, by one code path.

Importing this room imports neither the web stack nor torch; `serving.app` and loading a version do.
"""

from playbill.serving.active_model import ActiveModel, CatalogSnapshot, ModelHandle, ServedKey
from playbill.serving.member_state import FactReader
from playbill.serving.messages import NotFoundError, RecommendRequest, RecommendResponse
from playbill.serving.pipeline import Recommender
from playbill.serving.watcher import Watcher, WatcherStatus

__all__ = [
    "ActiveModel",
    "CatalogSnapshot",
    "FactReader",
    "ModelHandle",
    "NotFoundError",
    "RecommendRequest",
    "RecommendResponse",
    "Recommender",
    "ServedKey",
    "Watcher",
    "WatcherStatus",
]
