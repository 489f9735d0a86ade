"""Where `playbill offpolicy` leaves what it found: a run in MLflow, and files."""

from __future__ import annotations

from pathlib import Path

from playbill.evaluation.off_policy.evaluate import OffPolicyReport
from playbill.evaluation.off_policy.rendering import policy_figure, policy_frames, policy_page
from playbill.evaluation.rendering.html import write_html
from playbill.files import write_text
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.lineage import PREFIX, SPLIT_DIGEST

OFF_POLICY = "off_policy"
"""The protocol that estimates are recorded under."""


def record(tracking: Tracking, version: ModelVersion, report: OffPolicyReport) -> str:
    """Keep estimates in MLflow beside the version's other evaluations; gates read them there.

    Numbers, tables, picture, page and the whole report; reward version, estimator and policy as tags.

    Returns:
        The run's id.
    """
    refused = [one.estimator for one in report.estimates if one.refused]
    about = {
        "reward": report.version,
        "estimator": report.main,
        "estimators": ",".join(one.estimator for one in report.estimates),
        "refused": ",".join(refused) or None,
        "policy": report.policy,
        "canvases": ",".join(report.canvases),
    }
    tags = {PREFIX + name: value for name, value in about.items()}
    split = version.tags.get(SPLIT_DIGEST, "")
    with tracking.log_evaluation(version, OFF_POLICY, split, report.gate_metrics(), tags) as run:
        for name, frame in policy_frames(report).items():
            run.log_table(frame, name)
        run.log_figure(policy_figure(report), "off_policy")
        run.log_text(policy_page(report), "off_policy/report.html")
        run.log_text(report.to_json(), "off_policy/report.json")
        return run.run_id


def other_reward(version: ModelVersion, report: OffPolicyReport) -> str | None:
    """Say when a model learned by another version of the reward it is judged by."""
    learned = version.tags.get(f"{PREFIX}rewards", "").split(",")
    same = [one for one in learned if one.partition(":")[0] == report.outcome]
    if not same or report.version in same:
        return None
    return f"{version.reference} learned by the reward {same[0]}, and is judged here by {report.version}."


def write_files(report: OffPolicyReport, *, plot: Path | None, whole: Path | None, html: Path | None) -> list[Path]:
    """Write what was asked for, and return the files."""
    if plot is not None:
        policy_figure(report).savefig(plot, dpi=110)
    if whole is not None:
        write_text(whole, report.to_json(), "the report")
    if html is not None:
        write_html(html, policy_page(report))
    return [file for file in (plot, whole, html) if file is not None]
