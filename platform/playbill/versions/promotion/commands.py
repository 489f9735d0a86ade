"""Promotion and roll-back as one call: set the alias, have it decided, say what came of it."""

from __future__ import annotations

import time
from typing import NamedTuple

from playbill.config import Workspace
from playbill.errors import StateError
from playbill.versions.promotion.controller import Controller, Effects
from playbill.versions.promotion.gates import CHAMPION, GateResult
from playbill.versions.promotion.records import Approved, Decision, PromotionLog
from playbill.versions.tracking import ModelVersion, Tracking

WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.2


class Promotion(NamedTuple):
    """What came of a promotion or a roll-back."""

    version: ModelVersion  # the version that `champion` was pointed at
    decision: Decision | None  # what was decided about it; None when it was the approved champion already

    @property
    def verdict(self) -> str:
        """`approved`, `rejected`, or `unchanged` when there was nothing to decide."""
        return "unchanged" if self.decision is None else self.decision.verdict

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return "it is the approved champion already" if self.decision is None else self.decision.reason

    @property
    def gates(self) -> tuple[GateResult, ...]:
        """What was measured; nothing where there was nothing to decide."""
        return () if self.decision is None else self.decision.gates


def approved(workspace: Workspace, model: str) -> Approved | None:
    """Return the pair that servers may load now, None when nothing was ever approved.

    Raises:
        ServiceError: The workspace's database cannot be reached.
    """
    return PromotionLog(workspace).approved(model)


def promote(
    workspace: Workspace, reference: str, *, controller: Controller | None = None, wait_seconds: float = WAIT_SECONDS
) -> Promotion:
    """Point `champion` at a version and have that decided at once, here or by the running controller.

    The reference is such as `everycanvas:3`, `everycanvas@challenger`, or `everycanvas` for the newest. The decision is
    None when the version was the approved champion already.

    Raises:
        UnknownNameError: No such model, alias or version.
        StateError: Another controller holds the lease and did not decide in time.
        ServiceError: MLflow or the database cannot be reached.
    """
    controller = controller or Controller(workspace, Tracking(workspace))
    version = controller.tracking.resolve(reference)
    return Promotion(version, _decide(controller, version, wait_seconds))


def rollback(
    workspace: Workspace, model: str, *, controller: Controller | None = None, wait_seconds: float = WAIT_SECONDS
) -> Promotion:
    """Put the champion before the present one back. Quality gates are skipped, integrity is not.

    Raises:
        UnknownNameError: No such model.
        StateError: There is no earlier champion, or another controller did not decide in time.
        ServiceError: MLflow or the database cannot be reached.
    """
    controller = controller or Controller(workspace, Tracking(workspace))
    controller.tracking.resolve(model)
    target = Effects(controller.tracking, controller.log).predecessor(model)
    if target is None:
        raise StateError(f"model '{model}' has no earlier champion to go back to")
    version = controller.tracking.version(model, target.version)
    return Promotion(version, _decide(controller, version, wait_seconds))


def _decide(controller: Controller, version: ModelVersion, wait_seconds: float) -> Decision | None:
    latest = controller.log.latest(version.model)
    seen = latest.id if latest else 0
    controller.tracking.set_alias(version.model, CHAMPION, version.version)
    deadline = time.perf_counter() + wait_seconds
    while True:
        if controller.lease.acquire():
            try:
                controller.finish()
                controller.look(version.model)
            finally:
                controller.lease.release()
            return _since(controller, version, seen)
        decision = _since(controller, version, seen)
        if _stands(controller, version) if decision is None else decision.settled:
            return decision
        if time.perf_counter() > deadline:
            holder = controller.lease.current()
            raise StateError(
                f"the alias is set, but {holder or 'the controller'} has not decided about {version.reference}"
            )
        time.sleep(_LOOK_SECONDS)


def _since(controller: Controller, version: ModelVersion, seen: int) -> Decision | None:
    """Return the newest decision about a version that was made after row `seen`."""
    for decision in controller.log.history(version.model):
        if decision.id <= seen:
            return None
        if decision.version == version.version and decision.verdict in ("approved", "rejected"):
            return decision
    return None


def _stands(controller: Controller, version: ModelVersion) -> bool:
    standing = controller.log.approved(version.model)
    alias = controller.tracking.alias(version.model, CHAMPION)
    return standing is not None and alias == version.version and standing.pair == (version.version, version.digest)
