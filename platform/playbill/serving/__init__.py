"""From a request to ranked titles and rows: over HTTP and in the shell, by one code path.

Importing this room imports neither the web stack nor torch; `serving.app` and loading a version do.
"""

from playbill.serving.active_model import Served, ServedKey, Shelf, Slot
from playbill.serving.member_state import FactReader
from playbill.serving.messages import NotFoundError, RecommendRequest, RecommendResponse
from playbill.serving.pipeline import Recommender
from playbill.serving.watcher import Watcher, WatcherStatus

__all__ = [
    "FactReader",
    "NotFoundError",
    "RecommendRequest",
    "RecommendResponse",
    "Recommender",
    "Served",
    "ServedKey",
    "Shelf",
    "Slot",
    "Watcher",
    "WatcherStatus",
]
