"""`LocalRecommender`: requests answered in the caller's own process, as a server would answer them."""

from __future__ import annotations

from dataclasses import replace

from playbill.config import Workspace
from playbill.features import FeatureDoor
from playbill.serving.active_model import ActiveModel, ModelHandle, ServedKey
from playbill.serving.loading import Loader
from playbill.serving.member_state import FactReader
from playbill.serving.pipeline import Recommender
from playbill.tables import RequestLog, Tables, workspace_clock
from playbill.versions.tracking import Tracking


class LocalRecommender:
    """One model of a workspace with everything it answers from, looked up again before each use.

    Args:
        workspace: Whose.
        model: Its name.
        version: A registered version, approved or not; None follows the approved one.
        features: Where features are read; without Feast by default, as long as nothing needs it.

    Raises:
        UnknownNameError: There is no such model or version.
        StateError: Nothing has been ingested yet.
        IntegrityError: The version's files differ from its record.
        ServiceError: The database, or MLflow where the version is not here yet, cannot be reached.
    """

    def __init__(
        self, workspace: Workspace, model: str, version: int | None = None, features: FeatureDoor | None = None
    ) -> None:
        clock, features = workspace_clock(workspace), features or FeatureDoor(workspace, plain=True)
        self._loader = Loader(workspace, model, Tracking(workspace), features, clock)
        self._version = version
        self._handle = ModelHandle(self._load())
        facts = FactReader(Tables(workspace), features)
        self._recommender = Recommender(self._handle, facts, clock, RequestLog(workspace.database_url).write)

    def current(self) -> tuple[Recommender, ActiveModel]:
        """Return what answers now: after a promotion, an ingest or a new day, loaded anew."""
        if self._wanted() != self._handle.current.key or not self._handle.current.complete:
            self._handle.swap(self._load())
        return self._recommender, self._handle.current

    def _wanted(self) -> ServedKey:
        wanted = self._loader.wanted()
        if self._version is None:
            return wanted
        return replace(wanted, version=self._version, digest=self._handle.current.key.digest)

    def _load(self) -> ActiveModel:
        if self._version is not None:
            return self._loader.version(self._version)
        return self._loader.load(self._loader.wanted())
