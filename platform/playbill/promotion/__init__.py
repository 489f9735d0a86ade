"""From an alias set in MLflow to an approved version: gates, decisions, audit, and the lease on deciding."""

from playbill.promotion.commands import approved, promote, rollback
from playbill.promotion.controller import Controller
from playbill.promotion.gates import GateResult
from playbill.promotion.records import Approved, Decision, PromotionLog

__all__ = ["Approved", "Controller", "Decision", "GateResult", "PromotionLog", "approved", "promote", "rollback"]
