"""From an alias set in MLflow to an approved version: gates, decisions, audit, and the lease on deciding."""

from playbill.versions.promotion.commands import Promotion, approved, promote, rollback
from playbill.versions.promotion.controller import Controller
from playbill.versions.promotion.gates import GateResult
from playbill.versions.promotion.records import Approved, Decision, PromotionLog

__all__ = [
    "Approved",
    "Controller",
    "Decision",
    "GateResult",
    "Promotion",
    "PromotionLog",
    "approved",
    "promote",
    "rollback",
]
