"""`LocalRecommender`: requests answered in the caller's own process, as a server would answer them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from playbill.config import Workspace
from playbill.features import FeatureDoor
from playbill.serving.active_model import ActiveModel, ModelHandle, ServedKey
from playbill.serving.loading import Loader
from playbill.serving.member_state import FactReader
from playbill.serving.pipeline import Recommender
from playbill.tables import RequestLog, Tables, workspace_clock
from playbill.versions.tracking import Tracking

logger = logging.getLogger(__name__)


class OneThread:
    """Ranks with one thread of torch, as a server does: of one request's small products more threads only wait.

    Args:
        handle: Whether there is a model; without one torch is not imported.
    """

    def __init__(self, handle: ModelHandle) -> None:
        self._handle, self._local = handle, threading.local()

    def __enter__(self) -> None:
        if self._handle.current.scorer is None:
            return
        torch = import_module("torch")
        self._local.before = torch.get_num_threads()
        torch.set_num_threads(1)  # of this thread alone

    def __exit__(self, *_: object) -> None:
        if before := self._local.__dict__.pop("before", None):
            import_module("torch").set_num_threads(before)


class LocalRecommender:
    """One model of a workspace with everything it answers from, looked up again before each use.

    Args:
        workspace: Whose.
        model: Its name.
        version: A registered version, approved or not; None follows the approved one.
        features: Where features are read; without Feast by default, as long as nothing needs it.
        progress: Hears what is loaded; by default the log does.

    Raises:
        UnknownNameError: There is no such model or version.
        StateError: Nothing has been ingested yet.
        IntegrityError: The version's files differ from its record.
        ServiceError: The database, or MLflow where the version is not here yet, cannot be reached.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: str,
        version: int | None = None,
        features: FeatureDoor | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        clock, features = workspace_clock(workspace), features or FeatureDoor(workspace, plain=True)
        self._loader = Loader(workspace, model, Tracking(workspace), features, clock)
        self._model, self._version = model, version
        self._digest: str | None = None  # of a version that was asked for, once it is loaded
        self._handle = ModelHandle(self._load(progress))
        facts, log = FactReader(Tables(workspace), features), RequestLog(workspace.database_url)
        self._recommender = Recommender(self._handle, facts, clock, log.write, OneThread(self._handle))

    def current(self, progress: Callable[[str], None] | None = None) -> tuple[Recommender, ActiveModel]:
        """Return what answers now: after a promotion, an ingest or a new day, loaded anew."""
        if self._wanted() != self._handle.current.key or not self._handle.current.complete:
            self._handle.swap(self._load(progress))
        return self._recommender, self._handle.current

    def _wanted(self) -> ServedKey:
        wanted = self._loader.wanted()
        if self._version is None:
            return wanted
        return replace(wanted, version=self._version, digest=self._digest)

    def _load(self, progress: Callable[[str], None] | None) -> ActiveModel:
        heard, wanted = progress or logger.info, self._wanted()
        version = "without an approved version" if wanted.version is None else f"version {wanted.version}"
        heard(f"load {self._model}, {version}, and the catalogue of {wanted.day}")
        if self._version is None:
            return self._loader.load(wanted)
        active = self._loader.version(self._version)
        self._digest = active.digest
        return active
