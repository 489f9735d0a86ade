"""From an approved pair to something that answers: download, verify, build, over the tables as they are now.

Nothing in a bundle is executed: definitions are JSON, titles parquet, weights safetensors, all digest-checked.
torch is imported when the first version is loaded.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from playbill.clock import Clock
from playbill.config import Workspace
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import open_zoo
from playbill.errors import IntegrityError, PlaybillError, StateError
from playbill.serving.active_model import ActiveModel, CatalogSnapshot, ServedKey
from playbill.tables import Tables
from playbill.versions.promotion import PromotionLog
from playbill.versions.tracking import Tracking

if TYPE_CHECKING:
    from playbill.features import FeatureDoor
    from playbill.ranking.scoring.bundle import Bundle
    from playbill.ranking.scoring.scorer import Scorer

logger = logging.getLogger(__name__)


def served_model(workspace: Workspace, approvals: PromotionLog | None = None) -> str:
    """Return the model that is served when none is named: the promoted one.

    Of several promoted ones it is the workspace's `model`; before any promotion the workspace's, or the zoo's only one.

    Args:
        workspace: Whose.
        approvals: Where approved pairs are written; the workspace's database by default.

    Raises:
        DefinitionError: Nothing is promoted and feature_repo has mistakes.
        StateError: It is none of several; the text names them.
        ServiceError: The workspace's database cannot be reached.
    """
    chosen = workspace.settings.model
    approvals = approvals or PromotionLog(workspace)
    promoted = approvals.approved_models() if Tables(workspace).exists() else ()
    models = promoted or tuple(sorted(_zoo_models(workspace)))
    if chosen in models:
        return chosen
    if len(models) == 1:
        return models[0]
    known, where = ", ".join(models) or "none", "promoted are" if promoted else "the zoo has"
    raise StateError(f"name a model with --model: workspace '{workspace.name}' serves '{chosen}', {where} {known}")


class Loader:
    """Loads versions of one model of one workspace.

    Args:
        workspace: Whose.
        model: Name without the workspace.
        tracking: Its MLflow.
        features: Title features of the scorer.
        clock: The workspace's; tells titles' ages.
        approvals: Where approved pairs are written; the workspace's database by default.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: str,
        tracking: Tracking,
        features: FeatureDoor,
        clock: Clock,
        approvals: PromotionLog | None = None,
    ) -> None:
        self.workspace, self.model = workspace, model
        self._tracking, self._features, self._clock = tracking, features, clock
        self._tables = Tables(workspace)
        self._approvals = approvals or PromotionLog(workspace)
        self._loaded: tuple[int, str | None, Scorer, Scorer] | None = None

    def wanted(self) -> ServedKey:
        """Return what should be served now. Costs one query and one small read.

        Raises:
            StateError: Nothing has been ingested yet.
            ServiceError: The workspace's database cannot be reached.
        """
        pair = self._approvals.approved(self.model)
        version, digest = (pair.version, pair.digest) if pair else (None, None)
        return self._key(version, digest)

    def load(self, wanted: ServedKey) -> ActiveModel:
        """Load what `wanted` names. A network that was loaded before is used again over newer tables.

        Raises:
            IntegrityError: The bundle is not what was approved, or the store holds other vectors than it reads.
            ServiceError: It is not here yet and MLflow cannot be reached.
        """
        if wanted.version is None:
            return self.without_model()
        return self._serve(wanted.version, wanted.digest)

    def version(self, version: int) -> ActiveModel:
        """Load any registered version, approved or not.

        Raises:
            UnknownNameError: There is no such version.
            IntegrityError: Its bundle differs from its record.
            ServiceError: MLflow cannot be reached.
        """
        return self._serve(version, None)

    def without_model(self) -> ActiveModel:
        """Return what answers by fallbacks: the zoo's definition over the tables.

        Raises:
            DefinitionError: The zoo has mistakes.
            UnknownNameError: The zoo has no such model.
        """
        key = self._key(None, None)
        return ActiveModel(
            self.model, _resolved(self.workspace, self.model), CatalogSnapshot.read(self._tables), day=key.day
        )

    def prepare(self, served: ActiveModel) -> None:
        """Import and open what the first approved version is going to need, while `served` answers without one.

        Importing Feast alone takes some seconds, which a promotion would otherwise wait for.

        Args:
            served: What answers by fallbacks.
        """
        import_module("playbill.ranking.scoring.scorer")
        service, moment = served.resolved.model.features, self._clock.now()
        try:
            self._features.title_snapshots(service, [moment], served.snapshot.catalogue.title_ids)
            self._features.served(service, [None], moment)
        except PlaybillError as error:
            logger.warning("nothing is approved yet, and features cannot be read either: %s", error)
        else:
            logger.info("ready for the first promotion of %s", self.model)

    def _key(self, version: int | None, digest: str | None) -> ServedKey:
        return ServedKey(version, digest, self._tables.snapshot_id(), self._clock.now().date())

    def _serve(self, version: int, digest: str | None) -> ActiveModel:
        if self._loaded is not None and self._loaded[:2] == (version, digest):
            return self._refreshed(version, *self._loaded[2:])
        from playbill.ranking.scoring.bundle import VECTORS, read_bundle

        bundle = read_bundle(self._tracking.download(self.model, version, digest), digest)
        if pins := bundle.extra.get(VECTORS):
            self._features.require_pinned(pins, f"{self.model}:{version}")
        plain = self._scorer(bundle, None)
        try:
            scorer = self._scorer(bundle, self._features, plain)
        except IntegrityError:
            raise
        except PlaybillError as error:
            logger.warning("%s:%d is served without title features: %s", self.model, version, error)
            return self._served(version, plain, plain, gap=str(error))
        self._loaded = (version, digest, scorer, plain)
        return self._served(version, scorer, plain)

    def _refreshed(self, version: int, scorer: Scorer, plain: Scorer) -> ActiveModel:
        state = self._tables.titles(), self._tables.availability(), self._clock.now()
        return self._served(version, scorer.refreshed(*state), plain.refreshed(*state))

    def _scorer(self, bundle: Bundle, features: FeatureDoor | None, like: Scorer | None = None) -> Scorer:
        from playbill.ranking.scoring.scorer import Scorer
        from playbill.ranking.scoring.state_cache import HISTORY_BYTES

        return Scorer(
            bundle,
            self._tables.titles(),
            self._tables.availability(),
            features,
            as_of=self._clock.now(),
            network=like.network if like else None,
            kept_histories=HISTORY_BYTES,
        )

    def _served(self, version: int, scorer: Scorer, plain: Scorer, *, gap: str | None = None) -> ActiveModel:
        bundle = scorer.bundle
        key = self._key(version, bundle.digest)
        return ActiveModel(
            model=self.model,
            resolved=bundle.resolved,
            snapshot=CatalogSnapshot.read(self._tables, scorer.title_ids),
            scorer=scorer,
            plain_scorer=plain,
            version=version,
            digest=bundle.digest,
            facts_version=bundle.encoder.state.service_version,
            request_fields=bundle.encoder.state.request_fields,
            day=key.day,
            gap=gap,
        )


def _zoo_models(workspace: Workspace) -> tuple[str, ...]:
    return tuple(open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).models)


def _resolved(workspace: Workspace, model: str) -> ResolvedModel:
    return open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(model)
