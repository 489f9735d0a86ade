"""The controller: looks at the alias `champion`, checks, decides, and makes MLflow show the decision.

What a decision changes in MLflow: aliases, tags and the description. Every step may be repeated.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from playbill.clock import Clock, WallClock
from playbill.config import Workspace
from playbill.definitions.specs import GateSpec, ResolvedModel
from playbill.errors import IntegrityError, PlaybillError, UnknownNameError
from playbill.features.vectors import Pins, require_pinned
from playbill.tables.leases import Lease, new_holder
from playbill.versions.promotion.descriptions import show_decision
from playbill.versions.promotion.gates import CHAMPION, GateResult, judge
from playbill.versions.promotion.members import judge_members
from playbill.versions.promotion.records import (
    Approved,
    Decision,
    Kind,
    PromotionLog,
    Verdict,
)
from playbill.versions.tracking import Evaluation, ModelVersion, Tracking
from playbill.versions.tracking.registry import PROMOTION, REASON

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0  # how long the others wait for a controller that says nothing more

GatesOf = Callable[[Path], Sequence[GateSpec]]  # reads the gates out of a verified bundle folder


def bundle_gates(folder: Path) -> Sequence[GateSpec]:
    """Return the gates of the definition inside a bundle.

    Raises:
        IntegrityError: The definition cannot be read.
    """
    try:
        return ResolvedModel.from_json((folder / "spec.json").read_text(encoding="utf-8")).model.gates
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"spec.json of the bundle cannot be read: {error}") from error


def bundle_vectors(folder: Path) -> Pins:
    """Return the published vectors that the model inside a bundle was trained with, by view."""
    try:
        extra = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("extra", {})
        pins: Pins = extra.get("vectors", {})
    except (OSError, ValueError, AttributeError) as error:
        raise IntegrityError(f"manifest.json of the bundle cannot be read: {error}") from error
    return pins


class Controller:
    """Decides about the champions of one workspace. Several may run; a lease lets one of them act.

    Args:
        clock: Real time, for the lease and the audit; not the clock of the data.
        holder: This controller's name in lease and audit.
        lease_seconds: How long others wait after this one was killed.
        gates_of: Where a version's gates come from.
        decided: Called after every look that decided something, so that a server beside it follows at once.
    """

    def __init__(
        self,
        workspace: Workspace,
        tracking: Tracking,
        clock: Clock | None = None,
        *,
        holder: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        gates_of: GatesOf = bundle_gates,
        decided: Callable[[], None] = lambda: None,
    ) -> None:
        self.tracking = tracking
        self.clock = clock or WallClock()
        self.holder = holder or new_holder()
        self.log = PromotionLog(workspace)
        self.lease = Lease(
            workspace.database_url,
            f"promotion/{workspace.name}",
            self.holder,
            self.clock,
            lease_seconds,
            purpose=f"the promotions of workspace '{workspace.name}'",
        )
        self._effects = Effects(tracking, self.log)
        self._gates_of, self._decided, self._feature_files = gates_of, decided, workspace.features

    def run(self, stop: threading.Event, poll_seconds: float) -> None:
        """Poll until `stop` is set. An outage is logged, everything stays as it is, and polling goes on."""
        try:
            while not stop.is_set():
                try:
                    if self.poll_once():
                        self._decided()
                except PlaybillError as error:
                    logger.warning("promotion: nothing was changed: %s", error)
                except Exception:
                    logger.exception("promotion: unexpected error, polling goes on")
                stop.wait(poll_seconds)
        finally:
            self._release()

    def _release(self) -> None:
        try:
            self.lease.release()
        except PlaybillError as error:
            logger.warning("promotion: the lease runs out by itself: %s", error)

    def poll_once(self) -> tuple[Decision, ...]:
        """Look at every registered model once and return what was decided; nothing without the lease.

        A model that cannot be looked at is logged and does not keep the others from being looked at.

        Raises:
            ServiceError: MLflow or the database cannot be reached. Nothing was decided.
        """
        if not self.lease.acquire():
            return ()
        self.finish()
        decisions: list[Decision] = []
        for model in sorted({*self.tracking.models(), *self.log.models()}):
            try:
                decision = self.look(model)
            except PlaybillError as error:
                logger.warning("promotion: %s stays as it is: %s", model, error)
                continue
            if decision is not None:
                decisions.append(decision)
        return tuple(decisions)

    def finish(self) -> None:
        """Make MLflow show the decisions that were written and then cut short."""
        for decision in self.log.unsettled():
            try:
                self._effects.apply(decision)
            except PlaybillError as error:
                logger.warning("promotion: decision %d is shown at a later poll: %s", decision.id, error)

    def look(self, model: str) -> Decision | None:
        """Decide about one model if its champion is not the approved pair. The lease must be held.

        Raises:
            ServiceError: MLflow or the database cannot be reached. Nothing was decided.
            LeaseLostError: Another controller took over meanwhile. Nothing was decided.
        """
        approved = self.log.approved(model)
        champion = self._champion(model)
        if champion is None:
            return None if approved is None else self._alarm(model, approved)
        if approved is not None and (champion.version, champion.digest) == approved.pair:
            return self._recovered(model, approved)
        decided = self._judge(champion, approved)
        decision = self._decision(model, champion.version, champion.digest, *decided)
        written = self.log.record(decision, self.lease, champion.run_id)
        logger.info("promotion: %s %s: %s", champion.reference, decision.verdict, decision.reason)
        self._effects.apply(written)
        return written

    def _champion(self, model: str) -> ModelVersion | None:
        number = self.tracking.alias(model, CHAMPION)
        if number is None:
            return None
        try:
            return self.tracking.version(model, number)
        except UnknownNameError:
            return None

    def _judge(
        self, champion: ModelVersion, approved: Approved | None
    ) -> tuple[Verdict, Kind, str, tuple[GateResult, ...]]:
        try:
            folder = self.tracking.download(champion.model, champion.version)
            gates = self._gates_of(folder)
            require_pinned(self._feature_files, bundle_vectors(folder), champion.reference)
        except IntegrityError as error:
            return "rejected", "promotion", f"integrity: {error}", ()
        if self.log.was_approved(champion.model, champion.version, champion.digest or ""):
            return "approved", "rollback", "approved before, so quality gates are skipped", ()
        try:
            own = self.tracking.evaluations(champion)
            results = judge(gates, own, self._reference(champion.model, approved))
            beside = judge_members(folder, own, self.tracking)
            results += beside
        except IntegrityError as error:
            return "rejected", "promotion", f"integrity: {error}", ()
        failed = [result for result in results if not result.passed]
        if failed:
            reasons = "; ".join(f"{result.gate}: {result.metric}: {result.reason}" for result in failed)
            return "rejected", "promotion", reasons, results
        return "approved", "promotion", _praise(results, first=approved is None and not beside), results

    def _reference(self, model: str, approved: Approved | None) -> tuple[Evaluation, ...] | None:
        """Return the champion's evaluations, even when its version was deleted; None when they are gone too."""
        if approved is None:
            return None
        found = self.tracking.evaluations_of(f"{model}:{approved.version}", approved.run_id)
        exists = any(version.version == approved.version for version in self.tracking.versions(model))
        return found if found or exists else None

    def _decision(
        self,
        model: str,
        version: int,
        digest: str | None,
        verdict: Verdict,
        kind: Kind,
        reason: str,
        gates: tuple[GateResult, ...] = (),
    ) -> Decision:
        return Decision(model, version, digest, verdict, kind, reason, gates, self.clock.now(), self.holder)

    def _alarm(self, model: str, approved: Approved) -> Decision | None:
        latest = self.log.latest(model)
        if latest is not None and latest.verdict == "alarm":
            return None
        reason = f"alias '{CHAMPION}' or its version is gone, approved version {approved.version} stays served"
        logger.error("promotion: %s: %s", model, reason)
        return self._report(model, approved, "alarm", reason)

    def _recovered(self, model: str, approved: Approved) -> Decision | None:
        latest = self.log.latest(model)
        if latest is None or latest.verdict != "alarm":
            return None
        return self._report(model, approved, "recovered", f"alias '{CHAMPION}' is back at the approved version")

    def _report(self, model: str, approved: Approved, verdict: Verdict, reason: str) -> Decision:
        row = self._decision(model, approved.version, approved.digest, verdict, "watch", reason)
        return self.log.record(replace(row, settled=True), self.lease)


def _praise(results: Sequence[GateResult], *, first: bool) -> str:
    if first:
        return "first promotion, nothing to compare with"
    if not results:
        return "the model has no gates"
    unsure = [f"{result.metric} {result.reason}" for result in results if result.passed and result.noise]
    return "; ".join([f"{len(results)} gate{'s' if len(results) != 1 else ''} held", *unsure])


PREVIOUS = "previous"


class Effects:
    """Makes MLflow show decisions."""

    def __init__(self, tracking: Tracking, log: PromotionLog) -> None:
        self.tracking, self.log = tracking, log

    def apply(self, decision: Decision) -> None:
        """Show a decision in MLflow, then mark it settled. Harmless when part of it was done before."""
        if decision.verdict == "approved":
            self._approve(decision)
        elif decision.verdict == "rejected":
            self._reject(decision)
        self.log.settle(decision)

    def predecessor(self, model: str) -> Approved | None:
        """Return the nearest champion before the present one whose version still exists, as it was."""
        for candidate in self.log.predecessors(model):
            version = self._find(model, candidate.version)
            if version is not None and version.digest == candidate.digest:
                return candidate
        return None

    def _approve(self, decision: Decision) -> None:
        previous = self.predecessor(decision.model)
        if previous is None:
            self.tracking.delete_alias(decision.model, PREVIOUS)
        else:
            self.tracking.set_alias(decision.model, PREVIOUS, previous.version)
        version = self._find(decision.model, decision.version)
        if version is not None:
            self._tag(version, decision)
            self.tracking.delete_version_tag(version.model, version.version, REASON)
            show_decision(self.tracking, decision, version, None)

    def _reject(self, decision: Decision) -> None:
        version = self._find(decision.model, decision.version)
        if version is not None:
            # The reason is there before the alias goes: who sees it gone finds out why.
            self._tag(version, decision)
            self.tracking.set_version_tag(version.model, version.version, REASON, decision.reason)
        if self.tracking.alias(decision.model, CHAMPION) == decision.version:
            self._put_back(decision)
        if version is not None:
            champion = self.tracking.alias(decision.model, CHAMPION)
            standing = self._find(decision.model, champion)
            show_decision(self.tracking, decision, version, standing)

    def _put_back(self, decision: Decision) -> None:
        approved = self.log.approved(decision.model)
        if approved is not None and approved.version != decision.version:
            version = self._find(decision.model, approved.version)
            if version is not None and version.digest == approved.digest:
                self.tracking.set_alias(decision.model, CHAMPION, approved.version)
                return
        self.tracking.delete_alias(decision.model, CHAMPION)

    def _tag(self, version: ModelVersion, decision: Decision) -> None:
        text = f"{decision.verdict} {decision.at:%Y-%m-%dT%H:%M:%SZ} ({decision.kind})"
        self.tracking.set_version_tag(version.model, version.version, PROMOTION, text)

    def _find(self, model: str, version: int | None) -> ModelVersion | None:
        try:
            return None if version is None else self.tracking.version(model, version)
        except UnknownNameError:
            return None
