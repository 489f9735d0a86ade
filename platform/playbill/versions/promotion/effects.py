"""What a decision changes in MLflow: aliases, tags and the description. Every step may be repeated."""

from __future__ import annotations

from playbill.errors import UnknownNameError
from playbill.versions.promotion.descriptions import show_decision
from playbill.versions.promotion.gates import CHAMPION
from playbill.versions.promotion.records import Approved, Decision, PromotionLog
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.lineage import PROMOTION, REASON

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
        version = self._of(decision)
        if version is not None:
            self._tag(version, decision)
            self.tracking.delete_version_tag(version.model, version.version, REASON)
            show_decision(self.tracking, decision, version, None)

    def _reject(self, decision: Decision) -> None:
        version = self._of(decision)
        if version is not None:
            # The reason is there before the alias goes: who sees it gone finds out why.
            self._tag(version, decision)
            self.tracking.set_version_tag(version.model, version.version, REASON, decision.reason)
        if self.tracking.alias(decision.model, CHAMPION) == decision.version:
            self._put_back(decision)
        if version is not None:
            champion = self.tracking.alias(decision.model, CHAMPION)
            standing = None if champion is None else self._find(decision.model, champion)
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

    def _of(self, decision: Decision) -> ModelVersion | None:
        return None if decision.version is None else self._find(decision.model, decision.version)

    def _find(self, model: str, version: int) -> ModelVersion | None:
        try:
            return self.tracking.version(model, version)
        except UnknownNameError:
            return None
